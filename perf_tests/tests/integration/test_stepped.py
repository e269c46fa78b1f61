"""The loops of SDXL and of FLUX on the device, against the pipelines that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from diffusers_perf import models
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import DoesNotFit, built
from diffusers_perf.measurement.replay import replay
from diffusers_perf.measurement.stepwise import follow, record
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB
from diffusers_perf.techniques import device_steps, schedules
from perf_tests.cases import workloads
from perf_tests.tests import tiny
from perf_tests.tests.taped import Taped
from perf_tests.tests.unit.catalogs import ours

EXACT_DB = 100
"""What another order of the same sums leaves between two float32 images, and more."""
FLUX = replace(workloads.FLUX8, steps=3)
SDXL = tiny.workload("sdxl", steps=3)
ALL = "fused_qkv+device_steps+precomputed_conditioning"


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    models.quiet_libraries()


@contextmanager
def pipeline_of(workload: Workload, name: str) -> Iterator[Any]:
    source = models.open_source(workload.model)
    with built(ours().case(workload, name), source, torch.device("cpu")) as pipeline:
        yield pipeline


def images_of(workload: Workload, **changes: Any) -> Any:
    with pipeline_of(workload, "reference") as pipeline:
        return Generation(pipeline, workload.changed(**changes)).images()


@pytest.mark.parametrize("workload", [FLUX, SDXL], ids=["flux", "sdxl"])
def test_images_match_the_plain_pipeline(workload: Workload) -> None:
    plain = images_of(workload)
    for name in ("device_steps", "device_steps+precomputed_conditioning", ALL):
        with pipeline_of(workload, name) as pipeline:
            generation = Generation(pipeline, workload)
            for _ in range(2):
                assert pixels.distance(generation.images(), plain).psnr_db > EXACT_DB
            for optimization in ours().case(workload, name).stack:
                optimization.applied(pipeline)


def test_flow_matching_is_bitwise_the_pipelines_own() -> None:
    with pipeline_of(FLUX, "device_steps") as pipeline:
        assert (Generation(pipeline, FLUX).images() == images_of(FLUX)).all()


@pytest.mark.parametrize("workload", [FLUX, SDXL], ids=["flux", "sdxl"])
def test_next_generation_takes_its_own_call(workload: Workload) -> None:
    """Another prompt, guidance or number of prompts, where the last one's was kept."""
    prompt, other = tiny.PROMPT, tiny.OTHER_PROMPT
    changes: tuple[dict[str, Any], ...] = (
        {"prompt_2": other},
        {"guidance_scale": 1.0},
        {"prompt": [prompt, other]},
    )
    with pipeline_of(workload, ALL) as pipeline:
        generation = Generation(pipeline, workload)
        for change in changes:
            generation.images()
            made = generation.images(of=workload.changed(**change))
            assert pixels.distance(made, images_of(workload, **change)).psnr_db > EXACT_DB


@pytest.mark.parametrize("workload", [FLUX, SDXL], ids=["flux", "sdxl"])
def test_captured_steps_are_replayed_exactly(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = images_of(workload)
    monkeypatch.setattr(device_steps, "Graphed", Taped)
    check = ours().optimizations["cuda_graph_step"].applied
    with pipeline_of(workload, f"{ALL}+cuda_graph_step") as pipeline:
        check(pipeline)
        generation = Generation(pipeline, workload)
        for _ in range(2):
            assert pixels.distance(generation.images(), plain).psnr_db > EXACT_DB
            check(pipeline)
            replay(pipeline)
        (step,) = pipeline._buffers.steps.values()
        graph, *_ = step._captures[(0,)]
        del graph._calls[len(graph._calls) // 2 :]
        with pytest.raises(applied.NotApplied, match="a replayed step changes the latents by"):
            check(pipeline)


@pytest.mark.parametrize("workload", [FLUX, SDXL], ids=["flux", "sdxl"])
def test_captured_timestep_of_the_first_step_is_found(workload: Workload) -> None:
    with pipeline_of(workload, ALL) as pipeline:
        Generation(pipeline, workload).images()
        buffers = pipeline._buffers
        ((kind, step),) = buffers.steps.items()
        done = int(buffers.number)
        assert buffers.replay_error(kind) == 0

        def first_step() -> None:
            buffers.number.zero_()
            step()

        buffers.steps[kind] = first_step
        assert buffers.replay_error(kind) > device_steps.REPLAY_ERROR
        assert int(buffers.number) == done


def test_captured_steps_are_followed_as_they_are_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pipeline_of(FLUX, "reference") as pipeline:
        trajectory = record(Generation(pipeline, FLUX), pipeline)
    monkeypatch.setattr(device_steps, "Graphed", Taped)
    with pipeline_of(FLUX, "device_steps+cuda_graph_step") as pipeline:
        generation = Generation(pipeline, FLUX)
        generation.images()
        distances, images, _ = follow(generation, pipeline, trajectory)
        assert set(distances.inputs_db) == set(distances.predictions_db) == {IDENTICAL_DB}
        assert pixels.distance(images, trajectory.images).psnr_db == IDENTICAL_DB
        ours().optimizations["cuda_graph_step"].applied(pipeline)
        assert pixels.distance(generation.images(), trajectory.images).psnr_db > EXACT_DB


@pytest.mark.parametrize(
    ("workload", "name", "reason"),
    [
        (FLUX, "shared_prefix", "guidance is an input of its transformer"),
        (FLUX, "guidance_cutoff", "guidance is an input of its transformer"),
        (SDXL, "shared_prefix", "adds the prompt to the timestep's embedding"),
    ],
    ids=["flux-shared_prefix", "flux-guidance_cutoff", "sdxl-shared_prefix"],
)
def test_what_guidance_does_not_do_twice_is_refused(
    workload: Workload, name: str, reason: str
) -> None:
    with (
        pytest.raises(DoesNotFit, match=reason),
        pipeline_of(workload, f"device_steps+{name}"),
    ):
        pass


@pytest.mark.parametrize(
    ("scheduler", "schedule"),
    [
        (EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1), {}),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), {"mu": 0.7}),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), {}),
    ],
    ids=["euler", "shifted dynamically", "shifted"],
)
def test_step_table_matches_the_scheduler(scheduler: Any, schedule: dict[str, Any]) -> None:
    rows = schedules.table(scheduler, 10, **schedule)
    latents, prediction = torch.randn(2, 1, 4, 8, 8)
    for step, timestep in enumerate(scheduler.timesteps):
        assert rows[0, step] == timestep
        if len(rows) > 3:
            seen = scheduler.scale_model_input(latents, timestep)
            assert torch.allclose(seen, rows[3, step] * latents, atol=1e-6)
        own = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        assert torch.allclose(own, rows[1, step] * latents + rows[2, step] * prediction, atol=1e-5)
        latents = own


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (EulerDiscreteScheduler(prediction_type="v_prediction"), "predicts v_prediction"),
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "draws noise in each step"),
    ],
    ids=["velocity", "stochastic"],
)
def test_step_that_is_not_one_product_is_refused(scheduler: Any, reason: str) -> None:
    assert reason in str(schedules.why_not(scheduler))
