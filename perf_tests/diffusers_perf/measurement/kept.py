"""Images of a case as files: saved for people, and the accepted one to compare with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from diffusers_perf.messages import measurement as messages
from diffusers_perf.messages.common import cannot_read
from diffusers_perf.records import image_files, pixels
from diffusers_perf.records.baselines import BadBaseline
from diffusers_perf.records.measurement import Distance
from diffusers_perf.records.names import BadName, image_file
from diffusers_perf.records.pixels import Images


def save(images: Images, folder: Path, case_id: str) -> str | None:
    """Save a case's images. If that fails, why: the measurement is worth more than they are."""
    try:
        path = image_file(folder, case_id)
    except BadName as error:
        return str(error)
    try:
        image_files.save(images, path)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        return error.strerror
    return None


def distance_to_accepted(images: Images, path: Path) -> Distance | None:
    """Of a reference's images to the accepted ones; None if none are accepted.

    `BadBaseline` for a file with another image than this workload's.
    """
    try:
        if not path.exists():
            return None
        return pixels.distance(pixels.thumbnail(images), image_files.load(path))
    except OSError as error:
        raise BadBaseline(cannot_read(path, error.strerror)) from None
    except ValueError as error:
        raise BadBaseline(messages.not_of_this_workload(path, error)) from None
