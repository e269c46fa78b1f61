"""Cases that gave no measurement, and those that a run lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from diffusers_perf.catalog.status import Status
from diffusers_perf.messages import records as messages
from diffusers_perf.records.quantities import Record


class Untimed(Record, frozen=True, kw_only=True):
    """A case that gave no measurement."""

    id: str
    status: Status
    """``skipped``, ``error``, ``not applied``, or ``invalid`` if it was interrupted; of those that
    `missing` finds ``missing`` or ``invalid``."""
    sentence: str
    """Why."""
    by_choice: bool = False
    """Skipped because an optional package is not installed: nothing is lost."""


def parts_of(key: str) -> tuple[str, str, str]:
    """The workload, the model (in a machine's baseline with its weights) and the case of a key."""
    workload, rest = key.split("/", 1)
    # A model can be called owner/name.
    source, case = rest.rsplit("/", 1)
    return workload, source, case


def missing(
    accepted: Iterable[str],
    *,
    weights: Collection[str],
    measured: Collection[str],
    untimed: Sequence[Untimed],
    expected: Sequence[str],
    whole: bool,
    not_selected: Collection[str] = (),
) -> tuple[Untimed, ...]:
    """The cases that a run lost: ``missing``, or ``invalid`` where it was interrupted before it
    got there.

    `accepted` are the keys of the machine's baseline; those on these `weights` (``model/weights``)
    count. `measured`, `expected` and `not_selected` are ids. Under `whole` none were selected by
    name: what the baseline knows and is no longer declared is missing then.
    """
    known = []
    for key in accepted:
        workload, source, case = parts_of(key)
        if source in weights:
            known.append(f"{workload}-{case}")
    skipped = [case for case in untimed if case.status == Status.SKIPPED]
    lost = [
        Untimed(
            id=case.id,
            status=Status.MISSING,
            sentence=messages.skipped(case.id, case.sentence.removeprefix(f"{case.id}: ")),
        )
        for case in skipped
        if case.id in known and not case.by_choice
    ]
    there = {*measured, *(case.id for case in untimed)}
    interrupted = any(case.status == Status.INVALID for case in untimed)
    lost += [
        Untimed(
            id=name,
            status=Status.INVALID if interrupted else Status.MISSING,
            sentence=messages.not_reached(name, interrupted=interrupted),
        )
        for name in expected
        if name not in there
    ]
    lost += [
        Untimed(
            id=name,
            status=Status.MISSING,
            sentence=messages.not_declared(name),
        )
        for name in known
        if whole and name not in there and name not in expected and name not in not_selected
    ]
    return tuple(lost)
