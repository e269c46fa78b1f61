"""What a history says, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from diffusers_perf.catalog.metrics import GPU_BUSY, LATENCY
from diffusers_perf.history.changes import LEVEL_RUNS, Shape
from diffusers_perf.history.store import MAIN, Row, pins_of
from diffusers_perf.history.trends import Event, Range
from diffusers_perf.messages import history as messages
from diffusers_perf.messages.numbers import percent
from diffusers_perf.records.run import Run

BARS = "▁▂▃▄▅▆▇█"
SHOWN_RUNS = 30
CASES_MOST = 50
"""Lines of an issue."""
STEADIEST = (GPU_BUSY, LATENCY)
"""The metrics that a summary shows: the first that was measured."""


@dataclass(frozen=True, kw_only=True)
class HistoryLine:
    """One metric of one case in the newest runs of a machine's history."""

    case: str
    metric: str
    sparkline: str
    level: str
    """Median of the newest runs."""
    now: str
    """Of the run that is shown beside it."""


def history_lines(run: Run, rows: Sequence[Row]) -> tuple[HistoryLine, ...]:
    """A line for each case of the run that the history of its machine knows.

    From runs with the same pins that are as quick, since all others generate something else.
    """
    known: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        is_alike = row.machine == run.machine.name and row.quick == run.session.quick
        if row.label == MAIN and is_alike and row.valid:
            key = f"{row.case}/{row.model}/{row.weights}/{row.pins}"
            known.setdefault((key, row.metric), []).append(row.value)
    found = []
    for case in run.cases.values():
        seen = case.measurement
        key = f"{case.id}/{seen.model}/{seen.weights}/{pins_of(case)}"
        metric = next((m for m in STEADIEST if (key, m.name) in known), None)
        now = metric.of(seen) if metric else None
        if metric is None or now is None:
            continue
        values, unit = known[key, metric.name], metric.unit
        found.append(
            HistoryLine(
                case=case.id,
                metric=metric.name,
                sparkline=sparkline(values[-SHOWN_RUNS:]),
                level=unit.short(median(values[-LEVEL_RUNS:])),
                now=unit.short(now),
            )
        )
    return tuple(found)


def event_text(event: Event) -> str:
    """``ddim50-fp16 (sd15) GPU busy: step 0.6170 s → 0.6480 s (+5.0 %)``."""
    row, unit = event.after, event.after.unit
    levels = f"{unit.shown(event.level_before)} → {unit.shown(event.level_after)}"
    text = f"{row.case} ({row.model}) {row.metric}: {event.shape} {levels} ({percent(event.ratio)})"
    if event.shape is Shape.DRIFT:
        text += f", from {event.before.time:%Y-%m-%d} to {event.last.time:%Y-%m-%d}"
    return text


def issue(change: Range) -> str:
    """A commit range that made something worse, as the body of an issue."""
    return messages.issue(
        change.events[0].after.time,
        [f"{event_text(event)}: {event.cause.text}" for event in change.events[:CASES_MOST]],
        more=max(0, len(change.events) - CASES_MOST),
        command=change.command or "",
    )


def sparkline(values: Sequence[float]) -> str:
    """The values as a line of bars, lowest to highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if high == low:
        return BARS[0] * len(values)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (value - low) / (high - low))] for value in values)
