"""What says that the measuring itself is broken: no time of the case counts then."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from diffusers_perf.catalog.metrics import ROOFLINE, TIMER, WARM_UP
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.question import Question

UNEVEN = 1.5
"""Something else than the workload made a round that took this many times as long as the others."""
TIMER_SHARE = 0.9
"""A latency below this share of GPU busy time did not wait for the GPU."""


def judged(q: Question) -> Iterator[Finding]:
    first, *others = q.measured.rounds_s
    # Of two rounds, neither shows what is usual.
    if len(others) > 1 and first > UNEVEN * median(others):
        message = messages.cold(q, first, others, limit=UNEVEN)
        yield q.finding(Status.INVALID, WARM_UP.name, message)
    roofline_s = q.measured.roofline_s
    if roofline_s is not None and (shortest_s := min(q.measured.rounds_s)) < roofline_s:
        message = messages.impossible(q, shortest_s, roofline_s)
        yield q.finding(Status.ERROR, ROOFLINE.name, message)
    busy = q.measured.gpu_busy_s
    if busy is not None and q.measured.latency_s < TIMER_SHARE * busy:
        yield q.finding(Status.INVALID, TIMER.name, messages.early(q, busy, limit=TIMER_SHARE))
