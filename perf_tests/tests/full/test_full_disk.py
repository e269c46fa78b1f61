"""A full disk at any write of a comparison; `integration` kills it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.tests import breaking


def test_full_disk_at_any_write_of_a_comparison_loses_one_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaking.comparison(breaking.FULL, tmp_path, capsys)
