"""Reads, writes and judges the counts that a person accepted: `baselines/structure.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.metrics import COUNTERS
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.counters import work
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages import operators as messages
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.judge.messages.run import other_versions
from diffusers_perf.records import baselines
from diffusers_perf.records.baselines import BadBaseline
from diffusers_perf.records.files import read_text, write_whole
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import Place

SCHEMA = 1
FILE = "structure.json"
ALL = "all"
"""The name of a counter's total beside its parts, in the file."""


Site = tuple[str, Place]
"""What happened, and where."""


class Counted(Protocol):
    """What a generation asks for: an `Observation`, or what a run's JSON kept of one."""

    @property
    def counters(self) -> Mapping[str, Count]: ...

    def where(self) -> dict[str, dict[str, Count]]: ...

    def sites(self) -> dict[str, dict[Site, Count]]: ...


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """One case of `baselines/structure.json`."""

    accepted: str
    """Date, ISO 8601."""
    reason: str
    versions: Mapping[str, str]
    counters: Mapping[str, Count]
    where: Mapping[str, Mapping[str, Count]]
    """As `Observation.where`."""


def load(folder: Path | None = None) -> dict[str, Accepted] | None:
    """What was accepted, by `key_of` a case; None if nothing. `BadBaseline` if unreadable."""
    path = (folder or baselines.FOLDER) / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(read_text(path))
        if content["schema"] != SCHEMA:
            raise BadBaseline(
                f"{path}: has schema {content['schema']!r}, this suite reads {SCHEMA}"
            )
        return {key: _accepted(line) for key, line in content["cases"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadBaseline(f"{path}: cannot be read ({type(error).__name__}: {error})") from None


def _accepted(line: Mapping[str, Any]) -> Accepted:
    counts = {
        name: {what: _count(pair) for what, pair in pairs.items()}
        for name, pairs in line["counters"].items()
    }
    return Accepted(
        accepted=str(line["accepted"]),
        reason=str(line["reason"]),
        versions=dict(line["versions"]),
        counters={name: pairs.pop(ALL) for name, pairs in counts.items()},
        where=counts,
    )


def _count(pair: Any) -> Count:
    fixed, per_step = pair
    if type(fixed) is not int or type(per_step) is not int:
        raise ValueError(f"{pair} is not [fixed, per step] in integers")
    return Count(fixed=fixed, per_step=per_step)


def save(cases: Mapping[str, Accepted], folder: Path | None = None) -> None:
    """Write the file, one line a counter."""
    blocks = []
    for key, case in sorted(cases.items()):
        head = {"accepted": case.accepted, "reason": case.reason, "versions": dict(case.versions)}
        lines = [f"   {json.dumps(n)}: {json.dumps(v)}" for n, v in head.items()]
        counters = [
            f"    {json.dumps(name)}: "
            + json.dumps(
                {
                    what: [count.fixed, count.per_step]
                    for what, count in {ALL: total, **case.where.get(name, {})}.items()
                },
                ensure_ascii=False,
            )
            for name, total in case.counters.items()
        ]
        lines.append('   "counters": {\n' + ",\n".join(counters) + "\n   }")
        blocks.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
    text = f'{{\n "schema": {SCHEMA},\n "cases": {{\n' + ",\n".join(blocks) + "\n }\n}\n"
    write_whole((folder or baselines.FOLDER) / FILE, text)


def key_of(case: Case, model: str) -> str:
    """What a case's accepted counts are keyed by; weights change nothing about structure."""
    return f"{case.workload.name}/{model}/{case.name}"


def judge(
    name: str,
    now: Counted,
    was: Accepted,
    *,
    steps: int,
    versions: Mapping[str, str],
    rerun: Command,
    model: str,
) -> list[Finding]:
    """What changed against the accepted counts: more is a regression, fewer asks to be accepted.

    `versions` are this run's; `rerun` runs the case alone.
    """
    source = f"baselines/{FILE}, accepted {was.accepted}"
    source += other_versions(was.versions, versions)
    accept = messages.accept(model)
    findings = []
    for counter in was.counters:
        if counter not in now.counters:
            message = messages.not_counted(counter, source, rerun=rerun)
            findings.append(Finding.of(Status.INCONCLUSIVE, counter, name, message))
    for counter, count in now.counters.items():
        before = was.counters.get(counter)
        if before is None:
            message = messages.not_accepted(counter, accept=accept)
            findings.append(Finding.of(Status.NEW, counter, name, message))
            continue
        metric = COUNTERS[counter]
        status = work(metric, was=before, now=count, steps=steps)
        if status == Status.SAME:
            continue
        kinds = _changed(counter, now, was, steps=steps, more=status == Status.MORE_WORK)
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
    return findings


def uncounted(name: str) -> Finding:
    """A case that has accepted counts and could not be counted."""
    return Finding.of(Status.INCONCLUSIVE, "structure", name, messages.uncounted())


def _changed(
    counter: str, now: Counted, was: Accepted, *, steps: int, more: bool
) -> dict[str, int]:
    """The kinds of it that rose (fell), by how much, the most first: ``float16 → float32 in
    Linear``.
    """
    before, after = was.where.get(counter, {}), now.where().get(counter, {})
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
