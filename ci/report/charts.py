"""Charts as SVG that stands in the page: drawn by matplotlib, coloured and lettered by the page.

Each is drawn twice, for a wide and for a narrow window, since letters must not shrink with it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ci.report import figures
from ci.report.content import CasePart, WorkloadPart
from ci.report.reading import Seen
from perf_tests.harness.catalog import REFERENCE

WIDE, NARROW = 1040, 343
"""Widths in pixels."""

# The page's colours: each stands in the drawing as a value of its own and leaves it as a variable.
INK, MUTED, LINE, PAPER = "#111213", "#515253", "#d1d2d3", "#f1f2f3"
ON_DEEP, ON_PALE = "#f8f9fa", "#010203"
BLUE, SKY, GREEN, ORANGE, RED, PURPLE, YELLOW, GREY = (
    "#0072b2",
    "#56b4e9",
    "#009e73",
    "#e69f00",
    "#d55e00",
    "#cc79a7",
    "#f0e442",
    "#919293",
)
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    PAPER: "--paper",
    ON_DEEP: "--on-deep",
    ON_PALE: "--on-pale",
    BLUE: "--blue",
    SKY: "--sky",
    GREEN: "--green",
    ORANGE: "--orange",
    RED: "--red",
    PURPLE: "--purple",
    YELLOW: "--yellow",
    GREY: "--grey",
}

STAGES = {"text encoder": ORANGE, "denoising": BLUE, "decoder": GREEN}
FAMILIES: Mapping[str, tuple[str, str]] = {
    "attention": ("attention", RED),
    "convolution": ("convolution", BLUE),
    "matmul": ("matmul", SKY),
    "normalization": ("normalization", GREEN),
    "elementwise": ("elementwise", ORANGE),
    "softmax": ("softmax", PURPLE),
    "copy and cast": ("copy and cast", YELLOW),
    "fused (triton)": ("fused", INK),
}
"""By the start of a family's name: what it is drawn as, and its colour. The rest is grey."""
OTHER = "other"
FLOOR_LABEL = "floor"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart in both widths; the table beside it has its numbers."""

    wide: str
    narrow: str
    label: str
    """What it shows, for those who cannot see it."""


def _chart(label: str, draw: Callable[[bool], Figure]) -> Chart:
    settings: dict[str, object] = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 12,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.linewidth": 1,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.major.pad": 7,
    }
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        return Chart(
            wide=_svg(draw(False), f"{label} wide"),
            narrow=_svg(draw(True), f"{label} narrow"),
            label=label,
        )


def _figure(width: float, height: float) -> Figure:
    """One unit of the drawing is one pixel."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def _axes(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with these margins, in pixels."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return axes


def _svg(figure: Figure, name: str) -> str:
    """The figure's SVG, to stand in HTML among others: no names that clash, no colours of its own."""
    file = io.StringIO()
    key = "c" + hashlib.sha256(name.encode()).hexdigest()[:8]
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(
            file,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    text = re.sub(
        r"<svg [^>]*>",
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'aria-hidden="true" focusable="false">',
        text,
        count=1,
    )
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style[^>]*>.*?</style>", "", text, flags=re.S)
    used = set(re.findall(r"#([A-Za-z][\w-]*)", text)) - {v.removeprefix("#") for v in VARIABLES}
    text = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{key}{m[1]}"' if m[1] in used else "", text
    )
    text = re.sub(r'(xlink:href="#|url\(#)(?=[A-Za-z])', lambda m: m[1] + key, text)
    text = text.replace("xlink:href", "href")
    for value, variable in VARIABLES.items():
        text = text.replace(value, f"var({variable})")
    # The page's letters, and nothing that says nothing.
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    text = re.sub(r"(font: (?:\w+ )*[\d.]+px) [^;\"]*", r"\1 var(--sans)", text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"|<g ?/>|<defs>\s*</defs>', "", text)
    # A hundredth of a pixel is enough; what is written must stay as it is.
    text = re.sub(r' (?:d|x|y)="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), text)
    return re.sub(r"\s*\n\s*", "\n", text)


# Latency and GPU busy


ROW, ROW_NARROW = 58, 84
LEFT, LEFT_NARROW = 268, 12
"""Of the bars, in pixels; the names stand there, or above the bars where there is no room."""
LONG = 1.3


def waterfall(workload: WorkloadPart) -> Chart | None:
    """Every case from the reference to the best stack; None where nothing was timed."""
    cases = workload.falling
    if not cases:
        return None
    label = f"{workload.name}: latency" + (" and GPU busy" if workload.on_gpu else "")
    return _chart(label, lambda narrow: _waterfall(workload, cases, narrow=narrow))


def _waterfall(workload: WorkloadPart, cases: Sequence[CasePart], *, narrow: bool) -> Figure:
    row = ROW_NARROW if narrow else ROW
    top, bottom = 34.0 if not narrow else 52.0, 38.0
    figure = _figure(NARROW if narrow else WIDE, row * len(cases) + top + bottom)
    axes = _axes(
        figure,
        left=LEFT_NARROW if narrow else LEFT,
        right=10 if narrow else 178,
        top=top,
        bottom=bottom,
    )
    longest = max(max((*c.seen.rounds_s, c.seen.latency_s or 0.0)) for c in cases)
    ends = [case.interval.high for case in cases if case.interval]
    # An interval that says nothing must not leave the rest no room.
    most = max([longest, *(end for end in ends if end < LONG * longest)])
    axes.set_xlim(0, most * 1.03)
    # Rows count pixels downwards.
    axes.set_ylim(row * len(cases), 0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4 if narrow else 8))
    axes.grid(axis="x", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel("seconds", loc="left" if narrow else "center")
    marks = _Marks()
    previous: float | None = None
    for number, case in enumerate(cases):
        _row(axes, marks, case, top=row * number, narrow=narrow, previous=previous)
        previous = case.cost_s
    marks.draw(axes)
    _legend_of_times(figure, workload, cases, narrow=narrow)
    return figure


Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class _Marks:
    """What all rows draw, by kind: sixty rows in a few strokes take no time."""

    bars: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    """By colour: left, right, middle and height."""
    lines: dict[str, list[tuple[Point, Point]]] = field(default_factory=dict)
    """By kind: two ends."""
    rounds: list[Point] = field(default_factory=list)
    base: list[Point] = field(default_factory=list)

    def bar(self, colour: str, *, left: float, right: float, y: float, height: float) -> None:
        self.bars.setdefault(colour, []).append((left, right, y, height))

    def line(self, kind: str, start: Point, end: Point) -> None:
        self.lines.setdefault(kind, []).append((start, end))

    def draw(self, axes: Axes) -> None:
        for colour, bars in self.bars.items():
            corners = [
                [(x, y - h / 2), (end, y - h / 2), (end, y + h / 2), (x, y + h / 2)]
                for x, end, y, h in bars
            ]
            axes.add_collection(
                PolyCollection(corners, facecolors=colour, edgecolors=PAPER, linewidths=0.7),
                autolim=False,
            )
        for kind, lines in self.lines.items():
            colour, width, style = STROKES[kind]
            axes.add_collection(
                LineCollection(
                    lines, colors=colour, linewidths=width, linestyles=style, zorder=2.5
                ),
                autolim=False,
            )
        dots = {"linestyle": "", "markeredgecolor": INK, "scalex": False, "scaley": False}
        for points, marker, size, colour in (
            (self.rounds, "o", 5.5, PAPER),
            (self.base, "D", 7, ORANGE),
        ):
            if points:
                xs, ys = zip(*points, strict=True)
                axes.plot(xs, ys, marker=marker, markersize=size, color=colour, zorder=3, **dots)


STROKES: Mapping[str, tuple[str, float, Any]] = {
    "step": (MUTED, 1.0, (0, (2, 2))),
    "interval": (INK, 1.4, "solid"),
    "floor": (RED, 2.2, "solid"),
}
"""Colour, width and style of each kind of line."""


def _row(
    axes: Axes,
    marks: _Marks,
    case: CasePart,
    *,
    top: float,
    narrow: bool,
    previous: float | None,
) -> None:
    seen = case.seen
    if seen.latency_s is None:
        return
    shift = 30 if narrow else 0
    latency_y, busy_y = top + shift + 16, top + shift + 38
    on_gpu = seen.gpu_busy_s is not None
    marks.bar(SKY, left=0, right=seen.latency_s, y=latency_y, height=18)
    if seen.gpu_busy_s is not None:
        marks.bar(BLUE, left=0, right=seen.gpu_busy_s, y=busy_y, height=18)
    if previous is not None and case.cost_s is not None and not narrow:
        # The step down from the row above.
        y = busy_y if on_gpu else latency_y
        marks.line("step", (previous, top - (11 if on_gpu else 33)), (previous, y))
        marks.line("step", (previous, y), (case.cost_s, y))
    most = axes.get_xlim()[1]
    if case.interval is not None:
        ends = case.interval.low, case.interval.high
        marks.line("interval", (ends[0], latency_y), (min(ends[1], most), latency_y))
        for end in ends:
            if end <= most:
                marks.line("interval", (end, latency_y - 5), (end, latency_y + 5))
    marks.rounds.extend((value, latency_y) for value in seen.rounds_s)
    if case.base is not None:
        for value, y in ((case.base.latency_s, latency_y), (case.base.gpu_busy_s, busy_y)):
            if value is not None and value <= most:
                marks.base.append((value, y))
    if seen.floor_s is not None:
        marks.line("floor", (seen.floor_s, top + shift + 5), (seen.floor_s, top + shift + 49))
    _names(axes, case, top=top, shift=shift, narrow=narrow, ys=(latency_y, busy_y))


def _names(
    axes: Axes,
    case: CasePart,
    *,
    top: float,
    shift: float,
    narrow: bool,
    ys: tuple[float, float],
) -> None:
    """The row's name at the left or above, its numbers at the right or above."""
    seen = case.seen
    latency = f"{figures.seconds(seen.latency_s)} · {figures.times(case.speedup)}".strip(" ·")
    busy = f"{figures.seconds(seen.gpu_busy_s)} · {figures.times(case.gpu_speedup)}".strip(" ·")
    if narrow:
        width = axes.get_xlim()[1]
        # matplotlib reads mathematics between dollars; names are words.
        kind = {"parse_math": False, "va": "center"}
        axes.text(0, top + 10, _short(case.label, 26), weight="bold", size=12.5, **kind)
        axes.text(width, top + 10, latency, size=11.5, ha="right", **kind)
        told = case.bound or (case.to and f"to {_short(case.to, 24)}")
        axes.text(0, top + 26, told, size=11, color=MUTED, **kind)
        if busy:
            axes.text(width, top + 26, busy, size=11.5, color=BLUE, ha="right", **kind)
        return
    kind = {"parse_math": False, "va": "center", "clip_on": False}
    place = axes.get_yaxis_transform()
    told = "; ".join(filter(None, [case.to and f"to {_short(case.to, 24)}", case.bound]))
    axes.text(
        -0.018, ys[0], _short(seen.name, 34), weight="bold", ha="right", transform=place, **kind
    )
    axes.text(-0.018, ys[1], told, size=10.5, color=MUTED, ha="right", transform=place, **kind)
    axes.text(1.018, ys[0], latency, transform=place, **kind)
    if busy:
        axes.text(1.018, ys[1], busy, color=BLUE, transform=place, weight="bold", **kind)


def _legend_of_times(
    figure: Figure, workload: WorkloadPart, cases: Sequence[CasePart], *, narrow: bool
) -> None:
    dot = Line2D([], [], marker="o", linestyle="", color=PAPER, markeredgecolor=INK, markersize=6)
    handles: list[tuple[object, str]] = [(Patch(color=SKY), "latency, median")]
    if workload.on_gpu:
        handles.append((Patch(color=BLUE), "GPU busy"))
    handles.append((dot, "a round"))
    if any(case.interval for case in cases):
        handles.append((Line2D([], [], color=INK, linewidth=1.4), "99 % interval"))
    if any(case.seen.floor_s for case in cases):
        handles.append((Line2D([], [], color=RED, linewidth=2.2), FLOOR_LABEL))
    if any(case.base for case in cases):
        base = Line2D([], [], marker="D", linestyle="", color=ORANGE, markeredgecolor=INK)
        handles.append((base, "base"))
    _legend(figure, handles, narrow=narrow, left=LEFT_NARROW if narrow else LEFT)


def _legend(
    figure: Figure, handles: Sequence[tuple[object, str]], *, narrow: bool, left: float
) -> None:
    width, height = figure.get_size_inches() * 72
    figure.legend(
        [handle for handle, _ in handles],  # type: ignore[misc]
        [name for _, name in handles],
        loc="upper left",
        bbox_to_anchor=((left - 2) / width, 1 - 2 / height),
        ncols=3 if narrow else len(handles),
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.0 if narrow else 1.6,
        fontsize=11,
        labelcolor=MUTED,
    )


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


# Where the time goes


def split_of(families: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Seconds by what a family is drawn as, in the order of the legend."""
    parts = dict.fromkeys([name for name, _ in FAMILIES.values()] + [OTHER], 0.0)
    for family, (seconds, _) in families.items():
        drawn = next((d for start, (d, _) in FAMILIES.items() if family.startswith(start)), OTHER)
        parts[drawn] += max(0.0, seconds)
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


def families(workload: WorkloadPart) -> Chart | None:
    """The GPU's time of every case by family of kernels, base above head where there is a base."""
    colours = {name: colour for name, colour in FAMILIES.values()} | {OTHER: GREY}
    return _split(
        workload, "kernel families", colours, lambda seen: split_of(seen.families_s)
    )


def stages(workload: WorkloadPart) -> Chart | None:
    """The GPU's time of every case by stage."""
    return _split(
        workload,
        "stages",
        STAGES,
        lambda seen: {name: max(0.0, value) for name, value in seen.stages_s.items()},
    )


def _split(
    workload: WorkloadPart,
    what: str,
    colours: Mapping[str, str],
    parts: Callable[[Seen], Mapping[str, float]],
) -> Chart | None:
    cases = [case for case in workload.falling if parts(case.seen)]
    if not cases:
        return None
    return _chart(
        f"{workload.name}: {what} of the GPU's time",
        lambda narrow: _stacked(cases, colours, parts, narrow=narrow),
    )


def _stacked(
    cases: Sequence[CasePart],
    colours: Mapping[str, str],
    parts: Callable[[Seen], Mapping[str, float]],
    *,
    narrow: bool,
) -> Figure:
    beside = any(case.base is not None and parts(case.base) for case in cases)
    present = [n for n in colours if any(n in parts(case.seen) for case in cases)]
    legend_rows = -(-len(present) // (3 if narrow else 9))
    row = (44 if beside else 30) + (16 if narrow else 0)
    top, bottom = 16.0 + 19 * legend_rows, 38.0
    figure = _figure(NARROW if narrow else WIDE, row * len(cases) + top + bottom)
    left = LEFT_NARROW if narrow else LEFT
    axes = _axes(figure, left=left, right=10 if narrow else 90, top=top, bottom=bottom)
    totals = [sum(parts(s).values()) for c in cases for s in (c.seen, c.base) if s is not None]
    most = max(totals) * 1.02
    axes.set_xlim(0, most)
    axes.set_ylim(row * len(cases), 0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4 if narrow else 8))
    axes.grid(axis="x", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel("seconds on the GPU", loc="left" if narrow else "center")
    pixels = (NARROW - left - 10 if narrow else WIDE - left - 90) / most
    place = axes.get_yaxis_transform()
    kind = {"parse_math": False, "va": "center", "clip_on": False}
    marks = _Marks()
    for number, case in enumerate(cases):
        y = row * number + (16 if narrow else 0)
        bars: Iterator[tuple[str, Seen, float, float]] = iter(
            [("", case.seen, y + row / 2 - (16 if narrow else 0) / 2, 20.0)]
        )
        if beside:
            bars = iter([("head", case.seen, y + 32, 15.0)])
            if case.base is not None and parts(case.base):
                bars = iter([("base", case.base, y + 14, 15.0), ("head", case.seen, y + 32, 15.0)])
        middle = y + (23 if beside else row / 2)
        if narrow:
            axes.text(0, row * number + 9, _short(case.seen.name, 40), weight="bold", size=12, **kind)
        else:
            shift = -0.06 if beside else -0.018
            axes.text(shift, middle, _short(case.seen.name, 34), weight="bold", ha="right", transform=place, **kind)
        for side, seen, at, height in bars:
            reached, split = 0.0, parts(seen)
            for name in present:
                value = split.get(name, 0.0)
                marks.bar(
                    colours[name], left=reached, right=reached + value, y=at, height=height
                )
                if value * pixels > 44:
                    dark = colours[name] in (BLUE, RED, INK, GREEN)
                    axes.text(
                        reached + value / 2,
                        at,
                        f"{100 * value / sum(split.values()):.0f} %",
                        size=10.5,
                        ha="center",
                        color=ON_DEEP if dark else ON_PALE,
                        **kind,
                    )
                reached += value
            if not narrow:
                axes.text(1.01, at, figures.seconds(reached), transform=place, size=11.5, **kind)
                if side:
                    axes.text(-0.012, at, side, ha="right", size=10.5, color=MUTED, transform=place, **kind)
    marks.draw(axes)
    _legend(
        figure, [(Patch(color=colours[n]), n) for n in present], narrow=narrow, left=left
    )
    return figure


# Speed, picture and memory


def pareto(workload: WorkloadPart) -> Chart | None:
    """Speed against picture, and against memory; those that nothing beats are filled."""
    cases = [case for case in workload.timed if case.cost_s is not None]
    if len(cases) < 2:
        return None
    return _chart(
        f"{workload.name}: speed against picture and memory",
        lambda narrow: _pareto(workload, cases, narrow=narrow),
    )


def closeness_of(case: CasePart) -> float | None:
    """PSNR; of the reference itself, as identical."""
    return figures.IDENTICAL_DB if case.seen.name == REFERENCE else case.seen.psnr_db


def _pareto(workload: WorkloadPart, cases: Sequence[CasePart], *, narrow: bool) -> Figure:
    memory = any(case.seen.peak_memory_bytes for case in cases)
    panels = 2 if memory else 1
    width = NARROW if narrow else (WIDE if memory else WIDE * 0.62)
    height = 300.0 if narrow else 340.0
    figure = _figure(width, height * (panels if narrow else 1) + 8)
    total = figure.get_size_inches()[1] * 72
    time = "GPU busy" if workload.on_gpu else "latency"
    for panel in range(panels):
        if narrow:
            axes = _axes(
                figure,
                left=46,
                right=14,
                top=22 + panel * height,
                bottom=total - (panel + 1) * height + 42,
            )
        else:
            share = width / panels
            axes = _axes(
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
        title = "picture: PSNR in dB, up is closer" if panel == 0 else "peak memory in GiB, down is less"
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
        axes.plot(*zip(*front, strict=True), color=GREEN, linewidth=1.2, dashes=(3, 2))
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
    """Lay out PSNR: what is identical stands on a line of its own, above all that differs."""
    differ = [value for value in values if value < figures.IDENTICAL_DB] or [50.0]
    span = max(12.0, max(differ) - min(differ))
    same = max(differ) + 0.5 * span
    axes.set_ylim(min(differ) - 0.35 * span, same + 0.3 * span)
    ticks = [t for t in axes.get_yticks() if axes.get_ylim()[0] <= t <= max(differ) + 0.2 * span]
    axes.set_yticks([*ticks, same], [*(f"{tick:g}" for tick in ticks), "same"])
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
        name = _short(points[index][2].seen.name, 24)
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
