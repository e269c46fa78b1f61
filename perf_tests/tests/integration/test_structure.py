"""Structure: exact counts without a GPU, and what becomes of them when something is injected."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import split
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffusers_perf import models
from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.discovery import Project
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import __main__ as cli
from diffusers_perf.cli import structure as command
from diffusers_perf.cli.calls import count
from diffusers_perf.faults.attention import mask_stops_flash
from diffusers_perf.faults.injection import Injection
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages.commands import Literal, structure_command
from diffusers_perf.measurement import counting, discovery, dispatch, host, structure
from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import NotDiscovered
from diffusers_perf.measurement.generation import BadOutput, Generation
from diffusers_perf.measurement.pipelines import built
from diffusers_perf.measurement.roofline import count_work
from diffusers_perf.models.seeded import Seeded
from diffusers_perf.records.baselines import OperatorBaseline
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import (
    Occurrence,
    Operator,
    OperatorCost,
    OperatorCounts,
    Place,
)
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.techniques.conditioning import precompute
from diffusers_perf.techniques.stepped import take_over
from perf_tests.cases import workloads
from perf_tests.cases.served import DEV28
from perf_tests.tests import tiny
from perf_tests.tests.unit.catalogs import ours


@pytest.fixture(autouse=True)
def _finds_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest's collection, which the command asks, would run within this one.
    monkeypatch.setattr(command, "find_project", lambda _: Project(shared=ours()))


SMALL = workloads.DDIM50.changed(height=64, width=64)
VERSIONS = {"torch": "2.13.0", "diffusers": "0.42.1"}


def build(
    *,
    dtype: torch.dtype = torch.float16,
    scheduler: str = "DDIMScheduler",
    weights: bool = False,
) -> Any:
    """A pipeline of Stable Diffusion's shape, a thousand times smaller."""
    import diffusers
    import transformers
    from accelerate import init_empty_weights  # type: ignore[import-untyped, unused-ignore]

    from diffusers_perf.models.architectures import SCHEDULER
    from diffusers_perf.models.tokenizers import clip_tokenizer

    torch.manual_seed(0)
    with init_empty_weights(include_buffers=False) if not weights else torch.no_grad():
        modules: dict[str, Any] = {
            "unet": diffusers.UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(32, 64),
                layers_per_block=1,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=32,
                attention_head_dim=4,
            ),
            "vae": diffusers.AutoencoderKL(
                block_out_channels=(32, 32, 32, 32),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            "text_encoder": transformers.CLIPTextModel(
                transformers.CLIPTextConfig(
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    vocab_size=49_408,
                )
            ),
        }
    pipeline: Any = diffusers.StableDiffusionPipeline(
        **{n: torch.nn.Module.to(m, dtype=dtype).eval() for n, m in modules.items()},
        tokenizer=clip_tokenizer(),
        scheduler=getattr(diffusers, scheduler).from_config(SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def observe(pipeline: Any) -> OperatorCounts:
    return structure.observe(pipeline, SMALL)


def accept(seen: OperatorCounts, versions: dict[str, str] | None = None) -> OperatorBaseline:
    return OperatorBaseline(
        accepted="2026-01-31",
        reason="first",
        versions=versions or VERSIONS,
        counters=seen.accepted(),
    )


@pytest.fixture(scope="module")
def healthy() -> OperatorCounts:
    return observe(build())


def judged(now: OperatorCounts, was: OperatorBaseline, *, steps: int = 50) -> list[Finding]:
    return structure_verdicts.judge(
        "fp16",
        now,
        was,
        steps=steps,
        versions=VERSIONS,
        rerun=Literal(text="diffusers-perf structure -k fp16"),
        accept=structure_command("--model=sd15", accept=True),
        file="baselines/operators/ddim50.json",
    )


def detected(now: OperatorCounts, was: OperatorCounts, metric: str) -> str:
    """The text of the finding that a fault makes on this counter."""
    found = judged(now, accept(was))
    text = {f.metric: f for f in found if f.status == "more work"}
    assert metric in text, f"{metric} did not grow: {found}"
    return text[metric].text()


# Counting


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "reads"),
    [("DDIMScheduler", 298), ("PNDMScheduler", 152), ("EulerDiscreteScheduler", 2)],
)
def test_device_reads_of_a_scheduler_are_counted(scheduler: str, reads: int) -> None:
    seen = observe(build(scheduler=scheduler))
    assert seen.counters["device_reads"].total(50) == reads
    places = {one.place.path for one in seen.occurrences if one.counter == "device_reads"}
    assert places <= {"scheduler.step", "scheduler.scale_model_input"}


def test_counts_are_the_same_in_two_runs(healthy: OperatorCounts) -> None:
    dispatch.Counting._known.clear()
    again = observe(build())
    assert again == healthy
    assert list(again.where()) == list(healthy.where())


def test_pipeline_with_weights_has_the_same_counts() -> None:
    pipeline = build(dtype=torch.float32, weights=True)
    before = Generation(pipeline, SMALL).images(steps=2)
    parameters = [(n, id(p)) for n, p in pipeline.unet.named_parameters()]
    seen = observe(pipeline)
    assert seen == observe(build(dtype=torch.float32))
    assert [(n, id(p)) for n, p in pipeline.unet.named_parameters()] == parameters
    assert "step" not in vars(pipeline.scheduler)
    assert (Generation(pipeline, SMALL).images(steps=2) == before).all()


def test_own_loop_with_weights_has_the_same_counts() -> None:
    """It follows the noise's device, and no module's."""
    counted = []
    for weights in (True, False):
        pipeline = build(dtype=torch.float32, weights=weights)
        take_over(pipeline)
        counted.append(observe(pipeline))
    assert counted[0] == counted[1]


def test_setup_of_the_first_generation_is_not_counted() -> None:
    pipeline = build()
    take_over(pipeline)
    precompute(pipeline)
    assert observe(pipeline) == observe(pipeline)


def test_floating_point_operations_are_exact() -> None:
    class One(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    counting = dispatch.Counting()
    counting.stack.append(Place("pipeline", "P"))
    x = torch.empty(2, 8, 16, 40, dtype=torch.float16, device="meta")
    with counting, dispatch.Constructors(counting):
        One()(x).transpose(1, 2).reshape(2, 16, 320)
    ((operator, (calls, flops, moved)),) = counting.operators.items()
    assert operator.family == "attention: sdpa"
    # Two products of (16 × 40) with (40 × 16) and back, a multiplication and an addition each.
    assert (calls, flops) == (1, 2 * 8 * (2 * 16 * 16 * 40) * 2)
    assert moved == 4 * x.numel() * 2


def test_attention_that_cannot_fuse_is_counted(healthy: OperatorCounts) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        text = detected(observe(build()), healthy, "unfused_attention")
    assert "attention: sdpa, math only" in text


def test_masked_attention_is_counted(healthy: OperatorCounts) -> None:
    injection = Injection(device="cpu")
    mask_stops_flash.apply(injection)
    (context,) = injection.contexts
    with context:
        text = detected(observe(build()), healthy, "masked_attention")
    assert "all attn_mask, in Attention" in text


def test_samples_of_the_denoiser_are_counted(healthy: OperatorCounts) -> None:
    assert healthy.counters["denoiser_samples"] == Count(fixed=0, per_step=2)


def test_convolution_between_two_layouts_is_counted(healthy: OperatorCounts) -> None:
    pipeline = build()
    pipeline.unet.conv_in.to(memory_format=torch.channels_last)
    text = detected(observe(pipeline), healthy, "layout_conversions")
    assert "contiguous → channels_last, input" in text
    assert "in unet.conv_in" in text


def test_data_dependent_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build()
    step = pipeline.scheduler.step
    monkeypatch.setattr(
        pipeline.scheduler, "step", lambda noise, *a, **k: step(noise[noise > 0], *a, **k)
    )
    with pytest.raises(structure.NotCountable, match="depends on data"):
        observe(pipeline)
    assert "step" in vars(pipeline.scheduler)
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_cache_of_a_broken_off_count_does_not_reach_the_next_generation() -> None:
    case = ours().case(workloads.FLUX28, "first_block_cache")
    with built(case, models.open_source("embedded-flux"), torch.device("cpu")) as pipeline:
        generation = Generation(pipeline, case.workload)
        before = generation.images(steps=2)
        with pytest.raises(structure.NotCountable, match="depends on"):
            structure.observe(pipeline, case.workload)
        assert (generation.images(steps=2) == before).all()


@pytest.mark.parametrize("stack", ["precomputed_prompt", "device_steps+precomputed_conditioning"])
def test_count_leaves_what_a_pipeline_keeps(stack: str) -> None:
    """A prompt and what it is kept for, or buffers on the device that they are asked for."""
    case = ours().case(workloads.FLUX8, stack)
    with built(case, models.open_source("embedded-flux"), torch.device("cpu")) as pipeline:
        generation = Generation(pipeline, case.workload)
        generation.shortest()
        before = host.python_calls(generation, pipeline)
        structure.observe(pipeline, case.workload)
        assert host.python_calls(generation, pipeline) == before


def test_what_a_user_compiled_whole_is_counted_operator_by_operator() -> None:
    """With `fullgraph`, torch 2.13 refuses to run under what counts."""
    workload, pipeline = tiny.workload("flux", steps=3), tiny.flux()
    generation = Generation(pipeline, workload)
    plain = structure.observe(pipeline, workload), count_work(generation, pipeline, steps=3)
    pipeline.transformer.compile(backend="eager", fullgraph=True)
    generation.images()
    counts = structure.observe(pipeline, workload), count_work(generation, pipeline, steps=3)
    assert counts == plain


def test_autocast_is_refused() -> None:
    with torch.autocast("cpu"), pytest.raises(structure.NotCountable, match="autocast"):
        observe(build())


@pytest.mark.parametrize("name", ["qwen", "zimage", "wan", "sd3", "sd_img2img", "sd_inpaint"])
def test_other_families_are_counted_and_unchanged(name: str) -> None:
    """Known masks, tables in plain attributes, scalars in lists, fewer steps than asked for."""
    pipeline = tiny.builder(name)()
    pipeline.set_progress_bar_config(disable=True)
    workload = tiny.workload(name, steps=3)
    before = Generation(pipeline, workload).images()
    seen = structure.observe(pipeline, workload)
    assert seen == structure.observe(pipeline, workload)
    denoisers = discovery.denoisers(pipeline)
    per_step = seen.by(lambda operator: operator.place.path.partition(".")[0] in denoisers)
    assert per_step[True].calls.per_step > 80
    # A text encoder can hook itself when it is first called, and would do so once more.
    fresh = tiny.builder(name)()
    fresh.set_progress_bar_config(disable=True)
    discovery.know(fresh, discovery.anatomy_of(pipeline))
    assert seen == structure.observe(fresh, workload)
    for one in (pipeline, fresh):
        assert (Generation(one, workload).images() == before).all()


@pytest.fixture(scope="module")
def multistep() -> Any:
    """Wan's pipeline: UniPC corrects nothing in its first step."""
    pipeline = tiny.builder("wan")()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 9])
def test_counts_of_a_multistep_scheduler_are_those_of_a_generation(
    multistep: Any, steps: int
) -> None:
    workload = tiny.workload("wan", steps=steps)
    seen = structure.observe(multistep, workload)
    generation = Generation(multistep, workload)
    with counting.without_data(multistep):
        with counting.counted(multistep):
            generation.images(steps=1)
        with counting.counted(multistep) as real:
            generation.images(steps=steps)
    assert {o: work.calls.total(steps) for o, work in seen.operators.items()} == {
        o: calls for o, (calls, _, _) in real.operators.items()
    }
    assert {o: count.total(steps) for o, count in seen.occurrences.items()} == real.occurrences


def test_steps_that_differ_are_all_counted() -> None:
    """As a cache's do, which is refreshed in every third one."""
    pipeline = build()
    own = pipeline.unet.forward
    calls: list[None] = []

    def forward(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        for _ in range(2 if len(calls) % 3 == 1 else 1):
            made = own(sample, *args, **kwargs)
        return made

    plain = observe(pipeline).counters["operators"]
    pipeline.unet.forward = forward
    encode = pipeline.encode_prompt

    def encoded(*args: Any, **kwargs: Any) -> Any:
        calls.clear()
        return encode(*args, **kwargs)

    pipeline.encode_prompt = encoded
    uneven = observe(pipeline).counters["operators"]
    # The same in each step, and 17 of 50 run the UNet once more.
    assert uneven.per_step == plain.per_step
    more, by_once = divmod(uneven.fixed - plain.fixed, 17)
    assert by_once == 0
    assert 0 < more < plain.per_step


@pytest.mark.parametrize("turns", [2, 3])
def test_a_refiner_does_not_say_what_a_step_does(turns: int) -> None:
    """It calls the UNet for one sample where a guided step has two."""
    pipeline = build()

    class Refining(type(pipeline)):  # type: ignore[misc]
        @torch.no_grad()
        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
            made = super().__call__(*args, **{**kwargs, "output_type": "latent"})
            latents = made.images
            states, _ = self.encode_prompt("", latents.device, 1, False)
            for timestep in self.scheduler.timesteps[-turns:]:
                noise = self.unet(latents, timestep, encoder_hidden_states=states).sample
                latents = self.scheduler.step(noise, timestep, latents).prev_sample
            image = self.vae.decode(latents).sample
            made.images = self.image_processor.postprocess(image, output_type="np")
            return made

    plain = observe(pipeline).counters
    pipeline.__class__ = Refining
    refined = observe(pipeline).counters
    assert refined["denoiser_samples"].per_step == plain["denoiser_samples"].per_step == 2
    assert refined["denoiser_samples"].fixed - plain["denoiser_samples"].fixed == turns
    for counter in plain:
        assert refined[counter].per_step == plain[counter].per_step, counter


def decided_by(number: Callable[[torch.Tensor], Any]) -> OperatorCounts:
    """The counts of a pipeline whose step is decided by a number of the predicted noise."""
    pipeline = build()
    step = pipeline.scheduler.step

    def decided(noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return step(-noise if number(noise) else noise, *args, **kwargs)

    pipeline.scheduler.step = decided
    return observe(pipeline)


@pytest.mark.parametrize(
    "number",
    [
        lambda noise: noise.mean().item() > 0.1,
        lambda noise: 2 * noise.mean().item() + 1 > 0.1,
        lambda noise: noise.mean().cpu().item() > 0.1,
        lambda noise: noise.mean() > 0.1,
        lambda noise: noise.mean(dim=(0, 1, 2)).tolist()[0] > 0.1,
    ],
)
def test_value_dependent_code_is_refused(number: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(structure.NotCountable, match="what it does next depends on"):
        decided_by(number)


def test_known_values_are_counted() -> None:
    seen = decided_by(lambda noise: torch.tensor([noise.new_tensor(2.0)]).item() > 0.1)
    # One more than the scheduler's six, of which the last step does two less.
    assert seen.counters["device_reads"] == Count(fixed=0, per_step=7, missing=2)


# Injected on purpose


def test_upcasting_group_norm_is_counted(
    healthy: OperatorCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    norm = torch.nn.GroupNorm.forward

    def upcasting(self: torch.nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
        return norm(self, x.float()).to(x.dtype)

    pipeline = build()
    groups = sum(isinstance(m, torch.nn.GroupNorm) for m in pipeline.unet.modules())
    monkeypatch.setattr(torch.nn.GroupNorm, "forward", upcasting)
    text = detected(observe(pipeline), healthy, "casts")
    assert f"+{2 * groups} in each of 50 steps" in text
    assert "float16 → float32" in text
    assert ", in GroupNorm)" in text
    assert "unet.down_blocks.0.resnets.0.norm1" in text


def test_naive_attention_is_counted(healthy: OperatorCounts) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    pipeline = build()
    pipeline.unet.set_attn_processor(AttnProcessor())
    seen = observe(pipeline)
    assert "attention: naive" in detected(seen, healthy, "operators")
    text = detected(seen, healthy, "unfused_attention")
    assert "unfused attention 0 → 400 (+8 in each of 50 steps, all attention: naive" in text
    assert ", in Attention)" in text
    assert "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1" in text


def inject_in_step(
    monkeypatch: pytest.MonkeyPatch, injection: Callable[[torch.Tensor], object]
) -> None:
    import diffusers

    step = diffusers.DDIMScheduler.step

    def injected(self: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        injection(noise)
        return step(self, noise, *args, **kwargs)

    monkeypatch.setattr(diffusers.DDIMScheduler, "step", injected)


def test_item_in_the_schedulers_step_is_counted(
    healthy: OperatorCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject_in_step(monkeypatch, lambda noise: noise.abs().max().item())
    text = detected(observe(build()), healthy, "device_reads")
    assert (
        "device reads 298 → 348 (+1 in each of 50 steps, all item, in DDIMScheduler.step)" in text
    )
    assert "in scheduler.step" in text


def test_tensor_from_a_list_in_the_step_is_counted(
    healthy: OperatorCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject_in_step(monkeypatch, lambda noise: torch.tensor([0.5], device=noise.device))
    text = detected(observe(build()), healthy, "host_to_device_copies")
    assert "(+1 in each of 50 steps, all tensor, in DDIMScheduler.step)" in text
    assert "in scheduler.step" in text


def test_dtype_that_was_not_applied_is_counted(healthy: OperatorCounts) -> None:
    text = detected(observe(build(dtype=torch.float32)), healthy, "full_precision_operators")
    assert "full precision operators 0 → " in text
    assert "convolution in float32" in text
    assert "float32" in text.splitlines()[0]
    assert ", in unet." in text


# Telling


def made(**casts: Count) -> OperatorCounts:
    """An observation of nothing but casts in GroupNorms, by module."""
    none = Count(fixed=0, per_step=0)
    operator = Operator("add", "elementwise and other", "float16", "-", Place("unet", "UNet"))
    return OperatorCounts(
        operators={operator: OperatorCost(Count(fixed=0, per_step=100), none, none)},
        occurrences={
            Occurrence("casts", "float16 → float32", Place(path, "GroupNorm")): count
            for path, count in casts.items()
        },
    )


def test_more_work_names_kind_class_and_module() -> None:
    was, now = made(a=Count(fixed=12, per_step=0)), made(a=Count(fixed=14, per_step=61))
    (finding,) = judged(now, accept(was, {"torch": "2.11.0", "diffusers": "0.42.1"}), steps=20)
    assert (finding.status, finding.metric, finding.case) == ("more work", "casts", "fp16")
    assert "12 → 1,234 (+61 in each of 20 steps and +2 fixed, all float16 → " in finding.what
    assert finding.what.endswith("in GroupNorm)")
    assert finding.measured == "1,234, in a"
    assert "torch 2.11.0, now 2.13.0" in finding.expected


def test_lower_counts_ask_to_be_accepted() -> None:
    was, now = made(a=Count(fixed=0, per_step=2)), made(a=Count(fixed=0, per_step=1))
    (finding,) = judged(now, accept(was))
    assert finding.status == "less work"
    assert "diffusers-perf structure --model=sd15 --write" in finding.next


# The file and the command


def test_each_workload_has_its_own_file(healthy: OperatorCounts, tmp_path: Path) -> None:
    store = BaselineStore(tmp_path)
    cases = {"ddim50/sd15/fp16": accept(healthy), "vase25/owner/name/none": accept(made())}
    assert store.load_operators() == {}
    store.save_operators(cases)
    assert store.load_operators() == cases
    names = sorted(path.name for path in (tmp_path / "operators").iterdir())
    assert names == ["ddim50.json", "vase25.json"]
    del cases["vase25/owner/name/none"]
    store.save_operators(cases)
    assert store.load_operators() == cases


WHOLE = '"accepted": "", "reason": "", "versions": {}, '


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected `object`, got `array`"),
        ('{"schema": 1, "cases": {}}', "has schema 1; this version reads schema 2"),
        ('{"schema": 2, "workload": "other", "cases": {}}', "its workload is other"),
        ('{"schema": 2, "workload": "w", "cases": {"a": {}}}', "missing required field `accepted`"),
        (
            '{"schema": 2, "workload": "w", "cases": {"a": {' + WHOLE + '"counters": {"casts": '
            '{"total": [1, 2.5]}}}}}',
            "expected `int`, got `float`",
        ),
    ],
)
def test_bad_file_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "operators" / "w.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(Refusal, match=r"operators/w\.json: ") as error:
        BaselineStore(tmp_path).load_operators()
    assert sentence in str(error.value)


def test_life_of_an_accepted_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    casts = Count(fixed=1, per_step=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "count", lambda case, source: made(a=casts))
    command_line = ["structure", "-k", "ddim50-"]
    assert cli.main(command_line) == 2
    assert "no counts are accepted" in capsys.readouterr().out
    assert cli.main([*command_line, "--write"]) == 2
    assert "--reason" in capsys.readouterr().err
    assert cli.main([*command_line, "--write", "--reason", "first"]) == 0
    assert cli.main(command_line) == 0
    accepted = BaselineStore(tmp_path / "baselines").load_operators()
    assert cli.main([*command_line, "--write", "--reason", "unchanged"]) == 0
    assert "wrote 0 cases into baselines/operators" in capsys.readouterr().out
    assert BaselineStore(tmp_path / "baselines").load_operators() == accepted
    casts = Count(fixed=1, per_step=2)
    assert cli.main(command_line) == 1
    shown = capsys.readouterr().out
    assert "ddim50-fp16: casts 51 → 101 (+1 in each of 50 steps, all float16" in shown
    assert "not counted: ddim50-fp16+autocast: autocast is torch.autocast" in shown
    assert cli.main(command_line) == 1
    # All of the model's: what is there beside the accepted cases is new, not missing.
    casts = Count(fixed=1, per_step=1)
    assert cli.main(["structure", "--model=sd15"]) == 0
    assert "new: pndm25x4/sd15/reference has no accepted counts" in capsys.readouterr().out


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("stack", ["bf16+model_offload", "channels_last+group_offload"])
def test_offloaded_case_is_not_counted_on_any_host(
    stack: str, has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_gpu)
    reason = command.not_countable(ours().case(DEV28, stack))
    assert reason is not None
    assert reason.endswith(
        "_offload moves weights between host and GPU, and tensors without data have none"
    )


def test_next_commands_repeat_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    casts = Count(fixed=1, per_step=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "count", lambda case, source: made(a=casts))

    def pasted() -> int:
        """Runs the command that was printed last."""
        _, _, rest = capsys.readouterr().out.rpartition("diffusers-perf ")
        return cli.main(split(rest.partition("\n")[0]))

    folder = "my baselines"
    assert (
        cli.main(["structure", "--model=sd15", f"--baselines={folder}", "-k", "ddim50-fp16"]) == 2
    )
    assert pasted() == 0
    assert [path.name for path in (tmp_path / folder / "operators").iterdir()] == ["ddim50.json"]
    casts = Count(fixed=1, per_step=2)
    assert (
        cli.main(["structure", "--model=sd15", f"--baselines={folder}", "-k", "ddim50-fp16"]) == 1
    )
    assert pasted() == 1
    assert f"({folder}/operators/ddim50.json, accepted " in capsys.readouterr().out


def test_uncountable_case_hides_no_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    casts = Count(fixed=1, per_step=1)

    def count(case: Case, source: object) -> OperatorCounts:
        if case.name == "tf32":
            raise structure.NotCountable("it depends on data")
        return made(a=casts)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "count", lambda case, source: made(a=casts))
    assert cli.main(["structure", "--model=sd15", "-k", "32", "--write", "--reason", "first"]) == 0
    monkeypatch.setattr(command, "count", count)
    assert cli.main(["structure", "--model=sd15", "-k", "32"]) == 2
    shown = capsys.readouterr()
    assert f"could not be counted: ddim50-tf32: it depends on data ({__file__}, line" in shown.out
    assert "it could be when its counts were accepted: " in shown.out
    assert "hides_operators=True" not in shown.out
    assert "1 case needs no more work than accepted" in shown.out
    assert shown.err == "error: 1 of 2 cases could not be counted\n"
    assert "missing: " not in shown.out
    assert cli.main(["structure", "--model=sd15", "-k", "32", "--write", "--reason", "again"]) == 2
    assert "so nothing is written" in capsys.readouterr().err
    # A case without accepted counts may be one that only a GPU can run.
    assert cli.main(["structure", "--model=sd15", "-k", "32", "--baselines=none"]) == 2
    assert "hides_operators=True" in capsys.readouterr().out
    casts = Count(fixed=1, per_step=2)
    assert cli.main(["structure", "--model=sd15", "-k", "32"]) == 1
    assert "could not be counted" in capsys.readouterr().err
    assert cli.main(["structure", "--model=sd15", "-k", "32", "--write", "--reason", "again"]) == 2
    assert "so nothing is written" in capsys.readouterr().err
    assert cli.main(["structure", "--model=sd15", "-k", "32", "--reason", "no --write"]) == 2


def test_case_that_is_not_applied_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(case: Case, source: object) -> OperatorCounts:
        if case.name == "reference":
            raise NotApplied("reference: it kept its dtype")
        return made(a=Count(fixed=1, per_step=1))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "count", count)
    counted = ["structure", "--model=sd15", "-k", "ddim50-"]
    # Nothing is accepted yet, which by itself is 2.
    assert cli.main(counted) == 1
    shown = capsys.readouterr()
    assert "ddim50-tf32: 50 steps" in shown.out
    assert "not applied: ddim50-reference: reference: it kept its dtype\n" in shown.out
    assert "none judged: no counts are accepted" in shown.out
    assert shown.err.startswith("error: 1 of ")
    assert cli.main([*counted, "--write", "--reason", "first"]) == 1
    assert "so nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "baselines").exists()


@pytest.mark.parametrize("error", [BadOutput, NotDiscovered, Refusal])
def test_broken_case_does_not_stop_the_others(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one whose pipeline gives latents."""

    def count(case: Case, source: object) -> OperatorCounts:
        if case.name == "reference":
            raise error("it gives latents")
        return made(a=Count(fixed=1, per_step=1))

    monkeypatch.setattr(command, "count", count)
    assert cli.main(["structure", "--model=sd15", "-k", "ddim50-", "--baselines=none"]) == 2
    shown = capsys.readouterr()
    assert "ddim50-tf32: 50 steps" in shown.out
    assert "could not be counted: ddim50-reference: it gives latents\n" in shown.out
    assert "hides_operators" not in shown.out
    assert shown.err.startswith("error: 1 of ")


def test_pipeline_that_raises_ends_its_case_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As diffusers' `DDIMPipeline` does, which makes an array of bfloat16."""

    def count(case: Case, source: object) -> OperatorCounts:
        if case.name == "reference":
            torch.ones(1, dtype=torch.bfloat16).numpy()
        return made(a=Count(fixed=1, per_step=1))

    monkeypatch.setattr(command, "count", count)
    assert cli.main(["structure", "--model=sd15", "-k", "ddim50-", "--baselines=none"]) == 2
    shown = capsys.readouterr()
    assert "ddim50-tf32: 50 steps" in shown.out
    said = "could not be counted: ddim50-reference: TypeError: Got unsupported ScalarType BFloat16"
    assert f"{said} ({__file__}, line " in shown.out
    assert shown.err.startswith("error: 1 of ")


def test_pipeline_that_exits_ends_its_case_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(case: Case, source: object) -> OperatorCounts:
        if case.name == "reference":
            sys.exit("bad config")
        return made(a=Count(fixed=1, per_step=1))

    monkeypatch.setattr(command, "count", count)
    assert cli.main(["structure", "--model=sd15", "-k", "ddim50-", "--baselines=none"]) == 2
    shown = capsys.readouterr()
    assert "ddim50-tf32: 50 steps" in shown.out
    assert f"ddim50-reference: SystemExit: bad config ({__file__}, line " in shown.out


def test_line_that_reads_a_value_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(case: Case, source: object) -> OperatorCounts:
        pipeline = build()
        step = pipeline.scheduler.step

        def checked(noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if noise.abs().max().item() > 100:
                raise OverflowError
            return step(noise, *args, **kwargs)

        monkeypatch.setattr(pipeline.scheduler, "step", checked)
        return observe(pipeline)

    monkeypatch.setattr(command, "count", count)
    code = cli.main(["structure", "--model=sd15", "-k", "ddim50-reference", "--baselines=none"])
    assert code == 2
    assert f"value read from data that are not there ({__file__}, line " in capsys.readouterr().out


def test_uncountable_case_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(case: Case, source: object) -> OperatorCounts:
        if case.name == "tf32":
            raise structure.NotCountable("it depends on data")
        return made()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "count", lambda case, source: made())
    assert cli.main(["structure", "--write", "--reason", "first"]) == 0
    monkeypatch.setattr(command, "count", count)
    assert cli.main(["structure"]) == 2
    assert "missing: " not in capsys.readouterr().out
    assert cli.main(["structure", "-k", "cuda_graph_decoder"]) == 2
    assert "no case was counted, so none was judged" in capsys.readouterr().out


def test_removed_case_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "count", lambda case, source: made())
    names = ("ddim50/sd15/gone", "ddim50/owner/name/gone")
    BaselineStore(Path("baselines")).save_operators(dict.fromkeys(names, accept(made())))
    assert cli.main(["structure"]) == 1
    printed = capsys.readouterr().out
    assert "missing: ddim50/sd15/gone" in printed
    assert "owner/name" not in printed


def test_model_with_a_slash_has_its_own_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gone = {"ddim50/owner/name/gone": accept(made())}
    asked = argparse.Namespace(
        k="",
        reason="first",
        model=None,
        matmul_tflops=None,
        bandwidth_gb=None,
        baselines=None,
    )
    assert command.tell({}, {}, gone, "owner/name", asked) == 1
    assert "missing: ddim50/owner/name/gone" in capsys.readouterr().out
    store = BaselineStore(tmp_path)
    store.save_operators(gone)
    command.write({}, SimpleNamespace(name="owner/name"), asked, store)
    assert store.load_operators() == {}


def test_cases_are_listed_and_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["structure", "--model=embedded", "-k", "ddim50-fp16", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "ddim50-fp16" in listed
    assert all(line.startswith("ddim50-fp16") for line in listed)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-k", "nowhere"], "no case has 'nowhere' in its id; diffusers-perf structure --list"),
        (["-k", "fp17"], "no case has 'fp17' in its id (did you mean fp16"),
        (["--matmul-tflops", "666"], "needs both"),
        (["--model", "no-such"], "no such folder"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["structure", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert says in shown


def test_number_that_a_denoiser_reads_is_counted_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its applied check calls the denoiser, which has no data of which a number could be read."""
    source = models.open_source("small")
    assert isinstance(source, Seeded)
    workload = replace(workloads.DDIM50_SMALL, base=("bf16",))
    forward = UNet2DConditionModel.forward

    def reading(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output[0].float().mean().item()
        return output

    case = ours().case(workload, REFERENCE)
    before = device_reads(count(case, source.without_weights()))
    monkeypatch.setattr(UNet2DConditionModel, "forward", reading)
    after = device_reads(count(case, source.without_weights()))
    assert after - before == workload.steps


def device_reads(seen: OperatorCounts) -> int:
    steps = workloads.DDIM50_SMALL.steps
    reads = [n for at, n in seen.occurrences.items() if at.counter == "device_reads"]
    return sum(number.total(steps) for number in reads)


def test_attention_that_is_wrapped_is_counted_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    source = models.open_source("small")
    assert isinstance(source, Seeded)
    case = ours().case(workloads.DDIM50_SMALL, REFERENCE)
    before = count(case, source.without_weights())
    functions: Any = torch.nn.functional
    attend = functions.scaled_dot_product_attention
    monkeypatch.setattr(functions, attend.__name__, lambda *args, **kwargs: attend(*args, **kwargs))
    assert count(case, source.without_weights()) == before
