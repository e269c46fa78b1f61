"""Looks at images: is there something on them, and how close are two to each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.metrics import structural_similarity

from diffusers_perf.records.measurement import IDENTICAL_DB, Distance, Look

Images = npt.NDArray[np.float32]
"""Shape (count, height, width, 3), in [0, 1]."""

THUMBNAIL = 64
"""Accepted images are kept at this height and width, in pixels."""


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

    `ValueError` for batches of different shapes.
    """
    if images.shape != reference.shape:
        raise ValueError(f"images of {images.shape} cannot be compared with {reference.shape}")
    psnr, ssim = [], []
    for one, other in zip(_finite(images), _finite(reference), strict=True):
        if np.array_equal(one, other):
            psnr.append(IDENTICAL_DB)
            ssim.append(1.0)
            continue
        # Not the library's, which is this and imports scipy.stats: a second of each process.
        error = np.mean((one - other) ** 2, dtype=np.float64)
        psnr.append(min(IDENTICAL_DB, float(-10 * np.log10(error))))
        ssim.append(float(structural_similarity(other, one, data_range=1.0, channel_axis=-1)))
    return Distance(psnr_db=min(psnr), ssim=min(ssim))


def _finite(images: Images) -> Images:
    """The same without NaN and infinity, so that no number of a record is either."""
    return np.nan_to_num(images, nan=0.0, posinf=1.0, neginf=0.0)


def thumbnail(images: Images) -> Images:
    """Means over squares, down to `THUMBNAIL` pixels a side; smaller images stay as they are."""
    count, height, width, channels = images.shape
    step = max(1, height // THUMBNAIL)
    squares = images.reshape(count, height // step, step, width // step, step, channels)
    smaller: Images = squares.mean(axis=(2, 4), dtype=np.float32)
    return smaller


def save(images: Images, path: Path) -> None:
    """Write the images side by side as one PNG."""
    strip = np.concatenate(list(np.nan_to_num(images)), axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((strip.clip(0, 1) * 255).round().astype(np.uint8)).save(path)


def load(path: Path) -> Images:
    """Read images that `save` wrote: squares side by side. `OSError` if it is no image."""
    with Image.open(path) as image:
        strip = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return np.stack(np.split(strip, strip.shape[1] // strip.shape[0], axis=1))
