"""Images of a case as files: saved for people, and the accepted one to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.discovery import dtype_of, modules
from diffusers_perf.messages import measurement as messages
from diffusers_perf.messages.common import cannot_read
from diffusers_perf.records import image_files, pixels
from diffusers_perf.records.measurement import Bits, Distance
from diffusers_perf.records.names import BadName, image_file
from diffusers_perf.records.pixels import Images, NotComparable


@dataclass(frozen=True, kw_only=True)
class ToAccepted:
    """How close a reference's images are to the accepted ones."""

    distance: Distance
    bits: Bits
    """Of the accepted images, as they were compared."""


def bits_of(case: Case, device: torch.device, pipeline: Any) -> Bits:
    """In how many bits a case's images say something: in float32 on a CPU, rounding alone makes
    other images of the same code, and it is at 107 dB and more.
    """
    plain = case.is_reference and device.type == "cpu" and not case.workload.base
    # A user's function can build in another dtype than it was asked for.
    exact = plain and all(
        dtype_of(module) == torch.float32 for module in modules(pipeline).values()
    )
    return 16 if exact else 8


def save(images: Images, folder: Path, case_id: str, *, bits: Bits) -> str | None:
    """Save a case's images. If that fails, why: the measurement is worth more than they are."""
    try:
        path = image_file(folder, case_id)
    except BadName as error:
        return str(error)
    try:
        image_files.save(images, path, bits=bits)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        return error.strerror
    return None


def to_accepted(images: Images, path: Path, *, workload: Workload, bits: Bits) -> ToAccepted | None:
    """Of a reference's images to the accepted ones, of which so many bits count where they are
    known; None if none are accepted.

    `Refusal` for a file with another image than this workload's, `NotComparable` for images that
    are others than the accepted ones.
    """
    try:
        if not path.exists():
            return None
        accepted = image_files.load_thumbnail(path, bits=bits)
    except OSError as error:
        raise Refusal(cannot_read(path, error.strerror)) from None
    except ValueError as error:
        raise Refusal(messages.not_of_this_workload(path, error)) from None
    small = pixels.thumbnail(images)
    if small.shape != accepted.images.shape:
        shapes = small.shape, accepted.images.shape
        # The advice for a wrong file is to remove it, so it has to be sure that it is the file.
        if [_is_as_declared(shape, workload) for shape in shapes] == [True, False]:
            other = messages.other_than_declared(accepted.images.shape, small.shape)
            raise Refusal(messages.not_of_this_workload(path, other))
        raise NotComparable(messages.other_than_accepted(images.shape, *shapes, path))
    return ToAccepted(distance=pixels.distance(small, accepted.images), bits=accepted.bits)


def _is_as_declared(shape: Sequence[int], workload: Workload) -> bool:
    """Whether thumbnails of this shape are of the number and size that the workload declares, as
    far as it does.
    """
    call = workload.call
    is_counted = bool(workload.prompts) and "num_frames" not in call
    if is_counted and shape[0] != workload.num_images:
        return False
    if "height" not in call or "width" not in call:
        return True
    return tuple(shape[1:3]) == pixels.thumbnail_sides(call["height"], call["width"])
