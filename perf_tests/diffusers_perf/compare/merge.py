"""Join the runs of all shards, made on GPUs of one kind, into one run.

What it writes is read by every other command, and by pytest-benchmark.

    pytest perf_tests --benchmark-only --shard 1/2 --benchmark-json runs/1.json
    pytest perf_tests --benchmark-only --shard 2/2 --benchmark-json runs/2.json
    python -m ci merge runs/1.json runs/2.json --json runs/run.json
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.status import Status
from diffusers_perf.cli.answers import named, unwritable
from diffusers_perf.records.reading import BadRunError, Run, distinct, read, run_of
from diffusers_perf.records.records import SCHEMA, write_whole
from diffusers_perf.records.runs import Shard, key_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", type=named, metavar="SHARD.json")
    parser.add_argument("--json", type=named, required=True, metavar="OUT", help="where to write")


def main(args: argparse.Namespace) -> int:
    return merge(args.shards, args.json)


def merge(paths: Sequence[Path], out: Path) -> int:
    """Write the one run, with its images beside it; 0. `BadRunError` for what does not join."""
    if out.resolve() in [path.resolve() for path in paths]:
        raise BadRunError(f"{out} is one of the shards: write the whole elsewhere")
    contents = {path: read(path) for path in distinct(paths)}
    runs = _in_order([run_of(content, path) for path, content in contents.items()])
    content = _joined(runs, [contents[run.path] for run in runs])
    joined = run_of(content, out)
    try:
        write_whole(out, json.dumps(content, indent=4))
        _copy_images(runs, out)
    except OSError as error:
        raise BadRunError(unwritable(out, error)) from None
    skipped = sum(case.status == Status.SKIPPED for case in joined.untimed)
    failed = len(joined.untimed) - skipped
    lost = len(joined.expected) - len(joined.cases) - len(joined.untimed)
    shards = f"{len(runs)} shard{'s' * (len(runs) != 1)}"
    cases = f"{len(joined.expected)} case{'s' * (len(joined.expected) != 1)}"
    print(
        f"merged {shards}: of {cases} expected {len(joined.cases)} executed, {skipped} skipped, "
        f"{failed} failed without a measurement, {lost} never reached; wrote {out}"
    )
    return 0


def _in_order(runs: Sequence[Run]) -> list[Run]:
    """The runs by shard: all of them, each once, of one machine, one suite and one list."""
    first = runs[0]
    by_index: dict[int, Run] = {}
    for run in runs:
        shard, whole = _shard(run), _shard(first)
        if (shard.of, shard.cases) != (whole.of, whole.cases):
            raise BadRunError(f"{run.path} and {first.path} are shards of different lists of cases")
        if shard.index in by_index:
            raise BadRunError(
                f"{run.path} and {by_index[shard.index].path} are both shard "
                f"{shard.index}/{shard.of}"
            )
        by_index[shard.index] = run
    for what, of in SAME:
        # A shard of skipped cases alone says nothing of weights.
        told = [run for run in runs if of(run)]
        for run in told:
            if of(run) != of(told[0]):
                raise BadRunError(f"{run.path} and {told[0].path} were made on different {what}")
    whole = _shard(first)
    for index in range(1, whole.of + 1):
        if index not in by_index:
            raise BadRunError(f"shard {index}/{whole.of} is not among the runs")
    ordered = [by_index[index] for index in range(1, whole.of + 1)]
    if tuple(name for run in ordered for name in run.expected) != whole.cases:
        raise BadRunError("the shards' cases overlap, or are not all: they were not dealt together")
    return ordered


SAME: tuple[tuple[str, Callable[[Run], object]], ...] = (
    ("machines or with other versions", lambda run: replace(run.machine, threads=_threads(run))),
    ("weights", lambda run: {(case["model"], case["weights"]) for case in run.cases.values()}),
    ("terms, with --quick and without", lambda run: "quick" if run.quick else "full"),
    ("commits", lambda run: run.commit),
    ("versions of the measuring code", lambda run: run.measuring),
)


def _threads(run: Run) -> int:
    # Shards of several GPUs run on several hosts, whose threads change nothing that is measured.
    return run.machine.threads if run.machine.device == "cpu" else 0


def _shard(run: Run) -> Shard:
    if run.shard is None:
        raise BadRunError(f"{run.path} is no shard: it ran without --shard")
    return run.shard


def _joined(runs: Sequence[Run], contents: Sequence[Any]) -> dict[str, Any]:
    benchmarks = []
    for run, content in zip(runs, contents, strict=True):
        for benchmark in content["benchmarks"]:
            # The same reference is timed again in several shards, and each has its own drift.
            case = run.cases[key_of(benchmark["extra_info"])]
            info = {**benchmark["extra_info"], "reference_drift": run.drift_of(case)}
            benchmarks.append({**benchmark, "extra_info": info})
    ours = contents[0]["perf_tests"]
    return {
        **contents[0],
        "datetime": min(content["datetime"] for content in contents),
        "benchmarks": benchmarks,
        "perf_tests": {
            "schema": SCHEMA,
            "quick": runs[0].quick,
            "options": list(runs[0].options),
            "measuring": ours["measuring"],
            "scale": ours["scale"],
            "expected": ours["shard"]["cases"],
            "narrowed": any(run.narrowed for run in runs),
            "not_asked": list(runs[0].not_asked),
            "shard": None,
            "reference_drift": _drifts(runs),
            "not_timed": [case for one in contents for case in one["perf_tests"]["not_timed"]],
        },
    }


def _drifts(runs: Sequence[Run]) -> dict[str, Any]:
    """By workload, the worst of the shards' drifts."""
    worst: dict[str, Any] = {}
    for run in runs:
        for workload, drift in run.drift.items():
            before = worst.get(workload, drift)
            worst[workload] = max(
                before, drift, key=lambda d: (d["significant"], abs(d["ratio"] - 1))
            )
    return worst


def _copy_images(runs: Sequence[Run], out: Path) -> None:
    folder = out.with_name(f"{out.stem}-images")
    folder.mkdir(exist_ok=True)
    own = {name for run in runs for name in run.expected}
    for run in runs:
        compared_with = {
            f"{case['workload']}-{case['against'] or REFERENCE}" for case in run.cases.values()
        }
        for image in run.path.with_name(f"{run.path.stem}-images").glob("*.png"):
            # A reference that a shard measured for others alone can be another shard's case.
            if image.stem in run.expected or image.stem in compared_with - own:
                shutil.copyfile(image, folder / image.name)
