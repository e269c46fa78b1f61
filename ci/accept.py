"""Accept what runs measured as this machine's baseline. Never turns a run green by itself."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.runs import BadRunError, Run, load_run
from perf_tests.harness import baselines, closeness
from perf_tests.harness.baselines import CaseBaseline, MachineBaseline
from perf_tests.harness.records import Count
from perf_tests.harness.verdicts import PASSING

PROCESSES_MIN = 3
HISTORY_HEAD = """# What was accepted, when and why

Written by `python -m ci accept`; newest last.

"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN.json", help="written by --benchmark-json"
    )
    parser.add_argument("--reason", required=True, help="why; kept in baselines/HISTORY.md")
    parser.add_argument(
        "--processes",
        type=int,
        default=PROCESSES_MIN,
        metavar="N",
        help=f"accept from as few as N runs (default: {PROCESSES_MIN})",
    )


def main(args: argparse.Namespace) -> int:
    return accept(args.runs, reason=args.reason, processes=args.processes)


def accept(
    paths: Sequence[Path],
    *,
    reason: str,
    processes: int = PROCESSES_MIN,
) -> int:
    """Write the runs' cases into their machine's baseline; 0. `BadRunError` for bad runs."""
    runs = [load_run(path) for path in paths]
    _check(runs, processes)
    machine = runs[0].machine
    old = baselines.load_machine(machine.slug)
    accepted = {key: _merge([run.cases[key] for run in runs], runs[0]) for key in _judged(runs[0])}
    cases = {**(old.cases if old else {}), **accepted}
    baseline = MachineBaseline(
        path=baselines.machine_path(machine.slug), machine=machine.name, cases=cases
    )
    pictures = _pictures(runs[0])
    baselines.save_machine(baseline)
    for source, target in pictures.items():
        closeness.save(closeness.thumbnail(closeness.load(source)), target)
    _write_history(old, accepted, reason=reason)
    print(
        f"accepted {len(accepted)} cases from {len(runs)} processes into {baseline.path.name} "
        f"and {len(pictures)} reference pictures; commit baselines/"
    )
    return 0


def _check(runs: Sequence[Run], processes: int) -> None:
    if len(runs) < processes:
        raise BadRunError(
            f"{len(runs)} of {processes} processes: between processes the noise is larger than "
            "within one; run the main job again, or say --processes"
        )
    first = runs[0]
    for run in runs:
        if run.machine != first.machine:
            raise BadRunError(
                f"{run.path} was measured on another machine or with other versions than "
                f"{first.path}"
            )
        odd = sorted(set(_judged(run)) ^ set(_judged(first)))
        if odd:
            raise BadRunError(f"{odd[0]} is not in each of the runs")
        for key, case in run.cases.items():
            if case["verdict"] not in PASSING or case["verdict"] == "invalid":
                raise BadRunError(f"{run.path}: {key} is {case['verdict']}, which nobody accepts")
        if run.not_timed:
            raise BadRunError(f"{run.path}: {run.not_timed[0]} gave no measurement")


def _judged(run: Run) -> list[str]:
    return [key for key, case in run.cases.items() if not case["picture_only"]]


def _merge(cases: Sequence[Mapping[str, Any]], run: Run) -> CaseBaseline:
    def values(name: str) -> tuple[Any, ...]:
        return tuple(case[name] for case in cases if case[name] is not None)

    counters = [
        {n: Count(fixed=c["fixed"], per_step=c["per_step"]) for n, c in case["counters"].items()}
        for case in cases
    ]
    # A counter that is not the same in every process is no counter and holds nobody to anything.
    exact = {n: c for n, c in counters[0].items() if all(o.get(n) == c for o in counters)}
    measured: dict[str, Any] = {
        "latency_s": values("latency_s"),
        "latency_speedup": values("latency_speedup") or (1.0,) * len(cases),
        "gpu_busy_s": values("gpu_busy_s"),
        "gpu_speedup": values("gpu_speedup"),
        "peak_memory_bytes": values("peak_memory_bytes"),
    }
    return CaseBaseline(
        accepted=run.date,
        versions=run.machine.versions,
        counters=exact,
        limits=baselines.limits_of(**measured),
        **measured,
    )


def _pictures(run: Run) -> dict[Path, Path]:
    """The references' pictures beside the run, and where they are kept once accepted."""
    found = {}
    for case in run.cases.values():
        if case["case"] != "reference":
            continue
        source = run.path.with_name(f"{run.path.stem}-pictures")
        source /= f"{case['workload']}-reference.png"
        if not source.exists():
            raise BadRunError(f"{source} is missing: a run's pictures are saved beside its JSON")
        found[source] = baselines.picture_path(
            model=case["model"], weights=case["weights"], workload=case["workload"]
        )
    return found


def _write_history(
    old: MachineBaseline | None,
    accepted: Mapping[str, CaseBaseline],
    *,
    reason: str,
) -> None:
    path = baselines.FOLDER / "HISTORY.md"
    lines = []
    for key, case in accepted.items():
        before = old.cases.get(key) if old else None
        versions = ", ".join(f"{name} {version}" for name, version in case.versions.items())
        lines.append(
            f"- {case.accepted} `{key}`: {_figure(before)} → {_figure(case)}. {reason} ({versions})"
        )
    text = path.read_text() if path.exists() else HISTORY_HEAD
    path.write_text(text + "\n".join(lines) + "\n")


def _figure(case: CaseBaseline | None) -> str:
    if case is None:
        return "new"
    if case.gpu_busy_s:
        return f"GPU busy {min(case.gpu_busy_s):.4f} s, latency {min(case.latency_s):.3f} s"
    return f"latency {min(case.latency_s):.3f} s"
