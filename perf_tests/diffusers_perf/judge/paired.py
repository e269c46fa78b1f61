"""The rules for one case that was measured on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from statistics import median

from diffusers_perf.catalog.metric import Metric, MetricKind, Subject
from diffusers_perf.catalog.metrics import (
    COUNTERS,
    DENOISING_STAGE,
    IMAGE,
    IMAGE_DROP_DB,
    METRICS,
    TORCH_FLAGS,
)
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import counters, flags, images, measuring
from diffusers_perf.judge.comparison import Change
from diffusers_perf.judge.counters import count_status
from diffusers_perf.judge.finding import Finding, Message
from diffusers_perf.judge.interference import OF_HOST, loops_of
from diffusers_perf.judge.messages import comparison as messages
from diffusers_perf.judge.messages import run as run_messages
from diffusers_perf.judge.messages.commands import Literal
from diffusers_perf.judge.sides import PairedCase, question_of
from diffusers_perf.judge.weighing import PAIRS_MOST, PAIRS_TO_FORESEE, Weighed, weigh
from diffusers_perf.messages.numbers import plural
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.run import CaseRecord, Run

Noise = Mapping[str, Mapping[str, float]]
"""By a case's key and `Metric.field`: the standard deviation of its log between processes."""
SLACK_OF_FEW = 0.6
"""The share beyond base, beside the margin, by which disturbances may lengthen the start or a stage
of a single process: of two processes of one commit on H200s, one each, by up to 0.50."""
SPEED_SHARE = 0.005
"""A difference between both sides' calibration loops that is too small to slow all cases much."""
ON_IMAGES = {metric.name for metric in METRICS if metric.kind is MetricKind.IMAGE}
"""Metrics of an image."""


def timed(sides: PairedCase, metric: Metric, noise: Noise) -> Iterator[Change]:
    """A time or memory in the pairs in which it is valid."""
    had, has = (
        [value for case in side if (value := metric.of(case.measurement)) is not None]
        for side in (sides.in_base, sides.in_head)
    )
    base, head = (median(values) if values else None for values in (had, has))

    def change(status: Status, message: Message, *, more_could_tell: bool = False) -> Change:
        return replace(
            Change.of(status, metric.name, sides.name, message),
            base=base,
            head=head,
            more_could_tell=more_could_tell,
        )

    if not had and not has:
        return
    if not had or not has:
        notes = chain.from_iterable(
            case.measurement.notes_on(metric.label)
            for case in (sides.in_head if had else sides.in_base)
        )
        measured_in = "base" if had else "head"
        message = messages.one_side(
            metric.name, list(dict.fromkeys(notes)), measured_in=measured_in, rerun=sides.rerun
        )
        yield change(Status.INCONCLUSIVE, message)
        return
    by_pair, reasons = sides.by_pair(metric)
    both = [pair for pair in by_pair if pair]
    left_out = ""
    if reasons:
        left_out = messages.left_out(len(reasons), sides.pairs, reasons[0])
    if not both:
        one_host = not (metric.wall_clock and sides.other_host)
        message = messages.no_pair(metric, left_out, one_host=one_host, rerun=sides.rerun)
        yield change(Status.INVALID, message, more_could_tell=sides.pairs < PAIRS_TO_FORESEE)
        return
    under, over = [b for b, _ in both], [h for _, h in both]
    base, head = median(under), median(over)
    known = noise.get(sides.in_head[0].key, {}).get(sides.clock.noise_field(metric), 0.0)
    # Not assigned to `metric`: the clock asks which one it is.
    judged = replace(metric, threshold=sides.clock.threshold(metric))
    weighed = weigh(judged, over, under, known=known, of=sides.pairs)
    is_moved = weighed.status not in (Status.SAME, Status.INCONCLUSIVE)
    if is_moved and metric.wall_clock and _is_speed_of_host(sides, weighed, judged.threshold):
        message = messages.speed_of_host(metric, sides.hosts.slower, rerun=sides.rerun)
        yield change(Status.INVALID, message, more_could_tell=sides.pairs < PAIRS_MOST)
        return
    ratio = weighed.ratio.mid
    if is_moved and sides.clock.card_explains(metric, ratio):
        message = messages.speed_of_card(metric, ratio, base=base, head=head, rerun=sides.rerun)
        yield change(Status.INVALID, message)
        return
    message = messages.weighed(
        judged,
        weighed.status,
        weighed.ratio,
        under=base,
        over=head,
        pairs=len(both),
        detectable=weighed.detectable,
        left_out=left_out,
        read_as=sides.clock.read_as(metric),
    )
    message = _then(sides, weighed, message)
    found = change(weighed.status, message, more_could_tell=weighed.more_could_tell)
    yield replace(
        found,
        ratio=weighed.ratio,
        noise=weighed.noise,
        calibrated=weighed.calibrated,
        threshold=judged.threshold,
        # All cases of another host, or of another GPU, are a little slower together.
        by_pair=() if _is_other_speed(sides, metric) else by_pair,
    )


def _is_other_speed(sides: PairedCase, metric: Metric) -> bool:
    """Whether times that are compared as they are were measured on GPUs at other clocks or, of a
    wall clock, on cores of other speeds.
    """
    if sides.clock.other_card(metric):
        return True
    slower = abs(sides.hosts.slower - 1) > SPEED_SHARE
    return metric.wall_clock and not sides.clock.host_bound and slower


def _is_speed_of_host(sides: PairedCase, weighed: Weighed, threshold: float) -> bool:
    """Whether head is slower or faster because its host is."""
    if sides.clock.host_bound:
        return False
    seen = [case.measurement for case in (*sides.in_base, *sides.in_head)]
    return sides.hosts.explain(weighed.ratio.mid, seen, threshold=threshold)


def least(sides: PairedCase, metric: Metric) -> Iterator[Change]:
    """A metric to which disturbances only add: the least of all processes of head against base's.

    Yields nothing if head is within the limit, or if one side did not measure it. Few processes may
    all have been disturbed, and are inconclusive up to `SLACK_OF_FEW`, or as far as a CPU core
    that was slow for a while explains it.
    """
    had, has = (
        [value for case in side if (value := metric.of(case.measurement)) is not None]
        for side in (sides.in_base, sides.in_head)
    )
    if not had or not has:
        return
    base, head = min(had), min(has)
    slack = metric.limit.slack if metric.limit else 0.0
    of_few = max(slack, SLACK_OF_FEW)
    # Not the decoder: its kernels are few and long, and the host waits for them.
    if metric in (*OF_HOST, DENOISING_STAGE):
        of_few = max(of_few, _slowest_core(sides) - 1)
    limit, certain = (base * (1 + share) + metric.margin for share in (slack, of_few))
    if head > limit:
        message = messages.least(metric, base, head, limit=limit, pairs=sides.pairs)
        few = head <= certain and sides.pairs < PAIRS_TO_FORESEE
        message = _more_pairs(sides, message) if few else _if_worse(sides, metric.worse, message)
        status = Status.INCONCLUSIVE if few else metric.worse
        found = Change.of(status, metric.name, sides.name, message)
        yield replace(found, base=base, head=head, more_could_tell=few)


def _slowest_core(sides: PairedCase) -> float:
    """How much longer head's slowest calibration loop took than the comparison's quickest, in the
    process where it took the least.

    A stage of some ten milliseconds lies between two rounds: a core that is at half of its speed
    beside some of them may be so for the whole of it.
    """
    slowest = [max(loops) for case in sides.in_head if (loops := loops_of(case.measurement))]
    best = min(sides.hosts.loops_s, default=None)
    return min(slowest) / best if slowest and best else 1.0


def _then(sides: PairedCase, weighed: Weighed, message: Message) -> Message:
    """The message with what to do about it."""
    if weighed.status != Status.INCONCLUSIVE:
        return _if_worse(sides, weighed.status, message)
    if not weighed.more_could_tell:
        most = max(sides.pairs, PAIRS_MOST)
        return replace(message, advice=messages.too_noisy(most))
    return _more_pairs(sides, message)


def _more_pairs(sides: PairedCase, message: Message) -> Message:
    if sides.again and not sides.more:
        return replace(message, advice=messages.QUIETER, command=sides.again)
    command = Literal(text=sides.more) if sides.more else messages.MORE
    return replace(message, advice=messages.MORE_PAIRS, command=command)


def _if_worse(sides: PairedCase, status: Status, message: Message) -> Message:
    if status.passes:
        return message
    return replace(message, advice=messages.REPRODUCE, command=sides.rerun)


def counted(sides: PairedCase) -> Iterator[Change]:
    """Counters against base's; one that varies between processes counts beyond its whole range."""
    steps = sides.in_head[0].measurement.steps
    had, has = (
        [case.measurement.counters for case in side] for side in (sides.in_base, sides.in_head)
    )
    judged = [n for n in dict.fromkeys(chain.from_iterable((*had, *has))) if n in COUNTERS]
    unseen = [n for n in judged if not all(n in counts for counts in (*had, *has))]
    changes = [
        change
        for name in judged
        if (
            change := _counter(
                sides,
                COUNTERS[name],
                *([counts[name] for counts in side if name in counts] for side in (had, has)),
                steps=steps,
            )
        )
    ]
    yield from changes
    if unseen:
        lacking = [
            f"{count} of {plural(len(side), 'process', 'processes')} of {where}"
            for where, side in (("base", had), ("head", has))
            if (count := sum(unseen[0] not in counts for counts in side))
        ]
        message = messages.not_counted(unseen, lacking, rerun=sides.rerun)
        yield Change.of(Status.INCONCLUSIVE, Subject.COUNTERS, sides.name, message)
    elif not changes and judged:
        message = messages.same_counters(len(judged))
        yield Change.of(Status.SAME, Subject.COUNTERS, sides.name, message)


def _counter(
    sides: PairedCase, metric: Metric, was: Sequence[Count], now: Sequence[Count], *, steps: int
) -> Change | None:
    """One counter in all processes; None where it is the same."""
    statuses = {count_status(metric, was=w, now=n, steps=steps) for w in was for n in now}
    if statuses <= {Status.SAME}:
        return None
    was, now = (sorted(side, key=lambda count: count.total(steps)) for side in (was, now))
    if len(statuses) > 1:
        # What was counted depends on more than the code.
        status, before, after = Status.INCONCLUSIVE, was[0], now[-1]
        totals = [[count.total(steps) for count in side] for side in (was, now)]
        message = messages.varying(metric.name, *totals, rerun=sides.rerun)
    else:
        (status,) = statuses
        # The nearest of both sides: head's least against base's most, and the other way round.
        before, after = (was[-1], now[0]) if status == Status.MORE_WORK else (was[0], now[-1])
        message = messages.counted(metric, status, before, after, steps=steps)
        message = _if_worse(sides, status, message)
    return replace(
        Change.of(status, metric.name, sides.name, message),
        base=float(before.total(steps)),
        head=float(after.total(steps)),
    )


def alone(sides: PairedCase) -> Iterator[Change]:
    """What head's runs show without base: images within their tolerance, and no leak."""
    found, before = (
        [finding for run in side for finding in _findings(sides, run)]
        for side in (sides.head, sides.base)
    )
    in_base = {(finding.metric, finding.status) for finding in before}
    groups: dict[str, list[Finding]] = {}
    for finding in found:
        name = IMAGE.name if finding.metric in ON_IMAGES else finding.metric
        groups.setdefault(name, []).append(finding)
    for metric, group in groups.items():
        most_severe = max(group, key=lambda finding: finding.status.severity)
        if metric == IMAGE.name and most_severe.status.passes and (farther := _farther(sides)):
            yield farther
            continue
        message: Message = most_severe
        if most_severe.status == Status.SAME:
            case = sides.in_head[0]
            has_tolerance = case.is_reference or case.tolerance is not None
            message = messages.image_passes(has_tolerance=has_tolerance)
        elif (most_severe.metric, most_severe.status) in in_base:
            # It fails whoever caused it, and a reader wants to know.
            message = replace(most_severe, what=f"{most_severe.what}; as in base")
        yield _image_change(sides, metric, most_severe.status, message)


def flagged(sides: PairedCase) -> Iterator[Change]:
    """Torch's global flags against base's."""
    base, head = (side[0].measurement.flags for side in (sides.in_base, sides.in_head))
    for status, changes in flags.changed(base, head).items():
        message = run_messages.flags(changes, source="base", rerun=sides.rerun)
        yield Change.of(status, TORCH_FLAGS.name, sides.name, message)


def _findings(sides: PairedCase, run: Run) -> Iterator[Finding]:
    """What this case shows in a run by itself."""
    if (case := run.by_id.get(sides.name)) is None:
        return
    question = question_of(case, run, again=sides.again)
    yield from images.judged(question)
    if not case.image_only:
        yield from counters.leak(question)
        # What is invalid leaves out its pair; what cannot be true is wrong in any pair.
        yield from (f for f in measuring.judged(question) if not f.status.passes)


def _image_change(sides: PairedCase, metric: str, status: Status, message: Message) -> Change:
    base, head = (_psnr(side) for side in (sides.in_base, sides.in_head))
    found = Change.of(status, metric, sides.name, message)
    return replace(found, base=base, head=head) if metric == IMAGE.name else found


def _farther(sides: PairedCase) -> Change | None:
    """An image that passes by itself, and is farther from the reference's than base's is: a
    tolerance leaves room for what optimizations do, not for a regression.
    """
    seen = [
        [run.by_id[sides.name].measurement for run in pair]
        for pair in zip(sides.base, sides.head, strict=True)
        if all(sides.name in run.by_id for run in pair)
    ]
    known = [
        (was.image_distance.psnr_db, now.image_distance.psnr_db)
        for was, now in seen
        if was.look.finite and was.image_distance and now.image_distance
    ]
    if not known or any(
        now >= min(was - IMAGE_DROP_DB, images.REPEAT_PSNR_DB) for was, now in known
    ):
        return None
    case = sides.in_head[0]
    message = messages.farther(
        None if case.is_reference else case.compared_with.case,
        base_db=min(was for was, _ in known),
        head_db=min(now for _, now in known),
        drop_db=IMAGE_DROP_DB,
        pairs=len(known),
        rerun=sides.rerun,
    )
    return _image_change(sides, IMAGE.name, Status.WORSE_IMAGE, message)


def _psnr(cases: Sequence[CaseRecord]) -> float | None:
    """Of the farthest image, in dB."""
    seen = [case.measurement.image_distance for case in cases]
    return min((distance.psnr_db for distance in seen if distance), default=None)
