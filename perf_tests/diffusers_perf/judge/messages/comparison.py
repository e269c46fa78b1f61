"""The messages of a comparison of head with base."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from diffusers_perf.catalog.metric import Metric, Unit
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Message
from diffusers_perf.judge.messages.commands import Command, Literal
from diffusers_perf.judge.messages.numbers import (
    against,
    called,
    difference,
    first_of,
    label,
    most,
    share,
    span,
)
from diffusers_perf.judge.stats import PAIRS_CONFIDENCE, Interval
from diffusers_perf.messages.numbers import plural
from diffusers_perf.records.measurement import Count

QUIETER = "rerun on a quieter machine"
ONE_HOST = "measure base and head in turn on one host"
ONE_GPU = "measure base and head in turn on one GPU"
FIX = "fix the measurement, then rerun"
MORE = Literal(text="diffusers-perf ab --help")


def summary(statuses: Collection[Status], exit_code: int, *, pairs: int) -> str:
    """``regression: 3 of 5 cases worse, 2 inconclusive (5 A/B pairs)``."""
    counts = {
        "worse": sum(not status.passes for status in statuses),
        "inconclusive": sum(status == Status.INCONCLUSIVE for status in statuses),
        "invalid": sum(status == Status.INVALID for status in statuses),
        "faster": sum(status == Status.FASTER for status in statuses),
        "with less work": sum(status == Status.LESS_WORK for status in statuses),
        "new": sum(status == Status.NEW for status in statuses),
        "the same": sum(status == Status.SAME for status in statuses),
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    first = parts[0].split(" ", 1)
    parts[0] = f"{first[0]} of {plural(len(statuses), 'case')} {first[1]}"
    verdict = ("passed", "regression", "inconclusive")[exit_code]
    return f"{verdict}: {', '.join(parts)} ({plural(pairs, 'A/B pair')})"


def detects(effects: Mapping[str, Sequence[float]]) -> str:
    """``minimum detectable effect: latency 2.1 % to 2.5 %, GPU busy 2.0 %``; by metric, of each
    case, as a share.
    """
    spans = []
    for metric, shares in effects.items():
        least, most = share(min(shares)), share(max(shares))
        spans.append(f"{metric} {least}" + (f" to {most}" if most != least else ""))
    return f"minimum detectable effect: {', '.join(spans)}"


# Cases


NOTHING_MEASURED = "no case was measured on either side"
NOTHING_IN_BASE = "base measured no case, so there is nothing to compare head with"
NOT_DECLARED = "head does not declare it, or it was not requested"
INTERRUPTED = "the run was interrupted before it"
LEFT_OUT = "it was deselected there"


def not_in_head(why: str, *, again: bool, rerun: Command) -> Message:
    return Message(
        what=f"measured in base, not in head: {why}",
        advice="run it" if again else "restore the case in head, then run it",
        command=rerun,
    )


def failed(what: str, *, in_base: bool, rerun: Command) -> Message:
    return Message(what=what + "; as in base" * in_base, command=rerun)


def not_in_base() -> Message:
    return Message(what="not measured in base")


# Times and memory


def one_side(metric: str, notes: Sequence[str], *, measured_in: str, rerun: Command) -> Message:
    other = "head" if measured_in == "base" else "base"
    return Message(
        what=f"{metric} was measured in {measured_in}, not in {other}",
        measured="; ".join(notes),
        advice=FIX,
        command=rerun,
    )


def no_pair(metric: Metric, left_out: str, *, one_host: bool, rerun: Command) -> Message:
    advice = QUIETER if one_host else ONE_HOST
    return Message(what=f"{metric.name} is invalid, {left_out}", advice=advice, command=rerun)


def left_out(count: int, pairs: int, why: str) -> str:
    return f"{count} of {plural(pairs, 'pair')} left out: {why}"


def weighed(
    metric: Metric,
    status: Status,
    ratio: Interval,
    *,
    under: float,
    over: float,
    pairs: int,
    detectable: float | None,
    left_out: str,
    read_as: str,
) -> Message:
    """A time or memory in pairs; `under` and `over` are base's and head's medians, `detectable` the
    minimum detectable effect of so many pairs where it matters, `read_as` how a latency is read.
    """
    what = against(metric, over, under, "base", ratio=ratio.mid)
    if status == Status.INCONCLUSIVE:
        what += ", within the noise" if pairs > 1 else ", but one pair does not show the noise"
    measured = f"head over base {Unit.RATIO.shown(ratio.mid)}"
    if read_as:
        measured += f" ({read_as})"
    if pairs > 1:
        measured += f", {interval_of_pairs(ratio)}"
    if detectable is not None:
        effect = share(detectable)
        measured += f"; minimum detectable effect with {plural(pairs, 'pair')}: {effect}"
    return Message(
        what=what + (f" ({left_out})" if left_out else ""),
        measured=measured,
        limit=""
        if status == Status.FASTER
        else f"at most {Unit.RATIO.shown(1 + metric.threshold)}",
    )


def interval_of_pairs(ratio: Interval) -> str:
    return f"{100 * PAIRS_CONFIDENCE:g} % interval {span(Unit.RATIO, ratio)}"


def pooled(
    metric: Metric,
    ratio: Interval,
    together: Interval,
    *,
    base: float,
    head: float,
    cases: int,
    most: float,
    rerun: Command,
) -> Message:
    """A case that is worse together with the others of its workload, `cases` in all; `ratio` is its
    own, `base` and `head` its medians.
    """
    return Message(
        what=against(metric, head, base, "base", ratio=ratio.mid),
        measured=(
            f"head over base {Unit.RATIO.shown(together.mid)} in {cases} cases of the workload "
            f"together, {interval_of_pairs(together)}"
        ),
        limit=f"at most {most:.3f}x together",
        advice=REPRODUCE,
        command=rerun,
    )


def other_host(base_s: float, head_s: float) -> str:
    was, now = (f"{1000 * seconds:.1f} ms" for seconds in (base_s, head_s))
    return f"base and head ran on CPUs of different speed (best calibration loop {was} and {now})"


def other_cpu(base: str, head: str) -> str:
    return f"base and head ran on different CPUs ({base} and {head})"


def slowed_by_host(idle: float) -> str:
    return f"the GPU, which sets the pace, waited for the host {100 * idle:.0f} % of the time"


def speed_of_host(metric: Metric, slower: float, *, rerun: Command) -> Message:
    """`slower` is head's calibration loop over base's."""
    return Message(
        what=f"{metric.name} changed as the CPU's speed did between base and head",
        measured=f"calibration loop, head over base {Unit.RATIO.shown(slower)}",
        advice=ONE_HOST,
        command=rerun,
    )


def speed_of_card(
    metric: Metric, ratio: float, *, base: float, head: float, rerun: Command
) -> Message:
    """`base` and `head` are the medians, `ratio` that of the pairs."""
    return Message(
        what=f"{against(metric, head, base, 'base', ratio=ratio)}, but base and head may have run "
        "on different GPUs, which differ by as much at their power limit",
        measured=f"head over base {Unit.RATIO.shown(ratio)}",
        advice=ONE_GPU,
        command=rerun,
    )


LEAST_ROUND = "of the least rounds"
AT_ONE_SPEED = "of the least rounds, at one speed of the CPU"


def too_noisy(pairs: int) -> str:
    return (
        f"{pairs} pairs with this noise would not resolve it: {QUIETER}, into another folder "
        "(--out)"
    )


MORE_PAIRS = "measure more pairs, or use a quieter machine"
REPRODUCE = "if it is intended, merge it; else reproduce it"


# Counters


def counted(metric: Metric, status: Status, was: Count, now: Count, *, steps: int) -> Message:
    limit = most(metric, was, steps=steps) if status == Status.MORE_WORK else ""
    return Message(what=difference(metric.name, was=was, now=now, steps=steps), limit=limit)


def varying(name: str, before: Sequence[int], after: Sequence[int], *, rerun: Command) -> Message:
    was, now = (
        " to ".join(f"{total:,}" for total in dict.fromkeys((min(side), max(side))))
        for side in (before, after)
    )
    return Message(
        what=f"{label(name)} {was} → {now}, not the same in all processes of a side",
        advice="find what makes processes of one commit differ, then rerun",
        command=rerun,
    )


def not_counted(names: Sequence[str], lacking: Sequence[str], *, rerun: Command) -> Message:
    return Message(
        what=f"{first_of(names)} not counted in {' and '.join(lacking)}",
        advice=FIX,
        command=rerun,
    )


def same_counters(count: int) -> Message:
    return Message(what=f"{plural(count, 'counter')} as in base")


def least(metric: Metric, base: float, head: float, *, limit: float, pairs: int) -> Message:
    return Message(
        what=against(metric, head, base, "base"),
        measured=f"the least of head's {plural(pairs, 'process', 'processes')}",
        expected=f"{metric.shown(base)}, the least of base's",
        limit=f"at most {metric.shown(limit)}",
    )


def other_fewest_steps(metrics: Sequence[str], base: int, head: int) -> Message:
    return Message(
        what=f"{' and '.join(metrics)} not compared: the shortest generation has "
        f"{plural(base, 'step')} in base and {plural(head, 'step')} in head",
        advice="look for a number of steps that the pipeline newly refuses, or now takes",
    )


# Images


def image_passes(*, has_tolerance: bool) -> Message:
    if has_tolerance:
        return Message(what="image within its tolerance")
    return Message(what="image neither black nor uniform; it has no tolerance")


def farther(
    reference: str | None,
    *,
    base_db: float,
    head_db: float,
    drop_db: float,
    pairs: int,
    rerun: Command,
) -> Message:
    """`reference` is None for a reference, whose image is compared with the accepted one."""
    than = "the accepted image" if reference is None else f"{called(reference)}'s"
    return Message(
        what=f"image farther from {than} than base's, PSNR {base_db:.1f} → {head_db:.1f} dB",
        measured=f"in each of {plural(pairs, 'pair')}",
        limit=f"at most {drop_db:.0f} dB below base's, whatever the tolerance",
        advice="compare the images saved next to the runs' JSON, then rerun",
        command=rerun,
    )


# The reference, timed again


def timed_again(ratios: Sequence[float], *, moved: int, pairs: int) -> Message:
    what = f"reference timed again: {min(ratios):.3f}x to {max(ratios):.3f}x its first timing"
    if moved:
        what += f"; latencies of {moved} of {plural(pairs, 'pair')} are left out"
    return Message(what=what, advice=QUIETER if moved else "")
