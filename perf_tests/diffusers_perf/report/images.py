"""The images of a run, small enough to be embedded, with their references and differences."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.messages import report as messages
from diffusers_perf.records import image_files
from diffusers_perf.records.image_files import BadImage, Quantized
from diffusers_perf.records.names import BadName, image_file
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.report.content import CasePart, Report

LEVELS = (
    (1024, 84),
    (1024, 65),
    (768, 65),
    (512, 65),
    (384, 60),
    (320, 58),
    (256, 55),
    (208, 52),
    (160, 50),
    (96, 40),
)
"""Largest side in pixels and WebP's quality, best first."""
EXACT_SIDE = 128
"""Images up to this side are embedded without loss."""
AMPLIFIED_MOST = 512
DIFFERENCE_SIDE = 256
"""Differences are looked at for where they are, not for their grain."""

Pixels = npt.NDArray[np.uint8]
"""Shape (height, width, 3)."""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One image in the page."""

    uri: str
    width: int
    height: int

    @property
    def side(self) -> int:
        return max(self.width, self.height)


@dataclass(frozen=True, kw_only=True)
class CaseImages:
    """What the page shows of one case."""

    case: str
    """Its id."""
    image: Embedded | None
    reference: str
    """The id of the image it is compared with; empty if there is none."""
    reference_name: str
    difference: Embedded | None
    amplified: int
    """How many times the difference is brighter than it is."""
    problem: str
    """What is missing or wrong, in a sentence; empty if nothing."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """All images of a report."""

    shown: Mapping[str, CaseImages]
    """By case id."""
    references: Mapping[str, Embedded]
    """By the id in `CaseImages.reference`, those that are not cases of the report: accepted images,
    and references that were only measured for other cases."""
    problem: str
    """Why there are none at all; empty if there are."""
    folder: str
    """Where the main job saved them."""
    side: int
    """Of the largest image here, in pixels."""
    full_side: int
    """Of the largest image there."""


def gallery(report: Report, folder: Path, store: BaselineStore, *, budget_bytes: int) -> Gallery:
    """Load, compare and embed the images of a run that were saved in this folder.

    They are as large as the budget allows for all of them together, as embedded.
    """
    if not folder.is_dir():
        return Gallery(
            shown={},
            references={},
            problem=messages.no_folder(folder.name),
            folder=folder.name,
            side=0,
            full_side=0,
        )
    own_names = [case.id for case in report.cases]
    names = list(dict.fromkeys([*own_names, *map(_reference_of, report.cases)]))
    # Decoding and encoding leave Python's lock to the others.
    with ThreadPoolExecutor() as pool:
        found = dict(zip(names, pool.map(partial(_load, folder), names), strict=True))
    loaded = {name: one for name, one in found.items() if not isinstance(one, str)}
    problems = {name: one for name, one in found.items() if isinstance(one, str)}
    thumbnails = _accepted(report.cases, store)
    differences: dict[str, tuple[Pixels, int]] = {}
    for case in report.cases:
        own, reference = loaded.get(case.id), loaded.get(_reference_of(case))
        if (
            own is not None
            and reference is not None
            and own.shape == reference.shape
            and own is not reference
        ):
            differences[case.id] = amplified(own, reference)
    wanted = [
        *(("image", name, pixels) for name, pixels in loaded.items()),
        *(
            ("difference", name, pixels)
            for name, (pixels, _) in differences.items()
            if pixels.any()
        ),
    ]
    embedded = _within(wanted, budget_bytes)
    shown = {}
    for case in report.cases:
        name, reference_id = case.id, _reference_of(case)
        if case.name == REFERENCE:
            reference_id = f"accepted {name}"
        has_reference = reference_id in thumbnails or reference_id in loaded
        shown[name] = CaseImages(
            case=name,
            image=embedded.get(("image", name)),
            reference=reference_id if has_reference and name in loaded else "",
            reference_name="accepted" if reference_id in thumbnails else case.against,
            difference=embedded.get(("difference", name)),
            amplified=differences[name][1] if name in differences else 1,
            problem=problems.get(name, "")
            or (
                messages.no_reference_image(problems[reference_id])
                if not has_reference and case.name != REFERENCE
                else ""
            ),
        )
    return Gallery(
        shown=shown,
        references={
            name: _embed(pixels, side=EXACT_SIDE, quality=90) for name, pixels in thumbnails.items()
        }
        | {
            name: embedded["image", name]
            for name in names
            if name in loaded and name not in own_names
        },
        problem="" if loaded or not report.cases else messages.no_images(folder.name),
        folder=folder.name,
        side=max((e.side for (kind, _), e in embedded.items() if kind == "image"), default=0),
        full_side=max((max(pixels.shape) for pixels in loaded.values()), default=0),
    )


def _reference_of(case: CasePart) -> str:
    """Id of the case whose image it is compared with."""
    return f"{case.measurement.workload}-{case.against}"


def _load(folder: Path, name: str) -> Pixels | str:
    """A case's images as one, or in a sentence what is wrong with them."""
    try:
        path = image_file(folder, name)
        # A missing file is not a bad one.
        if not path.exists():
            return messages.no_image(path.name, folder.name)
        return mosaic(image_files.load_quantized(path))
    except (BadName, BadImage) as error:
        return str(error).replace(f"{folder}/", f"{folder.name}/")


def mosaic(images: Quantized) -> Pixels:
    """Several images as one, in rows, within the smallest square that takes all."""
    count, height, width, _ = images.shape

    def cost(columns: int) -> tuple[int, int, int]:
        rows = math.ceil(count / columns)
        return max(columns * width, rows * height), rows * columns - count, -columns

    columns = min(range(1, count + 1), key=cost)
    rows = math.ceil(count / columns)
    laid: Pixels = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * height, number % columns * width
        laid[top : top + height, left : left + width] = image
    return laid


def amplified(own: Pixels, reference: Pixels) -> tuple[Pixels, int]:
    """The absolute difference, averaged over blocks, and the power of two by which it is brighter.

    Nearly all of it stays below white.
    """
    difference = np.maximum(own, reference) - np.minimum(own, reference)
    step = max(1, min(difference.shape[:2]) // DIFFERENCE_SIDE)
    height, width = (side // step for side in difference.shape[:2])
    blocks = difference[: height * step, : width * step]
    # Rows first: their numbers are contiguous in memory.
    rows = blocks.reshape(height, step, -1).sum(axis=1, dtype=np.uint32)
    mean = rows.reshape(height, width, step, 3).sum(axis=2) / np.float32(255 * step * step)
    typical = float(np.percentile(mean[:: max(1, height // 64)], 99))
    times = 1
    while times < AMPLIFIED_MOST and 2 * times * typical <= 1.0:
        times *= 2
    bright: Pixels = (np.minimum(mean * times, 1.0) * 255).round().astype(np.uint8)
    return bright, times


def _accepted(cases: Sequence[CasePart], store: BaselineStore) -> dict[str, Pixels]:
    found = {}
    for case in cases:
        seen = case.measurement
        if not case.record.is_reference:
            continue
        # Without it, or with a broken one, there is nothing to show; the tests say so.
        with suppress(BadName, BadImage):
            path = store.image(model=seen.model, weights=seen.weights, workload=seen.workload)
            found[f"accepted {seen.id}"] = mosaic(image_files.load_quantized(path))
    return found


Key = tuple[str, str]


def _within(wanted: Sequence[tuple[str, str, Pixels]], budget_bytes: int) -> dict[Key, Embedded]:
    """Embed them as large as the budget allows, all at one level."""
    level = len(LEVELS) - 1
    # A few tell how much all would take, and small ones take the least time to ask.
    few = wanted[:: max(1, len(wanted) // 8)]
    while level > 0:
        side, quality = LEVELS[level - 1]
        size = sum(len(_at(item, side=side, quality=quality).uri) for item in few)
        if size * len(wanted) > budget_bytes * len(few):
            break
        level -= 1
    while True:
        side, quality = LEVELS[level]
        with ThreadPoolExecutor() as pool:
            made = pool.map(partial(_at, side=side, quality=quality), wanted)
            embedded = {item[:2]: image for item, image in zip(wanted, made, strict=True)}
        size = sum(len(image.uri) for image in embedded.values())
        if size <= budget_bytes or level == len(LEVELS) - 1:
            return embedded
        level += 1


def _at(item: tuple[str, str, Pixels], *, side: int, quality: int) -> Embedded:
    kind, _, pixels = item
    side = side if kind == "image" else min(side, DIFFERENCE_SIDE)
    return _embed(pixels, side=side, quality=quality)


def _embed(pixels: Pixels, *, side: int, quality: int) -> Embedded:
    image = Image.fromarray(pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.BOX)
    file = io.BytesIO()
    exact = max(pixels.shape[:2]) <= EXACT_SIDE
    image.save(file, "webp", lossless=exact, quality=quality, method=2)
    return Embedded(
        uri="data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(),
        width=image.width,
        height=image.height,
    )
