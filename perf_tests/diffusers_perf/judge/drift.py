"""How far a workload's reference moved between its rounds and a repetition of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.stats import ratio_interval
from diffusers_perf.records.run import Drift, Session

DRIFT_SHARE = 0.05
"""A reference that is significantly and this much slower or faster when repeated has drifted."""


def drift_of(again_s: Sequence[float], first_s: Sequence[float]) -> Drift:
    """Of the repeated rounds, in seconds, against the first ones."""
    ratio = ratio_interval(again_s, first_s)
    certain = not ratio.low <= 1 <= ratio.high
    return Drift(ratio=ratio.mid, significant=certain and abs(ratio.mid - 1) > DRIFT_SHARE)


def drift_lines(session: Session, *, all_of: bool = True) -> Iterator[str]:
    """What is known of each workload's drift, and why of one it is not; without `all_of` only those
    that are significant.
    """
    for workload, drift in session.reference_drift.items():
        if all_of or drift.significant:
            yield f"{workload}: {drift_text(drift)}"
    for workload, reason in session.not_timed_again.items():
        yield f"{workload}-{REFERENCE}: {messages.not_timed_again(reason)}"


def drift_text(drift: Drift) -> str:
    """A reference's drift in words."""
    is_noise = not drift.significant and abs(drift.ratio - 1) > DRIFT_SHARE
    return messages.drift(drift.ratio, is_significant=drift.significant, is_noise=is_noise)
