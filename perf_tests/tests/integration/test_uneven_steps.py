"""Steps that differ: schedulers of several orders, few steps, caches; `tests/full` has them all."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog.discovery import shipped
from diffusers_perf.measurement import structure
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import built
from perf_tests.tests import tiny, uneven


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [("unipc of order 3", 2), ("dpm of order 3", 9), ("ddim", 1)],
)
def test_counts_are_those_of_all_steps(scheduler: str, steps: int) -> None:
    uneven.assert_exact(uneven.pipeline_with(scheduler), tiny.workload("sd", steps=steps))


@pytest.mark.parametrize("name", ["sd", "sd_img2img"])
def test_counts_of_a_cache_are_taken_over_its_period(name: str) -> None:
    pytest.importorskip("DeepCache")
    workload = tiny.workload(name, steps=11)
    case = shipped().without_cases().case(workload, "deepcache")
    assert not case.alike
    with built(case, models.open_source(workload.model), torch.device("cpu")) as pipeline:
        uneven.assert_exact(pipeline, workload, alike=False)
        generation = Generation(pipeline, workload)
        images = generation.images()
        # Nothing of a generation of other steps is taken for its own.
        generation.images(steps=6)
        assert (generation.images() == images).all()


def test_cache_that_is_rarely_refreshed_is_counted_in_full() -> None:
    pipeline = uneven.pipeline_with("euler")
    workload = tiny.workload("sd", steps=12)
    own, begin = pipeline.unet.forward, pipeline.scheduler.set_timesteps
    calls: list[None] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == 11:
            own(*args, **kwargs)
        return own(*args, **kwargs)

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        calls.clear()
        begin(*args, **kwargs)

    Generation(pipeline, workload).anatomy  # noqa: B018
    pipeline.unet.forward, pipeline.scheduler.set_timesteps = forward, set_timesteps
    uneven.assert_exact(pipeline, workload, alike=False)


def test_schedule_of_the_same_length_for_few_and_many_is_counted_in_full() -> None:
    """By the dozen: two generations of as many turns are no line."""
    pipeline = uneven.pipeline_with("euler")
    begin = pipeline.scheduler.set_timesteps

    def set_timesteps(steps: int, **kwargs: Any) -> None:
        begin(12 * math.ceil(steps / 12), **kwargs)

    pipeline.scheduler.set_timesteps = set_timesteps
    generation = Generation(pipeline, workload := tiny.workload("sd", steps=12))
    few, many = (generation.asking_for(turns) for turns in (structure.FEW, structure.MANY))
    assert generation.turns(few) == generation.turns(many)
    uneven.assert_exact(pipeline, workload)


def test_buffer_of_a_cache_is_made_before_it_is_counted() -> None:
    """At the first step that is skipped, here the fourth, and only once."""
    pipeline = uneven.pipeline_with("euler")
    own, begin = pipeline.unet.forward, pipeline.scheduler.set_timesteps
    calls: list[None] = []
    made: list[None] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == 4 and not made:
            made.append(None)
            own(*args, **kwargs)
        return own(*args, **kwargs)

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        calls.clear()
        begin(*args, **kwargs)

    Generation(pipeline, workload := tiny.workload("sd", steps=12)).anatomy  # noqa: B018
    pipeline.unet.forward, pipeline.scheduler.set_timesteps = forward, set_timesteps
    uneven.assert_exact(pipeline, workload, alike=False)
