"""A model folder runs no code, whatever is in it and however it is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare import sides
from diffusers_perf.compare.sides import Side

ROOT = Path(__file__).parents[3]
CODE = "from pathlib import Path\nPath({!r}).write_text('ran')\n"


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A file that code in a model folder would write."""
    return tmp_path / "ran"


def hostile(folder: Path, ran: Path, *, settings: bool = False) -> Path:
    """A model folder full of files that pytest looks for."""
    (folder / "tests").mkdir(parents=True)
    for name in ("conftest.py", "test_it.py", "evil.py", "tests/conftest.py"):
        (folder / name).write_text(CODE.format(str(ran)))
    if settings:
        (folder / "pytest.ini").write_text("[pytest]\naddopts = conftest.py\n")
    return folder


def main_job(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--device=cpu", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", ["model", "a model", "a=model"])
def test_main_job_runs_nothing_in_it(name: str, tmp_path: Path, ran: Path) -> None:
    folder = hostile(tmp_path / name, ran, settings=True)
    done = main_job("--benchmark-only", f"--model={folder}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"model {folder}: it lacks model_index.json" in done.stdout + done.stderr
    assert not ran.exists()


@pytest.mark.parametrize("path", ["perf_tests", ""])
def test_folder_behind_a_space_is_refused(path: str, tmp_path: Path, ran: Path) -> None:
    """Whatever is in it, so that one learns it with a folder that does no harm."""
    folder = hostile(tmp_path / "model", ran, settings=True)
    done = main_job(*filter(None, [path]), "--benchmark-only", "--model", str(folder))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"write --model={folder}" in done.stderr
    assert not ran.exists()


def test_folder_below_the_tests_is_not_collected(tmp_path: Path, ran: Path) -> None:
    hostile(tmp_path / "suite" / "model", ran)
    (tmp_path / "suite" / "test_own.py").write_text("def test_own(): pass\n")
    done = main_job("suite", "--model=suite/model", cwd=tmp_path)
    assert done.returncode == pytest.ExitCode.OK
    assert "1 passed" in done.stdout
    assert not ran.exists()


@pytest.mark.parametrize("named", [["--model=suite/test-model"], []])
def test_conftest_that_pytest_loads_at_once_is_refused(
    named: list[str], tmp_path: Path, ran: Path
) -> None:
    folder = hostile(tmp_path / "suite" / "test-model", ran)
    (folder / "model_index.json").touch()
    done = main_job("suite", *named, cwd=tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "suite/test-model is a model folder: move it out of suite" in done.stderr
    assert not ran.exists()


def test_models_own_tests_run_in_an_unrelated_repository(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "model"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "conftest.py").touch()
    (folder / "test_it.py").write_text("def test_it(): pass\n")
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("command_line", ["faults", "explore"])
def test_commands_run_nothing_in_it(
    command_line: str, tmp_path: Path, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hostile(tmp_path / "model", ran)
    out = ["--out", str(tmp_path / "out")] if command_line == "explore" else []
    assert command.main([command_line, "--device", "cpu", "--model", str(folder), *out]) == 2
    assert "it lacks model_index.json" in capsys.readouterr().err
    assert not ran.exists()


@pytest.mark.parametrize("index", ["{}", ""])
@pytest.mark.parametrize("command_line", ["faults", "explore", "structure"])
def test_commands_collect_nothing_in_it(
    command_line: str,
    index: str,
    tmp_path: Path,
    ran: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = hostile(tmp_path / "suite" / "model", ran)
    (folder / "test_it.py").write_text(f"import diffusers_perf\n{CODE.format(str(ran))}")
    if index:
        (folder / "model_index.json").write_text(index)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = suite\n")
    monkeypatch.chdir(tmp_path)
    assert command.main([command_line, "--model", str(folder)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not ran.exists()


def test_ab_runs_nothing_in_it(
    tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hostile(tmp_path / "model", ran, settings=True)
    python = Path(sys.executable)
    both = [
        Side(name=name, checkout=ROOT, code="0", python=python, versions={}, packages={})
        for name in ("base", "head")
    ]
    monkeypatch.setattr(sides, "of_pythons", lambda *_: both)
    monkeypatch.setattr(sides, "repository", lambda: ROOT)
    pythons = ["--base-python", str(python), "--head-python", str(python)]
    arguments = ["ab", *pythons, "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert command.main([*arguments, "--", "--model", str(folder)]) == 2
    assert "it lacks model_index.json" in capsys.readouterr().err
    assert not ran.exists()
