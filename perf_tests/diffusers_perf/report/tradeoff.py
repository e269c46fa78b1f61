"""The chart of speed against image against memory."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.records.pixels import IDENTICAL_DB
from diffusers_perf.report.content import CasePart, WorkloadPart
from diffusers_perf.report.drawing import (
    GREEN,
    INK,
    LINE,
    MUTED,
    NARROW,
    PAPER,
    WIDE,
    Chart,
    axes_of,
    chart,
    figure_of,
    short,
)


def pareto(workload: WorkloadPart) -> Chart | None:
    """Speed against image, and against memory; those that nothing beats are filled."""
    cases = [case for case in workload.timed if case.cost_s is not None]
    if len(cases) < 2:
        return None
    return chart(
        f"{workload.name}: speed against image and memory",
        lambda narrow: _pareto(workload, cases, narrow=narrow),
    )


def closeness_of(case: CasePart) -> float | None:
    """PSNR; of the reference itself, as identical."""
    return IDENTICAL_DB if case.seen.name == REFERENCE else case.seen.psnr_db


def _pareto(workload: WorkloadPart, cases: Sequence[CasePart], *, narrow: bool) -> Figure:
    memory = any(case.seen.peak_memory_bytes for case in cases)
    panels = 2 if memory else 1
    width = NARROW if narrow else (WIDE if memory else WIDE * 0.62)
    height = 300.0 if narrow else 340.0
    figure = figure_of(width, height * (panels if narrow else 1) + 8)
    total = figure.get_size_inches()[1] * 72
    time = "GPU busy" if workload.on_gpu else "latency"
    for panel in range(panels):
        if narrow:
            axes = axes_of(
                figure,
                left=46,
                right=14,
                top=22 + panel * height,
                bottom=total - (panel + 1) * height + 42,
            )
        else:
            share = width / panels
            axes = axes_of(
                figure,
                left=54 + panel * share,
                right=18 + (panels - 1 - panel) * share,
                top=26,
                bottom=44,
            )
        axes.spines["left"].set_visible(True)
        axes.grid(color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"{time}, seconds (left is faster)")
        title = (
            "image: PSNR in dB, up is closer" if panel == 0 else "peak memory in GiB, down is less"
        )
        axes.set_title(title, loc="left", size=12, color=INK, weight="bold")
        points = [
            (case.cost_s or 0.0, value, case)
            for case in cases
            if (value := _height(case, panel)) is not None
        ]
        if points:
            _points(axes, points, panel=panel, narrow=narrow)
    return figure


def _height(case: CasePart, panel: int) -> float | None:
    if panel == 0:
        return closeness_of(case)
    return None if case.seen.peak_memory_bytes is None else case.seen.peak_memory_bytes / 2**30


def _points(
    axes: Axes,
    points: Sequence[tuple[float, float, CasePart]],
    *,
    panel: int,
    narrow: bool,
) -> None:
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    span = (max(xs) - min(xs)) or max(xs)
    axes.set_xlim(max(0.0, min(xs) - 0.12 * span), max(xs) + 0.16 * span)
    if panel == 0:
        ys = _decibels(axes, ys)
        points = [(x, y, case) for (x, _, case), y in zip(points, ys, strict=True)]
    else:
        axes.set_ylim(0, max(ys) * 1.18)
    front = sorted((x, y) for x, y, case in points if case.front)
    beaten = [(x, y) for x, y, case in points if not case.front]
    if panel == 0 and front:
        # Some are in the front for their memory alone, which this panel does not show.
        line = [(x, y) for x, y in front if not any(a <= x and b > y for a, b in front)]
        axes.plot(*zip(*line, strict=True), color=GREEN, linewidth=1.2, dashes=(3, 2))
    for places, marker, size, colours in (
        (beaten, "s", 7, (PAPER, MUTED)),
        (front, "o", 9, (GREEN, INK)),
    ):
        if places:
            axes.plot(
                *zip(*places, strict=True),
                linestyle="",
                marker=marker,
                markersize=size,
                color=colours[0],
                markeredgecolor=colours[1],
                markeredgewidth=1.1,
            )
    _label(axes, points)


def _decibels(axes: Axes, values: Sequence[float]) -> list[float]:
    """Lay out PSNR: what is at its cap stands on a line of its own, above all others."""
    differ = [value for value in values if value < IDENTICAL_DB] or [50.0]
    span = max(12.0, max(differ) - min(differ))
    same = max(differ) + 0.5 * span
    axes.set_ylim(min(differ) - 0.35 * span, same + 0.3 * span)
    ticks = [t for t in axes.get_yticks() if axes.get_ylim()[0] <= t <= max(differ) + 0.2 * span]
    axes.set_yticks([*ticks, same], [*(f"{tick:g}" for tick in ticks), f"≥{IDENTICAL_DB:g}"])
    return [min(value, same) for value in values]


def _label(axes: Axes, points: Sequence[tuple[float, float, CasePart]]) -> None:
    """Names beside points where there is room, the front's first; the table has all of them."""
    places = axes.transData.transform([(x, y) for x, y, _ in points])
    left, bottom, right, top = axes.bbox.extents
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    order = sorted(range(len(points)), key=lambda i: (not points[i][2].front, i))
    named: set[int] = set()
    for index in order[:LABELS_MOST]:
        if index in named:
            continue
        x, y = places[index]
        # Those in one place have one label.
        here = [i for i in order if abs(places[i] - places[index]).max() < 7 and i not in named]
        named.update(here)
        front = points[index][2].front
        name = short(points[index][2].seen.name, 24)
        name += f" and {len(here) - 1} more" if len(here) > 1 else ""
        # A little more than the widest letters take.
        width, height = 6.6 * len(name) + 2, 14
        for dx, dy in (
            (9, 0),
            (-9 - width, 0),
            (-width / 2, 14),
            (-width / 2, -14),
            (5, 13),
            (5, -13),
            (-5 - width, 13),
            (-5 - width, -13),
        ):
            box = (x + dx, y + dy - height / 2, x + dx + width, y + dy + height / 2)
            inside = box[0] > left and box[2] < right + 12 and box[1] > bottom and box[3] < top
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                axes.annotate(
                    name,
                    points[index][:2],
                    xytext=(dx, dy),
                    textcoords="offset pixels",
                    size=11,
                    va="center",
                    weight="bold" if front else "normal",
                    color=INK if front else MUTED,
                    parse_math=False,
                    annotation_clip=False,
                )
                break


LABELS_MOST = 16
"""Names in one panel: of more, nobody could tell whose they are."""
Box = tuple[float, float, float, float]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
