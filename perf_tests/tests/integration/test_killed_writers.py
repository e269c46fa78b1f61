"""A command that is killed at any of its writes left the old state, or is finished by repeating it.

Two that write at once lose nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from perf_tests.tests import breaking
from perf_tests.tests.breaking import FULL, MOST, Killed, fault_at
from perf_tests.tests.unit.recorded import process, with_images


@dataclass(frozen=True)
class Writer:
    """A command that writes."""

    arguments: tuple[str, ...]
    """With ``{RUNS}``, the paths of three runs, and ``{OUT}``, an empty folder."""
    accepted: bool = False
    """It needs a baseline of these runs."""


WRITERS = {
    "accept": Writer(("accept", "{RUNS}", "--reason", "again")),
    "accept-again": Writer(("accept", "{RUNS}", "--reason", "again"), accepted=True),
    "images": Writer(("accept", "{RUN}", "--images-only", "--reason", "again"), accepted=True),
    "calibrate": Writer(("calibrate", "{RUNS}"), accepted=True),
    "report": Writer(("report", "{RUN}", "--html", "{OUT}/a.html", "--markdown", "{OUT}/a.md")),
    "results": Writer(("results",), accepted=True),
}
ONE_BY_ONE = ("report", "results")
"""Each of their files is whole, and a repetition writes the rest."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return with_images([process(f"killed-{number}") for number in range(3)], folder, "run")


def content(folder: Path) -> dict[str, bytes]:
    """Of all files but drafts, which no command reads. The folder, which a report names, is `.`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(str(folder).encode(), b".")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".draft"
    }


def line_of(writer: Writer, runs: list[Path], folder: Path) -> list[str]:
    """The command line; baselines and output lie in this folder."""
    filled: list[str] = []
    for argument in writer.arguments:
        if argument == "{RUNS}":
            filled += map(str, runs)
        else:
            filled.append(argument.replace("{RUN}", str(runs[0])).replace("{OUT}", str(folder)))
    return [*filled, "--baselines", str(folder / "baselines")]


@pytest.mark.parametrize("error", [Killed(), FULL], ids=["killed", "full"])
@pytest.mark.parametrize("name", WRITERS)
def test_fault_at_any_write_loses_nothing(
    name: str,
    error: Killed | OSError,
    runs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In a process of `-n`, pytest-benchmark would turn itself off.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    writer = WRITERS[name]
    first = tmp_path / "first"
    (first / "baselines").mkdir(parents=True)
    if writer.accepted:
        accepting = Writer(("accept", "{RUNS}", "--reason", "first"))
        assert command.main(line_of(accepting, runs, first)) == 0
    whole = tmp_path / "whole"
    shutil.copytree(first, whole)
    assert command.main(line_of(writer, runs, whole)) == 0
    old, new = content(first), content(whole)
    assert command.main(line_of(writer, runs, whole)) == 0
    twice = content(whole)
    for number in range(1, MOST):
        folder = tmp_path / str(number)
        shutil.copytree(first, folder)
        line = line_of(writer, runs, folder)
        capsys.readouterr()
        with fault_at(number, error, below=folder) as counted, suppress(Killed):
            code = command.main(line)
            assert code == (2 if number <= counted[0] else 0)
            said = capsys.readouterr()
            assert "Traceback" not in said.err
            assert number > counted[0] or str(folder) in said.err, "it names the file"
        if counted[0] < number:
            break
        left = content(folder)
        pending = left.pop("baselines/.transaction.json", None)
        for path, data in left.items():
            assert data in (old.get(path), new.get(path)), path
        if pending is None and name not in ONE_BY_ONE:
            assert left in (old, new)
        assert command.main(line) == 0
        # What was killed behind its journal happened: the repetition finished it, and came second.
        happened = pending is not None or left == new
        assert content(folder) == (twice if happened else new), f"at write {number}"
        assert not [*folder.rglob("*.draft")] or name in ONE_BY_ONE
        shutil.rmtree(folder)
    assert 3 < number < MOST - 1


def test_kill_at_any_write_of_a_comparison_loses_one_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`full/test_full_disk.py` fills the disk in its place."""
    breaking.comparison(Killed(), tmp_path, capsys)


def test_two_acceptances_at_once_are_both_in_the_history(runs: list[Path], tmp_path: Path) -> None:
    lines = [
        [
            *(sys.executable, "-m", "diffusers_perf.cli", "accept", *map(str, runs)),
            *("--baselines", str(tmp_path / "baselines"), "--reason", reason),
        ]
        for reason in ("the first", "the second")
    ]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(line, stdout=pipe, stderr=pipe) for line in lines]
    outputs = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    history = (tmp_path / "baselines" / "HISTORY.md").read_text()
    assert history.count("the first (") == history.count("the second (") == 4
    machine = json.loads((tmp_path / "baselines" / "nvidia-h200.json").read_text())
    assert machine["machine"] == "NVIDIA H200"
