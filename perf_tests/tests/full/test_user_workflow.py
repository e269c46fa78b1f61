"""The workflow of ci/README.md for a user's repository: its step that compares, on a CPU.

pytest -s perf_tests/tests/full/test_user_workflow.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from perf_tests.tests import blocks

DECLARATIONS = """
from diffusers_perf import Workload, measure, test_generation as test_generation

SERVING = Workload(
    name="serving",
    model="embedded",
    call={"prompt": "a large red circle", "height": 64, "width": 64, "guidance_scale": 4.0},
    steps=STEPS,
    scheduler="DDIMScheduler",
)
measure(SERVING, "channels_last")
"""


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the declarations of a workload."""
    (tmp_path / "perf_tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\n")
    (tmp_path / ".gitignore").write_text("runs/\n__pycache__/\n.pytest_cache/\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    return tmp_path


def commit(folder: Path, declarations: str) -> None:
    (folder / "perf_tests" / "test_serving.py").write_text(declarations)
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "--message", "change")


@pytest.mark.parametrize(("head", "codes"), [("", {0}), ("broken", {2})])
def test_step_compares_and_answers(repository: Path, head: str, codes: set[int]) -> None:
    text = next(text for name, text in blocks.of("yaml") if name == "ci/README.md")
    (_, _, _, compare, _) = yaml.safe_load(text)["jobs"]["compare"]["steps"]
    commit(repository, DECLARATIONS.replace("STEPS", "4"))
    commit(repository, (DECLARATIONS + "\n# changed\n").replace("STEPS", "4") + head)
    (repository / "runs" / "env").mkdir(parents=True)
    (repository / "runs" / "env" / "bin").symlink_to(Path(sys.executable).parent)
    summary = repository / "summary.md"
    ran = subprocess.run(
        ["bash", "-e", "-c", compare["run"].replace("--device cuda", "--device cpu --minutes 4")],
        cwd=repository,
        env=os.environ | {"GITHUB_STEP_SUMMARY": str(summary), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=590,
    )
    print(ran.stdout, ran.stderr)
    assert ran.returncode in codes
    if head:
        assert not summary.exists()
        return
    assert "A/B pair" in summary.read_text()
    assert (repository / "runs" / "report.html").stat().st_size
