"""Joins the runs of all shards, made on GPUs of one kind, into one run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs, to_builtins

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.messages import ab as messages
from diffusers_perf.records.files import as_json, real, unwritable, write_whole
from diffusers_perf.records.reading import distinct, read, run_of
from diffusers_perf.records.run import KEY, CaseRecord, Drift, Machine, Run, Session
from diffusers_perf.records.shards import Placement, Shard


def merge(paths: Sequence[Path], out: Path) -> int:
    """Write the one run, with its images beside it; 0. `Refusal` for what does not join."""
    if real(out) in map(real, paths):
        raise Refusal(messages.out_is_a_shard(out))
    contents = {path: read(path) for path in distinct(paths)}
    runs = _in_order([run_of(content, path) for path, content in contents.items()])
    content = _joined(runs, [contents[run.path] for run in runs])
    joined = run_of(to_builtins(content), out)
    try:
        write_whole(out, as_json(content, indent=4))
        _copy_images(runs, out)
    except OSError as error:
        raise Refusal(unwritable(out, error)) from None
    expected, not_timed = joined.session.expected, joined.session.not_timed
    skipped = sum(case.status == Status.SKIPPED for case in not_timed)
    failed = len(not_timed) - skipped
    lost = len(expected) - len(joined.cases) - len(not_timed)
    print(
        messages.merged(
            len(runs),
            len(expected),
            executed=len(joined.cases),
            skipped=skipped,
            failed=failed,
            lost=lost,
            out=out,
        )
    )
    return 0


def _in_order(runs: Sequence[Run]) -> list[Run]:
    """The runs by shard: all of them, each once, of one machine, one suite and one list."""
    first = runs[0]
    by_index: dict[int, Run] = {}
    for run in runs:
        shard, whole = _shard(run), _shard(first)
        if (shard.count, shard.cases) != (whole.count, whole.cases):
            raise Refusal(messages.other_list(run.path, first.path))
        if shard.index in by_index:
            raise Refusal(
                messages.same_shard(
                    run.path, by_index[shard.index].path, f"{shard.index}/{shard.count}"
                )
            )
        by_index[shard.index] = run
    for what, of in SAME:
        for run in runs:
            if of(run) != of(first):
                raise Refusal(messages.not_alike(run.path, first.path, what))
    _refuse_other_weights(runs)
    whole = _shard(first)
    for index in range(1, whole.count + 1):
        if index not in by_index:
            raise Refusal(messages.missing_shard(f"{index}/{whole.count}"))
    ordered = [by_index[index] for index in range(1, whole.count + 1)]
    if tuple(name for run in ordered for name in run.session.expected) != whole.cases:
        raise Refusal(messages.OVERLAP)
    return ordered


SAME: tuple[tuple[str, Callable[[Run], object]], ...] = (
    (messages.MACHINE, lambda run: _machine(run)),
    (messages.MODE, lambda run: "quick" if run.session.quick else "full"),
    ("commit", lambda run: run.commit.id),
    (messages.MEASURING_CODE, lambda run: run.session.harness_version),
)


def _machine(run: Run) -> Machine:
    # Shards of several GPUs run on several hosts, whose threads change nothing that is measured.
    machine = run.machine
    if machine.device == "cpu":
        return machine
    return structs.replace(machine, threads=1, cpu=None, gpu_uuid=None)


def _refuse_other_weights(runs: Sequence[Run]) -> None:
    """`Refusal` where two shards measured a model of one name with different weights."""
    seen: dict[str, tuple[str, Path]] = {}
    for run in runs:
        for case in run.cases.values():
            own = (case.measurement.weights, run.path)
            weights, path = seen.setdefault(case.measurement.model, own)
            if weights != own[0]:
                raise Refusal(messages.not_alike(run.path, path, "weights"))


def _shard(run: Run) -> Shard:
    if run.session.shard is None:
        raise Refusal(messages.not_a_shard(run.path))
    return run.session.shard


def _joined(runs: Sequence[Run], contents: Sequence[Any]) -> dict[str, Any]:
    """The JSON of the whole: what pytest-benchmark wrote of each case, and our own joined."""
    cards = {run.machine.gpu_uuid for run in runs}
    machine = contents[0]["machine_info"]
    if len(cards) > 1:
        # None of them measured all of it: `placements` says which measured what.
        machine = {**machine, KEY: {**machine[KEY], "gpu_uuid": None}}
    return {
        **contents[0],
        "machine_info": machine,
        "datetime": min(content["datetime"] for content in contents),
        "benchmarks": [
            {**benchmark, "extra_info": {KEY: case}}
            for run, content in zip(runs, contents, strict=True)
            for benchmark, case in zip(_ours(content), _cases(run), strict=True)
        ],
        KEY: _session(runs, [content["machine_info"].get("node", "") for content in contents]),
    }


def _ours(content: Any) -> list[Any]:
    """The benchmarks that are cases, in the order of `Run.cases`."""
    return [one for one in content["benchmarks"] if one["extra_info"].get(KEY) is not None]


def _cases(run: Run) -> list[CaseRecord]:
    # The same reference is timed again in several shards, and each has its own drift.
    return [
        structs.replace(case, reference_drift=run.drift_of(case)) for case in run.cases.values()
    ]


def _session(runs: Sequence[Run], hosts: Sequence[str]) -> Session:
    sessions = [run.session for run in runs]
    return structs.replace(
        sessions[0],
        expected=_shard(runs[0]).cases,
        narrowed=any(session.narrowed for session in sessions),
        shard=None,
        reference_drift=_drifts(sessions),
        not_timed_again={w: why for one in sessions for w, why in one.not_timed_again.items()},
        not_timed=tuple(case for session in sessions for case in session.not_timed),
        durations_s=_durations(sessions),
        placements=tuple(map(_placement, runs, hosts)),
    )


def _durations(sessions: Sequence[Session]) -> dict[str, float]:
    """By case; of a reference that several shards measured, the longest."""
    longest: dict[str, float] = {}
    for session in sessions:
        for case, seconds in session.durations_s.items():
            longest[case] = max(seconds, longest.get(case, 0.0))
    return longest


def _placement(run: Run, host: str) -> Placement:
    """What `fleet` knew of it, and else what the run says."""
    if run.session.placements:
        return run.session.placements[0]
    return Placement(shard=_shard(run).index, host=host, gpu_uuid=run.machine.gpu_uuid)


def _drifts(sessions: Sequence[Session]) -> dict[str, Drift]:
    """By workload, the worst of the shards' drifts."""
    worst: dict[str, Drift] = {}
    for session in sessions:
        for workload, drift in session.reference_drift.items():
            before = worst.get(workload, drift)
            worst[workload] = max(before, drift, key=lambda d: (d.significant, abs(d.ratio - 1)))
    return worst


def _copy_images(runs: Sequence[Run], out: Path) -> None:
    folder = out.with_name(f"{out.stem}-images")
    folder.mkdir(exist_ok=True)
    own = {name for run in runs for name in run.session.expected}
    for run in runs:
        compared_with = {case.compared_with.id for case in run.cases.values()}
        for image in run.images.glob("*.png"):
            # A reference that a shard measured for others alone can be another shard's case.
            if image.stem in run.session.expected or image.stem in compared_with - own:
                shutil.copyfile(image, folder / image.name)
