"""Measure how much each case varies between processes of one commit, and what the gate can see.

Takes runs of the main job in fresh processes, with nothing changed between them (A/A), and writes
each case's noise into its line of the machine's baseline, from which the limit on GPU busy follows.
Noise is that of the processes that the gate compares: where those are --quick, so are these. What
was disturbed in a process is left out, as the gate leaves it out.

    python -m ci calibrate runs/1.json runs/2.json runs/3.json runs/4.json runs/5.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

from ci.ab import PAIRS
from ci.accept import PROCESSES_MIN, check, disturbance, write_history
from ci.runs import BadRunError, Run, distinct, load_run
from perf_tests.harness import baselines
from perf_tests.harness.baselines import Calibration, CaseBaseline, rounded
from perf_tests.harness.comparable import differing
from perf_tests.harness.pairs import METRICS, share
from perf_tests.harness.runs import Case, parts_of
from perf_tests.harness.stats import CONFIDENCE, POWER, detectable, noise_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN.json",
        help=f"{PROCESSES_MIN} or more, written by --benchmark-json; noise is known to about "
        "1/sqrt(2N) of itself from N",
    )


def main(args: argparse.Namespace) -> int:
    return calibrate(args.runs)


def calibrate(paths: Sequence[Path]) -> int:
    """Write the noise into the machine's baseline and say what it lets one see; 0.

    `BadRunError` for runs that are not of one commit and machine, that were too much disturbed, or
    that nobody accepted.
    """
    runs = [load_run(path) for path in distinct(paths)]
    if len(runs) < PROCESSES_MIN:
        raise BadRunError(
            f"{len(runs)} of {PROCESSES_MIN} processes: the noise between so few says nothing; run "
            "the main job again"
        )
    check(runs)
    for run in runs:
        if run.quick != runs[0].quick:
            quick, whole = (run, runs[0]) if run.quick else (runs[0], run)
            raise BadRunError(
                f"{quick.path} was measured with --quick and {whole.path} without: the noise of "
                "one is not the other's"
            )
        if run.commit != runs[0].commit:
            raise BadRunError(
                f"{run.path} and {runs[0].path} were made on different commits: what differs "
                "between them is not noise alone"
            )
    machine = runs[0].machine
    baseline = baselines.load_machine(machine.slug)
    if baseline is None:
        raise BadRunError(
            f"nobody accepted a baseline for {machine.name}, whose noise this would be; accept "
            "these runs first: python -m ci accept"
        )
    measured = _undisturbed(runs)
    known = {key: cases for key, cases in measured.items() if key in baseline.cases}
    enough = {key: cases for key, cases in known.items() if len(cases) >= PROCESSES_MIN}
    if not enough:
        raise BadRunError(
            f"{baseline.path} knows no case that {PROCESSES_MIN} of these runs measured undisturbed"
        )
    calibrated = {
        key: _calibrated(key, cases, baseline.cases[key], date=runs[0].date)
        for key, cases in enough.items()
    }
    mode = "--quick " * runs[0].quick
    print(
        f"A/A on {machine.name}, {len(runs)} {mode}processes: the smallest slowdown that {PAIRS} "
        f"pairs find {share(POWER)} of the time, at {share(CONFIDENCE)} confidence"
    )
    for key, line in calibrated.items():
        print(f"{_name(key)}: this gate can see {_told(line)}")
    for key, cases in measured.items():
        if key not in known:
            print(f"left out: {_name(key)} has no line in {baseline.path.name}: accept it first")
        elif len(cases) < len(runs):
            told = f"undisturbed in {len(cases)} of {len(runs)} processes"
            print(f"{'' if key in enough else 'left out: '}{_name(key)} was measured {told}")
    write_history([_history_line(key, line, mode) for key, line in calibrated.items()])
    baselines.save_machine(replace(baseline, cases={**baseline.cases, **calibrated}))
    number = f"{len(calibrated)} case{'s' * (len(calibrated) != 1)}"
    print(f"calibrated {number} in {baseline.path.name}; commit baselines/")
    return 0


def _undisturbed(runs: Sequence[Run]) -> dict[str, list[Case]]:
    """Of each timed case, by key, what the runs in which nothing disturbed it measured."""
    keys = dict.fromkeys(
        key for run in runs for key, case in run.cases.items() if not case["picture_only"]
    )
    return {
        key: [run.cases[key] for run in runs if key in run.cases and not disturbance(run, key)]
        for key in keys
    }


def _calibrated(key: str, cases: Sequence[Case], line: CaseBaseline, *, date: str) -> CaseBaseline:
    """A baseline's line with the noise between these processes, and the limits it gives."""
    if name := differing(line.generates, cases[0]["generates"]):
        raise BadRunError(
            f"{_name(key)}: its baseline and these runs differ in the workload ({name}): "
            "accept these runs first: python -m ci accept"
        )
    noise, sees = {}, {}
    for metric in METRICS:
        values = [case[metric.field] for case in cases]
        if None in values:
            continue
        noise[metric.field] = rounded(noise_of(values))
        pair = sqrt(2) * noise[metric.field]
        sees[metric.field] = rounded(detectable(pair, pairs=PAIRS, floor=metric.floor))
    calibration = Calibration(calibrated=date, processes=len(cases), noise=noise, sees=sees)
    limits = baselines.limits_of(
        latency_s=line.latency_s,
        latency_speedup=line.latency_speedup,
        gpu_busy_s=line.gpu_busy_s,
        gpu_speedup=line.gpu_speedup,
        peak_memory_bytes=line.peak_memory_bytes,
        calibration=calibration,
    )
    return replace(line, calibration=calibration, limits=limits)


def _told(line: CaseBaseline) -> str:
    sees: Mapping[str, Any] = line.calibration.sees if line.calibration else {}
    return ", ".join(
        f"{metric.name} ≥ {share(sees[metric.field])}" for metric in METRICS if metric.field in sees
    )


def _name(key: str) -> str:
    workload, _, case = parts_of(key)
    return f"{workload}-{case}"


def _history_line(key: str, line: CaseBaseline, mode: str) -> str:
    assert line.calibration is not None
    return (
        f"- {line.calibration.calibrated} `{key}`: calibrated from {line.calibration.processes} "
        f"{mode}processes: sees {_told(line)}"
    )
