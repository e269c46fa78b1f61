"""What is off, missing or scarce around a command is one sentence, or does no harm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusers_perf.models.checkpoint import EMBEDDED
from perf_tests.tests.unit.recorded import process, with_images

TEST_FILE = """
from diffusers_perf import Workload, measure
from diffusers_perf import test_generation as test_generation

SERVING = Workload(
    name="serving",
    model="embedded",
    call={"prompt": "a red circle", "height": 64, "width": 64, "guidance_scale": 7.5},
    steps=2,
    scheduler="DDIMScheduler",
)
measure(SERVING, "channels_last", suite="serving")
"""
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
    """A user's repository of two cases and another test."""
    (tmp_path / "perf_tests").mkdir()
    (tmp_path / "perf_tests" / "test_serving.py").write_text(TEST_FILE)
    (tmp_path / "perf_tests" / "test_other.py").write_text("def test_other(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\n")
    return tmp_path


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


def unprivileged() -> list[str]:
    """What a command line begins with so that root, too, may not read what its mode denies."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and setpriv is not installed")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize(("closed", "line"), UNREADABLE)
def test_what_may_not_be_read_is_one_sentence(
    closed: str, line: tuple[str, ...], folder: Path
) -> None:
    read_closed(closed, line, folder)


def read_closed(closed: str, line: tuple[str, ...], folder: Path) -> None:
    """Run a command of `UNREADABLE`'s kind in the fixture's folder: it names what is closed."""
    shutil.copytree(EMBEDDED, folder / "model")
    shutil.copytree(Path(__file__).parents[3] / "baselines", folder / "baselines")
    with_images([process("unreadable")], folder, "run")
    (folder / "perf_tests" / "more").mkdir()
    (folder / "baselines" / "history" / "nvidia-h200").mkdir(parents=True)
    (folder / closed).chmod(0)
    # In a process of `-n`, pytest-benchmark would turn itself off.
    environment = {n: v for n, v in os.environ.items() if n != "PYTEST_XDIST_WORKER"}
    done = subprocess.run(
        [*unprivileged(), sys.executable, "-m", *line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    (folder / closed).chmod(0o700)
    said = done.stdout + done.stderr
    # What pytest itself cannot collect is an error of its own.
    usage_error = 2 if closed.startswith("perf_tests") else 4
    assert done.returncode == (usage_error if line[0] == "pytest" else 2), said
    assert closed in said.replace(": its ", "/")
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said


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
