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


class TooSlow(Exception):
    """The latency that a first generation shows is beyond the limit."""

    def __init__(self, latency_s: float) -> None:
        super().__init__(latency_s)
        self.latency_s = latency_s


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times generations of a workload. Of one that is `in_few_steps`, it says how long generations
    of all steps would take.
    """

    stopwatch: Stopwatch
    steps: int
    """Of the whole workload."""
    few: bool
    limit_s: float
    """Of a latency."""

    def __call__(
        self, generate: Generation, *, before_round: Callable[[], None], rounds: int
    ) -> Sequence[float]:
        """Seconds of as many whole generations. `TooSlow` after the first."""
        seconds = self.stopwatch.rounds(
            generate,
            before_round=before_round,
            rounds=rounds,
            after_first=partial(self._check, generate),
        )
        if not self.few:
            return seconds
        # Without keeping their images: those of the others are compared.
        shorter = partial(generate.images, steps=FEWER)
        fewer = self.stopwatch.rounds(shorter, before_round=before_round, rounds=rounds)
        return [whole(few, median(fewer), steps=self.steps) for few in seconds]

    def _check(self, generate: Generation, first_s: float) -> None:
        """`TooSlow` where the limit is exceeded by this and by a short generation: other work on
        the machine can make one of them longer.
        """
        if first_s * (self.steps / FEW if self.few else 1) <= self.limit_s:
            return
        # From an init image, fewer steps are taken than are asked for.
        shorter = partial(generate.images, steps=generate.asking_for(FEWER))
        (fewer_s,) = self.stopwatch.rounds(shorter, before_round=lambda: None, rounds=1)
        latency_s = whole(first_s, fewer_s, steps=self.steps) if self.few else first_s
        # As if nothing were done once: what is as slow takes no less.
        if min(latency_s, fewer_s * max(1.0, self.steps / FEWER)) > self.limit_s:
            raise TooSlow(latency_s)


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
    copies_s = measured.host_copies_s * steps / measured.steps
    return structs.replace(measured, gpu_busy_s=busy_s, host_copies_s=copies_s)
