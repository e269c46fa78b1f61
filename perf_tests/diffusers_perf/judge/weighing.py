"""What pairs of processes say of one metric: numbers in, a status and a sentence out.

A time is slower if the 99 % t interval of the pairs' log ratios lies beyond 1 and their mean beyond
the threshold; the same if the interval lies within the threshold; inconclusive otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from diffusers_perf.catalog.metrics import Metric
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.stats import Interval, detectable, narrowed, pair_noise, paired_interval

PAIRS_MOST = 10
"""That `ab` makes; in what they leave inconclusive more would see little more."""
PAIRS_TO_FORESEE = 3
"""Fewer say too little of the noise to foresee what more would say."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What became of one metric of one case."""

    status: Status
    ratio: Interval
    """Head over base, with its 99 % interval."""
    said: str
    """The same in words."""
    more_could_tell: bool
    """Whether further pairs, `PAIRS_MOST` in all, could settle what is inconclusive."""


def weigh(
    metric: Metric, over: Sequence[float], under: Sequence[float], *, known: float, of: int
) -> Weighed:
    """Head's values (`over`) against base's (`under`): the quiet pairs, of `of` that were made.

    `known` is the noise of one side between processes, as calibrated; 0 where nobody did.
    """
    ratio = paired_interval(over, under, known=known)
    status = _status(metric, ratio)
    return Weighed(
        status=status,
        ratio=ratio,
        said=_said(metric, status, under, over, ratio, known),
        more_could_tell=status == Status.INCONCLUSIVE
        and _more_could_tell(metric, ratio, pairs=len(over), of=of),
    )


def _status(metric: Metric, ratio: Interval) -> Status:
    most = 1 + metric.threshold
    if ratio.low > 1 and ratio.mid > most:
        return metric.worse
    if ratio.high < 1 and ratio.mid < 1 / most:
        return Status.FASTER
    if 1 / most <= ratio.low and ratio.high <= most:
        return Status.SAME
    return Status.INCONCLUSIVE


def _more_could_tell(metric: Metric, ratio: Interval, *, pairs: int, of: int) -> bool:
    """Could those left to `PAIRS_MOST` settle it, as noisy as these, the quiet ones of `of`?"""
    if of >= PAIRS_MOST or pairs < PAIRS_TO_FORESEE:
        return of < PAIRS_MOST
    then = narrowed(ratio, pairs=pairs, to=pairs + PAIRS_MOST - of)
    # Wherever the middle comes to lie: too wide for the threshold, it is never the same.
    fits = then.high / then.mid <= 1 + metric.threshold
    return fits or _status(metric, then) != Status.INCONCLUSIVE


def _said(
    metric: Metric,
    status: Status,
    under: Sequence[float],
    over: Sequence[float],
    ratio: Interval,
    known: float,
) -> str:
    values = f"{metric.shown(median(under))} → {metric.shown(median(over))}"
    interval = f"99 % interval {ratio.low:.3f}x to {ratio.high:.3f}x"
    if status == Status.SAME:
        return (
            f"{metric.name} {ratio.mid:.3f}x base's, {interval}, within {share(metric.threshold)}"
        )
    if status == Status.INCONCLUSIVE:
        if len(over) < 2:
            return (
                f"{metric.name} {ratio.mid:.3f}x base's, {values}, in one pair, which says nothing "
                "of the noise"
            )
        seen = detectable(
            pair_noise(over, under, known=known), pairs=len(over), threshold=metric.threshold
        )
        return (
            f"{metric.name} {ratio.mid:.3f}x base's, {values}, {interval}: these {len(over)} pairs "
            f"can see {share(seen)} or more"
        )
    if status == Status.FASTER:
        interval = f"99 % interval {1 / ratio.high:.3f}x to {1 / ratio.low:.3f}x"
    how = {
        Status.FASTER: f"{1 / ratio.mid:.3f}x faster than base",
        Status.SLOWER: f"{ratio.mid:.3f}x slower than base",
        Status.MORE_MEMORY: f"{ratio.mid:.3f}x base's",
    }[status]
    return f"{metric.name} {how}, {values}, {interval}, limit {1 + metric.threshold:.2f}x"


def share(value: float) -> str:
    """A share as a person reads it: 2.1 %, 12 %, and where it more than doubles a factor of 3."""
    if value >= 1:
        return f"a factor of {min(1 + value, 100):.0f}"
    return f"{100 * value:.{1 if value < 0.1 else 0}f} %"
