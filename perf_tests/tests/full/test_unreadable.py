"""More folders that may not be read, each with a command that would: one sentence.

pytest perf_tests/tests/full/test_unreadable.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perf_tests.tests.closed import read_closed, repository

UNREADABLE = [
    ("model", ("pytest", "--benchmark-only", "--model=model")),
    ("baselines", ("pytest", "--benchmark-only")),
    ("perf_tests/more", ("pytest", "--benchmark-only")),
    ("model/unet", ("diffusers_perf.cli", "structure", "--model=model")),
    ("baselines", ("diffusers_perf.cli", "results")),
    ("baselines", ("diffusers_perf.cli", "report", "run-0.json", "--html=page.html")),
    ("baselines/history/nvidia-h200", ("diffusers_perf.cli", "history", "report")),
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(("closed", "line"), UNREADABLE)
def test_what_may_not_be_read_is_one_sentence(
    closed: str, line: tuple[str, ...], tmp_path: Path
) -> None:
    read_closed(closed, line, repository(tmp_path))
