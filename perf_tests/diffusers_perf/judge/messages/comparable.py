"""Why runs are not comparable."""

from __future__ import annotations

from pathlib import Path

from diffusers_perf.judge.messages.numbers import number


def unequal(base: int, head: int) -> str:
    sides = f"{number(base, 'run')} of base and {number(head, 'run')} of head"
    return f"base and head need as many runs, since the i-th of each are a pair (got {sides})"


def side_of_two_machines(run: Path, other: Path) -> str:
    return f"{run} and {other} are of one side, but of different machines or versions"


def hardware(what: str, base: object, head: object) -> str:
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
