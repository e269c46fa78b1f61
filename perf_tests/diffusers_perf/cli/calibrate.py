"""Measure how much each case varies between processes of one commit.

Takes runs of fresh processes with nothing changed between them (A/A). From whole runs follows the
limit on GPU busy time; --quick runs, as `ab` of a commit against itself leaves them, say what
`compare` can detect. The noise is written into the machine's baseline, separately for each mode.
Cases with interference are left out.

    diffusers-perf calibrate runs/aa/base-*.json runs/aa/head-*.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path

from msgspec import structs

from diffusers_perf.catalog.metrics import COMPARED
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.cli.acceptable import PROCESSES_MIN, check, ended_early
from diffusers_perf.cli.answers import add_baselines, named, store_of
from diffusers_perf.judge import comparable
from diffusers_perf.judge.clock import Clock, Hosts
from diffusers_perf.judge.limits import limits_of
from diffusers_perf.judge.messages.numbers import share
from diffusers_perf.judge.sides import interference_in
from diffusers_perf.judge.stats import PAIRS_CONFIDENCE, POWER, detectable, noise_of
from diffusers_perf.judge.weighing import PAIRS, has_calibrated_quantiles
from diffusers_perf.messages import baselines as messages
from diffusers_perf.records.baselines import Calibration, CaseBaseline, rounded
from diffusers_perf.records.missing import parts_of
from diffusers_perf.records.reading import load_runs
from diffusers_perf.records.run import CaseRecord, Mode, Run
from diffusers_perf.records.store import BaselineStore, Changes

NOTHING_CHANGED = (
    Status.SAME,
    Status.FASTER,
    Status.LESS_WORK,
    Status.NEW,
    Status.INCONCLUSIVE,
    Status.INVALID,
    Status.SLOWER,
)
"""What the same code can be called. What is invalid is left out where it says nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=named,
        metavar="RUN.json",
        help=f"{PROCESSES_MIN} or more runs written by --benchmark-json; N runs give the noise "
        "within about 1/sqrt(2N)",
    )
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    return calibrate(args.runs, store_of(args))


def calibrate(paths: Sequence[Path], store: BaselineStore) -> int:
    """Write the noise into the machine's baseline and say what it lets one see; 0.

    `Refusal` for too few runs, for ones of other commits, machines, rounds or measuring code,
    for broken or changed images, and where none of the
    baseline's cases was measured without interference.
    """
    runs = load_runs(paths)
    if len(runs) < PROCESSES_MIN:
        raise Refusal(messages.too_few_to_calibrate(len(runs), PROCESSES_MIN))
    check(runs, acceptable=NOTHING_CHANGED)
    comparable.check(runs, runs)
    for run in runs:
        if run.commit.id != runs[0].commit.id:
            raise Refusal(messages.other_commit(run.path, runs[0].path))
    for text in ended_early(runs):
        print(text)
    with store.changing() as changes:
        calibrated, left_out = _calibrated(runs, changes)
    machine, mode = runs[0].machine, runs[0].session.mode
    path = store.machine_path(machine.slug)
    print(
        messages.opening(
            machine.name,
            len(runs),
            mode,
            pairs=PAIRS,
            power=share(POWER),
            confidence=f"{100 * PAIRS_CONFIDENCE:g} %",
        )
    )
    for key, line in calibrated.items():
        print(messages.effects(_name(key), _effects(line.calibrations[mode])))
    for text in left_out:
        print(messages.left_out(text))
    print(messages.calibrated(len(calibrated), path.name, store.shown(store.folder)))
    return 0


def _calibrated(runs: Sequence[Run], changes: Changes) -> tuple[dict[str, CaseBaseline], list[str]]:
    """Write the noise of each case that the baseline knows; returns these cases, and what was left
    out.
    """
    machine = runs[0].machine
    baseline = changes.store.load_machine(machine.slug)
    if baseline is None:
        raise Refusal(messages.no_baseline(machine.name, str(changes.store.folder)))
    path, mode = changes.store.machine_path(machine.slug), runs[0].session.mode
    calibrated: dict[str, CaseBaseline] = {}
    left_out: list[str] = []
    for key in dict.fromkeys(key for run in runs for key in run.cases):
        seen = [(run, run.cases[key]) for run in runs if key in run.cases]
        if seen[0][1].image_only:
            continue
        if key not in baseline.cases:
            left_out.append(messages.not_in_baseline(_name(key), path.name))
            continue
        if len(seen) < PROCESSES_MIN:
            left_out.append(messages.measured_in(_name(key), len(seen), len(runs)))
            continue
        calibration, affected = _calibration(seen)
        left_out += [f"{_name(key)}: {text}" for text in affected]
        if calibration.noise:
            calibrated[key] = _line(key, baseline.cases[key], seen[0][1], mode, calibration)
    if not calibrated:
        raise Refusal(messages.none_to_calibrate(path, PROCESSES_MIN))
    changes.add_history(
        [
            f"- {runs[0].date} {machine.name} `{key}`: "
            + messages.calibrated_from(
                line.calibrations[mode].processes, mode, _effects(line.calibrations[mode])
            )
            for key, line in calibrated.items()
        ]
    )
    changes.save_machine(replace(baseline, cases={**baseline.cases, **calibrated}))
    return calibrated, left_out


def _calibration(seen: Sequence[tuple[Run, CaseRecord]]) -> tuple[Calibration, list[str]]:
    """A case's noise between the processes that saw it, by metric, and what is left out of it."""
    noise, effects, left_out, fewest = {}, {}, [], len(seen)
    runs = [run for run, _ in seen]
    clock = Clock.of([[case.measurement for _, case in seen]], Hosts.of(runs, runs))
    for metric in COMPARED:
        known = [clock.of_metric(metric, case.measurement) for _, case in seen]
        values = [value for value in known if value is not None]
        if len(values) < len(seen):
            continue
        reasons = [interference_in(run, case, metric) for run, case in seen]
        valid = [value for value, why in zip(values, reasons, strict=True) if not why]
        if affected := [why[0] for why in reasons if why]:
            number = f"{len(affected)} of {messages.processes(len(seen))}"
            left_out.append(f"{metric.name} of {number}: {affected[0]}")
        if len(valid) < PROCESSES_MIN:
            continue
        fewest = min(fewest, len(valid))
        field = clock.noise_field(metric)
        noise[field] = rounded(noise_of(valid))
        pair, threshold = sqrt(2) * noise[field], clock.threshold(metric)
        calibrated = has_calibrated_quantiles(metric, pair)
        effect = detectable(pair, pairs=PAIRS, threshold=threshold, calibrated=calibrated)
        effects[metric.field] = rounded(effect)
    date = seen[0][0].date
    return Calibration(calibrated=date, processes=fewest, noise=noise, detectable=effects), left_out


def _line(
    key: str, line: CaseBaseline, case: CaseRecord, mode: Mode, calibration: Calibration
) -> CaseBaseline:
    """A baseline's line with this calibration of its case, and the limits that follow."""
    if name := comparable.differing(line.workload, case.workload):
        raise Refusal(messages.other_workload(_name(key), name))
    calibrations = {**line.calibrations, mode: calibration}
    limits = limits_of(line.measured, calibrations.get("whole"))
    return structs.replace(line, calibrations=calibrations, limits=limits)


def _effects(calibration: Calibration) -> str:
    return ", ".join(
        f"{metric.name} ≥ {share(calibration.detectable[metric.field])}"
        for metric in COMPARED
        if metric.field in calibration.detectable
    )


def _name(key: str) -> str:
    workload, _, case = parts_of(key)
    return f"{workload}-{case}"
