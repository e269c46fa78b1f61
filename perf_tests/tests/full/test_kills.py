"""Commands that are killed at random moments lose nothing, and go on or are repeated.

    pytest perf_tests/tests/full/test_kills.py

Another seed each time, which a failure names: KILLS_SEED repeats its moments, KILLS their number.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusers_perf.records.reading import load_run
from perf_tests.tests.processes import write_repository
from perf_tests.tests.unit.environments import Place
from perf_tests.tests.unit.recorded import process, with_images

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("KILLS_SEED", str(time.time_ns())))
LIMIT_S = 300
ENDING = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
COMMAND = [sys.executable, "-m", "diffusers_perf.cli"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's repository of two cases, and three recorded runs."""
    # In a process of `-n`, pytest-benchmark would turn itself off.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    write_repository(tmp_path, "channels_last")
    with_images([process(f"killed-{number}") for number in range(3)], tmp_path, "run")
    return tmp_path


def run(folder: Path, line: list[str], *, after_s: float, number: int) -> int | None:
    """Run the line and send it this signal after a time, twice as `timeout` does: to the process
    and to its group. Its exit code, None where it was ended.
    """
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(line, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        return started.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        started.send_signal(number)
        started.send_signal(number)
        started.wait(timeout=LIMIT_S)
        return None


def whole(folder: Path, line: list[str]) -> float:
    """Run the line to its end; how long it took, in seconds."""
    started = time.monotonic()
    code = run(folder, line, after_s=LIMIT_S, number=signal.SIGKILL)
    assert code == 0, (folder / "log").read_text()[-3000:]
    return time.monotonic() - started


def killed(
    folder: Path,
    line: list[str],
    *,
    takes_s: float,
    look: Callable[[int], None],
    signals: tuple[int, ...] = (signal.SIGKILL,),
) -> None:
    """Run the line often, each time ended at another moment, and look at what it left."""
    draw = random.Random(SEED)
    for _ in range(KILLS):
        number = draw.choice(signals)
        after_s = draw.uniform(0, takes_s)
        run(folder, line, after_s=after_s, number=number)
        try:
            look(number)
        except AssertionError as error:
            raise AssertionError(f"KILLS_SEED={SEED}, after {after_s:.2f} s: {error}") from error


def content(folder: Path) -> dict[str, bytes]:
    """Of all files but drafts, which no command reads."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".draft"
    }


WRITERS = {
    "accept": ["accept", "run-0.json", "run-1.json", "run-2.json", "--reason=again"],
    "calibrate": ["calibrate", "run-0.json", "run-1.json", "run-2.json"],
    "structure": ["structure", "--model=embedded", "--write", "--reason=again"],
}


@pytest.mark.parametrize("name", WRITERS)
def test_killed_writer_leaves_the_old_state_or_the_new(name: str, folder: Path) -> None:
    baselines, start, line = folder / "baselines", folder / "start", [*COMMAND, *WRITERS[name]]
    if name == "calibrate":
        whole(folder, [*COMMAND, *WRITERS["accept"]])
    shutil.copytree(baselines, start)
    takes_s = whole(folder, line)
    old, new = content(start), content(baselines)
    assert old != new

    def begin_again() -> None:
        shutil.rmtree(baselines)
        shutil.copytree(start, baselines)

    def look(_: int) -> None:
        left = content(baselines)
        pending = left.pop(".transaction.json", None)
        # Compared as a whole, a failure would print the images.
        known = any(left == state for state in (old, new))
        assert pending is not None or known, "a mixture, and nothing to finish it"
        begin_again()

    begin_again()
    killed(folder, line, takes_s=takes_s, look=look)
    whole(folder, line)
    assert content(baselines) == new
    assert not [*baselines.rglob("*.draft")]


def test_killed_report_leaves_whole_files(folder: Path) -> None:
    line = [*COMMAND, "report", "run-0.json", "--html=a.html", "--markdown=a.md"]
    takes_s = whole(folder, line)
    expected = {name: (folder / name).read_bytes() for name in ("a.html", "a.md")}

    def look(_: int) -> None:
        for name, data in expected.items():
            assert (folder / name).read_bytes() == data

    killed(folder, line, takes_s=takes_s, look=look)


def test_ended_main_job_keeps_what_it_measured(folder: Path) -> None:
    line = [sys.executable, "-m", "pytest", "--benchmark-only", "--device=cpu", "--quick"]
    line += ["-k", "reference", "--benchmark-json=job.json"]
    path = folder / "job.json"
    takes_s = whole(folder, line)

    def look(number: int) -> None:
        said = (folder / "log").read_text()
        assert "INTERNALERROR" not in said
        assert "Traceback" not in said or "collected" not in said, said[-2000:]
        # A run that began takes the old one's place; killed, it cannot leave a word.
        if path.exists():
            run = load_run(path)
            assert run.cases or run.session.not_timed
        else:
            assert number == signal.SIGKILL or "collected" not in said, said[-2000:]
            path.write_bytes(before)
        assert not [*folder.glob("*.draft")] or number == signal.SIGKILL

    before = path.read_bytes()
    killed(folder, line, takes_s=takes_s, look=look, signals=ENDING)
    whole(folder, line)
    assert len(load_run(path).cases) == 1


def test_ended_ab_goes_on(tmp_path: Path) -> None:
    place = Place.made(tmp_path / "place")
    place.act("sleep 0.2")
    line = [*COMMAND, *place.arguments()]
    takes_s = whole(tmp_path, line)
    shutil.rmtree(place.out)
    kept: set[int] = set()

    def look(number: int) -> None:
        finished = place.finished()
        pairs = {n for _, n in finished if {("base", n), ("head", n)} <= finished}
        assert kept <= pairs, "a finished pair was lost"
        kept.clear()
        kept.update(pairs)
        if len(pairs) == 5:
            kept.clear()
            shutil.rmtree(place.out)
        if number == signal.SIGKILL:
            time.sleep(1)  # what it left behind measures to its end, and holds the folder

    killed(tmp_path, line, takes_s=takes_s / 2, look=look, signals=ENDING)
    whole(tmp_path, line)
    assert len(place.finished()) == 10
