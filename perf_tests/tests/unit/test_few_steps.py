"""What is extrapolated from generations of few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from diffusers_perf.measurement.few_steps import (
    FEW,
    FEWER,
    FewSteps,
    in_few_steps,
    whole,
    with_whole_gpu_time,
)
from diffusers_perf.measurement.timing import Stopwatch
from perf_tests.tests.unit.fake import WORKLOAD
from perf_tests.tests.unit.lab import seen


class Generating:
    """Takes 0.5 s, 0.1 s a step, and keeps no image of the fewer steps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.kept: list[int] = []

    def __call__(self) -> None:
        self.kept.append(FEW)
        self.images(steps=FEW)

    def images(self, *, steps: int) -> None:
        self.now_s += 0.5 + 0.1 * steps


def test_whole_generation_is_timed_by_two_short_ones() -> None:
    generating: Any = Generating()
    rounds: list[Callable[[], None]] = []
    timed = FewSteps(stopwatch=Stopwatch(clock=lambda: generating.now_s), steps=28)
    seconds = timed(generating, before_round=lambda: rounds.append(print), rounds=3)
    assert seconds == pytest.approx([3.3, 3.3, 3.3])
    assert generating.kept == [FEW] * 3
    assert len(rounds) == 6


def test_noise_makes_no_time_negative() -> None:
    assert whole(1.0, 1.2, steps=28) == 1.0
    assert whole(1.0, 0.4, steps=FEW) == 1.0


def test_gpu_time_of_further_steps_is_that_of_the_denoising() -> None:
    measured = structs.replace(
        seen([1.0]),
        steps=8,
        gpu_busy_s=1.1,
        stages_s={"text encoder": 0.1, "denoising": 0.8, "decoder": 0.2},
    )
    assert with_whole_gpu_time(measured, steps=28).gpu_busy_s == pytest.approx(3.1)
    assert with_whole_gpu_time(seen([1.0]), steps=28).gpu_busy_s is None


def test_short_workload_is_shortened_no_further() -> None:
    assert in_few_steps(replace(WORKLOAD, steps=FEW + FEWER)) is None
    short = in_few_steps(replace(WORKLOAD, steps=FEW + FEWER + 1))
    assert short is not None
    assert (short.name, short.steps) == ("fake4_8steps", FEW)
