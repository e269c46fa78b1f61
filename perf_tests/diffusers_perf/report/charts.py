"""The charts of speed, and of where the time goes. Each has its numbers in a table beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from diffusers_perf.report import figures
from diffusers_perf.report.content import CasePart, WorkloadPart
from diffusers_perf.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    NARROW,
    ON_DEEP,
    ON_PALE,
    ORANGE,
    PAPER,
    PURPLE,
    RED,
    SKY,
    WIDE,
    YELLOW,
    Chart,
    Marks,
    along,
    axes_of,
    chart,
    figure_of,
    legend,
    say,
    short,
)
from diffusers_perf.report.reading import Seen

LEFT, LEFT_NARROW = 268, 12
"""Of the bars, in pixels; the names stand there, or above the bars where there is no room."""
ROW, ROW_NARROW = 58, 84
BAR = 22
"""Of a row's height, what the second bar takes."""
LONG = 1.3
"""An interval that reaches further than this many longest rounds leaves the chart."""

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


def waterfall(workload: WorkloadPart) -> Chart | None:
    """Every case from the reference to the best stack; None where nothing was timed."""
    cases = workload.falling
    if not cases:
        return None
    label = f"{workload.name}: latency" + (" and GPU busy" if workload.on_gpu else "")
    return chart(label, lambda narrow: _waterfall(workload, cases, narrow=narrow))


def _waterfall(workload: WorkloadPart, cases: Sequence[CasePart], *, narrow: bool) -> Figure:
    row = (ROW_NARROW if narrow else ROW) - (0 if workload.on_gpu else BAR)
    top, bottom = 52.0 if narrow else 34.0, 38.0
    left, right = (LEFT_NARROW, 10) if narrow else (LEFT, 178)
    figure = figure_of(NARROW if narrow else WIDE, row * len(cases) + top + bottom)
    axes = axes_of(figure, left=left, right=right, top=top, bottom=bottom)
    longest = max(max((*c.seen.rounds_s, c.seen.latency_s or 0.0)) for c in cases)
    ends = [case.interval.high for case in cases if case.interval]
    axes.set_xlim(0, 1.03 * max([longest, *(end for end in ends if end < LONG * longest)]))
    axes.set_ylim(row * len(cases), 0)
    along(axes, "seconds", narrow=narrow)
    marks = Marks()
    previous: float | None = None
    for number, case in enumerate(cases):
        _row(axes, marks, case, top=row * number, narrow=narrow, previous=previous)
        previous = case.cost_s
    marks.draw(axes)
    _legend_of_times(figure, workload, cases, narrow=narrow)
    return figure


def _row(
    axes: Axes,
    marks: Marks,
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
    latency_y = top + shift + 16
    busy_y = latency_y + BAR
    on_gpu = seen.gpu_busy_s is not None
    marks.bar(SKY, left=0, right=seen.latency_s, y=latency_y, height=18)
    if seen.gpu_busy_s is not None:
        marks.bar(BLUE, left=0, right=seen.gpu_busy_s, y=busy_y, height=18)
    if previous is not None and case.cost_s is not None and not narrow:
        # The step down from the row above.
        y = busy_y if on_gpu else latency_y
        marks.line("step", (previous, top - 11), (previous, y))
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
    if seen.roofline_s is not None:
        marks.line(
            "roofline",
            (seen.roofline_s, top + shift + 5),
            (seen.roofline_s, top + shift + 27 + BAR),
        )
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
    to = case.to and f"to {short(case.to, 24)}"
    if narrow:
        right = axes.get_xlim()[1]
        say(axes, 0, top + 10, short(case.label, 26), weight="bold", size=12.5)
        say(axes, right, top + 10, latency, size=11.5, ha="right")
        say(axes, 0, top + 26, case.bottleneck or to, size=11, color=MUTED)
        say(axes, right, top + 26, busy, size=11.5, color=BLUE, ha="right")
        return
    told = "; ".join(filter(None, [to, case.bottleneck]))
    name, size = short(seen.name, 34), 10.5
    say(axes, -0.018, ys[0], name, beside=True, weight="bold", ha="right")
    say(axes, -0.018, ys[1], told, beside=True, size=size, color=MUTED, ha="right")
    say(axes, 1.018, ys[0], latency, beside=True)
    say(axes, 1.018, ys[1], busy, beside=True, color=BLUE, weight="bold")


def _legend_of_times(
    figure: Figure, workload: WorkloadPart, cases: Sequence[CasePart], *, narrow: bool
) -> None:
    dot = Line2D([], [], marker="o", linestyle="", color=PAPER, markeredgecolor=INK, markersize=6)
    base = Line2D([], [], marker="D", linestyle="", color=ORANGE, markeredgecolor=INK)
    handles: list[tuple[Artist, str, bool]] = [
        (Patch(color=SKY), "latency, median", True),
        (Patch(color=BLUE), "GPU busy", workload.on_gpu),
        (dot, "a round", True),
        (
            Line2D([], [], color=INK, linewidth=1.4),
            "99 % interval",
            any(case.interval for case in cases),
        ),
        (
            Line2D([], [], color=RED, linewidth=2.2),
            "roofline",
            any(case.seen.roofline_s for case in cases),
        ),
        (base, "base", any(case.base for case in cases)),
    ]
    shown = [(handle, name) for handle, name, there in handles if there]
    legend(figure, shown, narrow=narrow, left=LEFT_NARROW if narrow else LEFT)


def split_of(families: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Seconds by what a family is drawn as, in the order of the legend."""
    parts = dict.fromkeys([name for name, _ in FAMILIES.values()] + [OTHER], 0.0)
    for family, (seconds, _) in families.items():
        drawn = next((d for start, (d, _) in FAMILIES.items() if family.startswith(start)), OTHER)
        parts[drawn] += max(0.0, seconds)
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


Parts = Callable[[Seen], Mapping[str, float]]
"""Seconds on the GPU by what they went to."""


def families(workload: WorkloadPart) -> Chart | None:
    """The GPU's time of every case by family of kernels, base above head where there is a base."""
    colours = dict(FAMILIES.values()) | {OTHER: GREY}
    return _split(workload, "kernel families", colours, lambda seen: split_of(seen.families_s))


def stages(workload: WorkloadPart) -> Chart | None:
    """The GPU's time of every case by stage, base above head where there is a base."""

    def parts(seen: Seen) -> Mapping[str, float]:
        return {name: max(0.0, value) for name, value in seen.stages_s.items()}

    return _split(workload, "stages", STAGES, parts)


def _split(
    workload: WorkloadPart, what: str, colours: Mapping[str, str], parts: Parts
) -> Chart | None:
    cases = [case for case in workload.falling if sum(parts(case.seen).values()) > 0]
    if not cases:
        return None
    return chart(
        f"{workload.name}: {what} of the GPU's time",
        lambda narrow: _stacked(cases, colours, parts, narrow=narrow),
    )


def _stacked(
    cases: Sequence[CasePart], colours: Mapping[str, str], parts: Parts, *, narrow: bool
) -> Figure:
    beside = any(case.base is not None and parts(case.base) for case in cases)
    present = [name for name in colours if any(name in parts(case.seen) for case in cases)]
    name_height = 16 if narrow else 0
    row = (44 if beside else 30) + name_height
    top, bottom = 16.0 + 19 * -(-len(present) // (3 if narrow else 9)), 38.0
    left, right = (LEFT_NARROW, 10) if narrow else (LEFT, 90)
    width = NARROW if narrow else WIDE
    figure = figure_of(width, row * len(cases) + top + bottom)
    axes = axes_of(figure, left=left, right=right, top=top, bottom=bottom)
    most = 1.02 * max(
        sum(parts(seen).values()) for case in cases for seen in (case.seen, case.base) if seen
    )
    axes.set_xlim(0, most)
    axes.set_ylim(row * len(cases), 0)
    along(axes, "seconds on the GPU", narrow=narrow)
    room = LABEL_PIXELS * most / (width - left - right)
    marks = Marks()
    for number, case in enumerate(cases):
        y = row * number + name_height
        name = short(case.seen.name, 40 if narrow else 34)
        if narrow:
            say(axes, 0, row * number + 9, name, weight="bold", size=12)
        else:
            x, middle = (-0.06, y + 23) if beside else (-0.018, y + row / 2)
            say(axes, x, middle, name, beside=True, weight="bold", ha="right")
        bars = [("", case.seen, y + (row - name_height) / 2, 20.0)]
        if beside:
            bars = [("head", case.seen, y + 32, 15.0)]
            if case.base is not None and parts(case.base):
                bars.insert(0, ("base", case.base, y + 14, 15.0))
        for side, seen, at, height in bars:
            split = parts(seen)
            shown = [(part, colours[part], split.get(part, 0.0)) for part in present]
            reached = _bar(axes, marks, shown, y=at, height=height, room=room)
            if not narrow:
                say(axes, 1.01, at, figures.seconds(reached), beside=True, size=11.5)
                say(axes, -0.012, at, side, beside=True, ha="right", size=10.5, color=MUTED)
    marks.draw(axes)
    legend(figure, [(Patch(color=colours[n]), n) for n in present], narrow=narrow, left=left)
    return figure


LABEL_PIXELS = 44
"""The least width of a part that its share is written on."""


def _bar(
    axes: Axes,
    marks: Marks,
    parts: Sequence[tuple[str, str, float]],
    *,
    y: float,
    height: float,
    room: float,
) -> float:
    """One bar of parts (name, colour, seconds) after each other; returns where it ends."""
    total = sum(value for _, _, value in parts)
    reached = 0.0
    for _, colour, value in parts:
        marks.bar(colour, left=reached, right=reached + value, y=y, height=height)
        if value > room:
            on = ON_DEEP if colour in (BLUE, RED, INK, GREEN) else ON_PALE
            share = f"{100 * value / total:.0f} %"
            say(axes, reached + value / 2, y, share, size=10.5, ha="center", color=on)
        reached += value
    return reached
