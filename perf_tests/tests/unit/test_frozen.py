"""The comparison with version 1, where this version has one word or a stricter rule on purpose."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perf_tests.tests.frozen import HERE, PAIRS
from perf_tests.tests.frozen.compare_with_v1 import SIDES, of_compare

NAME = "h200-quiet"


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / "v1.json").read_text())["compare"]
    return content


@pytest.mark.parametrize(
    ("side", "edit"),
    [
        ("head-0", "no distance"),
        ("head", "PSNR a little lower"),
        ("head", "reference: PSNR a little lower"),
    ],
)
def test_verdicts_on_images_are_those_of_version_1(
    side: str, edit: str, frozen: dict[str, Any]
) -> None:
    answers: dict[str, Any] = {f"edited {other}": {} for other in SIDES}
    answers[f"edited {side}"] = {NAME: {edit: frozen[f"edited {side}"][NAME][edit]}}
    count = str(PAIRS[NAME])
    whole = {"pairs": {NAME: {count: frozen["pairs"][NAME][count]}}, **answers}
    assert [*of_compare(whole, every=1)] == [[], []]
