"""The page of a history: a chart per metric, what changed, and the numbers; one file that opens
anywhere.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from diffusers_perf.catalog.metrics import METRICS
from diffusers_perf.history.changes import LEVEL_RUNS, Shape
from diffusers_perf.history.store import COHORT, MEASURED, Row
from diffusers_perf.history.trends import Event, Range, Trend, ranges
from diffusers_perf.messages.numbers import percent
from diffusers_perf.records.baselines import MachineBaseline
from diffusers_perf.report.page import TEMPLATES, policy_for, template
from diffusers_perf.report.scale import Scale, Tick

Place = Callable[[Row], tuple[float, float]]
HEIGHT = 100.0
"""Charts are percent wide and high."""
DATES = 6
"""Labelled places on the axis of time."""
LEAST_SPAN = 0.04
"""A chart shows at least this share around its values, so that noise does not fill it."""
LATEST_RUNS = 30
"""Rows of a case's table."""
LABELS = {"machine", "workload", "model", "weights", "pins", "quick", "device"}
"""What cohorts of one chart have in common, or show elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One cohort in a chart."""

    number: int
    """From 1, in the order in which cohorts began."""
    path: str
    dots: str
    """Of SVG."""
    label: str
    """What is new about it."""
    left: float
    """Where it begins, in percent."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """An event in a chart."""

    left: float
    right: float
    """Equal to `left`, unless it is a drift."""
    mood: str
    shape: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One metric of one case."""

    trend: Trend
    lines: tuple[Line, ...]
    others: str
    """Dots of runs with other labels."""
    marks: tuple[Mark, ...]
    accepted: tuple[float, float, str] | None
    """Where the accepted baseline is, in percent from the left and the top, and its words."""
    ticks: tuple[Tick, ...]
    dates: tuple[Tick, ...]
    points: str
    """JSON of ``[left, top, value, number of the run]`` for each run, oldest first."""
    level: float
    change: float
    """The level now over the level at the beginning."""


@dataclass(frozen=True, kw_only=True)
class CasePart:
    """All charts of a case with a model on a machine."""

    machine: str
    name: str
    model: str
    """That ran, which can be another one than the workload's own."""
    charts: tuple[Chart, ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The newest runs: date, commit, then a value per head."""
    events: int


def render(found: Sequence[Trend], baselines: Mapping[str, MachineBaseline], *, source: str) -> str:
    """The page's HTML; `baselines` by the name of the machine. Nothing is fetched."""
    script = (TEMPLATES / "history.js").read_text(encoding="utf-8")
    all_rows = (row for trend in found for row in trend.rows)
    words = {row.run: _words(row) for row in sorted(all_rows, key=lambda row: row.time)}
    numbers = {run: number for number, run in enumerate(words)}
    cases = list(_cases(found, baselines, numbers))
    changed = ranges(found, shapes=(Shape.STEP, Shape.DRIFT, Shape.UNCONFIRMED))
    times = [row.time for trend in found for row in trend.rows]
    return template("history.html").render(
        cases=cases,
        changes=changed,
        outliers=sum(e.shape is Shape.OUTLIER for trend in found for e in trend.events),
        machines=sorted({case.machine for case in cases}),
        runs=len(words),
        words=json.dumps(list(words.values()), separators=(",", ":")),
        first=min(times, default=dt.datetime.now(dt.UTC)).date(),
        last=max(times, default=dt.datetime.now(dt.UTC)).date(),
        mood=_mood(changed),
        levels=_levels,
        policy=policy_for(script),
        script=script,
        source=source,
    )


def _mood(changed: Iterable[Range]) -> str:
    newest = next(iter(changed), None)
    return "plain" if newest is None else "bad" if newest.is_worse else "good"


def _levels(event: Event) -> str:
    unit = event.after.unit
    return (
        f"{unit.shown(event.level_before)} → {unit.shown(event.level_after)} "
        f"({percent(event.ratio)})"
    )


def _cases(
    found: Sequence[Trend], baselines: Mapping[str, MachineBaseline], numbers: Mapping[str, int]
) -> Iterator[CasePart]:
    noisy = {metric.name for metric in MEASURED}
    groups: dict[tuple[str, str, str], list[Trend]] = {}
    for trend in found:
        # Counters that never changed are in no chart.
        if trend.rows and (trend.metric in noisy or trend.events):
            key = (trend.machine, trend.case, trend.rows[0].model)
            groups.setdefault(key, []).append(trend)
    for (machine, name, model), trends in groups.items():
        charts = tuple(_chart(trend, baselines.get(machine), numbers) for trend in trends)
        heads, rows = _latest(trends)
        events = sum(len(trend.events) for trend in trends)
        yield CasePart(
            machine=machine,
            name=name,
            model=model,
            charts=charts,
            heads=heads,
            rows=rows,
            events=events,
        )


def _latest(trends: Sequence[Trend]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    by_run: dict[str, dict[str, Row]] = {}
    for trend in trends:
        for row in trend.rows:
            by_run.setdefault(row.run, {})[trend.metric] = row
    newest = sorted(by_run.values(), key=lambda rows: -next(iter(rows.values())).time.timestamp())
    # Other weights of the model, or another --quick, have a trend of their own.
    heads = tuple(dict.fromkeys(trend.metric for trend in trends))
    rows = []
    for values in newest[:LATEST_RUNS]:
        first = next(iter(values.values()))
        known = [values.get(head) for head in heads]
        cells = (row.unit.shown(row.value) if row else "–" for row in known)
        rows.append((f"{first.time:%Y-%m-%d}", first.commit[:12], *cells))
    return heads, tuple(rows)


def _chart(trend: Trend, baseline: MachineBaseline | None, numbers: Mapping[str, int]) -> Chart:
    rows = trend.rows
    times = [row.time.timestamp() for row in rows]
    x = Scale(low=times[0], high=max(times[-1], times[0] + 1), start=1, end=99)
    accepted = _accepted(trend, baseline)
    values = [row.value for row in rows if row.valid] or [rows[-1].value]
    shown = [*values, *([accepted[1]] if accepted else [])]
    low, high = min(shown), max(shown)
    pad = max(LEAST_SPAN * (abs(high) or 1) - (high - low), 0.2 * (high - low)) / 2
    y = Scale(low=low - pad, high=high + pad, start=HEIGHT, end=0)

    def place(row: Row) -> tuple[float, float]:
        top = min(max(y.at(row.value), 0.0), HEIGHT)
        return round(x.at(row.time.timestamp()), 2), round(top, 2)

    level = median([row.value for row in rows if row.valid][-LEVEL_RUNS:] or values)
    begin = median(values[:LEVEL_RUNS])
    return Chart(
        trend=trend,
        lines=tuple(_lines(trend, place)),
        others=_dots(place(row) for row in trend.others if times[0] <= row.time.timestamp()),
        marks=tuple(_marks(trend, x)),
        accepted=accepted
        and (
            min(max(x.at(accepted[0]), 0.0), 100.0),
            y.at(accepted[1]),
            accepted[2],
        ),
        ticks=tuple(Tick(at=y.at(value), label=trend.unit.shown(value)) for value in (low, high)),
        dates=tuple(_dates(times[0], times[-1], x)),
        points=json.dumps(
            [[*place(row), _value(row), numbers[row.run]] for row in rows], separators=(",", ":")
        ),
        level=level,
        change=level / begin if begin else 1.0,
    )


def _lines(trend: Trend, place: Place) -> Iterator[Line]:
    before: Row | None = None
    for number, line in enumerate(trend.lines, start=1):
        places = [place(row) for row in line]
        path = "M" + "L".join(f"{left} {top}" for left, top in places)
        yield Line(
            number=number,
            path=path,
            dots=_dots(places),
            label=_new(before, line[0]) if before else "",
            left=places[0][0],
        )
        before = line[-1]


def _new(before: Row, after: Row) -> str:
    """What differs between two cohorts, in few words."""
    changed = [n for n in COHORT if n not in LABELS and getattr(before, n) != getattr(after, n)]
    return ", ".join(
        name if name == "harness" else f"{name} {getattr(after, name)}" for name in changed
    )


def _marks(trend: Trend, x: Scale) -> Iterator[Mark]:
    for event in trend.events:
        left = x.at(event.after.time.timestamp())
        is_drift = event.shape is Shape.DRIFT
        yield Mark(
            left=left,
            right=x.at(event.last.time.timestamp()) if is_drift else left,
            mood="bad" if event.is_worse else "good",
            shape=event.shape,
            text=f"{event.shape} {percent(event.ratio)}",
        )


def _dots(places: Iterable[tuple[float, float]]) -> str:
    return "".join(f"M{left} {top}h0" for left, top in places)


def _dates(first: float, last: float, x: Scale) -> Iterator[Tick]:
    for number in range(DATES):
        at = first + (last - first) * number / (DATES - 1)
        label = f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d}"
        yield Tick(at=x.at(at), label=label)
        if last == first:
            return


def _value(row: Row) -> str:
    return row.unit.shown(row.value) + ("" if row.valid else ", interference")


def _words(row: Row) -> tuple[str, str]:
    """When a run was made, and from which commit and versions."""
    commit = f"commit {row.commit[:12]}, " if row.commit else ""
    return (
        f"{row.time:%Y-%m-%d %H:%M}: ",
        f", {commit}torch {row.torch}, diffusers {row.diffusers}",
    )


def _accepted(trend: Trend, baseline: MachineBaseline | None) -> tuple[float, float, str] | None:
    """Time, value and words of the baseline that was last accepted for this metric."""
    row = trend.rows[-1]
    key = f"{row.workload}/{row.model}/{row.weights}/{row.case.removeprefix(f'{row.workload}-')}"
    case = baseline.cases.get(key) if baseline else None
    field = next((metric.field for metric in METRICS if metric.name == trend.metric), "")
    if case is None or field not in case.measured:
        return None
    value = median(case.measured[field])
    date = dt.datetime.fromisoformat(case.accepted).replace(tzinfo=dt.UTC)
    words = f"baseline accepted {case.accepted}: {trend.unit.shown(value)}"
    return date.timestamp(), float(value), words
