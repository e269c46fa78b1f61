"""From the rows of a store to trends: per case and metric, a line per cohort, and what changed."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from diffusers_perf.catalog.metric import Unit
from diffusers_perf.catalog.metrics import COUNTERS
from diffusers_perf.history.causes import Cause, cause_of
from diffusers_perf.history.changes import (
    LEVEL_RUNS,
    ChangePoint,
    Shape,
    changes,
    count_changes,
    differ,
)
from diffusers_perf.history.store import CONTROL, MAIN, MEASURED, Row

ALERT_DAYS = 30
"""An older change is history, and makes no new issue."""
JUDGED = (*(metric.name for metric in MEASURED), *COUNTERS)
"""What has change points. Other counters explain a number, and are shown on demand."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change of one metric of one case, between two runs."""

    shape: Shape
    before: Row
    """Of the last run before it."""
    after: Row
    """Of the first run after it."""
    last: Row
    """Of the last run that it concerns."""
    level_before: float
    level_after: float
    cause: Cause

    @property
    def ratio(self) -> float:
        """After over before; infinite from zero."""
        if self.level_before == 0:
            return math.inf if self.level_after else 1.0
        return self.level_after / self.level_before

    @property
    def is_worse(self) -> bool:
        return self.level_after > self.level_before

    @property
    def commits(self) -> tuple[str, str]:
        after = self.last if self.shape is Shape.DRIFT else self.after
        return self.before.commit, after.commit


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One metric of one case on one kind of machine."""

    machine: str
    case: str
    metric: str
    unit: Unit
    lines: tuple[tuple[Row, ...], ...]
    """A line per cohort, in the order in which they began; runs of other labels are not in them."""
    others: tuple[Row, ...]
    """Runs of pull requests, laptops and controls."""
    events: tuple[Event, ...]
    """Oldest first."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All runs of the lines, oldest first."""
        return tuple(sorted((row for line in self.lines for row in line), key=lambda row: row.time))


@dataclass(frozen=True, kw_only=True)
class Range:
    """Everything that changed between the same two commits, for the same cause."""

    good: str
    """The last commit before it; empty where git did not know it."""
    bad: str
    """The first commit after it."""
    cause: Cause
    events: list[Event] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.good[:12] or 'unknown'}..{self.bad[:12] or 'unknown'}"

    @property
    def is_worse(self) -> bool:
        return any(event.is_worse for event in self.events)

    @property
    def command(self) -> str:
        """The bisection of the metric that needs the fewest runs; empty if there is none."""
        for event in sorted(
            self.events, key=lambda event: (event.after.unit is not Unit.COUNT, -event.ratio)
        ):
            command = event.cause.command(good=self.good, bad=self.bad, row=event.after)
            if command:
                return command
        return ""


def trends(rows: Sequence[Row]) -> list[Trend]:
    """The trends of all judged metrics, of rows that are sorted by time."""
    groups: dict[tuple[str | bool, ...], list[Row]] = defaultdict(list)
    for row in rows:
        # What differs here is another thing that was measured, and not a change of it.
        key = (row.machine, row.case, row.model, row.weights, row.pins, row.quick, row.metric)
        groups[key].append(row)
    found = [_trend(group) for group in groups.values() if group[0].metric in JUDGED]
    order = {name: number for number, name in enumerate(JUDGED)}
    return sorted(found, key=lambda trend: (trend.machine, trend.case, order[trend.metric]))


def ranges(found: Iterable[Trend], *, shapes: Iterable[Shape] = Shape) -> list[Range]:
    """The events of these shapes by commit range and cause, the newest first."""
    wanted, groups = set(shapes), dict[tuple[str, str, Cause], Range]()
    events = [event for trend in found for event in trend.events if event.shape in wanted]
    for event in sorted(events, key=lambda event: event.after.time, reverse=True):
        key = (*event.commits, event.cause)
        one = Range(good=event.commits[0], bad=event.commits[1], cause=event.cause)
        groups.setdefault(key, one).events.append(event)
    return list(groups.values())


def red(found: Iterable[Trend]) -> list[Event]:
    """What the newest run of each machine failed, against the last runs that passed: by case, the
    metric that is furthest from its level.
    """
    groups: dict[tuple[str, str], list[Trend]] = defaultdict(list)
    for trend in found:
        if trend.rows:
            groups[trend.machine, trend.case].append(trend)
    newest: dict[str, dt.datetime] = {}
    for (machine, _), own in groups.items():
        times = [trend.rows[-1].time for trend in own]
        newest[machine] = max(*times, newest.get(machine, times[0]))
    worst = []
    for (machine, _), own in groups.items():
        current = [trend for trend in own if trend.rows[-1].time == newest[machine]]
        failed = [event for trend in current if (event := _failed(trend)) is not None]
        if failed:
            worst.append(max(failed, key=lambda event: event.ratio))
    return worst


def _failed(trend: Trend) -> Event | None:
    now = trend.rows[-1]
    passed = [row for row in trend.rows[:-1] if row.status.passes and row.valid]
    if now.status.passes or not passed:
        return None
    controls = [row for row in trend.others if row.label == CONTROL and _counts(row)]
    return _event(Shape.UNCONFIRMED, passed, [now], controls)


def alerts(found: Sequence[Trend]) -> list[Range]:
    """Commit ranges in which a metric became worse for good, seen in the newest `ALERT_DAYS`."""
    changed = [r for r in ranges(found, shapes=(Shape.STEP, Shape.DRIFT)) if r.is_worse]
    newest = max((trend.rows[-1].time for trend in found if trend.rows), default=None)
    if newest is None:
        return []
    since = newest - dt.timedelta(days=ALERT_DAYS)
    recent = [r for r in changed if any(event.last.time >= since for event in r.events)]
    merged: dict[str, Range] = {}
    for one in recent:
        if one.name in merged:
            merged[one.name].events.extend(one.events)
        else:
            merged[one.name] = one
    return list(merged.values())


def _trend(group: Sequence[Row]) -> Trend:
    first = group[0]
    lines: dict[str, list[Row]] = {}
    for row in group:
        if row.label == MAIN:
            lines.setdefault(row.cohort, []).append(row)
    others = tuple(row for row in group if row.label != MAIN)
    controls = [row for row in others if row.label == CONTROL and _counts(row)]
    valid = {cohort: [row for row in line if _counts(row)] for cohort, line in lines.items()}
    events: list[Event] = []
    segments: list[list[Sequence[Row]]] = []
    for line in filter(None, valid.values()):
        own = list(_events(line, controls))
        events += own
        settled = [line.index(e.last) for e in own if e.shape in (Shape.STEP, Shape.DRIFT)]
        segments.append([line[low:high] for low, high in pairwise([0, *settled, len(line)])])
    events += _between(segments, controls)
    return Trend(
        machine=first.machine,
        case=first.case,
        metric=first.metric,
        unit=first.unit,
        lines=tuple(tuple(line) for line in lines.values()),
        others=others,
        events=tuple(sorted(events, key=lambda event: event.after.time)),
    )


def _counts(row: Row) -> bool:
    """Whether a row is judged: nothing interfered, and no noisy metric can be 0."""
    return row.valid and (row.unit is Unit.COUNT or row.value > 0)


def _events(line: Sequence[Row], controls: Sequence[Row]) -> Iterator[Event]:
    """Within one cohort."""
    values = [row.value for row in line]
    is_counter = bool(line) and line[0].unit is Unit.COUNT
    found = count_changes(values) if is_counter else changes(values)
    for change in found:
        # A drift is caused by what happened during all of it.
        before, after = line[: max(change.at, 1)], line[change.at :]
        yield _event(change.shape, before, after, controls, change=change, line=line)


def _between(
    cohorts: Sequence[Sequence[Sequence[Row]]], controls: Sequence[Row]
) -> Iterator[Event]:
    """Where a cohort begins, against the one that was measured last before it; each is cut into
    its levels.
    """
    for own in cohorts:
        after, start = own[0], own[0][0].time
        earlier = [
            [row for row in level if row.time < start]
            for other in cohorts
            if other is not own
            for level in other
        ]
        before = max(filter(None, earlier), key=lambda rows: rows[-1].time, default=None)
        if before is None:
            continue
        was, now = [row.value for row in before], [row.value for row in after]
        is_counter = after[0].unit is Unit.COUNT
        if was[-1] != now[0] if is_counter else differ(was, now):
            yield _event(Shape.STEP, before, after, controls)


def _event(
    shape: Shape,
    before: Sequence[Row],
    after: Sequence[Row],
    controls: Sequence[Row],
    *,
    change: ChangePoint | None = None,
    line: Sequence[Row] = (),
) -> Event:
    was, now = before[-LEVEL_RUNS:], after[:LEVEL_RUNS]
    exact = after[0].unit is Unit.COUNT
    if change is not None:
        levels = change.before, change.after
    elif exact:
        levels = was[-1].value, now[0].value
    else:
        levels = median(row.value for row in was), median(row.value for row in now)
    if shape in (Shape.OUTLIER, Shape.UNCONFIRMED) and change is not None:
        now = line[change.at : change.last + 1]
    last = line[change.last] if change is not None else after[0]
    return Event(
        shape=shape,
        before=before[-1],
        after=after[0],
        last=last,
        level_before=levels[0],
        level_after=levels[1],
        cause=cause_of(shape, was, now, last, controls),
    )
