"""What is extrapolated from generations of few steps."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from msgspec import structs

from diffusers_perf.measurement.few_steps import (
    FEW,
    FEWER,
    Timing,
    TooSlow,
    in_few_steps,
    whole,
    with_whole_gpu_time,
)
from diffusers_perf.measurement.timing import Stopwatch
from perf_tests.tests.unit.fake import WORKLOAD
from perf_tests.tests.unit.lab import seen


class Generating:
    """Takes 0.5 s, 0.1 s a step, and keeps no image of the fewer steps."""

    def __init__(self, *, disturbed_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.kept: list[int] = []
        self.rounds = 0
        self.disturbed_s = disturbed_s
        """What other work adds to the first generation."""

    def before_round(self) -> None:
        self.rounds += 1

    def asking_for(self, turns: int) -> int:
        return turns

    def __call__(self) -> None:
        self.kept.append(FEW)
        self.images(steps=FEW)

    def images(self, *, steps: int) -> None:
        self.now_s += 0.5 + 0.1 * steps + self.disturbed_s
        self.disturbed_s = 0.0


def timed(generating: Any, *, limit_s: float = inf, few: bool = True) -> list[float]:
    """Three rounds of 28 steps by few of them, or of `FEW`."""
    stopwatch = Stopwatch(clock=lambda: generating.now_s)
    timing = Timing(stopwatch=stopwatch, steps=28 if few else FEW, few=few, limit_s=limit_s)
    return [*timing(generating, before_round=generating.before_round, rounds=3)]


def test_whole_generation_is_timed_by_two_short_ones() -> None:
    generating = Generating()
    assert timed(generating) == pytest.approx([3.3, 3.3, 3.3])
    assert generating.kept == [FEW] * 3
    assert generating.rounds == 6


@pytest.mark.parametrize(("few", "latency_s"), [(True, 3.3), (False, 1.3)])
def test_first_generation_beyond_the_limit_is_the_last(few: bool, latency_s: float) -> None:
    generating = Generating()
    with pytest.raises(TooSlow) as found:
        timed(generating, few=few, limit_s=latency_s - 0.01)
    assert found.value.latency_s == pytest.approx(latency_s)
    assert generating.kept == [FEW]
    timed(Generating(), few=few, limit_s=latency_s + 0.01)


@pytest.mark.parametrize("few", [True, False])
def test_disturbed_generation_is_not_beyond_the_limit(few: bool) -> None:
    generating = Generating(disturbed_s=60)
    seconds = timed(generating, few=few, limit_s=12)
    assert max(seconds) > 12
    assert generating.kept == [FEW] * 3
    assert generating.rounds == (6 if few else 3)


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
