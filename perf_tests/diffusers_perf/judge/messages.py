"""The words of the judge: every message it has.

A message has five parts (see `finding.Message`). Commands that follow work when pasted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import join
from statistics import median
from typing import TYPE_CHECKING

from diffusers_perf.catalog.metrics import Metric, Unit
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Message
from diffusers_perf.judge.stats import Interval

if TYPE_CHECKING:
    from diffusers_perf.catalog.declarations import Tolerance
    from diffusers_perf.judge.question import Question
    from diffusers_perf.records.measurement import Count, Distance

PORTABLE = "baselines/portable.json, for any machine"

# Commands


def rerun(case: str, options: Sequence[str] = ()) -> str:
    """Runs one case alone with these options of the main job."""
    command = f'pytest "perf_tests/test_generation.py::test_generation[{case}]" --benchmark-only'
    return f"{command} {join(options)}".rstrip()


def accept(options: Sequence[str] = ()) -> str:
    """Makes three runs of the main job and accepts them."""
    run = f"pytest perf_tests --benchmark-only --benchmark-json runs/$n.json {join(options)}"
    return (
        f"for n in 1 2 3; do {run.rstrip()}; done; "
        'diffusers-perf accept runs/1.json runs/2.json runs/3.json --reason "why"'
    )


def accept_images(options: Sequence[str] = ()) -> str:
    """Makes a run of the main job and accepts its references' images."""
    run = f"pytest perf_tests --benchmark-only --benchmark-json runs/1.json {join(options)}"
    return f'{run.rstrip()}; diffusers-perf accept runs/1.json --images-only --reason "why"'


def bring_back(options: Sequence[str] = ()) -> str:
    """What to do about a case that is missing."""
    return f"bring it back, or accept runs without it:\n{accept(options)}"


# Numbers


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a number is compared with."""

    values: Sequence[float]
    """Of each accepted process, or one; none where only a limit is known."""
    source: str


def times(ratio: float) -> str:
    """``1.25x faster``, ``1.25x slower``."""
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"


def seen_as(metric: Metric, seen: Interval) -> str:
    """A number, with its interval where it has one."""
    if seen.low == seen.high:
        return metric.shown(seen.mid)
    if seen.low == 0:
        return f"{metric.shown(seen.mid)} in one round"
    low, high = metric.shown(seen.low), metric.shown(seen.high)
    return f"{metric.shown(seen.mid)}, 99 % interval {low} to {high}"


def _expected(metric: Metric, expected: Expected) -> str:
    if not expected.values:
        return expected.source
    low, high = metric.shown(min(expected.values)), metric.shown(max(expected.values))
    numbers = low if low == high else f"{low} to {high}"
    return f"{numbers} ({expected.source})"


def difference(name: str, *, was: Count, now: Count, steps: int) -> str:
    """A counter's change: ``casts 12 → 1,234 (+61 in each of 20 steps)``."""
    per_step, fixed = now.per_step - was.per_step, now.fixed - was.fixed
    parts = [f"{per_step:+,} in each of {steps} steps"] if per_step else []
    parts += [f"{fixed:+,} fixed"] if fixed else []
    totals = f"{was.total(steps):,} → {now.total(steps):,}"
    return f"{name.replace('_', ' ')} {totals} ({' and '.join(parts) or 'no change'})"


def most(metric: Metric, was: Count, *, steps: int) -> str:
    """How many more of a counter pass."""
    if not metric.rise:
        return "no more, in total or per step"
    most = int(was.total(steps) * (1 + metric.rise))
    return f"at most {most:,} ({100 * metric.rise:.0f} % more)"


def other_versions(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Which versions a baseline was made with, where this run has others."""
    others = [
        f"{name} {theirs[name]}, now {version}"
        for name, version in ours.items()
        if name in theirs and theirs[name] != version
    ]
    return f"; made with {'; '.join(others)}" if others else ""


# Images


def not_finite(q: Question) -> Message:
    return Message(
        what="the decoder's output contains NaN or infinity",
        limit="every value finite",
        next=f"look for an overflow in half precision, then rerun:\n{q.rerun}",
    )


def black(q: Question, mean: float, *, limit: float) -> Message:
    return Message(
        what="image is black",
        measured=f"mean brightness {mean:.4f} (darkest image)",
        limit=f"at least {limit}",
        next="look for an overflow in half precision or a safety checker, then rerun:\n" + q.rerun,
    )


def uniform(q: Question, std: float, *, limit: float) -> Message:
    return Message(
        what="image is uniform",
        measured=f"standard deviation {std:.4f} (most uniform image)",
        limit=f"at least {limit}",
        next=f"look at the decoder's input and output, then rerun:\n{q.rerun}",
    )


def not_repeated(q: Question, psnr_db: float, *, limit: float) -> Message:
    return Message(
        what="the last round's image differs from the first's, with the same seed: state leaks "
        "between generations",
        measured=f"PSNR {psnr_db:.1f} dB between them",
        limit=f"at least {limit:.0f} dB",
        next=q.rerun,
    )


def ignored(q: Question) -> Message:
    return Message(
        what=f"another {' or '.join(q.measured.ignored)} gives the same image: something is kept "
        "from the generation before",
        measured="identical images",
        limit="another seed or prompt changes the image",
        next=f"look for a buffer that is replayed but no longer written, then rerun:\n{q.rerun}",
    )


def far(q: Question, distance: Distance, limit: Tolerance) -> Message:
    compare = "compare the images saved next to the run's JSON"
    if q.is_reference:
        what = "image is too far from the accepted one"
        expected = "the image accepted for these weights, in baselines/images"
        command = f"{compare}; if the change is intended:\n{accept_images(q.options)}"
    else:
        what = f"image is too far from {q.reference.case}'s"
        expected = f"{q.reference.case}'s image in the same run"
        command = f"{compare}, then rerun:\n{q.rerun}"
    return Message(
        what=what,
        measured=f"PSNR {distance.psnr_db:.1f} dB, SSIM {distance.ssim:.3f}",
        expected=expected,
        limit=f"PSNR at least {limit.psnr_db:.0f} dB, SSIM at least {limit.ssim:.2f}",
        next=command,
    )


def no_accepted_image(q: Question) -> Message:
    return Message(what="no accepted image for these weights", next=accept_images(q.options))


def not_compared(q: Question) -> Message:
    source = f"{q.reference.case}'s image in the same run"
    return not_measured(q, f"image distance to {q.reference.case}", source)


# Times and memory


def beyond(
    q: Question,
    metric: Metric,
    status: Status,
    seen: Interval,
    limit: float,
    expected: Expected,
    reasons: Sequence[str],
) -> Message:
    """A metric beyond its limit; `reasons` are why it is invalid."""
    what = _change(q, metric, seen.mid, limit, expected)
    if reasons:
        what += f", but the measurement is invalid ({'; '.join(reasons)})"
    elif status == Status.INCONCLUSIVE:
        what += ", within the noise" if seen.low else ", but one round does not show the noise"
    return Message(
        what=what,
        measured=seen_as(metric, seen),
        expected=_expected(metric, expected),
        limit=f"at {'least' if metric.more_is_better else 'most'} {metric.shown(limit)}",
        next=q.rerun,
    )


def _change(q: Question, metric: Metric, value: float, limit: float, expected: Expected) -> str:
    """``GPU busy 1.06x slower than accepted, 0.8000 s → 0.8500 s``."""
    subject = metric.name.removesuffix(" speedup").removesuffix(" ratio")
    reference = q.reference.case
    if metric.more_is_better:
        return f"{subject} {times(value)} than {reference}, limit {times(limit)}"
    if metric.ratio_of:
        return f"{subject} {value:.2f}x {reference}'s, limit {limit:.2f}x"
    if not expected.values:
        return f"{subject} {metric.shown(value)}, limit {metric.shown(limit)}"
    was = median(expected.values)
    ratio = f"{value / was:.2f}x {'slower' if metric.unit is Unit.SECONDS else 'as much'}"
    than = "than" if metric.unit is Unit.SECONDS else "as"
    return f"{subject} {ratio} {than} accepted, {metric.shown(was)} → {metric.shown(value)}"


def improved(q: Question, metric: Metric, value: float, *, best: float) -> Message:
    return Message(
        what=f"{metric.name} {times(best / value)} than the best accepted process, "
        f"{metric.shown(best)} → {metric.shown(value)}",
        expected=q.source,
        next=f"accept the improvement:\n{q.accept}",
    )


def warning_outdated(q: Question, metric: Metric, value: float, *, limit: float) -> Message:
    subject = metric.name.removesuffix(" speedup")
    return Message(
        what=f"{subject} {times(value)} than {q.reference.case}, where the guide warns that it is "
        "not faster",
        measured=metric.shown(value),
        expected=PORTABLE,
        limit=f"at most {metric.shown(limit)}",
        next=f"check that {q.reference.case} did not become slower, then report it to the guide:\n"
        + q.rerun,
    )


def not_measured(q: Question, label: str, source: str) -> Message:
    return Message(
        what=f"{label} could not be measured, but has a limit",
        measured="; ".join(q.measured.notes),
        expected=source,
        next=f"fix the measurement, then rerun:\n{q.rerun}",
    )


def other_workload(q: Question, name: str, *, was: object, now: object) -> Message:
    return Message(
        what=f"the baseline is of another workload: {name} was {was}, is {now}",
        expected=q.source,
        next=f"run the accepted workload, or accept this one:\n{q.accept}",
    )


def drift(ratio: float) -> str:
    return f"reference drift: {ratio:.2f}x its first timing"


def slow_core(ratio: float) -> str:
    return f"slow CPU core: {ratio:.2f}x its best time for the calibration loop"


# Counters


def counted(q: Question, metric: Metric, status: Status, was: Count, now: Count) -> Message:
    """A counter that rose or fell."""
    steps = q.measured.steps
    what = difference(metric.name, was=was, now=now, steps=steps)
    if status == Status.LESS_WORK:
        return Message(what=what, expected=q.source, next=f"accept the improvement:\n{q.accept}")
    return Message(
        what=what,
        measured=f"{now.total(steps):,}",
        expected=f"{was.total(steps):,} ({q.source})",
        limit=most(metric, was, steps=steps),
        next=q.rerun,
    )


def counters_not_accepted(q: Question, names: Sequence[str]) -> Message:
    labels = ", ".join(name.replace("_", " ") for name in names)
    return Message(what=f"not judged, since the baseline lacks them: {labels}", next=q.accept)


def left_behind(q: Question, count: int, *, limit: int) -> Message:
    return Message(
        what=f"each generation leaves {count:,} bytes of tensors behind",
        measured=f"{count:,} bytes",
        expected="a generation frees what it allocates",
        limit=f"at most {limit:,} bytes",
        next=f"look for a list or a hook that keeps tensors, then rerun:\n{q.rerun}",
    )


# Measuring


def cold(q: Question, first: float, others: Sequence[float], *, limit: float) -> Message:
    usual = median(others)
    rounds = ", ".join(f"{seconds:.3f} s" for seconds in others)
    return Message(
        what=f"first round {first / usual:.1f}x slower than the others: the warm-up was too short",
        measured=f"{first:.3f} s, then {rounds}",
        limit=f"at most {limit:.1f}x their median, {limit * usual:.3f} s",
        next=f"look for what is built on first use, then rerun:\n{q.rerun}",
    )


def early(q: Question, busy_s: float, *, limit: float) -> Message:
    latency_s = q.measured.latency_s
    return Message(
        what=f"latency {latency_s:.3f} s is shorter than GPU busy time, {busy_s:.3f} s: the timer "
        "does not wait for the GPU",
        measured=f"{latency_s:.4f} s",
        expected=f"at least the GPU busy time, {busy_s:.4f} s",
        limit=f"at least {100 * limit:.0f} % of it, {limit * busy_s:.4f} s",
        next=f"look for results that are fetched without synchronizing, then rerun:\n{q.rerun}",
    )
