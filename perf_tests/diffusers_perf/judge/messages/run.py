"""The messages of a verdict on one run."""

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
    from diffusers_perf.catalog.declarations import Tolerance
    from diffusers_perf.judge.question import Question
    from diffusers_perf.records.measurement import Count, Distance

PORTABLE = "baselines/portable.json, for any machine"


RESTORE = "restore it, or accept runs without it"


# Images


def not_finite(q: Question) -> Message:
    return Message(
        what="the decoder's output contains NaN or infinity",
        limit="every value finite",
        advice="look for an overflow in half precision, then rerun",
        command=q.rerun,
    )


def black(q: Question, mean: float, *, limit: float) -> Message:
    return Message(
        what="image is black",
        measured=f"mean brightness {mean:.4f} (darkest image)",
        limit=f"at least {limit}",
        advice="look for an overflow in half precision or a safety checker, then rerun",
        command=q.rerun,
    )


def uniform(q: Question, std: float, *, limit: float) -> Message:
    return Message(
        what="image is uniform",
        measured=f"standard deviation {std:.4f} (most uniform image)",
        limit=f"at least {limit}",
        advice="look at the decoder's input and output, then rerun",
        command=q.rerun,
    )


def not_repeated(q: Question, psnr_db: float, *, limit: float) -> Message:
    return Message(
        what="the last round's image differs from the first's, with the same seed: state leaks "
        "between generations",
        measured=f"PSNR {psnr_db:.1f} dB between them",
        limit=f"at least {limit:.0f} dB",
        command=q.rerun,
    )


def ignored(q: Question) -> Message:
    names = [name for name in q.measured.ignored if name != "generator"]
    return Message(
        what=f"another {' or '.join(names)} gives the same image: something is kept "
        "from the generation before",
        measured="identical images",
        limit="another seed or prompt changes the image",
        advice="look for a buffer that is replayed but no longer written, then rerun",
        command=q.rerun,
    )


def generator_ignored(q: Question) -> Message:
    return Message(
        what="the image does not follow its generator's seed: the pipeline draws from torch's "
        "global generator",
        measured="two calls with the same generator's seed differ, and not with the same global "
        "seed",
        limit="the same generator's seed gives the same image",
        advice="look for noise that is drawn without the generator, then rerun",
        command=q.rerun,
    )


def not_as_alone(q: Question, psnr_db: float, *, limit: float) -> Message:
    return Message(
        what="an image of the batch differs from the same image generated alone",
        measured=f"PSNR {psnr_db:.1f} dB between them",
        limit=f"at least {limit:.0f} dB",
        advice="look for a kernel or a code path that larger batches take, then rerun",
        command=q.rerun,
    )


def default_output(q: Question, psnr_db: float, *, limit: float) -> Message:
    return Message(
        what="the images that users get by default differ from the arrays of the same call",
        measured=f"PSNR {psnr_db:.1f} dB between them",
        expected="arrays (output_type='np') of the same call",
        limit=f"at least {limit:.0f} dB",
        advice="look at the conversion of the decoder's output, then rerun",
        command=q.rerun,
    )


def cached(q: Question, repeated_s: float, usual_s: float, *, limit: float) -> Message:
    return Message(
        what="a round that repeats a seed returned without computing: the pipeline caches its "
        "results",
        measured=f"{repeated_s:.4f} s, with a new seed {usual_s:.4f} s",
        limit=f"at least {100 * limit:.0f} % of a round with a new seed, {limit * usual_s:.4f} s",
        advice="switch the cache of results off where pipelines are measured, then rerun",
        command=q.rerun,
    )


def far(q: Question, distance: Distance, limit: Tolerance) -> Message:
    compare = "compare the images saved next to the run's JSON"
    command: Command
    if q.is_reference:
        what = "image is too far from the accepted one"
        expected = "the image accepted for these weights, in baselines/images"
        advice, command = f"{compare}; if the change is intended", q.accept_images
    else:
        what = f"image is too far from {called(q.reference.case)}'s"
        expected = f"{called(q.reference.case)}'s image in the same run"
        advice, command = f"{compare}, then rerun", q.rerun
    return Message(
        what=what,
        measured=f"PSNR {distance.psnr_db:.1f} dB, SSIM {distance.ssim:.3f}",
        expected=expected,
        limit=f"PSNR at least {limit.psnr_db:.0f} dB, SSIM at least {limit.ssim:.2f}",
        advice=advice,
        command=command,
    )


def far_step(
    q: Question,
    step: int,
    inputs_db: float,
    prediction_db: float,
    *,
    limit_db: float,
    block: str | None,
) -> Message:
    """The first step beyond the limit; `block` is the first of the denoiser's that is."""
    if inputs_db < limit_db:
        what = f"step {step}: the denoiser's inputs differ from {called(q.reference.case)}'s"
        measured = f"signal-to-noise ratio {inputs_db:.1f} dB"
        advice = (
            "look at what changed before the denoiser: prompt, text encoder, guidance, scheduler"
        )
    else:
        what = f"step {step}: the denoiser's prediction differs from {called(q.reference.case)}'s"
        measured = f"signal-to-noise ratio {prediction_db:.1f} dB"
        advice = "add --first-block to name the block that differs"
        if block:
            measured += f", first in block {block}"
            advice = f"look at what changed in {block}"
    return Message(
        what=what,
        measured=measured,
        expected=f"{called(q.reference.case)}'s step from the same latents, in the same run",
        limit=f"at least {limit_db:.0f} dB",
        advice=f"{advice}, then rerun",
        command=q.rerun,
    )


def no_step_tolerance(q: Question) -> Message:
    return Message(
        what="its steps were compared, and an optimization of its stack states no limit on them",
        expected="a step_db in the tolerance of each optimization on a step-wise workload",
        advice="state step_db in its tolerance, then rerun",
        command=q.rerun,
    )


def no_accepted_image(q: Question) -> Message:
    return Message(what="no accepted image for these weights", command=q.accept_images)


def not_compared(q: Question) -> Message:
    source = f"{called(q.reference.case)}'s image in the same run"
    return not_measured(q, f"image distance to {called(q.reference.case)}", source)


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
        expected=PORTABLE,
        limit=f"at most {metric.shown(limit)}",
        advice=f"check that {reference} did not become slower, then report it to the guide",
        command=q.rerun,
    )


def not_measured(q: Question, label: str, source: str) -> Message:
    return Message(
        what=f"{label} could not be measured, but has a limit",
        measured="; ".join(q.measured.notes),
        expected=source,
        advice="fix the measurement, then rerun",
        command=q.rerun,
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


def slow_core(ratio: float) -> str:
    return f"slow CPU core: {ratio:.2f}x its best time for the calibration loop"


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
    return replace(not_measured(q, "", q.source), what=what)


def counters_not_accepted(q: Question, names: Sequence[str]) -> Message:
    labels = ", ".join(label(name) for name in names)
    counters = plural(len(names), "counter")
    return Message(what=f"{counters} without an accepted count: {labels}", command=q.accept)


def left_behind(q: Question, metric: Metric, count: int) -> Message:
    if metric.name == KEPT_BYTES.name:
        what = f"each generation leaves {count:,} bytes of tensors behind"
        measured, advice = f"{count:,} bytes", "look for a list or a hook that keeps tensors"
    else:
        where = metric.name.removesuffix(" growth")
        what = f"each generation of a new prompt and seed adds {count:,} bytes of {where} memory"
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
    return Message(
        what=f"first round {first / usual:.1f}x slower than the others: the warm-up was too short",
        measured=f"{first:.3f} s, then {rounds}",
        limit=f"at most {limit:.1f}x their median, {limit * usual:.3f} s",
        advice="look for what is built on first use, then rerun",
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
