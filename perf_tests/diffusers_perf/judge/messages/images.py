"""What a verdict says of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers_perf.catalog.metrics import IMAGE_PSNR
from diffusers_perf.judge.finding import Message
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.judge.messages.numbers import Expected, called
from diffusers_perf.judge.messages.run import not_measured

if TYPE_CHECKING:
    from diffusers_perf.catalog.declarations import Tolerance
    from diffusers_perf.judge.outlier import FarBlock
    from diffusers_perf.judge.question import Question
    from diffusers_perf.records.baselines import CaseBaseline
    from diffusers_perf.records.measurement import Distance


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
    prompt = q.workload.get("prompt")
    is_text = all(isinstance(p, str) for p in (prompt if isinstance(prompt, list) else [prompt]))
    probed = ["seed", *(["prompt"] if is_text else [])]
    followed = [name for name in probed if name not in names]
    if names == ["seed"]:
        why = "the noise does not follow it"
        advice = (
            "leave latents out of the call, if it gives them; else look for noise that is drawn "
            "without the generator, or kept"
        )
        if not followed:
            why = f"{why}, or something is kept from the generation before"
    elif not followed:
        why = "something is kept from the generation before"
        advice = "look for a buffer that is replayed but no longer written"
    else:
        why = f"the pipeline does not use {'it' if len(names) == 1 else 'them'}"
        advice = "look for where it is dropped, replaced, or kept from the generation before"
    said = "".join(f"; another {name} changes the image" for name in followed)
    return Message(
        what=f"another {' or '.join(names)} gives the same image: {why}",
        measured=f"identical images{said}",
        limit=f"another {' or '.join(names)} changes the image",
        advice=f"{advice}, then rerun",
        command=q.rerun,
    )


def generator_ignored(q: Question) -> Message:
    return Message(
        what="the image does not follow its generator's seed: the pipeline draws from torch's "
        "global generator",
        measured="two calls with the same generator's seed differ, and not with the same global "
        "seed",
        limit="the same generator's seed gives the same image",
        advice="look for noise that is drawn without the generator, or a module in training mode "
        "(dropout), then rerun",
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
        where = f", in {q.folder}/images" if q.folder else ""
        expected = f"the image accepted for these weights{where}"
        advice, command = f"{compare}; if the change is intended", q.accept_images
        if q.again:
            advice, command = f"{compare}, then rerun", q.rerun
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


def farther_than_accepted(q: Question, baseline: CaseBaseline, distance: Distance) -> Message:
    """Within its tolerance, and beyond what the machine's baseline allows."""
    other = "the accepted image" if q.is_reference else f"{called(q.reference.case)}'s"
    expected = Expected(values=baseline.measured[IMAGE_PSNR.field], source=q.source)
    return Message(
        what=f"image is farther from {other} than it was when it was accepted",
        measured=f"PSNR {IMAGE_PSNR.shown(distance.psnr_db)}",
        expected=expected.shown(IMAGE_PSNR),
        limit=f"PSNR at least {IMAGE_PSNR.shown(baseline.limits[IMAGE_PSNR.limit_name])}, "
        "whatever the tolerance",
        advice="compare the images saved next to the run's JSON; if the change is intended",
        command=q.accept,
    )


def far_step(
    q: Question,
    step: int,
    inputs_db: float,
    prediction_db: float,
    *,
    limit_db: float,
    outlier: FarBlock | None,
) -> Message:
    """The first step beyond the limit; `outlier` is the block that stands out, if one does."""
    if inputs_db < limit_db:
        what = f"step {step}: the denoiser's inputs differ from {called(q.reference.case)}'s"
        measured = f"signal-to-noise ratio {inputs_db:.1f} dB"
        advice = (
            "look at what changed before the denoiser: prompt, text encoder, guidance, scheduler"
        )
    else:
        what = f"step {step}: the denoiser's prediction differs from {called(q.reference.case)}'s"
        measured = f"signal-to-noise ratio {prediction_db:.1f} dB"
        advice = "look at the denoiser's arithmetic: precision, attention, compilation"
        if outlier:
            measured += f", {outlier.db:.1f} dB in block {outlier.name} alone"
            advice = f"look at what changed in {outlier.name}"
    return Message(
        what=what,
        measured=measured,
        expected=f"{called(q.reference.case)}'s step from the same latents, in the same run",
        limit=f"at least {limit_db:.0f} dB",
        advice=f"{advice}, then rerun",
        command=q.rerun,
    )


def far_block(q: Question, outlier: FarBlock) -> Message:
    kind, *_ = outlier.kind.split()
    return Message(
        what=f"block {outlier.name} differs from {called(q.reference.case)}'s by more than the "
        "others of its kind",
        measured=f"signal-to-noise ratio {outlier.db:.1f} dB on the same inputs, median of "
        f"{outlier.blocks} {kind}s {outlier.median_db:.1f} dB",
        expected=f"{called(q.reference.case)}'s block on the same inputs, in the same run",
        limit=f"above {outlier.limit_db:.1f} dB",
        advice=f"look at what changed in {outlier.name}, then rerun",
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


def had_no_accepted_image(q: Question) -> Message:
    return Message(
        what="not compared with the accepted image, which the run did not have", command=q.rerun
    )


def not_compared(q: Question) -> Message:
    label = f"image distance to {called(q.reference.case)}"
    source = f"{called(q.reference.case)}'s image in the same run"
    return not_measured(q, label, source, notes=q.measured.notes_on("steps cannot be compared"))
