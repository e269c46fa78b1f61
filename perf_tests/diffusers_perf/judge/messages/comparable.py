"""Why runs are not comparable."""

from __future__ import annotations

from pathlib import Path

from diffusers_perf.catalog.metric import Unit
from diffusers_perf.messages.numbers import plural


def unequal(base: int, head: int) -> str:
    sides = f"{plural(base, 'run')} of base and {plural(head, 'run')} of head"
    return f"base and head need the same number of runs, which make the pairs (got {sides})"


def side_of_two_machines(run: Path, other: Path) -> str:
    return f"{run} and {other} belong to one side, but to different machines or versions"


def hardware(what: str, base: object, head: object) -> str:
    if isinstance(base, int) and isinstance(head, int) and what == "memory":
        base, head = Unit.BYTES.shown(base), Unit.BYTES.shown(head)
    return f"base and head ran on different hardware ({what}): {base} and {head}"


def harness(run: Path, version: str, other: Path, others: str) -> str:
    return (
        f"{run} and {other} were measured by different versions of the measuring code: {version} "
        f"and {others}"
    )


def quick(quick: Path, whole: Path) -> str:
    return f"{quick} was measured with --quick and {whole} without"


def differs(run: Path, other: Path, what: str, one: object, others: object) -> str:
    return f"{run} and {other} differ in the {what}: {one} and {others}"
