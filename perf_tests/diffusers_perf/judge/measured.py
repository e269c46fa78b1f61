"""Times and memory against a machine's baseline, and against bounds that hold on any machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from diffusers_perf.catalog.metric import Metric, MetricKind
from diffusers_perf.catalog.metrics import IMAGE_PSNR, LIMITED, METRICS, PORTABLE, SHORTEST
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.flags import of_the_machine
from diffusers_perf.judge.interference import another_card, excuses
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.messages.numbers import Expected
from diffusers_perf.judge.question import Question
from diffusers_perf.judge.stats import Interval, mean_interval, ratio_interval
from diffusers_perf.records.baselines import CaseBaseline

GIB = 2**30


def accepted(q: Question, baseline: CaseBaseline) -> Iterator[Finding]:
    """Against the limits of the machine's baseline."""
    had, has = baseline.fewest_steps, q.measured.fewest_steps
    apart = [m for m in SHORTEST if had and has and had != has and m.limit_name in baseline.limits]
    if had and has and apart:
        message = messages.other_fewest_steps(q, [m.name for m in apart], was=had, now=has)
        yield q.finding(Status.INVALID, apart[-1].name, message)
    for metric in LIMITED:
        limit = baseline.limits.get(metric.limit_name)
        # The judge of images has one finding on their distance.
        if limit is None or metric is IMAGE_PSNR or metric in apart:
            continue
        seen = interval_of(metric, q)
        if seen is None:
            # Of a ratio it is said once, by the metric that it is a ratio of.
            if not metric.ratio_of and not metric.optional:
                yield not_measured(q, metric, q.source)
            continue
        were = baseline.measured[metric.field]
        yield from _against(q, metric, seen, limit, Expected(values=were, source=q.source))
        if metric.improves and seen.mid * metric.improves < min(were):
            message = messages.improved(q, metric, seen.mid, best=min(were))
            yield q.finding(Status.FASTER, metric.name, message)


def portable(q: Question) -> Iterator[Finding]:
    """Against the bounds of `portable.json`."""
    for name, bound in q.portable.items():
        metric = PORTABLE[name]
        seen = interval_of(metric, q)
        if seen is None:
            yield not_measured(q, metric, messages.portable(q))
            continue
        expected = Expected(
            values=(bound.expected,) if bound.expected else (), source=messages.portable(q)
        )
        if bound.at_least is not None:
            yield from _against(q, metric, seen, bound.at_least, expected)
        if bound.at_most is not None and metric.more_is_better:
            if seen.mid > bound.at_most:
                message = messages.warning_outdated(q, metric, seen.mid, limit=bound.at_most)
                yield q.finding(Status.FASTER, metric.name, message)
        elif bound.at_most is not None:
            yield from _against(q, metric, seen, _in_unit(metric, bound.at_most), expected)


def _in_unit(metric: Metric, bound: float) -> float:
    """A bound in the metric's own unit: `portable.json` has memory in GiB."""
    return bound * GIB if metric.portable.endswith("_gib") else bound


def interval_of(metric: Metric, q: Question) -> Interval | None:
    """The metric with its 99 % interval, which has no width for a single number; None where it was
    not measured.
    """
    if metric.samples:
        own, others = (getattr(m, metric.samples) for m in (q.measured, q.reference))
        return ratio_interval(others, own) if metric.ratio_of else mean_interval(own)
    value = metric.of(q.measured, q.reference)
    return None if value is None else Interval(low=value, mid=value, high=value)


def _against(
    q: Question, metric: Metric, seen: Interval, limit: float, expected: Expected
) -> Iterator[Finding]:
    """Worse where the whole interval is beyond the limit, inconclusive where its middle is."""
    if seen.mid >= limit if metric.more_is_better else seen.mid <= limit:
        if metric.kind is MetricKind.TIME:
            yield q.finding(Status.SAME, metric.name)
        return
    if metric.more_is_better:
        share = seen.high / limit
    else:
        share = limit / seen.low if seen.low > 0 else math.inf
    reasons = excuses(q, metric, share) if metric.kind is MetricKind.TIME else []
    status = Status.INVALID if reasons else metric.worse if share < 1 else Status.INCONCLUSIVE
    changes = of_the_machine(q) if metric.wall_clock else []
    message = messages.beyond(q, metric, status, seen, limit, expected, reasons, changes)
    if reasons and reasons == [*another_card(q, metric, share)]:
        # On the same card, another run would say the same.
        message = replace(message, advice=messages.ACCEPT_CARD, command=q.accept)
    yield q.finding(status, metric.name, message)


def not_measured(q: Question, metric: Metric, source: str) -> Finding:
    """What there is a limit for and could not be measured neither passes nor fails."""
    notes = q.measured.notes_on(metric.label)
    if metric.ratio_of:
        # Either of the two can be what is not known, or both.
        (of,) = (one for one in METRICS if one.field == metric.ratio_of)
        lacking = [one for one in (q.measured, q.reference) if of.of(one) is None]
        notes = [messages.lacks(one.case, of.label, one.notes_on(of.label)) for one in lacking]
    message = messages.not_measured(q, metric.label, source, notes=notes)
    return q.finding(Status.INCONCLUSIVE, metric.name, message)
