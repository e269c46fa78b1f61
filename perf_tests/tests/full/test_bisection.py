"""Real bisections: of a regression among the commits of a user's repository, and of diffusers.

pytest -s perf_tests/tests/full/test_bisection.py
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command

COMMITS = 40
CULPRIT = 27
DOCUMENTS = 4
"""One commit in so many changes documents alone."""
CASE = "serving-served"

DECLARATIONS = '''
from typing import Any

from diffusers_perf import Workload, measure, optimization, test_generation as test_generation
from serving import serve


def is_served(pipeline: Any) -> None:
    assert pipeline.served


@optimization(applied=is_served)
def served(build: Any) -> None:
    """As our service runs it."""
    build.then(serve)


SERVING = Workload(
    name="serving",
    model="embedded",
    call={"prompt": "a large red circle", "height": 64, "width": 64, "guidance_scale": 4.0},
    steps=8,
    scheduler="DDIMScheduler",
)
measure(SERVING, "served")
'''

GOOD = """
VERSION = {number}

def serve(pipeline):
    pipeline.served = True
"""
BAD = """
import time

VERSION = {number}

def slowly(module, arguments):
    time.sleep({sleep_s})
    return (arguments[0].clone(), *arguments[1:])

def serve(pipeline):
    pipeline.served = True
    pipeline.unet.register_forward_pre_hook(slowly)
"""


def git(*arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *settings, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def repository(folder: Path, *, sleep_s: float) -> None:
    """Forty commits, of which one makes each step copy a tensor and wait."""
    tests = folder / "perf_tests"
    tests.mkdir()
    git("init", "--quiet", "--initial-branch=main")
    (folder / "pytest.ini").write_text(
        "[pytest]\npythonpath = perf_tests\ntestpaths = perf_tests\n"
    )
    (folder / ".gitignore").write_text("runs/\n__pycache__/\n.pytest_cache/\n")
    (tests / "test_serving.py").write_text(DECLARATIONS)
    for number in range(COMMITS):
        code = BAD if number >= CULPRIT else GOOD
        path = folder / "notes.md" if number % DOCUMENTS == 1 else tests / "serving.py"
        is_code = path.suffix == ".py"
        text = code.format(number=number, sleep_s=sleep_s) if is_code else f"{number}\n"
        path.write_text(text)
        git("add", "-A")
        git("commit", "--quiet", "--message", f"change {number}")


def bisected(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *options: str,
    sleep_s: float,
) -> tuple[str, int, float]:
    """What the command printed, and how many processes and minutes it took."""
    monkeypatch.chdir(folder)
    repository(folder, sleep_s=sleep_s)
    ends = ["--good", git("rev-list", "--max-parents=0", "HEAD"), "--bad", "HEAD"]
    where = ["--case", CASE, "--device", "cpu"]
    code = command.main(["bisect", *ends, *where, *options, "--", "--model=embedded"])
    out = capsys.readouterr()
    with capsys.disabled():
        print(out.out, out.err)
    assert code == 0
    found = re.search(r"(\d+) processes, ([\d.]+) min", out.out)
    assert found
    return out.out, int(found[1]), float(found[2])


def test_counter_finds_one_of_forty_commits_in_seven_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, processes, _ = bisected(
        tmp_path, capsys, monkeypatch, "--metric", "operators", sleep_s=0.0
    )
    assert f" change {CULPRIT} (a, " in out.split("first bad: ")[1].splitlines()[0]
    assert processes <= 7


def test_latency_finds_it_within_a_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _, minutes = bisected(
        tmp_path, capsys, monkeypatch, "--metric", "latency", "--minutes", "40", sleep_s=0.25
    )
    assert f" change {CULPRIT} (a, " in out.split("first bad: ")[1].splitlines()[0]
    assert minutes <= 40


def test_release_of_diffusers_is_found_by_a_counter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.40.0 calls 13 % more Python functions than 0.39.0. Needs the package index."""
    monkeypatch.chdir(tmp_path)
    repository(tmp_path, sleep_s=0.0)
    ends = ["--package", "diffusers", "--good", "0.38.0", "--bad", "0.41.0"]
    where = ["--case", CASE, "--device", "cpu", "--metric", "python_calls"]
    assert command.main(["bisect", *ends, *where, "--", "--model=embedded"]) == 0
    assert "\nfirst bad: diffusers 0.40.0\nlast good: diffusers 0.39.0\n" in capsys.readouterr().out
