"""What a baseline allows: the limits that follow from what accepted processes measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any

from diffusers_perf.catalog.metric import PROCESSES_FEW, SLACK_MAX, LimitRule, Metric
from diffusers_perf.catalog.metrics import COUNTERS, LIMITED
from diffusers_perf.judge.interference import loops_of
from diffusers_perf.judge.stats import spread
from diffusers_perf.records import operators
from diffusers_perf.records.baselines import Calibration, CaseBaseline, rounded
from diffusers_perf.records.measurement import Count, Measurement
from diffusers_perf.records.run import Mode

Pair = tuple[Measurement, Measurement | None]
"""A case and its reference in one process; None of a workload's reference."""


def accepted_of(
    processes: Sequence[Pair],
    *,
    accepted: str,
    versions: Mapping[str, str],
    workload: Mapping[str, Any],
    device: str,
    calibrations: Mapping[Mode, Calibration] = MappingProxyType({}),
    cards: Sequence[str] = (),
) -> CaseBaseline:
    """The baseline that these processes of one case are accepted as.

    A counter that some processes lack is left out, and so is one that is not judged.
    """
    # Without a GPU they were counted in the code, are the same on every machine, and are judged by
    # baselines/operators/ alone.
    structural = () if device == "cuda" else operators.COUNTERS
    counters = [measured.counters for measured, _ in processes]
    known = {
        name: [one[name] for one in counters]
        for name in dict.fromkeys(name for one in counters for name in one)
        if name in COUNTERS and name not in structural and all(name in one for one in counters)
    }
    measured = measured_in(processes)
    steps = processes[0][0].steps
    counts = {name: _most(COUNTERS[name], counts, steps) for name, counts in known.items()}
    return CaseBaseline(
        accepted=accepted,
        versions=versions,
        workload=workload,
        measured=measured,
        roofline_s=min((rounded(m.roofline_s) for m, _ in processes if m.roofline_s), default=None),
        cpu_loop_s=min((rounded(s) for m, _ in processes for s in loops_of(m)), default=None),
        cards=tuple(sorted(set(cards))) if all(cards) else (),
        fewest_steps=min((m.fewest_steps for m, _ in processes if m.fewest_steps), default=None),
        counters={name: most for name, most in counts.items() if most is not None},
        flags={
            name: value
            for name, value in processes[0][0].flags.items()
            if all(one.flags.get(name) == value for one, _ in processes)
        },
        moving=tuple(name for name, most in counts.items() if most is None),
        limits=limits_of(measured, calibrations.get("whole")),
        calibrations=calibrations,
    )


def _most(metric: Metric, counts: Sequence[Count], steps: int) -> Count | None:
    """The most of these, where no process differs from another by more than may be added to it."""
    totals = [count.total(steps) for count in counts]
    if not metric.rise:
        return counts[0] if len(set(counts)) == 1 else None
    is_steady = max(totals) <= min(totals) * (1 + metric.rise)
    return counts[totals.index(max(totals))] if is_steady else None


def measured_in(processes: Sequence[Pair]) -> dict[str, tuple[float, ...]]:
    """By `Metric.field`, what each process that knows it measured."""
    found: dict[str, tuple[float, ...]] = {}
    for metric in LIMITED:
        values = [metric.of(measured, reference) for measured, reference in processes]
        if known := tuple(rounded(value) for value in values if value is not None):
            found[metric.field] = known
    return found


def limits_of(
    measured: Mapping[str, Sequence[float]], calibration: Calibration | None = None
) -> dict[str, float]:
    """By `Metric.limit_name`, what is allowed from here on. `measured` is by `Metric.field`.

    A workload's reference has no ratios; other cases are limited by theirs.
    """
    is_reference = not any(metric.ratio_of and metric.field in measured for metric in LIMITED)
    noise = calibration.noise if calibration else {}
    limits = {}
    for metric in LIMITED:
        values = measured.get(metric.field)
        if metric.limit and values and (is_reference or not metric.reference_only):
            values = _undisturbed(metric, metric.limit, values)
            limits[metric.limit_name] = rounded(_limit(metric, metric.limit, values, noise))
    return limits


def _undisturbed(metric: Metric, rule: LimitRule, values: Sequence[float]) -> Sequence[float]:
    """Without the longest start of at least three processes, where it is beyond the limit that the
    others give: a slow host, whose limit would let a regression pass.

    A process starts once. Of a stage the least of several counts, on a slow host as well.
    """
    if metric.detector != "load" or len(values) < PROCESSES_FEW:
        return values
    *others, longest = sorted(values)
    return others if longest > _limit(metric, rule, others, {}) else values


def _limit(
    metric: Metric, rule: LimitRule, values: Sequence[float], noise: Mapping[str, float]
) -> float:
    worst = min(values) if metric.more_is_better else max(values)
    anchor = median(values) if rule.anchor == "median" else worst
    if rule.drop:
        dropped = anchor - rule.drop
        return dropped if rule.enough is None else min(dropped, rule.enough)
    slack = _slack(rule, values, noise.get(metric.field) if rule.calibrated else None)
    return anchor * (1 - slack if metric.more_is_better else 1 + slack) + metric.margin


def _slack(rule: LimitRule, values: Sequence[float], calibrated: float | None) -> float:
    few = len(values) < PROCESSES_FEW and rule.slack_of_few is not None
    least = rule.slack_of_few if few and rule.slack_of_few is not None else rule.slack
    noise = spread(values) if calibrated is None else calibrated
    return min(SLACK_MAX, max(least, rule.noise_times * noise))
