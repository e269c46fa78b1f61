"""The images of a case: sound, the same in every round, and close to what they must be close to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from diffusers_perf.catalog.declarations import Tolerance
from diffusers_perf.catalog.metrics import IMAGE, IMAGE_DISTANCE, IMAGE_PSNR, REPEAT
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages import images as messages
from diffusers_perf.judge.outlier import outlier_of
from diffusers_perf.judge.question import Question

BLACK_MEAN = 0.02
"""An image darker than this on average (0 to 1) is black."""
UNIFORM_STD = 0.02
"""An image whose every channel varies less than this over its places is uniform."""
REPEAT_PSNR_DB = 60.0
"""The last round's image against the first's: the same numbers, but for a library's choices."""
ALONE_PSNR_DB = 55.0
"""An image of a batch against the same image alone, in float32. On a CPU they are the same; TF32
rounds to 71 dB, and attention that is 2 % off is at 51 dB."""
ALONE_LOSSY_PSNR_DB = 40.0
"""The same where the workload has optimizations as its base, half precision above all."""
DEFAULT_PSNR_DB = 50.0
"""Images as users get them against arrays of the same call: rounding to 8 bits is at 59 dB."""
COMPUTED_SHARE = 0.2
"""A round that repeats a seed in less than this share of the others' time was not computed: looking
an image up takes a thousandth of making it."""
COMPUTED_SHARE_OF_TWO = 0.02
"""Of two rounds, the first can have been cold."""
REFERENCE_IMAGE = Tolerance(psnr_db=35.0, ssim=0.95)
"""The reference's image against the accepted one, both 64 pixels a side, unless its weights have a
tolerance of their own (`catalog.REFERENCE_TOLERANCES`). Measured on seeded weights on an H100: tf32
71 dB and fp16 63 dB are what another GPU or version may do; no guidance is at 22 dB (SSIM 0.80),
another prompt at 20 dB (0.77), another seed at 17 dB (0.11)."""
ROUNDING_PSNR_DB = 103.0
"""The same in float32 on a CPU, where the accepted image has 16 bits, which show 107 dB at most.
Another number of threads and CPUs without AVX-512 or AVX are at 129 dB and more; torch 2.11.0 on
another machine and torch 2.14.1, against 2.13.0, show 107 dB. A table of the scheduler that lost
half of its bits is at 65 to 74 dB on the embedded UNet, at 101 dB on the embedded transformer."""
OTHER_ROUNDING_PSNR_DB = 90.0
"""The same of weights of which less is known: a sampler can enlarge rounding."""


def judged(q: Question) -> Iterator[Finding]:
    broken = _broken(q)
    if broken:
        yield broken
        return
    ignored, repeat_psnr_db = set(q.measured.ignored), q.measured.repeat_psnr_db
    if "generator" in ignored:
        yield q.finding(Status.ERROR, REPEAT.name, messages.generator_ignored(q))
    elif repeat_psnr_db < REPEAT_PSNR_DB:
        message = messages.not_repeated(q, repeat_psnr_db, limit=REPEAT_PSNR_DB)
        yield q.finding(Status.WORSE_IMAGE, REPEAT.name, message)
    if ignored - {"generator"}:
        # Without its seed it was not computed, and its time says nothing.
        status = Status.ERROR if "seed" in q.measured.ignored else Status.WORSE_IMAGE
        yield q.finding(status, REPEAT.name, messages.ignored(q))
    yield from _computed(q)
    alone_psnr_db = q.measured.alone_psnr_db
    is_plain = q.workload.get("base") == []
    limit_db = ALONE_PSNR_DB if is_plain else ALONE_LOSSY_PSNR_DB
    if alone_psnr_db is not None and alone_psnr_db < limit_db:
        message = messages.not_as_alone(q, alone_psnr_db, limit=limit_db)
        yield q.finding(Status.WORSE_IMAGE, IMAGE_DISTANCE.name, message)
    default_psnr_db = q.measured.default_psnr_db
    if default_psnr_db is not None and default_psnr_db < DEFAULT_PSNR_DB and not ignored:
        message = messages.default_output(q, default_psnr_db, limit=DEFAULT_PSNR_DB)
        yield q.finding(Status.WORSE_IMAGE, IMAGE_DISTANCE.name, message)
    yield from _followed(q)
    yield _close(q)


def _computed(q: Question) -> Iterator[Finding]:
    """Whether each round made its image. The first round has the warm-up's seed and the last round
    the first's; all others have seeds of their own.
    """
    first, *others = q.measured.rounds_s
    *between, last = others or [first]
    usual_s, repeated_s = (min(between), min(first, last)) if between else (first, last)
    limit = COMPUTED_SHARE if between else COMPUTED_SHARE_OF_TWO
    if repeated_s < limit * usual_s:
        message = messages.cached(q, repeated_s, usual_s, limit=limit)
        yield q.finding(Status.ERROR, REPEAT.name, message)


def _broken(q: Question) -> Finding | None:
    """What is wrong with an image by itself."""
    look = q.measured.look
    if not look.finite:
        return q.finding(Status.NOT_FINITE, IMAGE.name, messages.not_finite(q))
    if look.mean < BLACK_MEAN:
        return q.finding(Status.BLACK, IMAGE.name, messages.black(q, look.mean, limit=BLACK_MEAN))
    if look.std < UNIFORM_STD:
        message = messages.uniform(q, look.std, limit=UNIFORM_STD)
        return q.finding(Status.UNIFORM, IMAGE.name, message)
    return None


def _followed(q: Question) -> Iterator[Finding]:
    """Step by step, where the workload is compared so: the first step that is too far, or of
    blocks that are alike one that is far from what the others of its kind do.
    """
    limit, seen = q.tolerance, q.measured.step_distances
    if limit is None or seen is None:
        return
    if limit.step_db is None:
        yield q.finding(Status.INCONCLUSIVE, IMAGE_DISTANCE.name, messages.no_step_tolerance(q))
        return
    outlier = outlier_of(seen.blocks)
    steps = zip(seen.inputs_db, seen.predictions_db, strict=True)
    for number, (inputs_db, prediction_db) in enumerate(steps, 1):
        if min(inputs_db, prediction_db) < limit.step_db:
            message = messages.far_step(
                q, number, inputs_db, prediction_db, limit_db=limit.step_db, outlier=outlier
            )
            yield q.finding(Status.WORSE_IMAGE, IMAGE_DISTANCE.name, message)
            return
    if outlier is not None and seen.alike_blocks:
        message = messages.far_block(q, outlier)
        yield q.finding(Status.WORSE_IMAGE, IMAGE_DISTANCE.name, message)


def _close(q: Question) -> Finding:
    """To the reference's image of the same run; the reference's own to the accepted image."""
    limit, distance = q.tolerance, q.measured.image_distance
    if q.is_reference:
        limit = limit or REFERENCE_IMAGE
        if q.measured.accepted_bits == 16:
            rounding_db = ROUNDING_PSNR_DB if q.tolerance else OTHER_ROUNDING_PSNR_DB
            limit = replace(limit, psnr_db=max(limit.psnr_db, rounding_db))
    if distance is None:
        if q.is_reference:
            there = q.had_no_accepted_image
            said = messages.had_no_accepted_image if there else messages.no_accepted_image
            return q.finding(Status.NEW, IMAGE.name, said(q))
        if limit:
            return q.finding(Status.INCONCLUSIVE, IMAGE_DISTANCE.name, messages.not_compared(q))
    elif limit and (distance.psnr_db < limit.psnr_db or distance.ssim < limit.ssim):
        return q.finding(Status.WORSE_IMAGE, IMAGE_DISTANCE.name, messages.far(q, distance, limit))
    elif q.baseline and distance.psnr_db < q.baseline.limits.get(IMAGE_PSNR.limit_name, 0):
        message = messages.farther_than_accepted(q, q.baseline, distance)
        return q.finding(Status.WORSE_IMAGE, IMAGE_PSNR.name, message)
    return q.finding(Status.SAME, IMAGE.name)
