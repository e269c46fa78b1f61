"""What is found out about a pipeline from its components and its calls alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import wraps
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, ModularPipeline, StableDiffusionPipeline
from diffusers.utils import torch_utils

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.discovery import Anatomy, Call, NotDiscovered, discover, step_ends
from diffusers_perf.measurement.noise import drawn_on_host
from diffusers_perf.measurement.pipelines import check_arguments
from perf_tests.tests import tiny


def found(name: str) -> tuple[Any, Anatomy]:
    pipeline = tiny.builder(name)()
    pipeline.set_progress_bar_config(disable=True)
    call = tiny.CALLS[name]

    def generate(steps: int) -> None:
        inputs = tiny.INPUTS.get(name, dict)()
        generator = torch.Generator().manual_seed(0)
        pipeline(**call, **inputs, num_inference_steps=steps, output_type="np", generator=generator)

    return pipeline, discover(pipeline, generate, strength=call.get("strength", 1.0))


@pytest.mark.parametrize(
    ("name", "denoisers"),
    [
        ("sd_controlnet", {"controlnet": 1, "unet": 1}),
        ("flux", {"transformer": 1}),
        ("wan", {"transformer": 2}),
    ],
)
def test_denoiser_is_called_in_each_step(name: str, denoisers: dict[str, int]) -> None:
    pipeline, anatomy = found(name)
    assert {d.name: d.calls_per_step for d in anatomy.denoisers} == denoisers
    assert anatomy.is_linear
    assert anatomy.fewest == 1
    for denoiser in anatomy.denoisers:
        args, kwargs = denoiser.call.on(torch.device("cpu"), torch.float32)
        with torch.no_grad():
            getattr(pipeline, denoiser.name)(*args, **kwargs)
    # Nothing is left of the search.
    assert "step" not in vars(pipeline.scheduler)
    assert not any(m._forward_pre_hooks for m in pipeline.components.values() if hasattr(m, "to"))


def test_strength_below_1_takes_fewer_steps() -> None:
    _, anatomy = found("sd_img2img")
    assert not anatomy.is_linear
    # One step of 0.6 is none, which diffusers refuses.
    assert anatomy.fewest == 2
    assert anatomy.turns_per_asked == Fraction(1, 2)
    assert anatomy.asking_for(3) == 6


class Counted:
    """A pipeline of one module that is called so often in a generation."""

    def __init__(self, calls: Callable[[int], int]) -> None:
        self._calls = calls
        self.module = torch.nn.Linear(2, 2)
        self.components = {"module": self.module, "tokenizer": object()}
        self.scheduler = SimpleNamespace(step=lambda: None)

    def __call__(self, steps: int) -> None:
        for _ in range(self._calls(steps)):
            self.module(torch.ones(2))
        for _ in range(steps):
            self.scheduler.step()


def test_pipeline_without_a_denoiser_is_refused() -> None:
    with pytest.raises(NotDiscovered, match="no component of Counted is called more often in 24"):
        discover(Counted(lambda steps: 3), Counted(lambda steps: 3))


def test_late_denoiser_is_found() -> None:
    pipeline = Counted(lambda steps: max(0, steps - 8))
    (denoiser,) = discover(pipeline, pipeline).denoisers
    assert denoiser.name == "module"


def test_pipeline_without_observable_steps_is_refused() -> None:
    pipeline = Counted(lambda steps: steps)

    def generate(steps: int) -> None:
        for _ in range(steps):
            pipeline.module(torch.ones(2))

    with pytest.raises(NotDiscovered, match="never the step of its scheduler"):
        discover(pipeline, generate)
    del pipeline.scheduler.step
    with pytest.raises(NotDiscovered, match="no scheduler with a step"):
        discover(pipeline, generate)


def test_pipeline_with_its_own_steps_reports_them() -> None:
    pipeline = SimpleNamespace(step_ended=lambda: None, scheduler=None)
    ends: list[int] = []
    with step_ends(pipeline, lambda: ends.append(1)):
        pipeline.step_ended()
    pipeline.step_ended()
    assert ends == [1]


def test_recorded_call_fits_a_module_in_another_dtype() -> None:
    timestep = torch.tensor([7])
    given = ((torch.ones(2), [timestep]), {"pooled": torch.zeros(1), "return_dict": False})
    call = Call.of(torch.nn.Linear(1, 1), *given)
    given[0][0].zero_()
    (sample, [step]), kwargs = call.on(torch.device("cpu"), torch.bfloat16)
    assert sample.dtype == kwargs["pooled"].dtype == torch.bfloat16
    assert sample.tolist() == [1, 1]
    assert step.dtype == torch.long
    assert kwargs["return_dict"] is False


def test_noise_is_the_same_in_every_dtype_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch_utils.randn_tensor
    late = ModuleType("late")
    monkeypatch.setitem(sys.modules, "late", late)
    pipelines = import_module("diffusers.pipelines.flux.pipeline_flux")
    drawn = {}
    with drawn_on_host():
        late.randn_tensor = torch_utils.randn_tensor  # type: ignore[attr-defined]
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            generator = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
            draw: Any = pipelines.randn_tensor
            drawn[dtype] = draw(
                (2, 4), generator=generator, device=torch.device("cpu"), dtype=dtype
            )
    assert torch.equal(drawn[torch.float32].half(), drawn[torch.float16])
    assert torch.equal(drawn[torch.float32].bfloat16(), drawn[torch.bfloat16])
    assert torch_utils.randn_tensor is pipelines.randn_tensor is late.randn_tensor is own


def of_kind(kind: Any) -> Any:
    """A pipeline whose class alone is looked at."""
    return kind.__new__(kind)


def calling(**call: Any) -> Workload:
    return Workload(name="tiny", model="some", call=call, steps=4)


@pytest.mark.parametrize("kind", [StableDiffusionPipeline, FluxPipeline])
def test_argument_that_a_pipeline_does_not_take_is_refused(kind: type) -> None:
    sentence = rf"^{kind.__name__} takes no argument 'heigth' \(did you mean height\?\)$"
    with pytest.raises(Refusal, match=sentence):
        check_arguments(of_kind(kind), calling(prompt="a fake", heigth=64))
    with pytest.raises(Refusal, match=r"takes no argument 'zzz'$"):
        check_arguments(of_kind(kind), calling(zzz=1))


def test_input_and_change_that_a_pipeline_does_not_take_are_refused() -> None:
    pipeline, workload = of_kind(StableDiffusionPipeline), calling(prompt="a fake")
    check_arguments(
        pipeline, replace(workload, sensitive_to={"a": {"steps": 2}, "b": {"guidance_scale": 1.0}})
    )
    with pytest.raises(Refusal, match=r"takes no argument 'image'"):
        check_arguments(pipeline, replace(workload, inputs=lambda: {"image": 1}))
    with pytest.raises(Refusal, match=r"takes no argument 'guidence_scale' \(did you mean guid"):
        check_arguments(pipeline, replace(workload, sensitive_to={"a": {"guidence_scale": 1.0}}))
    without: Any = {"inputs": lambda: None}
    with pytest.raises(Refusal, match=r"^tiny: inputs must return a dict .* \(got None\)$"):
        check_arguments(pipeline, replace(workload, **without))


class Handing(StableDiffusionPipeline):
    """Of a user, with an argument of its own among others that it hands on."""

    def __call__(self, prompt: str, **options: Any) -> Any:
        return prompt, options


class Wrapped(FluxPipeline):
    """Of a user, with an argument that its wrapper takes."""

    @wraps(FluxPipeline.__call__)
    def __call__(self, *args: Any, sharpness: float, **options: Any) -> Any:
        return sharpness, args, options


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        (StableDiffusionPipeline, "guidance_scale"),
        (StableDiffusionPipeline, "callback"),  # an old one, out of its **kwargs
        (FluxPipeline, "prompt_2"),
        (Handing, "sharpness"),
        (Wrapped, "sharpness"),
        (ModularPipeline, "prompt"),  # which names none
    ],
)
def test_argument_that_a_pipeline_may_take_is_given(kind: type, argument: str) -> None:
    check_arguments(of_kind(kind), calling(**{"prompt": "a fake", argument: 1}))
