"""What `gate` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusers_perf.messages.numbers import plural

NARROWED = "cases were selected by name, so missing ones are not reported"


def new(case: str) -> str:
    return f"new: {case}: its speed is not accepted here yet"


def also(sentence: str) -> str:
    """Below the worst finding of a case."""
    return f"  also {sentence}"


def nothing_measured(run: Path) -> str:
    return f"{run} measured nothing"


def no_baseline(machine: str) -> str:
    return f"no baseline is accepted for {machine}, so no speed was judged"


def unknown_cases(file: str, weights: str) -> str:
    return f"{file} has none of these cases on {weights}, so no speed was judged"


def inconclusive(cases: Sequence[str], of: int, *, another_run_helps: bool) -> str:
    said = f"inconclusive: {len(cases)} of {plural(of, 'case')}: {', '.join(cases)}"
    them = "it" if len(cases) == 1 else "them"
    return f"{said}; run {them} again" if another_run_helps else said


def totals(
    cases: int,
    *,
    held: int,
    failed: int,
    doubtful: int,
    new: int,
    skipped: int,
    missing: int,
    machine: str,
    file: str,
) -> str:
    return (
        f"{plural(cases, 'case')}: {held} held, {failed} failed, {doubtful} inconclusive or "
        f"invalid, {new} new, {skipped} skipped, {missing} missing; on {machine}, against {file}"
    )


def no_file(file: str) -> str:
    return f"{file} does not exist yet: images, loose bounds and counts are judged, but not speed"


def shard(shard: str) -> str:
    return f"this is shard {shard}: missing cases are reported after diffusers-perf merge"


def next_step(command: str, what: str = "") -> str:
    return f"next: {what}:\n{command}" if what else f"next: {command}"


ACCEPT_NEW = "accept what is new"
