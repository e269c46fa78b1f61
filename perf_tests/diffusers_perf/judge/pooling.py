"""Many small regressions: the cases of a workload, weighed together.

A change that is too small to show in one case shows in all of them together. The cases that are
inconclusive or the same by themselves are pooled, each pair by their weighted geometric mean, and
weighed as one case is, with half of its threshold: where all cases of a workload are slower, less
of it is worth knowing. One that is slower or faster by itself speaks for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

from diffusers_perf.catalog.metric import Metric, MetricKind
from diffusers_perf.catalog.metrics import COMPARED
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparison import Change
from diffusers_perf.judge.messages import comparison as messages
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.judge.stats import Interval, paired_interval

PAIRS_LEAST = 3
"""Fewer pairs pool nothing: two sides of two differ by chance."""
THRESHOLD_SHARE = 0.5


def with_pooled(
    changes: Sequence[Change], workloads: Mapping[str, str], *, rerun: Command
) -> Iterator[Change]:
    """The changes, those of a workload that are worse together called worse.

    `workloads` is by case id.
    """
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        workload = workloads.get(change.case)
        if workload and change.by_pair and change.status in (Status.SAME, Status.INCONCLUSIVE):
            groups.setdefault((change.metric, workload), []).append(change)
    worse: dict[tuple[str, str], Change] = {}
    for metric in COMPARED:
        for (name, _), group in groups.items():
            ratio = _worse(metric, group) if name == metric.name else None
            for change in group if ratio else ():
                if ratio and change.ratio and change.ratio.mid > 1:
                    message = messages.pooled(
                        metric,
                        change.ratio,
                        ratio,
                        base=change.base or 0.0,
                        head=change.head or 0.0,
                        cases=len(group),
                        most=_most(group),
                        rerun=rerun,
                    )
                    found = Change.of(metric.worse, metric.name, change.case, message)
                    worse[change.case, name] = replace(
                        found,
                        base=change.base,
                        head=change.head,
                        ratio=change.ratio,
                        noise=change.noise,
                        calibrated=change.calibrated,
                        threshold=change.threshold,
                        by_pair=change.by_pair,
                    )
    for change in changes:
        yield worse.get((change.case, change.metric), change)


def _worse(metric: Metric, group: Sequence[Change]) -> Interval | None:
    """The pooled interval of these cases, if they are worse together."""
    if metric.kind is not MetricKind.TIME or len(group) < 2:
        return None
    columns = list(zip(*(change.by_pair for change in group), strict=True))
    whole = [[pair for pair in column if pair] for column in columns if all(column)]
    if len(whole) < PAIRS_LEAST:
        return None
    base, head = ([[math.log(pair[i]) for pair in column] for column in whole] for i in (0, 1))
    noises = [change.noise for change in group]
    weights = _weights(noises)
    # Of one side, if the cases vary independently; where they vary together, the pairs show it.
    known = math.sqrt(sum((w * noise) ** 2 for w, noise in zip(weights, noises, strict=True)) / 2)
    # What differs between cases is the same in all pairs.
    under, over = (
        [math.exp(sum(w * v for w, v in zip(weights, row, strict=True))) for row in side]
        for side in (base, head)
    )
    calibrated = any(change.calibrated for change in group)
    ratio = paired_interval(over, under, known=known, calibrated=calibrated, together=True)
    return ratio if ratio.low > 1 and ratio.mid > _most(group) else None


def _most(group: Sequence[Change]) -> float:
    """The ratio that the cases may reach together."""
    return 1 + THRESHOLD_SHARE * max(change.threshold for change in group)


def _weights(noises: Sequence[float]) -> list[float]:
    """Each case counts by its noise; one that has less than the typical case counts as that one."""
    least = median(noises)
    parts = [(least / noise) ** 2 if noise > least else 1.0 for noise in noises]
    return [part / sum(parts) for part in parts]
