"""Counters against their accepted counts: they are the same in every run, so one run is enough."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers_perf.catalog.metric import Metric, Subject
from diffusers_perf.catalog.metrics import COUNTERS, LEFT
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.question import Question
from diffusers_perf.records import operators
from diffusers_perf.records.baselines import CaseBaseline
from diffusers_perf.records.measurement import Count


def accepted(q: Question, baseline: CaseBaseline) -> Iterator[Finding]:
    """Against the counts of the machine's baseline."""
    lost = [n for n in baseline.counters if n not in q.measured.counters]
    if lost:
        yield q.finding(Status.INCONCLUSIVE, Subject.COUNTERS, messages.not_counted(q, lost))
    unknown = [n for n in q.measured.counters if _is_unknown(q, baseline, n)]
    if unknown:
        yield q.finding(Status.NEW, Subject.COUNTERS, messages.counters_not_accepted(q, unknown))
    steps = q.measured.steps
    for name, was in baseline.counters.items():
        now, metric = q.measured.counters.get(name), COUNTERS.get(name)
        if now is None or metric is None:
            continue
        status = count_status(metric, was=was, now=now, steps=steps)
        if status != Status.SAME:
            message = messages.counted(q, metric, status, was, now)
            yield q.finding(status, metric.name, message)


def _is_unknown(q: Question, baseline: CaseBaseline, name: str) -> bool:
    """Would this counter be judged if the baseline had a count for it?"""
    # Counted in the code, where no GPU was seen, baselines/operators/ limits it.
    in_code = q.measured.gpu_busy_s is None and name in operators.COUNTERS
    return name in COUNTERS and name not in (*baseline.counters, *baseline.moving) and not in_code


def count_status(metric: Metric, *, was: Count, now: Count, steps: int) -> Status:
    """What a counter says: same, more work or less work."""
    share = 1 + metric.rise
    before, after = was.total(steps), now.total(steps)
    # Per step as well: fewer fixed ones must not pay for one more in each step.
    if after > before * share or (not metric.rise and now.per_step > was.per_step):
        return Status.MORE_WORK
    return Status.LESS_WORK if after * share < before else Status.SAME


def leak(q: Question) -> Iterator[Finding]:
    """What one generation leaves behind, and what each further one adds."""
    for field, metric in LEFT.items():
        left = q.measured.counters.get(field)
        if left is not None and left.fixed > metric.most:
            message = messages.left_behind(q, metric, left.fixed)
            yield q.finding(Status.MORE_MEMORY, metric.name, message)
