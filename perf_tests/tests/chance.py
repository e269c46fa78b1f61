"""How often equal sides are called slower by chance: a simulation of the rule for pairs.

A case is looked at four times: by itself and with the others of its workload, after five pairs and
after ten. Here all four are made and any may call it slower, which is more than `ab` does: it goes
on to ten pairs only where they could settle something, and then these alone decide.

    python -m perf_tests.tests.chance     # in percent, by calibration and workload: 80 s
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from diffusers_perf.catalog.metrics import LATENCY
from diffusers_perf.judge.pooling import THRESHOLD_SHARE
from diffusers_perf.judge.stats import critical_of_pairs
from diffusers_perf.judge.weighing import PAIRS, PAIRS_MOST

Array = npt.NDArray[np.float64]
Calls = npt.NDArray[np.int8]
"""1 where a case is slower, -1 where it would be if base and head changed places."""

CASES = 800_000
"""Simulated of each workload, both ways: 1 % is known to within 0.05 %."""
CASES_AT_ONCE = 48_000
NOISE = 0.3
"""Of a side between processes. Far beyond the threshold, which would only prevent false alarms."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The cases of a simulated workload, and how their latencies vary between processes."""

    cases: int
    shared: float = 0.0
    """The part of the variance that all cases of a process have in common."""
    freedom: int = 0
    """Of Student's distribution, whose tails are heavy; 0 is the normal one."""

    def logs(self, draw: np.random.Generator, comparisons: int, processes: int) -> Array:
        """Of latencies: by comparison, case and process."""
        own, common = (
            self._drawn(draw, (comparisons, cases, processes)) for cases in (self.cases, 1)
        )
        return NOISE * (math.sqrt(1 - self.shared) * own + math.sqrt(self.shared) * common)

    def _drawn(self, draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """With a variance of 1."""
        if not self.freedom:
            return draw.standard_normal(shape)
        return draw.standard_t(self.freedom, shape) / math.sqrt(self.freedom / (self.freedom - 2))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Of a machine whose noise has become `grown` times as large since; by 0 processes is none."""

    processes: int
    grown: float = 1.0

    @property
    def text(self) -> str:
        if not self.processes:
            return "not calibrated"
        since = f"{self.grown:g} times as noisy" if self.grown != 1 else "as noisy"
        return f"{self.processes} processes, {since} since"


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        "1 case": Workload(cases=1),
        "3 cases": Workload(cases=3),
        "6 cases": Workload(cases=6),
        "6, alike": Workload(cases=6, shared=0.3),
        "24, alike": Workload(cases=24, shared=0.2),
        "6, heavy tails": Workload(cases=6, freedom=4),
    }
)
"""Cases that are alike vary together in part: as much as calls most of them slower."""
CALIBRATIONS = (
    Calibration(processes=0),
    *(Calibration(processes=p, grown=g) for p in (3, 5, 10) for g in (1, 1.5, 2, 4)),
)
LOOKS = ("5 pairs, by itself", "5, together", "10, by itself", "10, together")


def look(base: Array, head: Array, known: Array) -> tuple[Calls, Calls]:
    """What `weighing` and then `pooling` call each case of comparisons at once.

    `base` and `head` are logs of latencies, by comparison, case and pair, `known` the noise of a
    side as calibrated, by comparison and case; 0 where it is not.
    """
    pairs = base.shape[-1]
    noise, mid = _noise(base, head, known)
    critical = np.where(known > 0, *(critical_of_pairs(pairs, calibrated=c) for c in (True, False)))
    alone = _called(mid, critical * noise / math.sqrt(pairs), LATENCY.threshold)
    pools = alone == 0
    weights = _weights(noise, pools)
    of_group = np.sqrt(((weights * noise) ** 2).sum(axis=1) / 2)
    under, over = ((weights[..., None] * side).sum(axis=1) for side in (base, head))
    error, middle = _noise(under, over, of_group)
    critical = np.where(
        (pools & (known > 0)).any(axis=1),
        *(critical_of_pairs(pairs, calibrated=c, together=True) for c in (True, False)),
    )
    half = critical * error / math.sqrt(pairs)
    together = _called(middle, half, THRESHOLD_SHARE * LATENCY.threshold)[:, None]
    called = pools & (pools.sum(axis=1) > 1)[:, None] & (np.sign(mid) == together)
    return alone, np.where(called, together, np.int8(0))


def _noise(base: Array, head: Array, known: Array) -> tuple[Array, Array]:
    """As `stats.pair_noise` estimates it, and the mean of the pairs."""
    ratios = head - base
    jumps = sum((np.diff(side) ** 2).sum(axis=-1) for side in (base, head))
    pairs = ratios.var(axis=-1, ddof=1)
    largest = np.maximum(pairs, np.maximum(jumps / (2 * (base.shape[-1] - 1)), 2 * known**2))
    return np.sqrt(largest), ratios.mean(axis=-1)


def _called(mid: Array, half: Array, threshold: float) -> Calls:
    beyond = np.abs(mid) > np.maximum(half, math.log1p(threshold))
    return np.where(beyond, np.sign(mid), 0).astype(np.int8)


def _weights(noise: Array, pools: npt.NDArray[np.bool_]) -> Array:
    """As `pooling` weighs the cases of a group."""
    ordered, count = np.sort(np.where(pools, noise, np.inf), axis=1), pools.sum(axis=1)
    middles = np.stack([(count - 1) // 2, count // 2], axis=1).clip(min=0)
    typical = np.take_along_axis(ordered, middles, axis=1).mean(axis=1)[:, None]
    parts = np.where(pools, np.minimum(1.0, (typical / noise) ** 2), 0.0)
    shares: Array = parts / np.maximum(parts.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return shares


def rates(
    workload: Workload, *calibrations: Calibration, cases: int = CASES, seed: int = 0
) -> Iterator[tuple[float, ...]]:
    """By calibration, the share of cases that each of `LOOKS` calls slower, and that any does."""
    draw, counts = np.random.default_rng(seed), np.zeros((len(calibrations), len(LOOKS) + 1))
    blocks = math.ceil(cases / CASES_AT_ONCE)
    comparisons = CASES_AT_ONCE // workload.cases
    for _ in range(blocks):
        base, head = (workload.logs(draw, comparisons, PAIRS_MOST) for _ in range(2))
        seen = {
            processes: workload.logs(draw, comparisons, processes).std(axis=-1, ddof=1)
            for processes in {c.processes for c in calibrations} - {0}
        }
        nothing = np.zeros((comparisons, workload.cases))
        for row, calibration in enumerate(calibrations):
            known = seen.get(calibration.processes, nothing) / calibration.grown
            calls = [
                called
                for pairs in (PAIRS, PAIRS_MOST)
                for called in look(base[..., :pairs], head[..., :pairs], known)
            ]
            for way in (1, -1):
                wrong = np.stack([called == way for called in calls])
                counts[row] += [*wrong.mean(axis=(1, 2)), wrong.any(axis=0).mean()]
    return (tuple(row) for row in counts / (2 * blocks))


def table() -> Iterator[str]:
    """Its lines: the share of cases that are called slower, in percent; then the worst, by look."""
    columns = {name: [*rates(workload, *CALIBRATIONS)] for name, workload in WORKLOADS.items()}
    yield f"{'':38}" + "".join(f"{name:>16}" for name in columns)
    for row, calibration in enumerate(CALIBRATIONS):
        cells = "".join(f"{100 * column[row][-1]:16.2f}" for column in columns.values())
        yield f"{calibration.text:38}{cells}"
    worst = max((row for column in columns.values() for row in column), key=lambda row: row[-1])
    looks = ", ".join(
        f"{name} {100 * share:.2f}" for name, share in zip(LOOKS, worst[:-1], strict=True)
    )
    yield f"the most, {100 * worst[-1]:.2f} %: {looks}"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
