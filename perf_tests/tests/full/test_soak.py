"""Long use: memory stays flat over many rounds, and no file grows from one main job to the next.

pytest perf_tests/tests/full/test_soak.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

ROUNDS = 60
JOBS = 10
FLAT = 0.03
TEST_FILE = """
from pathlib import Path

from diffusers_perf import Workload, measure, optimization, tolerances
from diffusers_perf import test_generation as test_generation


def note(*_):
    status = Path("/proc/self/status").read_text()
    size = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    with Path("memory").open("a") as file:
        print(size, file=file)


@optimization(tolerance=tolerances.SAME_ARITHMETIC, applied=lambda pipeline: None)
def watched(build):
    \"\"\"Notes how much memory the process has, in KiB, as each generation begins.\"\"\"

    @build.then
    def _(pipeline):
        pipeline.vae.post_quant_conv.register_forward_pre_hook(note)


SERVING = Workload(
    name="serving",
    model="embedded",
    call={"prompt": "a red circle", "height": 64, "width": 64, "guidance_scale": 7.5},
    steps=2,
    scheduler="DDIMScheduler",
)
measure(SERVING, "watched", suite="serving")
"""


def main_job(folder: Path, *options: str) -> None:
    line = [sys.executable, "-m", "pytest", "--benchmark-only", "--device=cpu", *options]
    done = subprocess.run(
        [*line, "--benchmark-json=runs/run.json"],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "temporary")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's repository."""
    for name in ("perf_tests", "temporary"):
        (tmp_path / name).mkdir()
    (tmp_path / "perf_tests" / "test_serving.py").write_text(TEST_FILE)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\n")
    return tmp_path


def test_memory_is_flat_over_many_rounds(folder: Path) -> None:
    main_job(folder, f"--rounds={ROUNDS}")
    sizes = [int(line) for line in (folder / "memory").read_text().splitlines()][-ROUNDS:]
    assert len(sizes) == ROUNDS
    first, last = median(sizes[:10]), median(sizes[-10:])
    assert last <= first * (1 + FLAT), f"{first} KiB became {last} KiB"


def test_no_file_grows_from_job_to_job(folder: Path) -> None:
    sizes: list[dict[str, int]] = []
    for _ in range(JOBS):
        main_job(folder, "--quick", "-k", "reference")
        sizes.append(
            {
                path.relative_to(folder).as_posix(): path.stat().st_size
                for path in folder.rglob("*")
                if path.is_file()
            }
        )
    assert "runs/run.json" in sizes[-1]
    # pytest's cache of the first is there from the second on.
    assert sizes[-1].keys() == sizes[1].keys()
    for name, size in sizes[1].items():
        assert sizes[-1][name] < size * 1.1 + 200, name
