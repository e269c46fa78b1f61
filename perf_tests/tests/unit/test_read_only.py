"""Commands that are to write where nothing can be written say so in one sentence."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage

from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli import explore, results
from perf_tests.tests.unit.main_job import run
from perf_tests.tests.unit.recorded import process, with_images

REFUSED = "cannot be written (Read-only file system)"


class Nothing:
    """A project without declarations."""

    cases: Sequence[object] = ()

    def __init__(self, model: str | None = None) -> None: ...


@pytest.fixture
def runs(accepted: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three of the main job, in a working directory on a read-only file system: a test may run as
    root, whom permissions do not stop.
    """
    paths = with_images([process(f"head-{n}") for n in range(3)], accepted.parent, "run")
    for module in (explore, results):
        monkeypatch.setattr(module, "find_project", Nothing)
    _make_read_only(monkeypatch)
    return [*map(str, paths)]


def _make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse each new file and folder; the library writes no file in place."""
    opened, made = Path.open, Path.mkdir

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_(path: Path, mode: str = "r", *options: Any, **named: Any) -> Any:
        is_new = set(mode) & set("wxa") and not path.exists()
        return refuse(path) if is_new else opened(path, mode, *options, **named)

    def make(path: Path, *options: Any, **named: Any) -> None:
        return made(path, *options, **named) if path.exists() else refuse(path)

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(Path, "mkdir", make)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["accept", "RUNS", "--reason=x"], "baselines/nvidia-h200.json"),
        (["accept", "RUNS", "--reason=x", "--baselines=new"], "new"),
        (["accept", "RUN", "--reason=x", "--images-only"], "baselines/images/*.png"),
        (["calibrate", "RUNS"], "baselines/HISTORY.md"),
        (["results"], "baselines/RESULTS-nvidia-h200.md"),
        (["report", "RUN", "--html=new/run.html"], "new/run.html"),
        (["report", "RUN", "--markdown=run.md"], "run.md"),
        (["history", "add", "RUN"], "baselines/history/nvidia-h200/*.jsonl.gz"),
        (["explore", "--out=new"], "--out new"),
        (["bisect", "--good=a", "--bad=b", "--case=c", "--metric=m"], "--out runs/bisect"),
        (["fleet", "--json=run.json"], "--json run.json"),
    ],
)
def test_command_says_what_it_cannot_write(
    runs: list[str], arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"RUNS": runs, "RUN": runs[:1]}
    assert command.main([word for one in arguments for word in given.get(one, [one])]) == 2
    *_, said = capsys.readouterr().err.replace(f"{Path.cwd()}/", "").splitlines()
    pytest.LineMatcher([said]).fnmatch_lines([f"error: {named}: {REFUSED}"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--benchmark-json=new/run.json"], "--benchmark-json */new/run.json"),
        (["--benchmark-autosave"], "--benchmark-autosave */.benchmarks/*/*.json"),
        (
            ["--benchmark-save=mine", "--benchmark-storage=new"],
            "--benchmark-save */new/*/mine.json",
        ),
    ],
)
def test_run_says_before_it_measures_what_it_cannot_write(
    options: list[str], said: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = Path("perf_tests", "test_generation.py")
    test.parent.mkdir()
    test.touch()
    _make_read_only(monkeypatch)
    result = run(pytester, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {said}: {REFUSED}"])


def test_run_says_before_it_measures_which_file_is_in_the_way(pytester: pytest.Pytester) -> None:
    Path("taken").touch()
    result = run(pytester, "--benchmark-autosave", "--benchmark-storage=file://taken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --benchmark-autosave */taken/*: cannot *taken*"])


def test_run_that_can_be_saved_is_saved(pytester: pytest.Pytester) -> None:
    assert run(pytester, "--benchmark-save=mine", "--benchmark-storage=saved").ret == 0
    (file,) = (path for path in Path("saved").rglob("*") if path.is_file())
    assert file.name == "0001_mine.json"


def test_run_that_cannot_be_saved_in_the_end_shows_its_verdicts(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FileStorage, "save", full)
    result = run(pytester, "--benchmark-autosave", "--benchmark-json=run.json")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    said = "error: --benchmark-storage */.benchmarks: No space left on device; the run was not *"
    result.stdout.fnmatch_lines(["fine *new", said])
    assert Path("run.json").exists()
