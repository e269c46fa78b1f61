"""Two kinds of pipelines, from measuring to failing; `tests/full` has all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.tests import families, tiny


def test_life_of_a_pipeline_that_a_function_builds(pytester: pytest.Pytester) -> None:
    families.life(pytester, "wan")


def test_life_of_a_pipeline_in_a_folder(pytester: pytest.Pytester, tmp_path: Path) -> None:
    families.life(pytester, "zimage", model=str(tiny.folder("zimage", tmp_path)))
