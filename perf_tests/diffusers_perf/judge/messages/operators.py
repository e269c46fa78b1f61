"""The messages on what a case's code asks for, counted without a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Message
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.judge.messages.numbers import difference, label, most
from diffusers_perf.records.measurement import Count

SHOWN_MOST = 3


def not_counted(counter: str, source: str, *, rerun: Command) -> Message:
    return Message(
        what=f"{label(counter)} not counted, but has an accepted count",
        expected=source,
        command=rerun,
    )


def not_accepted(counter: str, *, accept: Command) -> Message:
    return Message(what=f"{label(counter)}: no accepted count", command=accept)


def changed(
    metric: Metric,
    status: Status,
    was: Count,
    now: Count,
    *,
    steps: int,
    kinds: Mapping[str, int],
    owners: Sequence[str],
    modules: Sequence[str],
    source: str,
    rerun: Command,
    accept: Command,
) -> Message:
    """A counter that rose or fell: by which kinds of it, in which classes and modules."""
    what = difference(metric.name, was=was, now=now, steps=steps).removesuffix(")")
    if len(kinds) == 1:
        what += f", all {next(iter(kinds))}"
    elif kinds:
        what += ", " + some([f"{kind} {count:+,}" for kind, count in kinds.items()])
    what += f", in {some(owners)})" if owners else ")"
    grown = status == Status.MORE_WORK
    measured = f"{now.total(steps):,}" + (f", in {some(modules)}" if modules else "")
    return Message(
        what=what,
        measured=measured,
        expected=f"{was.total(steps):,} ({source})",
        limit=most(metric, was, steps=steps) if grown else "",
        advice="reproduce it, or accept it if it is intended" if grown else "accept it",
        command=rerun if grown else accept,
    )


def uncounted() -> Message:
    return Message(
        what="operators could not be counted, but have accepted counts",
        advice="see the note at the end of the output",
    )


def some(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    if len(names) <= SHOWN_MOST:
        return ", ".join(names)
    return f"{', '.join(names[:SHOWN_MOST])} and {len(names) - SHOWN_MOST:,} more"
