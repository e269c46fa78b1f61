"""The charts of latency and of GPU time: positions and words, which `charts.html` draws.

Positions are in percent of the chart's width. A table next to each chart has its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusers_perf.catalog.metrics import GPU_BUSY
from diffusers_perf.messages import report as messages
from diffusers_perf.records.measurement import KernelFamily, Measurement
from diffusers_perf.report.content import CasePart, WorkloadPart
from diffusers_perf.report.scale import Scale, Tick, time_ticks

TICKS_MOST = 8
LONG = 1.3
"""An interval that reaches further than this many longest rounds leaves the chart."""
LABELLED_WIDE, LABELLED_NARROW = 6.0, 13.0
"""Percent of the width from which a part has room for its share, on a wide and a narrow window."""

OTHER = "other"
STAGES = {"text encoder": "orange", "denoising": "blue", "decoder": "green", OTHER: "grey"}
FAMILIES: Mapping[str, tuple[str, str]] = {
    "attention": ("attention", "red"),
    "convolution": ("convolution", "blue"),
    "matmul": ("matmul", "sky"),
    "normalization": ("normalization", "green"),
    "elementwise": ("elementwise", "orange"),
    "softmax": ("softmax", "purple"),
    "copy and cast": ("copy and cast", "yellow"),
    "fused (triton)": ("fused", "ink"),
}
"""By the start of a kernel family's name: the part it is drawn as, and its colour."""
COLOURS = dict(FAMILIES.values()) | {OTHER: "grey"}


@dataclass(frozen=True, kw_only=True)
class LatencyRow:
    """One case: latency above, GPU busy time below."""

    case: CasePart
    latency: float
    gpu_busy: float | None
    rounds: tuple[float, ...]
    interval: tuple[float, float] | None
    """99 % interval of the latency. Its upper end may lie beyond the chart."""
    roofline: float | None
    base_latency: float | None
    base_gpu_busy: float | None
    cost: float
    """GPU busy time where it was measured, else latency."""
    previous_cost: float | None
    """That of the row above; None in the first row."""


@dataclass(frozen=True, kw_only=True)
class LatencyChart:
    """Every case of a workload, from the reference to the fastest stack."""

    label: str
    rows: tuple[LatencyRow, ...]
    ticks: tuple[Tick, ...]
    legend: tuple[tuple[str, str], ...]
    """Class of each mark and what it means."""
    on_gpu: bool


def latency(workload: WorkloadPart) -> LatencyChart | None:
    """None where nothing was timed."""
    cases = workload.slowest_first
    if not cases:
        return None
    longest = max(max(*case.measurement.rounds_s, case.measurement.latency_s) for case in cases)
    ends = [case.interval.high for case in cases if case.interval]
    scale = Scale(low=0, high=1.02 * max([longest, *(e for e in ends if e < LONG * longest)]))
    rows: list[LatencyRow] = []
    for case in cases:
        rows.append(_latency_row(case, scale, previous=rows[-1].cost if rows else None))
    marks = (
        ("latency", "latency, median", True),
        ("busy", GPU_BUSY.name, workload.on_gpu),
        ("round", "one round", True),
        ("interval", "99 % interval", any(row.interval for row in rows)),
        ("roofline", "roofline", any(row.roofline is not None for row in rows)),
        ("base", "base", any(case.base for case in cases)),
    )
    return LatencyChart(
        label=messages.latency_chart(workload.name, on_gpu=workload.on_gpu),
        rows=tuple(rows),
        ticks=time_ticks(scale, most=TICKS_MOST),
        legend=tuple((name, words) for name, words, present in marks if present),
        on_gpu=workload.on_gpu,
    )


def _latency_row(case: CasePart, scale: Scale, *, previous: float | None) -> LatencyRow:
    seen, base, interval = case.measurement, case.base, case.interval

    def inside(seconds: float | None) -> float | None:
        return None if seconds is None or seconds > scale.high else scale.at(seconds)

    return LatencyRow(
        case=case,
        latency=scale.at(seen.latency_s),
        gpu_busy=None if seen.gpu_busy_s is None else scale.at(seen.gpu_busy_s),
        rounds=tuple(map(scale.at, seen.rounds_s)),
        interval=(scale.at(interval.low), scale.at(interval.high)) if interval else None,
        roofline=inside(seen.roofline_s),
        base_latency=inside(base.latency_s) if base else None,
        base_gpu_busy=inside(base.gpu_busy_s) if base else None,
        cost=scale.at(seen.cost_s),
        previous_cost=previous,
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a bar."""

    name: str
    colour: str
    left: float
    width: float
    share: float
    """Of its bar, between 0 and 1."""
    seconds: float

    @property
    def labelled(self) -> str:
        """Where its share has room: ``always``, only on a ``wide`` window, or nowhere."""
        if self.width >= LABELLED_NARROW:
            return "always"
        return "wide" if self.width >= LABELLED_WIDE else ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of parts."""

    side: str
    """``base`` or ``head``; empty where there is no base."""
    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class SplitChart:
    """The GPU time of every case in parts, base above head where there is a base."""

    label: str
    rows: tuple[tuple[CasePart, tuple[Bar, ...]], ...]
    ticks: tuple[Tick, ...]
    legend: tuple[tuple[str, str], ...]
    """Name and colour of every part that occurs."""
    sides: bool
    """Is there a base?"""


Split = Callable[[Measurement], Mapping[str, float]]
"""Seconds on the GPU by part."""


def families(workload: WorkloadPart) -> SplitChart | None:
    """GPU time by family of kernels; None where none was measured."""
    return _split(workload, "kernel family", COLOURS, lambda seen: split_of(seen.families))


def stages(workload: WorkloadPart) -> SplitChart | None:
    """GPU time by stage; None where none was measured."""

    def split(seen: Measurement) -> Mapping[str, float]:
        parts = dict.fromkeys(STAGES, 0.0)
        for name, seconds in seen.stages_s.items():
            parts[name if name in STAGES else OTHER] += max(0.0, seconds)
        return {name: seconds for name, seconds in parts.items() if seconds > 0}

    return _split(workload, "stage", STAGES, split)


def split_of(families: Mapping[str, KernelFamily]) -> dict[str, float]:
    """Seconds by the part that a family is drawn as, in the order of the legend."""
    parts = dict.fromkeys(COLOURS, 0.0)
    for family, seen in families.items():
        part = next((p for start, (p, _) in FAMILIES.items() if family.startswith(start)), OTHER)
        parts[part] += max(0.0, seen.gpu_s)
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


def _split(
    workload: WorkloadPart, by: str, colours: Mapping[str, str], split: Split
) -> SplitChart | None:
    cases = [case for case in workload.slowest_first if sum(split(case.measurement).values()) > 0]
    if not cases:
        return None
    seen = [one for case in cases for one in (case.measurement, case.base) if one]
    scale = Scale(low=0, high=max(sum(split(one).values()) for one in seen))
    sides = any(case.base is not None and split(case.base) for case in cases)
    return SplitChart(
        label=messages.split_chart(workload.name, by),
        rows=tuple((case, _bars(case, colours, split, scale, sides=sides)) for case in cases),
        ticks=time_ticks(scale, most=TICKS_MOST),
        legend=tuple(
            (name, colour)
            for name, colour in colours.items()
            if any(name in split(one) for one in seen)
        ),
        sides=sides,
    )


def _bars(
    case: CasePart, colours: Mapping[str, str], split: Split, scale: Scale, *, sides: bool
) -> tuple[Bar, ...]:
    head = _parts(split(case.measurement), colours, scale)
    bars = [Bar(side="head" if sides else "", parts=head)]
    if case.base is not None and split(case.base):
        bars.insert(0, Bar(side="base", parts=_parts(split(case.base), colours, scale)))
    return tuple(bars)


def _parts(
    seconds: Mapping[str, float], colours: Mapping[str, str], scale: Scale
) -> tuple[Part, ...]:
    total, reached, parts = sum(seconds.values()), 0.0, []
    for name, colour in colours.items():
        value = seconds.get(name, 0.0)
        if value > 0:
            parts.append(
                Part(
                    name=name,
                    colour=colour,
                    left=scale.at(reached),
                    width=scale.at(value),
                    share=value / total,
                    seconds=value,
                )
            )
            reached += value
    return tuple(parts)
