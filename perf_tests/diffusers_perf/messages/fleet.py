"""What `fleet` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusers_perf.messages import common
from diffusers_perf.messages.numbers import plural

INTERRUPTED = common.INTERRUPTED
NO_GPU_HERE = "--device cuda: torch sees no CUDA GPU here"
NO_GPU_IN_CLUSTER = "the Ray cluster has no node with a GPU; --device cpu runs one job on each node"
NO_CPU = "the Ray cluster has no node with a CPU to reserve"
NO_RAY = "--executor ray needs Ray: pip install 'diffusers-perf[ray]'"
KILLED = "its process was killed"
NOT_RUN = "it was not run"
NOT_THROUGH = "its process did not run to its end"
NOT_COMPARED = "it compared nothing"
NO_JSON = "--json needs the name of a file"
NO_NAME = "must name at least one"
QUOTED = "quoted as in a shell"
NO_NODE = "no node of its kind is left"


# Before anything is measured


def cannot_see_gpus(reason: str) -> str:
    return f"torch cannot be asked for the GPUs of this machine ({reason})"


def no_cluster(reason: str) -> str:
    return f"--executor ray: the cluster cannot be used ({reason})"


def alike(models: Sequence[str]) -> str:
    return f"--models: names of files would be the same for {' and '.join(models)}"


def no_case_selected(options: str) -> str:
    return f"no case is selected by {options or 'default'}"


def no_list(reason: str) -> str:
    return f"the cases cannot be listed: {reason}"


def cannot_list(code: int, lines: Sequence[str], log: Path) -> str:
    shown = "\n".join(f"  {line}" for line in lines)
    return (
        f"the cases cannot be listed: pytest ended with exit code {code}. Its last lines:\n"
        f"{shown}\n  (log: {log})"
    )


def no_such_kind(kind: str, kinds: Sequence[str]) -> str:
    return f"shards are planned for {kind}, and there is only {', '.join(kinds)} now"


def planned(
    shards: int, cases: int, *, gpus: int, kind: str, minutes: float, is_recorded: bool
) -> str:
    by = "" if is_recorded else " (a guess: nothing is recorded yet)"
    return (
        f"{plural(cases, 'case')} in {plural(shards, 'shard')} on {gpus} x {kind}: about "
        f"{minutes:.0f} min{by}"
    )


# While it runs


def shard(shard: str) -> str:
    return f"shard {shard}"


def shards(count: int) -> str:
    return plural(count, "shard")


def started(shard: str, place: str, retries: int) -> str:
    again = ", once more" if retries else ""
    return f"shard {shard} runs on {place}{again}"


def lost(shard: str, place: str | None, reason: str, *, is_over: bool) -> str:
    where = f" on {place}" if place else ""
    then = "it is not repeated again" if is_over else "it runs once more"
    return f"shard {shard} was lost{where} ({reason}); {then}"


def lost_again(reason: str) -> str:
    return f"lost twice: {reason}"


# In the end


def missing(shard: str, cases: Sequence[str], reason: str) -> str:
    return f"missing: shard {shard}: {', '.join(cases)} ({reason})"


def incomplete(missing: int, shards: int) -> str:
    return f"incomplete: {missing} of {plural(shards, 'shard')} missing; {common.AGAIN}"


def failed_beside_cases(shard: str, log: Path) -> str:
    return f"error: shard {shard} failed, though none of its cases did (log: {log})"


def runs_are_in(folder: Path) -> str:
    return f"all shards are in {folder}; remove it, or a shard's folder, to measure anew"


def comparison_of(shard: str, host: str, printed: str) -> str:
    return f"== shard {shard} on {host}\n{printed}"
