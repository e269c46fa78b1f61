"""What the latency of a process may be read as, on recorded processes of two machines.

`judge.clock` implements the last of `ESTIMATORS`; the table stands in `perf_tests/README.md`.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median
from types import MappingProxyType

import numpy as np
from scipy import optimize
from scipy import stats as oracle

from diffusers_perf.catalog.metrics import LATENCY
from diffusers_perf.judge import stats
from diffusers_perf.judge.clock import Clock
from diffusers_perf.records.measurement import Interference, Look, Measurement
from perf_tests.tests.frozen import pairs

RECORDED = Path(__file__).parent / "unit" / "recorded" / "h200-clock.json.gz"
"""Seven and six fresh processes of one H200 host, whose cores changed their speed by half: the
seconds of each round, and of the loop before and after it. GPU busy is as accepted for the card."""
ROUNDS = 2
"""Of a quick process."""
LOOP_S = 0.010
"""The quickest loop that was recorded on the H200's host."""
PAIRS = 5


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Processes of one case."""

    machine: str
    case: str
    processes: tuple[Measurement, ...]


def recorded() -> Iterator[Recorded]:
    """Quick processes; of eight rounds of a process, each two that follow each other are one."""
    for case, content in json.loads(gzip.decompress(RECORDED.read_bytes())).items():
        for start in range(0, 8, ROUNDS):
            rounds = [process[start : start + ROUNDS] for process in content["processes"]]
            made = [_measurement(case, one, content["gpu_busy_s"]) for one in rounds]
            yield Recorded(machine="H200", case=case, processes=tuple(made))
    base, head = pairs("cpu-quick")
    seen: dict[str, list[Measurement]] = {}
    for run in (*base, *head):
        for info in (benchmark["extra_info"] for benchmark in run["benchmarks"]):
            loops, rounds = info["validity"]["cpu_loops_s"], info["latency_rounds_s"]
            if len(rounds) == ROUNDS:
                case = f"{info['workload']}-{info['case']}"
                timed = list(zip(rounds, loops[::2], loops[1::2], strict=True))
                seen.setdefault(case, []).append(_measurement(case, timed, None))
    for case, processes in seen.items():
        yield Recorded(machine="two-core CPU", case=case, processes=tuple(processes))


def _measurement(
    case: str, timed: Sequence[Sequence[float]], gpu_busy_s: float | None
) -> Measurement:
    """Of rounds, each with the loop before and after it."""
    workload, _, stack = case.partition("-")
    return Measurement(
        case=stack,
        workload=workload,
        steps=50,
        num_images=1,
        model="sd15",
        weights="seeded",
        parameters=1,
        rounds_s=tuple(seconds for seconds, *_ in timed),
        look=Look(finite=True, mean=0.5, std=0.2),
        repeat_psnr_db=120,
        gpu_busy_s=gpu_busy_s,
        interference=Interference(cpu_loops_s=tuple(s for _, *loops in timed for s in loops)),
    )


def _adjusted(measured: Measurement) -> list[float]:
    """The rounds, the time without the GPU on a core of the quickest loop; without a GPU all."""
    loops, busy = measured.interference.cpu_loops_s, measured.gpu_busy_s or 0.0
    around = zip(loops[::2], loops[1::2], strict=True)
    return [
        min(seconds, busy) + max(0.0, seconds - busy) / (min(pair) / LOOP_S)
        for seconds, pair in zip(measured.rounds_s, around, strict=True)
    ]


Estimator = Callable[[Measurement, Clock], float]
ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "median of the rounds": lambda seen, _: median(seen.rounds_s),
        "least round": lambda seen, _: min(seen.rounds_s),
        "median, adjusted": lambda seen, _: median(_adjusted(seen)),
        "least round, adjusted": lambda seen, _: min(_adjusted(seen)),
        "least round, adjusted on a GPU": lambda seen, clock: clock.latency_s(seen),
    }
)
BEFORE, NOW = (list(ESTIMATORS)[i] for i in (0, -1))


@cache
def noise() -> Mapping[str, Mapping[str, float]]:
    """By machine and case and by estimator, the CV between processes: the root mean square of what
    was recorded of a case.
    """
    squares: dict[str, dict[str, list[float]]] = {}
    for found in recorded():
        loops = [s for seen in found.processes for s in seen.interference.cpu_loops_s]
        host_bound = found.processes[0].gpu_busy_s is not None
        clock = Clock(best_loop_s=min(loops), host_bound=host_bound)
        where = f"{found.machine}: {found.case}" if host_bound else f"{found.machine}: six cases"
        for name, estimator in ESTIMATORS.items():
            values = [estimator(seen, clock) for seen in found.processes]
            lists = squares.setdefault(where, {}).setdefault(name, [])
            lists.append(stats.noise_of(values) ** 2)
    return {
        where: {name: math.sqrt(fmean(values)) for name, values in by_name.items()}
        for where, by_name in squares.items()
    }


def detectable_before(cv: float) -> float:
    """The MDE of five pairs by Student's 99 % interval, which pairs had before."""
    error = math.sqrt(2) * cv / math.sqrt(PAIRS)
    shares = np.sqrt((np.arange(200) + 0.5) / 200)
    shown = np.sqrt(oracle.chi2.ppf(shares, PAIRS - 1) / (PAIRS - 1))
    least = oracle.t.ppf(0.995, PAIRS - 1) * error * np.maximum(shown, 1.0)
    least = np.maximum(math.log1p(LATENCY.threshold), least)

    def missed(effect: float) -> float:
        return stats.POWER - float(np.mean(oracle.norm.cdf((effect - least) / error)))

    return math.expm1(float(optimize.brentq(missed, 0.0, 10.0)))


def detectable_now(cv: float) -> float:
    return stats.detectable(math.sqrt(2) * cv, pairs=PAIRS, threshold=LATENCY.threshold)


def table() -> str:
    """Of Markdown. The MDE of the first estimator is that of the rule before, too."""
    lines = ["| machine, cases | estimator | CV | MDE |", "| --- | --- | --- | --- |"]
    for where, by_name in noise().items():
        first = by_name[BEFORE]
        effect = f"{100 * detectable_before(first):.0f} %"
        lines.append(f"| {where} | {BEFORE}, Student's interval | {100 * first:.1f} % | {effect} |")
        for name, cv in by_name.items():
            effect = f"{100 * detectable_now(cv):.0f} %"
            shown = f"**{name}**" if name == NOW else name
            lines.append(f"| {where} | {shown} | {100 * cv:.1f} % | {effect} |")
    return "\n".join(lines)
