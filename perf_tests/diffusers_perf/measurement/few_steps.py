"""What a generation takes, from short ones: where a model takes seconds for each of many stacks.

A generation takes as long as what is done once and as many times what a step takes. Two numbers of
steps tell the two apart, where all steps do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from msgspec import structs

from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import counters
from diffusers_perf.measurement.timing import Stopwatch
from diffusers_perf.records.measurement import Measurement

if TYPE_CHECKING:
    from diffusers_perf.measurement.generation import Generation

FEWER, FEW = 2, counters.STEPS
"""The steps of the two: the farther apart, the less their noise counts."""


def in_few_steps(workload: Workload) -> Workload | None:
    """The same in `FEW` steps, under a name of its own. None where that would hardly be shorter."""
    if workload.steps <= FEWER + FEW:
        return None
    return replace(workload, name=f"{workload.name}_{FEW}steps", steps=FEW)


@dataclass(frozen=True, kw_only=True)
class FewSteps:
    """Times generations of a workload that is `in_few_steps`, as if they had all of its steps."""

    stopwatch: Stopwatch
    steps: int
    """Of the whole workload."""

    def __call__(
        self, generate: Generation, *, before_round: Callable[[], None], rounds: int
    ) -> Sequence[float]:
        """Seconds of as many whole generations."""
        few = self.stopwatch.rounds(generate, before_round=before_round, rounds=rounds)
        # Without keeping their images: those of the others are compared.
        shorter = partial(generate.images, steps=FEWER)
        fewer = self.stopwatch.rounds(shorter, before_round=before_round, rounds=rounds)
        return [whole(seconds, median(fewer), steps=self.steps) for seconds in few]


def whole(few_s: float, fewer_s: float, *, steps: int) -> float:
    """Seconds of a generation in so many steps, from those of `FEW` and of `FEWER`."""
    step_s = max(0.0, few_s - fewer_s) / (FEW - FEWER)
    return few_s + (steps - FEW) * step_s


def with_whole_gpu_time(measured: Measurement, *, steps: int) -> Measurement:
    """The measurement with the GPU busy time of so many steps instead of its own."""
    if measured.gpu_busy_s is None:
        return measured
    step_s = measured.stages_s["denoising"] / measured.steps
    busy_s = measured.gpu_busy_s + (steps - measured.steps) * step_s
    return structs.replace(measured, gpu_busy_s=busy_s)
