"""A user's repository with a folder that may not be read, and a command that would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusers_perf.models.checkpoint import EMBEDDED
from perf_tests.tests.processes import write_repository
from perf_tests.tests.unit.recorded import process, with_images


def repository(folder: Path) -> Path:
    """A user's repository of two cases and another test, in this folder."""
    write_repository(folder, "channels_last")
    (folder / "perf_tests" / "test_other.py").write_text("def test_other(): pass\n")
    return folder


def read_closed(closed: str, line: tuple[str, ...], folder: Path) -> None:
    """Run a command in a repository in which this folder may not be read: it names it."""
    shutil.copytree(EMBEDDED, folder / "model")
    shutil.copytree(
        Path(__file__).parents[2] / "baselines", folder / "baselines", dirs_exist_ok=True
    )
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


def unprivileged() -> list[str]:
    """What a command line begins with so that root, too, may not read what its mode denies."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and setpriv is not installed")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
