"""`diffusers-perf fleet` on this machine, with real processes: comparisons, and a dead driver.

pytest perf_tests/tests/full/test_fleet.py
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.tests.processes import is_alive, until, write_repository
from perf_tests.tests.unit.environments import Place

LIMIT_S = 120.0
STACKS = ("channels_last", "fused_qkv", "sdpa_math")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two environments that copy what was recorded, as in the tests of `ab`."""
    return Place.made(tmp_path / "place")


@pytest.fixture
def line(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that compares them, in a repository of four cases."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.chdir(write_repository(tmp_path / "repository", *STACKS))
    # Without the command's name, and without --out, which each shard has of its own.
    arguments = [part for part in place.arguments()[1:] if not part.startswith("--out")]
    fleet = [sys.executable, "-m", "diffusers_perf.cli", "fleet", "--device=cpu"]
    return [*fleet, "--json=run.json", f"--ab={shlex.join(arguments)}"]


def test_pairs_of_a_case_are_in_one_job(line: list[str], place: Place) -> None:
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    shards = [re.search(r"--shard (\S+)", call) for call in place.calls]
    asked = [found[1] for found in shards if found]
    jobs = list(dict.fromkeys(asked))
    assert len(jobs) > 1
    # Each job's ten processes, base and head in turn, before the next job's.
    assert asked == [job for job in jobs for _ in range(10)]
    assert done.stdout.count("(5 A/B pairs)") == len(jobs)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_comparison_ends_with_its_driver(
    line: list[str], place: Place, number: signal.Signals
) -> None:
    pids = place.folder / "pids"
    place.act(f'echo $$ >>"{pids}"; exec sleep {LIMIT_S:.0f}')
    driver = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    driver.send_signal(number)
    driver.wait(timeout=LIMIT_S)
    started = [*map(int, pids.read_text().split())]
    until(lambda: not any(map(is_alive, started)))
    # The same command goes on.
    place.act("")
    until(lambda: subprocess.run(line, capture_output=True, timeout=LIMIT_S).returncode == 0)
