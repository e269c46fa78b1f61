"""The pictures of a run, small enough to stand in the page: beside their reference, and how they
differ.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ci.report.content import CasePart, Report
from perf_tests.harness import baselines, closeness
from perf_tests.harness.catalog import REFERENCE

BUDGET_BYTES = 3_300_000
"""Of all pictures together, as they stand in the page; charts and words take the rest of 5 MB."""
LEVELS = ((1024, 84), (1024, 65), (768, 65), (512, 65), (384, 60), (256, 55), (160, 50), (96, 40))
"""Largest side in pixels and WebP's quality, best first."""
EXACT_SIDE = 128
"""Pictures up to this side are embedded without loss."""
AMPLIFIED_MOST = 256

Square = npt.NDArray[np.float32]
"""Shape (height, width, 3), in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One picture in the page."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page shows of one case."""

    case: str
    """Its id."""
    picture: Embedded | None
    other: str
    """The id of what it is compared with; empty if nothing is there to compare."""
    other_name: str
    difference: Embedded | None
    amplified: int
    """How many times the difference is brighter than it is."""
    problem: str
    """What is missing or wrong, in a sentence; empty if nothing."""
    full_side: int
    """Of the saved picture's larger side as it is laid out here, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """All pictures of a report."""

    shown: Mapping[str, Shown]
    """By case id."""
    accepted: Mapping[str, Embedded]
    """References' accepted pictures, by the id that `Shown.other` gives."""
    problem: str
    """Why there are none at all; empty if there are."""
    folder: str


def gallery(report: Report, folder: Path, *, budget_bytes: int = BUDGET_BYTES) -> Gallery:
    """Load, compare and embed the pictures of a run that were saved in this folder."""
    if not folder.is_dir():
        return Gallery(
            shown={},
            accepted={},
            problem=f"There are no pictures: {folder.name}/ is not beside the run's JSON. The main "
            "job saves it there with --benchmark-json.",
            folder=folder.name,
        )
    loaded: dict[str, Square] = {}
    problems: dict[str, str] = {}
    for case in report.cases:
        try:
            loaded[case.seen.id] = _load(folder, case.seen.id)
        except FileNotFoundError:
            problems[case.seen.id] = f"{case.seen.id}.png is missing in {folder.name}/"
        except (OSError, ValueError, ZeroDivisionError):
            problems[case.seen.id] = f"{folder.name}/{case.seen.id}.png is no picture of this suite"
    thumbnails = _accepted(report.cases)
    differences: dict[str, tuple[Square, int]] = {}
    for case in report.cases:
        own, other = loaded.get(case.seen.id), loaded.get(_other(case))
        if own is not None and other is not None and own.shape == other.shape and own is not other:
            differences[case.seen.id] = amplified(own, other)
    wanted = [
        *(("picture", name, square) for name, square in loaded.items()),
        *(("difference", name, square) for name, (square, _) in differences.items() if square.any()),
    ]
    embedded = _within(wanted, budget_bytes)
    shown = {}
    for case in report.cases:
        name, other_id = case.seen.id, _other(case)
        if case.seen.name == REFERENCE:
            other_id = f"accepted {name}"
        has_other = other_id in thumbnails or other_id in loaded
        shown[name] = Shown(
            case=name,
            picture=embedded.get(("picture", name)),
            other=other_id if has_other and name in loaded else "",
            other_name="accepted" if other_id in thumbnails else _against(case),
            difference=embedded.get(("difference", name)),
            amplified=differences[name][1] if name in differences else 1,
            problem=problems.get(name, "")
            or (
                f"{other_id}.png is missing, so there is nothing to compare with"
                if not has_other and case.seen.name != REFERENCE
                else ""
            ),
            full_side=max(loaded[name].shape[:2]) if name in loaded else 0,
        )
    return Gallery(
        shown=shown,
        accepted={
            name: _embed(square, side=EXACT_SIDE, quality=90) for name, square in thumbnails.items()
        },
        problem="" if loaded or not report.cases else f"There are no pictures in {folder.name}/.",
        folder=folder.name,
    )


def _against(case: CasePart) -> str:
    return case.seen.against or REFERENCE


def _other(case: CasePart) -> str:
    """Id of the case whose picture it is held to."""
    return f"{case.seen.workload}-{_against(case)}"


def _load(folder: Path, name: str) -> Square:
    path = folder / f"{name}.png"
    if path.parent != folder or not path.is_file():
        raise FileNotFoundError(path)
    return mosaic(closeness.load(path))


def mosaic(pictures: closeness.Pictures) -> Square:
    """Several pictures as a square of squares; one as it is."""
    images, height, width, _ = pictures.shape
    columns = math.ceil(math.sqrt(images))
    rows = math.ceil(images / columns)
    laid: Square = np.zeros((rows * height, columns * width, 3), np.float32)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        laid[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return laid


def amplified(own: Square, other: Square) -> tuple[Square, int]:
    """The absolute difference, brighter by a power of two that most of it still survives."""
    difference: Square = np.abs(own - other)
    typical = float(np.percentile(difference, 99))
    times = 1
    while times < AMPLIFIED_MOST and 2 * times * typical <= 1.0:
        times *= 2
    return np.minimum(difference * np.float32(times), 1.0), times


def _accepted(cases: Sequence[CasePart]) -> dict[str, Square]:
    found = {}
    for case in cases:
        seen = case.seen
        path = baselines.picture_path(
            model=seen.model, weights=seen.weights, workload=seen.workload
        )
        if seen.name == REFERENCE and path.is_file():
            found[f"accepted {seen.id}"] = mosaic(closeness.load(path))
    return found


Key = tuple[str, str]


def _within(wanted: Sequence[tuple[str, str, Square]], budget_bytes: int) -> dict[Key, Embedded]:
    """Embed them as large as the budget lets them be, all at one level."""
    for side, quality in LEVELS:
        last = (side, quality) == LEVELS[-1]
        # A few of them tell whether it is worth encoding all.
        few = wanted[:: max(1, len(wanted) // 4)] if wanted else []
        size = sum(len(_at(item, side, quality).uri) for item in few)
        if not last and few and size / len(few) * len(wanted) > 1.15 * budget_bytes:
            continue
        embedded = {item[:2]: _at(item, side, quality) for item in wanted}
        if last or sum(len(picture.uri) for picture in embedded.values()) <= budget_bytes:
            return embedded
    return {}


def _at(item: tuple[str, str, Square], side: int, quality: int) -> Embedded:
    kind, _, square = item
    # A difference is looked at for where it is, not for its grain.
    return _embed(square, side=side if kind == "picture" else side // 2, quality=quality)


def _embed(square: Square, *, side: int, quality: int) -> Embedded:
    image = Image.fromarray((square.clip(0, 1) * 255).round().astype(np.uint8))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.BOX)
    file = io.BytesIO()
    exact = max(square.shape[:2]) <= EXACT_SIDE
    image.save(file, "webp", lossless=exact, quality=quality, method=2)
    return Embedded(
        uri="data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(),
        width=image.width,
        height=image.height,
    )


