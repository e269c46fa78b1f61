"""Looks at pictures: is there something on them, and how close are two to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.metrics import structural_similarity

Pictures = npt.NDArray[np.float32]
"""Shape (images, height, width, 3), in [0, 1]."""

IDENTICAL_DB = 120.0
"""PSNR is capped here: JSON has no infinity, and beyond it float32 says nothing."""

THUMBNAIL = 64
"""Accepted pictures are kept at this height and width, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is on a batch of pictures; of several, the worst."""

    finite: bool
    mean: float
    """Of the darkest picture; 0 is black."""
    std: float
    """Over places, of the flattest picture: an even grey has none."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How close pictures are to others; of several pairs, the farthest."""

    psnr_db: float
    ssim: float


def look(pictures: Pictures) -> Look:
    """Look at pictures before they are quantized: a NaN would become an honest black."""
    finite = bool(np.isfinite(pictures).all())
    shown = np.nan_to_num(pictures, nan=0.0)
    return Look(
        finite=finite,
        mean=float(min(p.mean() for p in shown)),
        std=float(min(p.std(axis=(0, 1)).max() for p in shown)),
    )


def distance(pictures: Pictures, reference: Pictures) -> Distance:
    """PSNR in dB and SSIM of each picture with its partner; the lowest of each.

    `ValueError` for batches of different shapes.
    """
    if pictures.shape != reference.shape:
        raise ValueError(f"pictures of {pictures.shape} cannot be held to {reference.shape}")
    psnr, ssim = [], []
    for one, other in zip(np.nan_to_num(pictures), np.nan_to_num(reference), strict=True):
        if np.array_equal(one, other):
            psnr.append(IDENTICAL_DB)
            ssim.append(1.0)
            continue
        # Not the library's, which is this and imports scipy.stats: a second of each process.
        error = np.mean((one - other) ** 2, dtype=np.float64)
        psnr.append(min(IDENTICAL_DB, float(-10 * np.log10(error))))
        ssim.append(float(structural_similarity(other, one, data_range=1.0, channel_axis=-1)))
    return Distance(psnr_db=min(psnr), ssim=min(ssim))


def thumbnail(pictures: Pictures) -> Pictures:
    """Means over squares, down to `THUMBNAIL` pixels a side; smaller pictures stay as they are."""
    images, height, width, channels = pictures.shape
    step = max(1, height // THUMBNAIL)
    squares = pictures.reshape(images, height // step, step, width // step, step, channels)
    smaller: Pictures = squares.mean(axis=(2, 4), dtype=np.float32)
    return smaller


def save(pictures: Pictures, path: Path) -> None:
    """Write the pictures side by side as one PNG."""
    strip = np.concatenate(list(np.nan_to_num(pictures)), axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((strip.clip(0, 1) * 255).round().astype(np.uint8)).save(path)


def load(path: Path) -> Pictures:
    """Read pictures that `save` wrote: squares side by side. `OSError` if it is no picture."""
    with Image.open(path) as image:
        strip = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return np.stack(np.split(strip, strip.shape[1] // strip.shape[0], axis=1))
