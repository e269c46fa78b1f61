"""What a pipeline may give: images, videos, and what is refused with its reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import AudioPipelineOutput  # type: ignore[attr-defined, unused-ignore]

from diffusers_perf.measurement.generation import BadOutput, images_in

IMAGES = np.ones((2, 4, 4, 3), np.float32)


@pytest.mark.parametrize(
    "output",
    [SimpleNamespace(images=IMAGES), SimpleNamespace(frames=IMAGES[None]), (IMAGES,), IMAGES],
    ids=["images", "frames", "tuple", "array"],
)
def test_images_are_found(output: Any) -> None:
    assert (images_in(output) == IMAGES).all()


def test_images_with_sound_are_found() -> None:
    output = SimpleNamespace(frames=IMAGES[None], audios=np.ones((1, 2, 8)))
    assert (images_in(output) == IMAGES).all()


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (AudioPipelineOutput(audios=np.ones((1, 2, 8))), "gave AudioPipelineOutput with sound"),
        ({"images": IMAGES}, "gave dict with no array, .* return what has .images or .frames"),
        (SimpleNamespace(images=IMAGES[0]), r"with an array of shape \(4, 4, 3\), not images"),
        (
            SimpleNamespace(images=[*IMAGES, IMAGES[0, 1:]]),
            r"with arrays of shape \(4, 4, 3\) and \(3, 4, 3\), not images",
        ),
        (SimpleNamespace(images=[[1], [1, 2]]), "gave SimpleNamespace with no array, not images"),
        (SimpleNamespace(images=IMAGES[:0]), "at least one image of at least 7x7 pixels"),
    ],
    ids=["sound", "dict", "one image", "ragged", "numbers", "none"],
)
def test_what_holds_no_images_is_refused_with_a_reason(output: Any, says: str) -> None:
    with pytest.raises(BadOutput, match=says):
        images_in(output)
