"""Keeps what jobs give in a folder, and joins it once all is there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec import to_builtins
from pytest_benchmark.utils import get_commit_info

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import CANNOT_JUDGE
from diffusers_perf.compare.processes import MEASURED
from diffusers_perf.compare.state import FILE as COMPARISON
from diffusers_perf.compare.state import StateFile as ComparisonFile
from diffusers_perf.fleet.commands import RUN, Asked
from diffusers_perf.fleet.jobs import Finished, Lost
from diffusers_perf.fleet.plan import PlannedShard
from diffusers_perf.fleet.state import FinishedShard
from diffusers_perf.messages import fleet as messages
from diffusers_perf.records.files import as_json, write_bytes_whole, write_whole
from diffusers_perf.records.reading import load_run, read
from diffusers_perf.records.run import KEY
from diffusers_perf.records.shards import Placement

COMPARED = (*MEASURED, CANNOT_JUDGE)
"""Exit codes of `ab` that ran to its end."""
NO_COMMIT = ("unversioned", "unknown", None)
"""pytest-benchmark's commit information outside of a Git checkout, as on a node of a cluster."""


def write(event: Finished | Lost, folder: Path) -> Path:
    """Write a job's files into a folder of its name, below this one; returns it."""
    own = folder / event.job.name
    own.mkdir(parents=True, exist_ok=True)
    for name, data in event.files.items():
        parts = PurePosixPath(name).parts
        # They come from another machine.
        if ".." not in parts and not PurePosixPath(name).is_absolute():
            write_bytes_whole(own.joinpath(*parts), data)
    return own


def keep(
    finished: Finished, shard: PlannedShard, *, folder: Path, retries: int, asked: Asked
) -> FinishedShard | str:
    """What is known of a shard that was measured, or why it was not."""
    own = write(finished, folder)
    placement = Placement(
        shard=shard.index,
        host=finished.place.host,
        gpu_uuid=finished.place.gpu_uuid,
        retries=retries,
        seconds=finished.seconds,
    )
    if finished.code not in (MEASURED if asked.compare is None else COMPARED):
        return messages.NOT_THROUGH
    if asked.compare is not None:
        if not _was_compared(own / COMPARISON):
            return messages.NOT_COMPARED
        return FinishedShard(placement=placement, code=finished.code)
    try:
        run = load_run(own / RUN)
    except Refusal as error:
        return str(error)
    took = sum(run.session.durations_s.values())
    placement = msgspec.structs.replace(placement, start_s=max(0.0, finished.seconds - took))
    _annotate(own / RUN, placement)
    return FinishedShard(placement=placement, code=finished.code)


def has_failed_case(folder: Path) -> bool:
    """Does what a shard measured say why its process failed?"""
    run = load_run(folder / RUN)
    return bool(run.session.failures) or not all(case.status.passes for case in run.cases.values())


def _was_compared(path: Path) -> bool:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ComparisonFile).compared > 0
    except (OSError, ValueError):
        return False


def _annotate(path: Path, placement: Placement) -> None:
    """Say in a run where it was measured; and of which commit, where it was measured on a copy."""
    content: dict[str, Any] = read(path)
    content[KEY]["placements"] = [to_builtins(placement)]
    if content["commit_info"].get("id") in NO_COMMIT:
        content["commit_info"] = get_commit_info()
    write_whole(path, as_json(content, indent=4))
