"""Commands that messages end with call pytest as the session that they are about did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from diffusers_perf.records.main_job import MainJob
from perf_tests.tests.unit.main_job import run
from perf_tests.tests.unit.recorded import session


def test_run_says_how_it_was_called(pytester: pytest.Pytester) -> None:
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", "-k", "fine", "-m", "guide")
    ours = session(json.loads(path.read_text()))
    assert ours["tests"] == ["perf_tests"]
    assert ours["selected"] == ["-m", "guide", "-k", "fine"]
    assert ours["baselines"] == str(Path.cwd() / "baselines")


@pytest.mark.parametrize(
    ("folder", "tests", "kept"),
    [
        (".", ["perf_tests"], ["perf_tests"]),
        (".", [], ["perf_tests"]),
        ("perf_tests", ["."], ["perf_tests"]),
        ("perf_tests", [], ["perf_tests"]),
        ("tools", ["../perf_tests/test_generation.py"], ["perf_tests/test_generation.py"]),
    ],
)
def test_run_keeps_paths_from_the_root_of_the_repository(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    tests: Sequence[str],
    kept: Sequence[str],
) -> None:
    for name in (".git", "tools", "perf_tests"):
        pytester.mkdir(name)
    monkeypatch.chdir(pytester.path / folder)
    options = ("--baselines=accepted", f"--benchmark-json={pytester.path / 'run.json'}")
    assert run(pytester, *options, tests=tests).ret == 0
    ours = session(json.loads((pytester.path / "run.json").read_text()))
    assert ours["tests"] == kept
    assert ours["baselines"] == str(Path(folder, "accepted"))


def test_command_names_paths_from_the_working_directory(tmp_path: Path) -> None:
    for name in ("perf_tests", "weights", "tools"):
        (tmp_path / name).mkdir()
    job = MainJob(
        tests=("perf_tests", "gone.py", str(tmp_path)),
        baselines="tools/accepted",
        options=("--device", "cpu", "--model=./weights"),
    )
    assert job.seen_from(tmp_path, of=tmp_path) == job
    seen = job.seen_from(tmp_path / "tools", of=tmp_path)
    assert seen.tests == ("../perf_tests", "gone.py", str(tmp_path))
    assert seen.baselines == "accepted"
    assert seen.options == ("--device", "cpu", "--model=../weights")
    assert job.seen_from(tmp_path / "weights", of=tmp_path).options[-1] == "--model=./."
    for model in ("--model=weights", "--model=owner/name"):
        named = MainJob(tests=(), options=(model,)).seen_from(tmp_path / "tools", of=tmp_path)
        assert (named.tests, named.options) == (("..",), (model,))
