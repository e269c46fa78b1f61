"""Medians and intervals. Pure numbers; tested against scipy.stats as the oracle, which is not used
here since importing it takes a second. What is used is imported where it is, since every command
imports this file, also to show its help.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import fmean, median, stdev, variance
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CONFIDENCE = 0.99
PAIRS_CONFIDENCE = 0.995
"""Of an interval of pairs. Each of its ends is wrong once in 400 times: a case is looked at four
times, by itself and with its workload's others, after five pairs and after ten, and all four
together call it slower by chance in one of a hundred comparisons at most: simulated, see
`tests/chance.py`."""
CRITICAL_OF_PAIRS = (
    *(12.69, 5.36, 4.18, 3.72, 3.48, 3.34, 3.22, 3.16, 3.11, 3.06),
    *(3.02, 3.00, 2.97, 2.96, 2.94, 2.92, 2.91, 2.90, 2.90),
)
"""For 2, 3, … pairs, how many standard errors as `pair_noise` estimates them their mean exceeds in
one of 200 comparisons of equal sides: simulated, see `tests/unit/test_stats.py`. The larger of two
estimates makes them less than Student's quantiles (for five pairs 5.60)."""
CRITICAL_OF_CALIBRATED = (8.97, 4.40, 3.59, 3.25, *CRITICAL_OF_PAIRS[4:])
"""The same where the noise is at least what a calibration of three processes or more has shown: up
to five pairs, which by themselves may be close to each other by luck. Each end is wrong at most
once in 400 times while the machine is as noisy as it was calibrated, and once in 200, however much
noisier it has become. More pairs keep their quantiles."""
CRITICAL_TOGETHER = (
    *(18.06, 6.47, 4.86, 4.24, 3.92, 3.72, 3.59, 3.49, 3.42, 3.37),
    *(3.32, 3.29, 3.26, 3.23, 3.21, 3.20, 3.18, 3.17, 3.15),
)
"""Of calibrated cases weighed together: what these spend by themselves is saved here, where each
end is wrong once in 800 times."""
POWER = 0.9
"""How often an effect that is called detectable is seen."""


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
        return _interval(mid, math.inf)
    part_a, part_b = variance(a) / len(a), variance(b) / len(b)
    if part_a + part_b == 0:
        return _interval(mid, 0.0)
    freedom = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    return _interval(mid, _critical(freedom, confidence) * math.sqrt(part_a + part_b))


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Interval of the geometric mean, from the t distribution of the logs.

    With one value nothing is known of the noise, and the interval is everything.
    """
    if any(not value > 0 for value in values):
        raise ValueError("a geometric mean needs positive numbers")
    logs = [math.log(value) for value in values]
    mid = fmean(logs)
    if len(logs) < 2:
        return _interval(mid, math.inf)
    error = math.sqrt(variance(logs) / len(logs))
    return _interval(mid, _critical(len(logs) - 1, confidence) * error)


def noise_of(values: Sequence[float]) -> float:
    """Standard deviation of the logs: a share, whatever the unit. `ValueError` for one value."""
    if len(values) < 2:
        raise ValueError("one value says nothing of the noise")
    return stdev([math.log(value) for value in values])


def pair_noise(over: Sequence[float], under: Sequence[float], *, known: float = 0.0) -> float:
    """Standard deviation of a pair's log ratio; `known` is that of one side between processes.

    The largest of three estimates: of the pairs; of neighbours on each side (mean square of
    successive differences, which a slow drift does not swell); the known one. Five pairs alone
    are now and then close to each other by luck, and then call any noise significant. `ValueError`
    for less than two pairs.
    """
    a, b = [math.log(v) for v in over], [math.log(v) for v in under]
    if len(a) != len(b) or len(a) < 2:
        raise ValueError("the noise of pairs takes two pairs or more")
    neighbours = sum((late - early) ** 2 for side in (a, b) for early, late in pairwise(side)) / (
        2 * (len(a) - 1)
    )
    ratios = [x - y for x, y in zip(a, b, strict=True)]
    mean = fmean(ratios)
    # Not `variance`, whose fractions take most of a comparison's time.
    pairs = sum((ratio - mean) ** 2 for ratio in ratios) / (len(ratios) - 1)
    return max(math.sqrt(pairs), math.sqrt(neighbours), math.sqrt(2) * known)


def paired_interval(
    over: Sequence[float],
    under: Sequence[float],
    *,
    known: float = 0.0,
    calibrated: bool = False,
    together: bool = False,
) -> Interval:
    """Interval of the geometric mean of the pairs' ratios, over / under, with `pair_noise`: 99.5 %.

    `calibrated` says that the known noise is that of other processes than these, `together` that
    the values are those of several cases. With less than two pairs nothing is known of the noise,
    and the interval is everything. `ValueError` for a value that is not positive or sides that do
    not pair.
    """
    if any(not value > 0 for value in (*over, *under)):
        raise ValueError("ratios need positive numbers")
    mid = fmean(math.log(a / b) for a, b in zip(over, under, strict=True))
    if len(over) < 2:
        return _interval(mid, math.inf)
    error = pair_noise(over, under, known=known) / math.sqrt(len(over))
    critical = critical_of_pairs(len(over), calibrated=calibrated, together=together)
    return _interval(mid, critical * error)


def pooled_interval(
    groups: Sequence[Sequence[float]], *, confidence: float = CONFIDENCE
) -> Interval:
    """t interval of the geometric mean of the last group of ratios, with the noise of all groups.

    It assumes that the ratios of each group vary as much around its mean. With no group of two
    nothing is known of the noise, and the interval is everything. `ValueError` for a ratio that is
    not positive.
    """
    if any(not ratio > 0 for group in groups for ratio in group):
        raise ValueError("a geometric mean needs positive numbers")
    logs = [[math.log(ratio) for ratio in group] for group in groups if group]
    mid, freedom = fmean(logs[-1]), sum(len(group) - 1 for group in logs)
    if not freedom:
        return _interval(mid, math.inf)
    squares = sum((len(group) - 1) * variance(group) for group in logs if len(group) > 1)
    error = math.sqrt(squares / freedom / len(logs[-1]))
    return _interval(mid, _critical(freedom, confidence) * error)


def narrowed(interval: Interval, *, pairs: int, to: int, calibrated: bool = False) -> Interval:
    """The interval that `to` pairs of the same noise and middle would give, instead of `pairs`."""
    half = math.log(interval.high / interval.mid)
    for number, sign in ((to, 1), (pairs, -1)):
        half *= (critical_of_pairs(number, calibrated=calibrated) / math.sqrt(number)) ** sign
    return _interval(math.log(interval.mid), half)


def detectable(noise: float, *, pairs: int, threshold: float, calibrated: bool = False) -> float:
    """The smallest slowdown, as a share, that so many pairs call slower nine times in ten.

    `noise` is the standard deviation of a pair's log ratio, known so that `pair_noise` never falls
    below it, `calibrated` whether by a calibration; `threshold` is what a slowdown must exceed and
    be significant. Infinite for fewer than two pairs.
    """
    import numpy as np
    from scipy import special

    if pairs < 2:
        return math.inf
    error = noise / math.sqrt(pairs)
    if error == 0:
        return threshold
    # What the mean must exceed, for each size of noise that such a sample shows.
    critical = critical_of_pairs(pairs, calibrated=calibrated)
    least = critical * error * np.maximum(_noises_seen(pairs), 1.0)
    least = np.maximum(math.log1p(threshold), least)

    def misses(effect: float) -> float:
        return POWER - float(np.mean(special.ndtr((effect - least) / error)))

    low, high = 0.0, float(least.max()) + 10 * error
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if misses(middle) > 0 else (low, middle)
    return math.expm1(min(high, 700.0))


@cache
def _noises_seen(pairs: int) -> npt.NDArray[np.float64]:
    """Two hundred equally likely estimates of a noise of 1, each the larger of two."""
    import numpy as np
    from scipy import special

    shares = np.sqrt((np.arange(200) + 0.5) / 200)
    seen: npt.NDArray[np.float64] = np.sqrt(special.chdtri(pairs - 1, 1 - shares) / (pairs - 1))
    return seen


def critical_of_pairs(pairs: int, *, calibrated: bool = False, together: bool = False) -> float:
    """Of two pairs or more: `CRITICAL_OF_PAIRS`, or what calibrated cases have by themselves or
    together.
    """
    table = CRITICAL_OF_PAIRS
    if calibrated:
        table = CRITICAL_TOGETHER if together else CRITICAL_OF_CALIBRATED
    return table[min(pairs - 2, len(table) - 1)]


@cache
def _critical(freedom: float, confidence: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, (1 + confidence) / 2))


def _interval(mid: float, half: float) -> Interval:
    """From logarithms; everything where `half` is infinite."""
    high = half if math.isinf(half) else math.exp(min(mid + half, 700.0))
    return Interval(low=math.exp(mid - half), mid=math.exp(mid), high=high)
