"""Draws for the page: matplotlib's SVG, coloured and lettered by the page itself.

Each chart is drawn twice, for a wide and for a narrow window: letters must not shrink with it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart in both widths; the table beside it has its numbers."""

    wide: str
    narrow: str
    label: str
    """What it shows, for those who cannot see it."""


def chart(label: str, draw: Callable[[bool], Figure]) -> Chart:
    """Draw it wide, then narrow."""
    settings: dict[Any, Any] = {
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
    with matplotlib.rc_context(settings):
        return Chart(
            wide=_svg(draw(False), f"{label} wide"),
            narrow=_svg(draw(True), f"{label} narrow"),
            label=label,
        )


def figure_of(width: float, height: float) -> Figure:
    """One unit of the drawing is one pixel."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def axes_of(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with these margins, in pixels."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - top - bottom) / height,
        )
    )
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return axes


def _svg(figure: Figure, name: str) -> str:
    """The figure's SVG, to stand in HTML among others: no names that clash, no own colours."""
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
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<style[^>]*>.*?</style>", "", text, flags=re.S
    )
    used = set(re.findall(r"#([A-Za-z][\w-]*)", text)) - {v.removeprefix("#") for v in VARIABLES}
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{key}{m[1]}"' if m[1] in used else "", text)
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


def along(axes: Axes, label: str, *, narrow: bool) -> None:
    """Ready the axes for rows from left to right, counted downwards."""
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8))
    axes.grid(axis="x", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(label, loc="left" if narrow else "center")


def say(axes: Axes, x: float, y: float, words: str, *, beside: bool = False, **look: Any) -> None:
    """Write words, as they are, at a height; `beside` counts x in widths of the axes."""
    # matplotlib reads mathematics between dollars.
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform()} if beside else {}
    axes.text(x, y, words, parse_math=False, va="center", clip_on=False, **place, **look)


Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Marks:
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
        dots: dict[str, Any] = {"linestyle": "", "markeredgecolor": INK}
        for points, marker, size, colour in (
            (self.rounds, "o", 5.5, PAPER),
            (self.base, "D", 7, ORANGE),
        ):
            if points:
                xs, ys = zip(*points, strict=True)
                axes.plot(
                    xs,
                    ys,
                    marker=marker,
                    markersize=size,
                    color=colour,
                    zorder=3,
                    scalex=False,
                    scaley=False,
                    **dots,
                )


STROKES: Mapping[str, tuple[str, float, Any]] = {
    "step": (MUTED, 1.0, (0, (2, 2))),
    "interval": (INK, 1.4, "solid"),
    "roofline": (RED, 2.2, "solid"),
}
"""Colour, width and style of each kind of line."""


def legend(
    figure: Figure, handles: Sequence[tuple[Artist, str]], *, narrow: bool, left: float
) -> None:
    """What the marks mean, above the axes."""
    width, height = figure.get_size_inches() * 72
    figure.legend(
        [handle for handle, _ in handles],
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


def short(name: str, most: int) -> str:
    """A name, cut to this many letters."""
    return name if len(name) <= most else name[: most - 1] + "…"
