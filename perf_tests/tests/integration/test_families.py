"""A few kinds of pipelines, from measuring to failing; `tests/full` has all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.tests import families, tiny


@pytest.mark.parametrize("name", ["flux", "wan", "sd_img2img"])
def test_life_of_a_pipeline_that_a_function_builds(pytester: pytest.Pytester, name: str) -> None:
    families.life(pytester, name, "bf16")


def test_life_of_a_pipeline_in_a_folder(pytester: pytest.Pytester, tmp_path: Path) -> None:
    folder = tiny.folder("zimage", tmp_path)
    families.life(pytester, "zimage", "bf16", model=str(folder))
