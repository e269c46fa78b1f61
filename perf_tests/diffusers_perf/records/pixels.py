"""Looks at images: is there something on them, and how close are two to each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusers_perf.messages import records as messages
from diffusers_perf.records.measurement import IDENTICAL_DB, Distance, Look

Images = npt.NDArray[np.float32]
"""Shape (count, height, width, 3), in [0, 1]."""

SIDE_LEAST = 7
"""Pixels; SSIM has no smaller window."""
THUMBNAIL = 64
"""Pixels of the longer side of an accepted image."""


class NotComparable(ValueError):
    """Images that cannot be compared; one sentence says why."""


def look(images: Images) -> Look:
    """Look at images before they are quantized: a NaN would become an honest black."""
    shown = _finite(images)
    return Look(
        finite=bool(np.isfinite(images).all()),
        mean=float(min(p.mean() for p in shown)),
        std=float(min(p.std(axis=(0, 1)).max() for p in shown)),
    )


def distance(images: Images, reference: Images) -> Distance:
    """PSNR in dB and SSIM of each image with its partner; the lowest of each.

    `NotComparable` for batches of different shapes, or images of too few pixels.
    """
    from skimage.metrics import structural_similarity

    if images.shape != reference.shape:
        raise NotComparable(messages.other_images(images.shape, reference.shape))
    psnr, ssim = [], []
    for one, other in zip(_finite(images), _finite(reference), strict=True):
        if np.array_equal(one, other):
            psnr.append(IDENTICAL_DB)
            ssim.append(1.0)
            continue
        if min(images.shape[1:3]) < SIDE_LEAST:
            raise NotComparable(messages.few_pixels(images.shape, SIDE_LEAST))
        # Not the library's, which is this and imports scipy.stats: a second of each process.
        error = np.mean((one - other) ** 2, dtype=np.float64)
        psnr.append(min(IDENTICAL_DB, float(-10 * np.log10(error))))
        ssim.append(float(structural_similarity(other, one, data_range=1.0, channel_axis=-1)))
    return Distance(psnr_db=min(psnr), ssim=min(ssim))


def _finite(images: Images) -> Images:
    """The same without NaN and infinity, so that no number of a record is either."""
    return np.nan_to_num(images, nan=0.0, posinf=1.0, neginf=0.0)


def thumbnail(images: Images) -> Images:
    """Means over blocks, so that the longer side has at most `THUMBNAIL` pixels.

    Every pixel counts, also where the blocks cannot all be of one size.
    """
    _, height, width, _ = images.shape
    sides = thumbnail_sides(height, width)
    smaller = images
    for axis, side in ((1, height), (2, width)):
        edges = np.linspace(0, side, sides[axis - 1] + 1).round().astype(int)
        sums = np.add.reduceat(smaller, edges[:-1], axis=axis, dtype=np.float32)
        lengths = np.diff(edges).astype(np.float32)
        smaller = np.divide(sums, np.expand_dims(lengths, [a for a in range(4) if a != axis]))
    return smaller


def thumbnail_sides(height: int, width: int) -> tuple[int, int]:
    """Height and width of the thumbnails of such images, in pixels."""
    scale = min(1.0, THUMBNAIL / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
