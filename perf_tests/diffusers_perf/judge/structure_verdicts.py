"""Reads, writes and judges the counts that a person accepted: `baselines/structure.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.metrics import COUNTERS
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.counters import work
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages import difference, most
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


def accepting(model: str) -> str:
    """The command that accepts what is counted of a model's cases."""
    return f'python -m ci structure --model {model} --write --reason "..."'


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
    again: str,
    accept: str,
) -> list[Finding]:
    """What changed against the accepted counts: more is a regression, fewer asks to be accepted.

    `versions` are this run's; `again` is the command that runs the case alone, `accept` the one
    that accepts its counts.
    """
    others = [
        f"{package} {was.versions[package]}, this is {version}"
        for package, version in versions.items()
        if was.versions.get(package, version) != version
    ]
    source = f"baselines/{FILE}, accepted {was.accepted}"
    source += f"; made with {' and '.join(others)}" if others else ""
    findings = [
        Finding(
            status=Status.INCONCLUSIVE,
            metric=counter,
            what=f"{name}: {counter.replace('_', ' ')} were not counted, and {source} has them",
            next=again,
        )
        for counter in was.counters
        if counter not in now.counters
    ]
    for counter, count in now.counters.items():
        before = was.counters.get(counter)
        if before is None:
            findings.append(
                Finding(
                    status=Status.NEW,
                    metric=counter,
                    what=f"{name}: nobody accepted how many {counter.replace('_', ' ')} it takes",
                    next=accept,
                )
            )
            continue
        status = work(COUNTERS[counter], was=before, now=count, steps=steps)
        if status == Status.SAME:
            continue
        grown = status == Status.MORE_WORK
        said = difference(counter, was=before, now=count, steps=steps).removesuffix(")")
        kinds, modules = _changed(counter, now, was, steps=steps, more=grown)
        findings.append(
            Finding(
                status=status,
                metric=counter,
                what=f"{name}: {said}{kinds})",
                measured=f"{count.total(steps):,}{modules}",
                expected=f"{before.total(steps):,} ({source})",
                limit=most(COUNTERS[counter], before, steps=steps) if grown else "",
                next=f"{again}; if it is meant, {accept}" if grown else f"keep it: {accept}",
            )
        )
    return findings


def uncounted(name: str) -> Finding:
    """A case whose code there are accepted counts of, and which could not be counted."""
    return Finding(
        status=Status.INCONCLUSIVE,
        metric="structure",
        what=f"{name}: its code could not be counted, and there are accepted counts to hold it to",
        next="see the note at the end",
    )


def _changed(
    counter: str, now: Counted, was: Accepted, *, steps: int, more: bool
) -> tuple[str, str]:
    """What kinds of it changed most and in which classes, then in which modules."""
    before, after = was.where.get(counter, {}), now.where().get(counter, {})
    none = Count(fixed=0, per_step=0)
    change = {
        kind: after.get(kind, none).total(steps) - before.get(kind, none).total(steps)
        for kind in {**before, **after}
    }
    grown = {kind: n for kind, n in change.items() if (n > 0 if more else n < 0)}
    if not grown:
        return "", ""
    what, owners = Counter[str](), dict[str, None]()
    for kind, number in sorted(grown.items(), key=lambda item: -abs(item[1])):
        part, owner = kind.rsplit(" in ", 1)
        what[part] += number
        owners[owner] = None
    if len(what) == 1:
        kinds = f", all {next(iter(what))}"
    else:
        kinds = ", " + _some([f"{part} {number:+,}" for part, number in what.items()])
    kinds += f", in {_some(list(owners))}"
    paths = Counter[str]()
    for (part, place), count in now.sites().get(counter, {}).items():
        if f"{part} in {place.owner}" in grown:
            paths[place.path] += count.total(steps)
    return kinds, f", in {_some([path for path, _ in paths.most_common()])}" if paths else ""


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"
