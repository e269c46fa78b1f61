"""How the latencies of processes are compared: as if all had run on the fastest core.

The cores of a shared host change their speed, between processes and within one. The latency of
code that waits for the host changes with it. So a calibration loop is timed before and after each
round, and the quicker of the two is divided by the quickest loop of the whole comparison. The part
of the round during which the GPU was idle is divided by that ratio. Then the least round counts.

A round whose pace the GPU sets stays as it is, since a slow core does not slow the GPU down. So
does a round on a CPU alone, whose arithmetic does not follow a loop of Python.

The bench of this rule, with what other estimators came to, is `tests/unit/test_clock.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median
from typing import Self

from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.metrics import GPU_BUSY, LATENCY
from diffusers_perf.judge.interference import CORE_SLOWED, POWER_LIMITED, loops_of
from diffusers_perf.judge.messages import comparison as messages
from diffusers_perf.records.measurement import HOST_IDLE, Measurement
from diffusers_perf.records.run import Run

GPU_PACED_IDLE = 0.05
"""Of a latency, the share during which the GPU may be idle where the GPU sets the pace."""
STEADY = "steady_latency_s"
"""What a calibration calls the noise of latencies that are compared like this."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How the latency of one case is read in all processes of a comparison."""

    best_loop_s: float | None = None
    """Of all processes; None unless each round has its loops: then the median of the rounds counts.
    """
    host_bound: bool = False
    gpu_bound: bool = False
    other_clock: bool = False
    """Whether the sides may have run on different cards, and the power limit set the clock of one.
    """

    @classmethod
    def of(cls, sides: Sequence[Sequence[Measurement]], hosts: Hosts) -> Self:
        """Of one case in all processes of each side."""
        seen = [*chain.from_iterable(sides)]
        idle = [m.idle_share for m in seen if m.idle_share is not None]
        known = len(idle) == len(seen)
        gpu_bound = known and all(map(_paced_by_gpu, sides))
        other_clock = hosts.other_card and any(m.interference.at_power_limit for m in seen)
        has_loops = all(len(loops_of(m)) == 2 * len(m.rounds_s) for m in seen)
        best = min(hosts.loops_s, default=None) if has_loops else None
        return cls(
            best_loop_s=best,
            host_bound=bool(best) and known and median(idle) > HOST_IDLE,
            gpu_bound=gpu_bound,
            other_clock=other_clock,
        )

    def threshold(self, metric: Metric) -> float:
        """What a slowdown has to exceed. A latency whose pace the GPU sets is as steady as the
        GPU's work: of FLUX.1-dev on an H200 within 0.7 % between processes.
        """
        of_gpu = metric is LATENCY and self.gpu_bound
        return GPU_BUSY.threshold if of_gpu else metric.threshold

    def other_card(self, metric: Metric) -> bool:
        """Whether this metric may depend on which card each side ran on."""
        return self.other_clock and metric in (LATENCY, GPU_BUSY)

    def card_explains(self, metric: Metric, ratio: float) -> bool:
        """Whether the cards alone can have moved a time by this ratio, head over base."""
        return self.other_card(metric) and 1 / POWER_LIMITED <= ratio <= POWER_LIMITED

    def slowed_by_host(self, metric: Metric, measured: Measurement) -> bool:
        """Whether the GPU waited for a slow core in this process of a case whose pace the GPU sets.

        At its power limit a GPU that waits has a higher clock. So its work took 4 % less time in a
        process of FLUX.1-dev whose core was at half of its speed.
        """
        if not (self.gpu_bound and self.best_loop_s and metric in (LATENCY, GPU_BUSY)):
            return False
        slow = min(loops_of(measured)) > CORE_SLOWED * self.best_loop_s
        return slow and not _paced_by_gpu([measured])

    def of_metric(self, metric: Metric, measured: Measurement) -> float | None:
        """The value that is compared; None where it was not measured."""
        return self.latency_s(measured) if metric is LATENCY else metric.of(measured)

    def noise_field(self, metric: Metric) -> str:
        """The name under which a calibration keeps the noise of the compared value."""
        return STEADY if metric is LATENCY and self.best_loop_s else metric.field

    def read_as(self, metric: Metric) -> str:
        """How a latency is read, in words; empty for its median and for other metrics."""
        if metric is not LATENCY or not self.best_loop_s:
            return ""
        return messages.AT_ONE_SPEED if self.host_bound else messages.LEAST_ROUND

    def latency_s(self, measured: Measurement) -> float:
        if not self.best_loop_s:
            return measured.latency_s
        busy = measured.gpu_busy_s
        if not self.host_bound or busy is None:
            return min(measured.rounds_s)
        loops, own = loops_of(measured), busy + measured.host_copies_s
        return min(
            min(seconds, own) + max(0.0, seconds - own) * self.best_loop_s / loop
            for seconds, loop in zip(
                measured.rounds_s, map(min, loops[::2], loops[1::2]), strict=True
            )
        )


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Did both sides run on one host and one GPU? A machine's name does not say: a runner's label
    pins neither its CPU nor that CPU's speed, nor one of several cards.
    """

    loops_s: tuple[float, ...]
    """All calibration loops of both sides; none if they ran under several versions of Python."""
    slower: float = 1.0
    """How much longer head's typical process took for its quickest loop than base's, where the two
    sides do not overlap."""
    other: str = ""
    """Why no wall clock can be compared; empty where it can."""
    other_card: bool = False
    """Whether one side may have run on a GPU on which the other did not. A run of several GPUs does
    not say which of them measured a case."""

    @classmethod
    def of(cls, base: Sequence[Run], head: Sequence[Run]) -> Self:
        pythons = {run.machine.python.rpartition(".")[0] for run in (*base, *head)}
        was_on, is_on = ({run.machine.card for run in side} for side in (base, head))
        other_card = "" in was_on | is_on or was_on != is_on
        sides = [[loops for run in side if (loops := _loops_in(run))] for side in (base, head)]
        one_python = len(pythons) == 1
        together = tuple(chain.from_iterable(chain.from_iterable(sides))) if one_python else ()
        if not one_python or not all(sides):
            return cls(loops_s=together, other_card=other_card)
        was, now = ([min(loops) for loops in side] for side in sides)
        best, worst = sorted((min(was), min(now)))
        other = messages.other_host(min(was), min(now)) if worst > CORE_SLOWED * best else ""
        apart = max(was) < min(now) or max(now) < min(was)
        slower = median(now) / median(was) if apart else 1.0
        return cls(loops_s=together, slower=slower, other=other, other_card=other_card)

    def explain(self, ratio: float, seen: Sequence[Measurement], *, threshold: float) -> bool:
        """Whether the speed of the cores can have moved a latency by this ratio, head over base, to
        within the threshold. It moves the part of it during which the GPU was idle.
        """
        idle = [m.idle_share for m in seen if m.idle_share is not None]
        has_gpu = any(m.peak_memory_bytes is not None for m in seen)
        host = median(idle) if idle else 0.0 if has_gpu else 1.0
        moved = 1 + host * (self.slower - 1)
        low, high = sorted((1.0, moved))
        return moved != 1 and low / (1 + threshold) <= ratio <= high * (1 + threshold)


def _paced_by_gpu(side: Sequence[Measurement]) -> bool:
    idle = [m.idle_share for m in side if m.idle_share is not None]
    return bool(idle) and median(idle) < GPU_PACED_IDLE


def _loops_in(run: Run) -> list[float]:
    return [seconds for case in run.cases.values() for seconds in loops_of(case.measurement)]
