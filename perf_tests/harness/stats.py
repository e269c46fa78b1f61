"""Medians and intervals. Pure numbers; tested against scipy's own tests as the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from scipy import stats as scipy_stats

CONFIDENCE = 0.99


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A ratio with its confidence interval."""

    low: float
    mid: float
    high: float


def spread(values: Sequence[float]) -> float:
    """Largest less smallest over the median: 0 for one value."""
    return (max(values) - min(values)) / median(values)


def ratio_interval(
    over: Sequence[float], under: Sequence[float], *, confidence: float = CONFIDENCE
) -> Interval:
    """Interval of the geometric mean of `over` divided by that of `under`.

    Welch's t interval of the difference of log means: the two need neither the same number of
    rounds nor the same noise. With fewer than two values on a side nothing is known of the noise,
    and the interval is everything. `ValueError` for a value that is not positive.
    """
    if any(not value > 0 for value in (*over, *under)):
        raise ValueError("ratios need positive numbers")
    a, b = [math.log(v) for v in over], [math.log(v) for v in under]
    mid = fmean(a) - fmean(b)
    if len(a) < 2 or len(b) < 2:
        return Interval(low=0.0, mid=math.exp(mid), high=math.inf)
    part_a, part_b = variance(a) / len(a), variance(b) / len(b)
    if part_a + part_b == 0:
        return Interval(low=math.exp(mid), mid=math.exp(mid), high=math.exp(mid))
    freedom = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    half = scipy_stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(part_a + part_b)
    return Interval(
        low=math.exp(mid - half), mid=math.exp(mid), high=math.exp(min(mid + half, 700.0))
    )


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Interval of the geometric mean, from the t distribution of the logs.

    With one value nothing is known of the noise, and the interval is everything.
    """
    if any(not value > 0 for value in values):
        raise ValueError("a geometric mean needs positive numbers")
    logs = [math.log(value) for value in values]
    mid = fmean(logs)
    if len(logs) < 2:
        return Interval(low=0.0, mid=math.exp(mid), high=math.inf)
    half = scipy_stats.t.ppf((1 + confidence) / 2, len(logs) - 1) * math.sqrt(
        variance(logs) / len(logs)
    )
    return Interval(
        low=math.exp(mid - half), mid=math.exp(mid), high=math.exp(min(mid + half, 700.0))
    )
