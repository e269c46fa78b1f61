"""What the latency of a process may be read as, on recorded processes of two machines.

`judge.clock` implements the last of `ESTIMATORS`; the table stands in `perf_tests/README.md`.

    python -m perf_tests.tests.estimators     # what else was tried to halve the CPU's MDE: a minute
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from types import MappingProxyType
from unittest.mock import patch

import numpy as np
from scipy import optimize, special
from scipy import stats as oracle

from diffusers_perf.catalog.metrics import LATENCY
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import stats
from diffusers_perf.judge.clock import Clock
from diffusers_perf.judge.interference import loops_of
from diffusers_perf.judge.paired import Noise
from diffusers_perf.judge.pairs import compare
from diffusers_perf.records.measurement import Interference, Look, Measurement
from perf_tests.tests.frozen import pairs
from perf_tests.tests.unit.recorded import five_pairs, parsed

RECORDED = Path(__file__).parent / "unit" / "recorded" / "h200-clock.json.gz"
"""Seven and six fresh processes of one H200 host, whose cores changed their speed by half: the
seconds of each round, and of the loop before and after it. GPU busy is as accepted for the card."""
ROUNDS = 2
"""Of a quick process."""
LOOP_S = 0.010
"""The quickest loop that was recorded on the H200's host."""
PAIRS = 5
CPU = "two-core CPU"


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
        yield Recorded(machine=CPU, case=case, processes=tuple(processes))


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
    """The MDE of five pairs on a machine that was calibrated, as the one before is."""
    noise, threshold = math.sqrt(2) * cv, LATENCY.threshold
    return stats.detectable(noise, pairs=PAIRS, threshold=threshold, calibrated=True)


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


def _cpu_cv(estimator: Callable[[Measurement, float], float]) -> float:
    """Between recorded CPU processes, of an estimator that is given the quickest loop, too."""
    squares = []
    for found in recorded():
        if found.machine == CPU:
            best = min(s for seen in found.processes for s in loops_of(seen))
            values = [estimator(seen, best) for seen in found.processes]
            squares.append(stats.noise_of(values) ** 2)
    return math.sqrt(fmean(squares))


def _partly_adjusted(share: float) -> Callable[[Measurement, float], float]:
    """The least round, each divided by this power of how much slower its loop was."""

    def read(seen: Measurement, best: float) -> float:
        loops = map(min, loops_of(seen)[::2], loops_of(seen)[1::2])
        rounds = zip(seen.rounds_s, loops, strict=True)
        return min(seconds * math.pow(best / loop, share) for seconds, loop in rounds)

    return read


def _mixed(weight: float) -> Callable[[Measurement, float], float]:
    return lambda seen, _: weight * min(seen.rounds_s) + (1 - weight) * max(seen.rounds_s)


def _critical(level: float) -> float:
    """Of five pairs, where each end of their interval is wrong this often: see `stats`."""
    draw = np.random.default_rng(0)
    over, under = (draw.standard_normal((200_000, PAIRS)) for _ in range(2))
    jumps = sum((np.diff(side, axis=1) ** 2).sum(axis=1) for side in (over, under))
    neighbours = jumps / (2 * (PAIRS - 1))
    noise = np.sqrt(np.maximum((over - under).var(axis=1, ddof=1), neighbours))

    def excess(critical: float) -> float:
        return float(np.mean(special.ndtr(-critical * noise / math.sqrt(2)))) - level

    return float(optimize.brentq(excess, 1, 20))


def calibrated_elsewhere() -> Noise:
    """Of latencies, from base of ``injected``: five other processes of the code of ``same``."""
    runs = parsed(five_pairs("injected")[0], "base")
    return {
        key: {"latency_s": stats.noise_of([run.cases[key].measurement.latency_s for run in runs])}
        for key in runs[0].cases
    }


def _false_alarms(noise: Noise | None = None) -> tuple[int, int]:
    """Among all deals of the H200's ten processes of one commit to two sides, each way once: how
    many verdicts are slower or faster, and how many there are. Noise is as calibrated.
    """
    base, head = five_pairs("same")
    runs = parsed([*base, *head], "run")
    wrong, verdicts = 0, 0
    for four in combinations(range(1, 10), 4):
        others = [i for i in range(1, 10) if i not in four]
        sides = [runs[i] for i in (0, *four)], [runs[i] for i in others]
        found = compare(*sides, noise=noise)
        wrong += sum(c.status in (Status.SLOWER, Status.FASTER) for c in found.changes)
        verdicts += len(found.changes)
    return wrong, verdicts


def tried() -> Iterator[str]:
    """Each estimator that was tried to halve the CPU's minimum detectable effect, a line each."""
    (cpu,) = (by_name for where, by_name in noise().items() if where.startswith(CPU))
    before = detectable_before(cpu[BEFORE])

    def shown(cv: float) -> str:
        return f"CV {100 * cv:.1f} %, MDE {detectable_now(cv) / before:.2f} of before"

    for share in (0.0, 0.1, 0.2, 0.5, 1.0):
        cv = _cpu_cv(_partly_adjusted(share))
        yield f"least round, loops to the power of {share:g}: {shown(cv)}"
    for weight in (0.9, 0.8, 0.5):
        cv = _cpu_cv(_mixed(weight))
        yield f"{weight:g} of the least round and the rest of the other: {shown(cv)}"
    yield f"second round alone: {shown(_cpu_cv(lambda seen, _: seen.rounds_s[1]))}"
    needed = optimize.brentq(lambda cv: detectable_now(cv) - before / 2, 0.001, 0.1)
    yield f"what halves it: {shown(float(needed))}"
    wrong, verdicts = _false_alarms(calibrated_elsewhere())
    yield (
        f"five pairs of calibrated noise: {shown(cpu[NOW])}, "
        f"{wrong} false alarms in {verdicts} recorded verdicts"
    )
    of_pair, threshold = math.sqrt(2) * cpu[NOW], LATENCY.threshold
    for once_in in (400, 333, 286, 250, 200):
        critical = round(_critical(1 / once_in), 2)
        table = (*stats.CRITICAL_OF_PAIRS[:3], critical, *stats.CRITICAL_OF_PAIRS[4:])
        with patch.object(stats, "CRITICAL_OF_PAIRS", table):
            wrong, verdicts = _false_alarms()
            mde = stats.detectable(of_pair, pairs=PAIRS, threshold=threshold)
        effect = f"MDE {mde / before:.2f} of before"
        yield (
            f"uncalibrated, five pairs' ends wrong once in {once_in} ({critical} standard errors): "
            f"{effect}, {wrong} false alarms in {verdicts} recorded verdicts"
        )


if __name__ == "__main__":
    for line in tried():
        print(line)
