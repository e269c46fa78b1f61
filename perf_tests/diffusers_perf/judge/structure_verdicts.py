"""Judges what a case's code asks for against the accepted counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.metrics import COUNTERS, PYTHON_CALLS
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.counters import count_status
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages import operators as messages
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.judge.messages.numbers import other_versions
from diffusers_perf.records.baselines import OperatorBaseline
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import OperatorCount, Place

CALLED = ("python", "torch", "diffusers", "transformers")
"""Whose versions decide how many Python functions a generation calls."""
Site = tuple[str, Place]
"""What happened, and where."""


class Counted(Protocol):
    """What a generation asks for: an `OperatorCounts`, or what a run's JSON kept of one."""

    @property
    def counters(self) -> Mapping[str, Count]: ...

    def where(self) -> dict[str, dict[str, Count]]: ...

    def sites(self) -> dict[str, dict[Site, Count]]: ...


def key_of(case: Case, model: str) -> str:
    """What a case's accepted counts are keyed by; weights change nothing about structure."""
    return f"{case.workload.name}/{model}/{case.name}"


def judge(
    name: str,
    now: Counted,
    was: OperatorBaseline,
    *,
    steps: int,
    versions: Mapping[str, str],
    rerun: Command,
    accept: Command,
    file: str,
    python_calls: Count | None = None,
) -> list[Finding]:
    """What changed against the accepted counts: more is a regression, fewer asks to be accepted.

    `versions` are this run's; `file` has the accepted counts; `rerun` runs the case alone,
    `accept` accepts what it asks for.
    `python_calls` are judged by those that the same versions made.
    """
    source = f"{file}, accepted {was.accepted}"
    source += other_versions(was.versions, versions)
    findings = []
    for counter in was.counters:
        if counter not in now.counters:
            message = messages.not_counted(counter, source, rerun=rerun)
            findings.append(Finding.of(Status.INCONCLUSIVE, counter, name, message))
    for counter, count in now.counters.items():
        accepted = was.counters.get(counter)
        if accepted is None:
            message = messages.not_accepted(counter, accept=accept)
            findings.append(Finding.of(Status.NEW, counter, name, message))
            continue
        before, metric = accepted.total, COUNTERS[counter]
        status = count_status(metric, was=before, now=count, steps=steps)
        if status == Status.SAME:
            continue
        more = status == Status.MORE_WORK
        kinds = _changed(counter, now, accepted, steps=steps, more=more)
        message = messages.changed(
            metric,
            status,
            before,
            count,
            steps=steps,
            kinds=_summed(kinds),
            owners=list(dict.fromkeys(_owner(kind) for kind in kinds)),
            modules=_modules(counter, now, kinds, steps=steps),
            source=source,
            rerun=rerun,
            accept=accept,
        )
        findings.append(Finding.of(status, counter, name, message))
    calls = was.python_calls
    if calls is not None and python_calls is not None and _same_code(was.versions, versions):
        status = count_status(PYTHON_CALLS, was=calls, now=python_calls, steps=steps)
        if status != Status.SAME:
            message = messages.changed(
                PYTHON_CALLS,
                status,
                calls,
                python_calls,
                steps=steps,
                kinds={},
                owners=(),
                modules=(),
                source=source,
                rerun=rerun,
                accept=accept,
            )
            findings.append(Finding.of(status, PYTHON_CALLS.name, name, message))
    return findings


def _same_code(was: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether Python and the libraries make as many calls: of Python, any release of a version."""

    def of(versions: Mapping[str, str]) -> list[str]:
        python, *libraries = (versions.get(name, "") for name in CALLED)
        return [python.rpartition(".")[0], *libraries]

    return of(was) == of(now)


def uncounted(name: str) -> Finding:
    """A case that has accepted counts and could not be counted."""
    return Finding.of(Status.INCONCLUSIVE, Subject.OPERATORS, name, messages.uncounted())


def _changed(
    counter: str, now: Counted, was: OperatorCount, *, steps: int, more: bool
) -> dict[str, int]:
    """The kinds of it that rose (fell), by how much, the most first: ``float16 → float32 in
    Linear``. Empty for a run's JSON, which says how much and not where.
    """
    before, after = was.where, now.where().get(counter, {})
    if not after:
        return {}
    none = Count(fixed=0, per_step=0)
    change = {
        kind: after.get(kind, none).total(steps) - before.get(kind, none).total(steps)
        for kind in {**before, **after}
    }
    moved = {kind: n for kind, n in change.items() if (n > 0 if more else n < 0)}
    return dict(sorted(moved.items(), key=lambda item: -abs(item[1])))


def _summed(kinds: Mapping[str, int]) -> dict[str, int]:
    """Without the class that each happened in."""
    summed = Counter[str]()
    for kind, number in kinds.items():
        summed[kind.rsplit(" in ", 1)[0]] += number
    return dict(summed)


def _owner(kind: str) -> str:
    return kind.rsplit(" in ", 1)[1]


def _modules(counter: str, now: Counted, kinds: Mapping[str, int], *, steps: int) -> list[str]:
    """Where these kinds happen, the most often first."""
    paths = Counter[str]()
    for (part, place), count in now.sites().get(counter, {}).items():
        if f"{part} in {place.owner}" in kinds:
            paths[place.path] += count.total(steps)
    return [path for path, _ in paths.most_common()]
