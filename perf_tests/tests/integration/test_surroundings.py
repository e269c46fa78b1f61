"""What is off, missing or scarce around a command is one sentence, or does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.tests.closed import read_closed, repository
from perf_tests.tests.unit.recorded import process, with_images

NO_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class NoTorch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return repository(tmp_path)


def run(folder: Path, *line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *line],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def main_job(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Two of this repository's own plugins need what a test here takes away.
    foreign = ("-p", "no:inline_snapshot", "-p", "no:hypothesispytest")
    return run(folder, "pytest", *foreign, "--device=cpu", "--rounds=2", *arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-n2"], "ERROR: diffusers-perf times its cases, and processes on one device"),
        (["-n2", "--benchmark-enable"], "ERROR: diffusers-perf times its cases, and processes"),
        (["-p", "no:pytest-benchmark"], "ERROR: diffusers-perf needs pytest-benchmark"),
        (["-p", "no:benchmark"], "unrecognized arguments: --benchmark-json"),
    ],
)
def test_what_a_case_cannot_be_timed_with_is_refused(
    arguments: list[str], sentence: str, folder: Path
) -> None:
    done = main_job(folder, *arguments, "--benchmark-json=run.json")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_several_processes_run_what_is_not_timed(folder: Path) -> None:
    done = main_job(folder, "-n2", "perf_tests/test_other.py")
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


@pytest.mark.parametrize(
    "line",
    [
        ["pytest", "--benchmark-only"],
        ["pytest", "--collect-only"],
        *(["diffusers_perf.cli", name] for name in ("explore", "faults", "structure", "results")),
    ],
    ids=" ".join,
)
def test_a_missing_torch_is_one_sentence(line: list[str], folder: Path) -> None:
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    done = run(folder, *line, PYTHONPATH=str(folder))
    assert done.returncode == (4 if line[0] == "pytest" else 2)
    assert "torch is not installed: " in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("limit_kib", [100_000, 600_000, 850_000])
@pytest.mark.parametrize(
    "line", [["pytest", "--benchmark-only"], ["diffusers_perf.cli", "structure"]], ids=" ".join
)
def test_too_little_address_space_is_one_sentence(
    line: list[str], limit_kib: int, folder: Path
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'ulimit -v {limit_kib} && exec "$@"', "sh", sys.executable, "-m", *line],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == (4 if line[0] == "pytest" else 2), said
    assert "GiB of addresses (ulimit -v), and torch needs" in said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said


UNREADABLE = [
    ("model/unet", ("pytest", "--benchmark-only", "--model=model")),
    ("baselines/operators", ("pytest", "--benchmark-only")),
    ("perf_tests/more", ("diffusers_perf.cli", "results")),
    ("baselines", ("diffusers_perf.cli", "gate", "run-0.json")),
    (
        "baselines/images",
        ("diffusers_perf.cli", "accept", "run-0.json", "--images-only", "--reason=x"),
    ),
    ("baselines/history", ("diffusers_perf.cli", "history", "report")),
    ("run-0-images", ("diffusers_perf.cli", "report", "run-0.json", "--html=page.html")),
]
"""What may not be read, and a command that would. More of them are in `full`."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(("closed", "line"), UNREADABLE)
def test_what_may_not_be_read_is_one_sentence(
    closed: str, line: tuple[str, ...], folder: Path
) -> None:
    read_closed(closed, line, folder)


@pytest.mark.parametrize("name", ["gate", "report", "accept", "calibrate", "compare", "comment"])
def test_what_judges_needs_no_torch(name: str, folder: Path) -> None:
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    (path,) = with_images([process("run")], folder, "run")
    lines = {
        "gate": [str(path)],
        "report": [str(path), "--markdown"],
        "accept": [str(path), "--reason=x", "--processes=1"],
        "calibrate": [str(path)],
        "compare": ["--base", str(path), "--head", str(path)],
        "comment": [str(folder), "--link=x"],
    }
    done = run(folder, "diffusers_perf.cli", name, *lines[name], PYTHONPATH=str(folder))
    assert "Traceback" not in done.stderr
    assert "torch is not" not in done.stderr
