"""Which runs may be held to each other: of one machine, one model, one stopwatch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffusers_perf.records.runs import Case, Run, case_id


class NotComparable(Exception):
    """Runs that say nothing about each other; one sentence says why."""


def check(base: Sequence[Run], head: Sequence[Run]) -> None:
    """`NotComparable` unless the i-th runs of each side make a pair. Versions may differ."""
    if len(base) != len(head) or not base:
        raise NotComparable(
            f"{_number(base)} of base and {_number(head)} of head: "
            "the i-th of each make a pair, so there must be as many"
        )
    first = base[0]
    for side in (base, head):
        for run in side:
            if not run.machine.is_like(side[0].machine):
                raise NotComparable(
                    f"{run.path} was measured on another machine or with other versions than "
                    f"{side[0].path}, of the same side"
                )
    there, here = (_hardware(side[0]) for side in (base, head))
    for what, value in there.items():
        if here[what] != value:
            raise NotComparable(
                f"base ran on {what} {value}, head on {here[what]}: their times say nothing of "
                "each other"
            )
    for run in (*base, *head):
        if run.measuring != first.measuring:
            raise NotComparable(
                f"{run.path} was measured by version {run.measuring} of the suite's own measuring "
                f"code and {first.path} by {first.measuring}: a difference could be the stopwatch's"
            )
        if run.quick != first.quick:
            quick, whole = (run, first) if run.quick else (first, run)
            raise NotComparable(
                f"{quick.path} was measured with --quick and {whole.path} without: after another "
                "warm-up, and with less between the cases"
            )
    runs = (*base, *head)
    _one(runs, "weights", lambda case: {"all": f"{case['model']} ({case['weights']})"})
    same_workloads(runs)
    _one(runs, "number of rounds", lambda case: {case_id(case): len(case["latency_rounds_s"])})


def same_workloads(runs: Sequence[Run]) -> None:
    """`NotComparable` unless what is called by one name generates the same in all runs."""
    _one(runs, "workload", lambda case: {case["workload"]: case["generates"]})


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first name under which two workloads, as `generates` says them, are not the same."""
    return next((name for name in {**one, **other} if one.get(name) != other.get(name)), None)


def _number(side: Sequence[Run]) -> str:
    return f"{len(side)} run{'s' * (len(side) != 1)}"


def _hardware(run: Run) -> dict[str, Any]:
    machine = run.machine
    return {
        "device": machine.device,
        "machine": machine.name,
        "memory": machine.memory_bytes,
        "driver": machine.driver,
        # Of a GPU's host they change nothing that is measured; on a CPU they are the machine.
        "threads": machine.threads if machine.device == "cpu" else None,
    }


def _one(runs: Sequence[Run], what: str, of: Callable[[Case], Mapping[str, Any]]) -> None:
    """What `of` says of each case, by a name, must be the same in all runs."""
    seen: dict[str, tuple[Any, Run]] = {}
    for run in runs:
        for case in run.cases.values():
            for name, value in of(case).items():
                other, first = seen.setdefault(name, (value, run))
                if value != other:
                    where = "" if name == "all" else f" of {name}"
                    if isinstance(value, Mapping):
                        # Of a long description, what differs.
                        key = differing(value, other)
                        where += f" ({key})"
                        value, other = value.get(key), other.get(key)
                    raise NotComparable(
                        f"{first.path} and {run.path} differ in the {what}{where}: {other} and "
                        f"{value}"
                    )
