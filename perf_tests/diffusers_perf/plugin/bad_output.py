"""What a pipeline gave instead of images that can be measured, where measuring broke on it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import numpy as np

from diffusers_perf.measurement import generation
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records import pixels

MEASUREMENT = f"{Path(generation.__file__).parent}/"
SIDE_LEAST = 7
"""Pixels; SSIM has no smaller window."""
SHAPES_MOST = 3


def bad_output(error: Exception) -> str:
    """The images that came, and what was expected, in one sentence; empty where they are as they
    should be, and the error is a bug of this library.

    By the frames: what the measuring code raises is a part of its version.
    """
    for frame in _called_by_measuring(error):
        values = frame.f_locals
        if frame.f_code is generation.images_in.__code__:
            given, found = values["output"], values.get("array", values.get("found"))
            return messages.bad_images(type(given).__name__, _shapes(found))
        if frame.f_code.co_filename == pixels.__file__ and "images" in values:
            images = values["images"].shape
            expected = values.get("reference", values["images"]).shape
            if images != expected:
                return messages.other_images(images, expected)
            if not images[0] or min(images[1:3]) < SIDE_LEAST:
                return messages.few_pixels(images, SIDE_LEAST)
    return ""


def _called_by_measuring(error: Exception) -> Iterator[FrameType]:
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for caller, frame in pairwise(frames):
        if caller.f_code.co_filename.startswith(MEASUREMENT):
            yield frame


def _shapes(found: Any) -> list[tuple[int, ...]]:
    """Of an array, or the first ones of a list of those that do not fit together."""
    if hasattr(found, "shape"):
        return [tuple(found.shape)]
    each = [np.shape(one) for one in found] if isinstance(found, list | tuple) else []
    return list(dict.fromkeys(each))[:SHAPES_MOST]
