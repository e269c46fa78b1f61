"""Which runs may be compared with each other: of one machine, weights and stopwatch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.judge.messages import comparable as messages
from diffusers_perf.records.run import CaseRecord, Run


class NotComparable(Refusal):
    """Runs that say nothing about each other; one sentence says why."""


def check(base: Sequence[Run], head: Sequence[Run]) -> None:
    """`NotComparable` unless the i-th runs of each side make a pair. Versions may differ."""
    if len(base) != len(head) or not base:
        raise NotComparable(messages.unequal(len(base), len(head)))
    first = base[0]
    for side in (base, head):
        for run in side:
            if not run.machine.is_like(side[0].machine):
                raise NotComparable(messages.side_of_two_machines(run.path, side[0].path))
    there, here = (_hardware(side[0]) for side in (base, head))
    for what, value in there.items():
        if here[what] != value:
            raise NotComparable(messages.hardware(what, value, here[what]))
    for run in (*base, *head):
        ours, theirs = run.session.harness_version, first.session.harness_version
        if ours != theirs:
            raise NotComparable(messages.harness(run.path, ours, first.path, theirs))
        if run.session.quick != first.session.quick:
            quick, whole = (run, first) if run.session.quick else (first, run)
            raise NotComparable(messages.quick(quick.path, whole.path))
    runs = (*base, *head)
    _one(runs, "weights", lambda case: {case.measurement.workload: _weights(case)})
    same_workloads(runs)
    _one(runs, "number of rounds", lambda case: {case.id: len(case.measurement.rounds_s)})


def same_workloads(runs: Sequence[Run]) -> None:
    """`NotComparable` unless what is called by one name generates the same in all runs."""
    _one(runs, "workload", lambda case: {case.measurement.workload: case.workload})


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> str | None:
    """The first name under which two workloads, as records say them, are not the same."""
    return next((name for name in {**one, **other} if one.get(name) != other.get(name)), None)


def _weights(case: CaseRecord) -> str:
    return f"{case.measurement.model} ({case.measurement.weights})"


def _hardware(run: Run) -> dict[str, object]:
    machine = run.machine
    return {
        "device": machine.device,
        "machine": machine.name,
        "memory": machine.memory_bytes,
        "driver": machine.driver,
        # Of a GPU's host they change nothing that is measured; on a CPU they are the machine.
        "threads": machine.threads if machine.device == "cpu" else None,
    }


def _one(runs: Sequence[Run], what: str, of: Callable[[CaseRecord], Mapping[str, object]]) -> None:
    """What `of` says of each case, by a name, must be the same in all runs."""
    seen: dict[str, tuple[object, Run]] = {}
    for run in runs:
        for case in run.cases.values():
            for name, value in of(case).items():
                other, first = seen.setdefault(name, (value, run))
                if value != other:
                    where = f" of {name}"
                    if isinstance(value, Mapping) and isinstance(other, Mapping):
                        # Of a long description, what differs.
                        key = differing(value, other)
                        where += f" ({key})"
                        value, other = value.get(key), other.get(key)
                    raise NotComparable(
                        messages.differs(first.path, run.path, what + where, other, value)
                    )
