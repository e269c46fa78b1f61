"""Commands that messages end with call pytest as the session that they are about did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perf_tests.tests.unit.main_job import run
from perf_tests.tests.unit.recorded import session


def test_run_says_how_it_was_called(pytester: pytest.Pytester) -> None:
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", "-k", "fine", "-m", "guide")
    ours = session(json.loads(path.read_text()))
    assert ours["tests"] == ["perf_tests"]
    assert ours["selected"] == ["-m", "guide", "-k", "fine"]
    assert ours["baselines"] == str(Path.cwd() / "baselines")
