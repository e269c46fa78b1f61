"""What a verdict on one run says, images aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.metrics import KEPT_BYTES
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Message
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.judge.messages.numbers import (
    Expected,
    against,
    called,
    difference,
    first_of,
    interval,
    label,
    most,
    times,
)
from diffusers_perf.judge.stats import Interval
from diffusers_perf.messages.numbers import plural

if TYPE_CHECKING:
    from diffusers_perf.judge.question import Question
    from diffusers_perf.records.measurement import Count

RESTORE = "restore it, or accept runs without it"


# Times and memory


def portable(q: Question) -> str:
    """Where the bounds that hold on any machine come from."""
    return f"{q.folder}/portable.json, for any machine"


def beyond(
    q: Question,
    metric: Metric,
    status: Status,
    seen: Interval,
    limit: float,
    expected: Expected,
    reasons: Sequence[str],
    changes: Sequence[tuple[str, str, str]],
) -> Message:
    """A metric beyond its limit; `reasons` are why it is invalid, and `changes` what torch ran with
    then and now, each with its name.
    """
    what = _change(q, metric, seen.mid, limit, expected)
    what += "".join(f", torch's {name} {was} → {now}" for name, was, now in changes)
    if reasons:
        what += f", but the measurement is invalid ({'; '.join(reasons)})"
    elif status == Status.INCONCLUSIVE:
        what += ", within the noise" if seen.low else ", but one round does not show the noise"
    return Message(
        what=what,
        measured=interval(metric, seen),
        expected=expected.shown(metric),
        limit=f"at {'least' if metric.more_is_better else 'most'} {metric.shown(limit)}",
        command=q.rerun,
    )


def _change(q: Question, metric: Metric, value: float, limit: float, expected: Expected) -> str:
    """``GPU busy 1.06x slower than accepted, 0.8000 s → 0.8500 s``."""
    subject = metric.name.removesuffix(" speedup").removesuffix(" ratio")
    reference = called(q.reference.case)
    if metric.more_is_better:
        only = "only " if value >= 1 else ""
        return f"{subject} {only}{times(value)} than {reference}, limit {times(limit)}"
    if metric.ratio_of:
        return f"{subject} {value:.2f}x {reference}'s, limit {limit:.2f}x"
    if not expected.values:
        return f"{subject} {metric.shown(value)}, limit {metric.shown(limit)}"
    return against(metric, value, median(expected.values), "accepted")


def improved(q: Question, metric: Metric, value: float, *, best: float) -> Message:
    return Message(
        what=f"{metric.name} {times(best / value)} than the best accepted process, "
        f"{metric.shown(best)} → {metric.shown(value)}",
        expected=q.source,
        advice="accept the improvement",
        command=q.accept,
    )


def warning_outdated(q: Question, metric: Metric, value: float, *, limit: float) -> Message:
    subject, reference = metric.name.removesuffix(" speedup"), called(q.reference.case)
    return Message(
        what=f"{subject} {times(value)} than {reference}, where the guide warns that it is not "
        "faster",
        measured=metric.shown(value),
        expected=portable(q),
        limit=f"at most {metric.shown(limit)}",
        advice=f"check that {reference} did not become slower, then report it to the guide",
        command=q.rerun,
    )


def not_measured(q: Question, label: str, source: str, *, notes: Sequence[str]) -> Message:
    """`notes` are those that say why."""
    return Message(
        what=f"{label} could not be measured, but has a limit",
        measured="; ".join(notes),
        expected=source,
        advice="fix the measurement, then rerun",
        command=q.rerun,
    )


def lacks(case: str, label: str, notes: Sequence[str]) -> str:
    """Of two cases, which was not measured, and why as far as it is known."""
    return f"{called(case)} has no {label}" + (f" ({'; '.join(notes)})" if notes else "")


def other_fewest_steps(q: Question, metrics: Sequence[str], *, was: int, now: int) -> Message:
    return Message(
        what=f"{' and '.join(metrics)} not compared: the shortest generation had "
        f"{plural(was, 'step')} when it was accepted and has {now} now",
        expected=q.source,
        advice="look for a number of steps that the pipeline newly refuses, or now takes; if it is "
        "intended, accept it",
        command=q.accept,
    )


def other_workload(q: Question, name: str, *, was: object, now: object) -> Message:
    return Message(
        what=f"the baseline is for another workload: {name} was {was} and is now {now}",
        expected=q.source,
        advice="run the accepted workload, or accept this one",
        command=q.accept,
    )


def drift(ratio: float, *, is_noise: bool = False, is_significant: bool = False) -> str:
    text = f"reference drift: {ratio:.2f}x its first timing"
    if is_significant:
        return f"{text}; latencies of this run are unreliable"
    return f"{text}, within the variation of its rounds" if is_noise else text


def not_timed_again(reason: str) -> str:
    return f"not timed again: {reason}"


def of_reference(case: str, reason: str) -> str:
    """Of the case that another is compared with."""
    return f"{called(case)}: {reason}"


def slow_core(ratio: float) -> str:
    return f"slow CPU core: {ratio:.2f}x its best time for the calibration loop"


def slower_than_accepted(ratio: float, *, during_import: bool) -> str:
    when = "during the import" if during_import else "beside the rounds"
    return f"slow CPU core: {ratio:.2f}x the accepted time for the calibration loop {when}"


def power_limited(clocks_mhz: Sequence[int]) -> str:
    return f"{_at_power_limit(clocks_mhz)}, and the whole call took no longer than accepted"


def power_limited_card(clocks_mhz: Sequence[int], *, known: bool) -> str:
    """`known`: whether it is known that the accepted processes ran on another card."""
    card = "is another card than accepted" if known else "may be another card than accepted"
    return f"{_at_power_limit(clocks_mhz)}, and {card}"


ACCEPT_CARD = "to judge this card more finely, accept it, or compare with a commit (ab)"


def _at_power_limit(clocks_mhz: Sequence[int]) -> str:
    low, high = min(clocks_mhz), max(clocks_mhz)
    return f"the GPU was at its power limit ({low:,} to {high:,} MHz)"


def uneven_rounds(ratio: float) -> str:
    return f"uneven rounds: one took {ratio:.1f}x as long as is usual for them"


# Counters

TORCH_DEFAULTS = "torch's own"


def flags(changes: Sequence[tuple[str, str, str]], *, source: str, rerun: Command) -> Message:
    """Torch's global flags that are not what they were: the name of each, then and now."""
    return Message(
        what="; ".join(f"{name}: {was} → {now}" for name, was, now in changes),
        expected=f"{', '.join(f'{name} {was}' for name, was, _ in changes)} ({source})",
        advice="find what sets them (an import, another library), then rerun",
        command=rerun,
    )


def counted(q: Question, metric: Metric, status: Status, was: Count, now: Count) -> Message:
    """A counter that rose or fell."""
    steps = q.measured.steps
    what = difference(metric.name, was=was, now=now, steps=steps)
    if status == Status.LESS_WORK:
        return Message(
            what=what, expected=q.source, advice="accept the improvement", command=q.accept
        )
    return Message(
        what=what,
        measured=f"{now.total(steps):,}",
        expected=f"{was.total(steps):,} ({q.source})",
        limit=most(metric, was, steps=steps),
        command=q.rerun,
    )


def not_counted(q: Question, names: Sequence[str]) -> Message:
    have = "has a limit" if len(names) == 1 else "have limits"
    what = f"{first_of(names)} could not be counted, but {have}"
    notes = q.measured.notes_on("no counters")
    return replace(not_measured(q, "", q.source, notes=notes), what=what)


def counters_not_accepted(q: Question, names: Sequence[str]) -> Message:
    labels = ", ".join(label(name) for name in names)
    counters = plural(len(names), "counter")
    return Message(what=f"{counters} without an accepted count: {labels}", command=q.accept)


def left_behind(q: Question, metric: Metric, count: int) -> Message:
    # Not the workload's steps: what leaks in each step adds up to more there.
    fewest = q.measured.fewest_steps
    each = f"each generation of {plural(fewest, 'step')}" if fewest else "each short generation"
    if metric.name == KEPT_BYTES.name:
        what = f"{each} leaves {count:,} bytes of tensors behind"
        measured, advice = f"{count:,} bytes", "look for a list or a hook that keeps tensors"
    else:
        where = metric.name.removesuffix(" growth")
        what = f"{each}, with a new prompt and seed, adds {count:,} bytes of {where} memory"
        measured = f"{count:,} bytes, the median of several generations"
        advice = "look for a list, or for a cache without a bound"
    return Message(
        what=what,
        measured=measured,
        expected="a generation frees what it allocates",
        limit=f"at most {metric.most:,} bytes",
        advice=f"{advice}, then rerun",
        command=q.rerun,
    )


# Measuring


def cold(q: Question, first: float, others: Sequence[float], *, limit: float) -> Message:
    usual = median(others)
    rounds = ", ".join(f"{seconds:.3f} s" for seconds in others)
    seen = q.measured.interference.reasons(wall_clock=True)
    cause = "; ".join(seen) or "the warm-up was too short, or other work disturbed it"
    return Message(
        what=f"first round {first / usual:.1f}x slower than the others: {cause}",
        measured=f"{first:.3f} s, then {rounds}",
        limit=f"at most {limit:.1f}x their median, {limit * usual:.3f} s",
        advice="" if seen else "look for what is built on first use, then rerun",
        command=q.rerun,
    )


def impossible(q: Question, shortest_s: float, roofline_s: float) -> Message:
    return Message(
        what=f"a round took {shortest_s:.4f} s, less than its roofline: it was not computed",
        measured=f"{shortest_s:.4f} s",
        expected="the arithmetic and memory traffic of one call on this GPU",
        limit=f"at least {roofline_s:.4f} s",
        advice="look for a cache of results or skipped work, then rerun",
        command=q.rerun,
    )


def early(q: Question, busy_s: float, *, limit: float) -> Message:
    latency_s = q.measured.latency_s
    return Message(
        what=f"latency {latency_s:.3f} s is shorter than GPU busy time, {busy_s:.3f} s: the timer "
        "does not wait for the GPU",
        measured=f"{latency_s:.4f} s",
        expected=f"at least the GPU busy time, {busy_s:.4f} s",
        limit=f"at least {100 * limit:.0f} % of it, {limit * busy_s:.4f} s",
        advice="look for results that are fetched without synchronizing, then rerun",
        command=q.rerun,
    )
