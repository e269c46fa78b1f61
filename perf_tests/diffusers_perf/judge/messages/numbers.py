"""How messages write numbers, names and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.metric import Metric, Unit
from diffusers_perf.judge.stats import Interval
from diffusers_perf.messages.numbers import plural

if TYPE_CHECKING:
    from diffusers_perf.records.measurement import Count


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a number is compared with."""

    values: Sequence[float]
    """Of each accepted process, or one; none where only a limit is known."""
    source: str

    def shown(self, metric: Metric) -> str:
        if not self.values:
            return self.source
        low, high = metric.shown(min(self.values)), metric.shown(max(self.values))
        return f"{low if low == high else f'{low} to {high}'} ({self.source})"


def times(ratio: float, better: str = "faster", worse: str = "slower") -> str:
    """A ratio of which more is better: ``1.25x faster``, ``1.25x slower``."""
    return f"{ratio:.2f}x {better}" if ratio >= 1 else f"{1 / ratio:.2f}x {worse}"


def against(
    metric: Metric, value: float, other: float, than: str, *, ratio: float | None = None
) -> str:
    """``GPU busy 1.06x slower than base, 0.8000 s → 0.8500 s``; memory is higher or lower.

    `ratio` is that of value over other in pairs, of which these two are the medians.
    """
    words = ("faster", "slower") if metric.unit is Unit.SECONDS else ("lower", "higher")
    change = f"{metric.shown(other)} → {metric.shown(value)}"
    if ratio is not None:
        # Which may point the other way than the pairs do.
        change = f"medians {change}"
    speedup = 1 / ratio if ratio else other / value
    if f"{max(speedup, 1 / speedup):.2f}" == "1.00":
        return f"{metric.name} as in {than}, {change}"
    return f"{metric.name} {times(speedup, *words)} than {than}, {change}"


def interval(metric: Metric, seen: Interval) -> str:
    """A metric, with its 99 % interval where it has one."""
    if seen.low == seen.high:
        return metric.shown(seen.mid)
    if seen.low == 0:
        return f"{metric.shown(seen.mid)} in one round"
    return f"{metric.shown(seen.mid)}, 99 % interval {span(metric.unit, seen)}"


def span(unit: Unit, seen: Interval) -> str:
    return f"{unit.shown(seen.low)} to {unit.shown(seen.high)}"


def share(value: float) -> str:
    """``2.1 %``, ``12 %``, and where it at least doubles ``3.4x``."""
    if value >= 99:
        return "over 100x"
    if value >= 1:
        return f"{1 + value:.1f}x"
    return f"{100 * value:.{1 if value < 0.1 else 0}f} %"


def called(case: str) -> str:
    """A case within a sentence: ``the reference``, or its name."""
    return f"the {case}" if case == REFERENCE else case


def first_of(counters: Sequence[str]) -> str:
    """``graph breaks and 6 other counters``."""
    first, others = label(counters[0]), len(counters) - 1
    return f"{first} and {plural(others, 'other counter')}" if others else first


def label(name: str) -> str:
    """A counter's name as words."""
    return name.replace("_", " ")


def difference(name: str, *, was: Count, now: Count, steps: int) -> str:
    """A counter's change: ``casts 12 → 1,234 (+61 in each of 20 steps)``."""
    per_step, fixed = now.per_step - was.per_step, now.once - was.once
    parts = [f"{per_step:+,} in each of {steps} steps"] if per_step else []
    parts += [f"{fixed:+,} fixed"] if fixed else []
    totals = f"{was.total(steps):,} → {now.total(steps):,}"
    return f"{label(name)} {totals} ({' and '.join(parts) or 'no change'})"


def most(metric: Metric, was: Count, *, steps: int) -> str:
    """How many more of a counter pass."""
    if not metric.rise:
        return "no more, in total or per step"
    return f"at most {int(was.total(steps) * (1 + metric.rise)):,} ({100 * metric.rise:.0f} % more)"


def other_versions(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Which versions a baseline was made with, where this run has others."""
    others = [
        f"{name} {theirs[name]}, now {version}"
        for name, version in ours.items()
        if name in theirs and theirs[name] != version
    ]
    return f"; made with {'; '.join(others)}" if others else ""
