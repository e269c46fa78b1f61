"""What pairs of processes say of one metric: numbers in, a status out.

A metric is worse if the 99.5 % interval of the pairs' log ratios lies above 1 and their mean beyond
the metric's threshold; the same if the interval lies within the threshold; else inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.metrics import LATENCY
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.stats import Interval, detectable, narrowed, pair_noise, paired_interval

PAIRS = 5
"""That `ab` makes first, and that decide where they can."""
PAIRS_MOST = 10
"""That `ab` makes: what they leave inconclusive, more would hardly resolve."""
PAIRS_TO_FORESEE = 3
"""Fewer say too little of the noise to foresee what more would say. Where interference left all of
so many out, more would hardly be valid either."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What became of one metric of one case."""

    status: Status
    ratio: Interval
    """Head over base, with its 99.5 % interval."""
    noise: float
    """As `pair_noise` estimates it; infinite for one pair."""
    detectable: float | None
    """If inconclusive, the minimum detectable effect of these pairs, as a share; None of
    one pair, which does not show the noise.
    """
    calibrated: bool
    """Whether the interval has the quantiles of calibrated noise."""
    more_could_tell: bool
    """Whether more pairs, up to `PAIRS_MOST`, could settle what is inconclusive."""


def weigh(
    metric: Metric, over: Sequence[float], under: Sequence[float], *, known: float, of: int
) -> Weighed:
    """Head's values (`over`) against base's (`under`): the valid pairs, of `of` that were made.

    `known` is the noise of one side between processes, as calibrated; 0 where it is not.
    """
    calibrated = has_calibrated_quantiles(metric, known)
    ratio = paired_interval(over, under, known=known, calibrated=calibrated)
    status = _status(metric, ratio)
    inconclusive, pairs = status == Status.INCONCLUSIVE, len(over)
    noise = pair_noise(over, under, known=known) if pairs > 1 else math.inf
    effect = None
    if inconclusive and pairs > 1:
        threshold = metric.threshold
        effect = detectable(noise, pairs=pairs, threshold=threshold, calibrated=calibrated)
    return Weighed(
        status=status,
        ratio=ratio,
        noise=noise,
        detectable=effect,
        calibrated=calibrated,
        more_could_tell=inconclusive
        and _more_could_tell(metric, ratio, pairs=pairs, of=of, calibrated=calibrated),
    )


def has_calibrated_quantiles(metric: Metric, known: float) -> bool:
    """Whether few pairs use the smaller quantiles. Only latencies do: GPU busy time and memory
    hardly vary, so that a single outlier would decide.
    """
    return metric.name == LATENCY.name and known > 0


def _status(metric: Metric, ratio: Interval) -> Status:
    most = 1 + metric.threshold
    if ratio.low > 1 and ratio.mid > most:
        return metric.worse
    if ratio.high < 1 and ratio.mid < 1 / most:
        return Status.FASTER
    if 1 / most <= ratio.low and ratio.high <= most:
        return Status.SAME
    return Status.INCONCLUSIVE


def _more_could_tell(
    metric: Metric, ratio: Interval, *, pairs: int, of: int, calibrated: bool
) -> bool:
    """Could those left to `PAIRS_MOST` settle it, as noisy as these, the valid ones of `of`?"""
    if of >= PAIRS_MOST or pairs < PAIRS_TO_FORESEE:
        return of < PAIRS_MOST
    then = narrowed(ratio, pairs=pairs, to=pairs + PAIRS_MOST - of, calibrated=calibrated)
    # Wherever the middle comes to lie: too wide for the threshold, it is never the same.
    fits = then.high / then.mid <= 1 + metric.threshold
    return fits or _status(metric, then) != Status.INCONCLUSIVE
