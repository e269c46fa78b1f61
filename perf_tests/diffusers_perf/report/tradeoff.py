"""The chart of speed against image and memory: positions and words, which `charts.html` draws.

Across, positions are in percent of a panel's width; down, in pixels of its fixed height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.metrics import GPU_BUSY, LATENCY
from diffusers_perf.messages import report as messages
from diffusers_perf.records.measurement import IDENTICAL_DB
from diffusers_perf.report import figures
from diffusers_perf.report.content import CasePart, WorkloadPart
from diffusers_perf.report.scale import Scale, Tick, number_ticks, time_ticks

HEIGHT = 280
"""Of a panel's plot, in pixels."""
WIDE, NARROW = 400, 265
"""Least widths of a panel's plot, in pixels, on a wide and on a narrow window. Labels are placed
for these; in a wider plot the points are further apart."""
LABELS_MOST = 16
"""In one panel. More of them would hide which point they belong to."""
LETTER, LINE = 6.6, 14.0
"""Of a label, in pixels: a little more than the widest letters take, and the height."""
LABEL_LETTERS = 26
TOGETHER = 7
"""Points closer than this many pixels have one label."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """The name of a point."""

    x: float
    """The point's place. The label is `dx` pixels away from it."""
    dx: float
    y: float
    anchor: str
    """Which end of the label that is, as SVG's ``text-anchor``."""
    text: str
    front: bool


@dataclass(frozen=True, kw_only=True)
class Point:
    x: float
    y: float
    front: bool
    words: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One measure against time."""

    title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]
    """Corners of the line along the front."""
    wide: tuple[Label, ...]
    narrow: tuple[Label, ...]


@dataclass(frozen=True, kw_only=True)
class TradeoffChart:
    label: str
    time: str
    """Which time the horizontal axis shows."""
    panels: tuple[Panel, ...]


def tradeoff(workload: WorkloadPart) -> TradeoffChart | None:
    """Speed against image, and against memory where it was measured; None for fewer than two."""
    cases = workload.timed
    if len(cases) < 2:
        return None
    return TradeoffChart(
        label=messages.tradeoff_chart(workload.name),
        time=(GPU_BUSY if workload.on_gpu else LATENCY).name,
        panels=tuple(panel for panel in (_image(cases), _memory(cases)) if panel),
    )


Values = Sequence[tuple[CasePart, float]]


def _image(cases: Sequence[CasePart]) -> Panel | None:
    """PSNR, or the farthest step's ratio. Values at the cap have a line of their own, above all."""
    values = [
        (case, IDENTICAL_DB if case.name == REFERENCE else case.farthest_db) for case in cases
    ]
    known = [(case, value) for case, value in values if value is not None]
    if not known:
        return None
    below = [value for _, value in known if value < IDENTICAL_DB] or [50.0]
    span = max(12.0, max(below) - min(below))
    cap = max(below) + 0.5 * span
    scale = Scale(low=min(below) - 0.3 * span, high=cap + 0.25 * span, start=HEIGHT, end=0)
    highest = scale.at(max(below) + 0.2 * span)
    ticks = [tick for tick in number_ticks(scale, most=8) if tick.at >= highest]
    ticks.append(Tick(at=scale.at(cap), label=f"≥ {IDENTICAL_DB:g}"))
    front = [(case, value) for case, value in known if case.front]
    # Some are on the front because of their memory, which this panel does not show.
    line = [
        (case, value)
        for case, value in front
        if not any(
            o.measurement.cost_s <= case.measurement.cost_s and better > value
            for o, better in front
        )
    ]
    return _panel(
        messages.PSNR_AXIS,
        known,
        heights=[scale.at(min(value, cap)) for _, value in known],
        ticks=ticks,
        words=[figures.decibels(value) for _, value in known],
        line=[case for case, _ in line],
    )


def _memory(cases: Sequence[CasePart]) -> Panel | None:
    known = [(case, bytes_) for case in cases if (bytes_ := case.measurement.peak_memory_bytes)]
    if not known:
        return None
    values = [bytes_ / 2**30 for _, bytes_ in known]
    scale = Scale(low=0, high=1.18 * max(values), start=HEIGHT, end=0)
    return _panel(
        messages.MEMORY_AXIS,
        known,
        heights=list(map(scale.at, values)),
        ticks=number_ticks(scale, most=8),
        words=[figures.mebibytes(bytes_) for _, bytes_ in known],
        line=(),
    )


def _panel(
    title: str,
    values: Values,
    *,
    heights: Sequence[float],
    ticks: Sequence[Tick],
    words: Sequence[str],
    line: Sequence[CasePart],
) -> Panel:
    times = [case.measurement.cost_s for case, _ in values]
    span = (max(times) - min(times)) or max(times)
    across = Scale(low=max(0.0, min(times) - 0.12 * span), high=max(times) + 0.16 * span)
    points = [
        Point(
            x=across.at(case.measurement.cost_s),
            y=y,
            front=case.front,
            words=f"{case.label}: {figures.seconds(case.measurement.cost_s)}, {said}",
        )
        for (case, _), y, said in zip(values, heights, words, strict=True)
    ]
    places = {case.id: point for (case, _), point in zip(values, points, strict=True)}
    corners = sorted({(places[case.id].x, places[case.id].y) for case in line})
    names = [case.name for case, _ in values]
    return Panel(
        title=title,
        x_ticks=time_ticks(across, most=6),
        y_ticks=tuple(ticks),
        points=tuple(points),
        front=tuple(corners),
        wide=tuple(_labels(points, names, width=WIDE)),
        narrow=tuple(_labels(points, names, width=NARROW)),
    )


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def _labels(points: Sequence[Point], names: Sequence[str], *, width: float) -> list[Label]:
    """Names beside points where there is room, the front's first. The table has all of them."""
    places = [(point.x * width / 100, point.y) for point in points]
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    order = sorted(range(len(points)), key=lambda i: (not points[i].front, i))
    labels: list[Label] = []
    named: set[int] = set()
    for index in order[:LABELS_MOST]:
        if index in named:
            continue
        x, y = places[index]
        here = [i for i in order if i not in named and _near(places[i], places[index])]
        named.update(here)
        text = short(names[index], LABEL_LETTERS)
        text += f" and {len(here) - 1} more" if len(here) > 1 else ""
        length = LETTER * len(text) + 2
        for anchor, dx, dy in (
            ("start", 9, 0),
            ("end", -9, 0),
            ("middle", 0, -LINE),
            ("middle", 0, LINE),
            ("start", 5, -LINE),
            ("start", 5, LINE),
            ("end", -5, -LINE),
            ("end", -5, LINE),
        ):
            left = x + dx - {"start": 0.0, "middle": length / 2, "end": length}[anchor]
            box = (left, y + dy - LINE / 2, left + length, y + dy + LINE / 2)
            inside = box[0] > 0 and box[2] < width + 12 and box[1] > 0 and box[3] < HEIGHT
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                point = points[index]
                labels.append(
                    Label(x=point.x, dx=dx, y=y + dy, anchor=anchor, text=text, front=point.front)
                )
                break
    return labels


def short(name: str, most: int) -> str:
    """A name, cut to this many letters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _near(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(one[0] - other[0]) < TOGETHER and abs(one[1] - other[1]) < TOGETHER


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
