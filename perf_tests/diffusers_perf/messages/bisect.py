"""What `bisect` says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from diffusers_perf.messages.common import meant
from diffusers_perf.messages.numbers import plural

SAME_ENDS = "--good and --bad are the same"


def unequal_ends(good: int, bad: int, packages: int) -> str:
    return (
        f"bisect needs one --good and one --bad for each --package (got {good} and {bad} for "
        f"{packages})"
    )


def not_an_ancestor(good: str, bad: str, *, descends: bool, shared: str) -> str:
    """`descends`: it is the other way round. `shared`: their newest common commit, if any."""
    if descends:
        why = "it is newer; exchange the two"
    elif shared:
        why = f"the newest that is: --good {shared}"
    else:
        why = (
            "they have no commit in common here; a shallow clone lacks some: git fetch --unshallow"
        )
    return f"--good {good} is not an ancestor of --bad {bad}; {why}"


def bad_version(package: str, reason: object) -> str:
    return f"--package {package}: {reason}"


def not_offered(package: str, version: object, newest: Sequence[str]) -> str:
    return f"--package {package}: the index does not offer {version} (newest: {', '.join(newest)})"


def candidates(number: int, good: str) -> str:
    return f"{plural(number, 'candidate')} after {good}"


def depends_on_the_cache(metric: str) -> str:
    return (
        f"{metric} cannot be bisected, because it depends on what the compile cache already "
        "holds; choose another metric"
    )


def ends_are_equal(case: str, metric: str, value: str) -> str:
    return f"{case}: {metric} is {value} with both --good and --bad; choose two ends that differ"


def ends_do_not_differ(case: str, metric: str, ratio: str, pairs: int) -> str:
    return (
        f"{case}: {metric} of bad over good is {ratio}, and {plural(pairs, 'pair')} show no "
        "change; choose two ends that differ"
    )


def by_its_middle(ratio: str) -> str:
    return f"{ratio}, inconclusive: decided by its middle"


def not_measured(process: str, case: str, why: str) -> str:
    """`why` is empty where the case did not fail."""
    return f"{process}: {case} {f'failed: {why}' if why else 'was not measured'}"


def no_metric(case: str, metric: str, known: Collection[str]) -> str:
    return f"{case} has no metric {metric!r}" + (
        meant(metric, known) or f"; known are {', '.join(known)}"
    )


def no_case(name: str, known: Collection[str]) -> str:
    return f"no case is called {name!r}" + (
        meant(name, known)
        or "; pytest --benchmark-only --collect-only -q lists those that run here"
    )


def interference(process: str, metric: str, *, twice: bool) -> str:
    said = f"{process}: interference while {metric} was measured"
    if twice:
        return f"{said}, twice; the same command tries it again"
    return f"{said}; measuring it once more"


def another_bisection(out: Path) -> str:
    return f"--out {out} holds another bisection; remove it, or choose another --out"


def out_of_budget(used_s: float, budget_s: float, *, minutes: float, finished: int) -> str:
    return (
        f"{used_s / 60:.1f} of {budget_s / 60:g} min used; the same command with --minutes "
        f"{minutes:.0f} continues after {plural(finished, 'process', 'processes')}"
    )


def progress(number: int, process: str, value: str) -> str:
    return f"[{number}] {process}: {value}"


def found(bad: str, good: str, unmeasured: Sequence[str]) -> Sequence[str]:
    lines = [f"first bad: {bad}", f"last good: {good}"]
    if unmeasured:
        lines.append(
            f"could not be measured, so the change may be in one of these: {', '.join(unmeasured)}"
        )
    return lines


def cost(processes: int, seconds: float) -> str:
    return f"{plural(processes, 'process', 'processes')}, {seconds / 60:.1f} min"
