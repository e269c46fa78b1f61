"""What tests of real processes share: a user's repository, waiting, and whether one is alive."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LIMIT_S = 300.0
TEST_FILE = """
from diffusers_perf import Workload, measure
from diffusers_perf import test_generation as test_generation

SERVING = Workload(
    name="serving",
    model="embedded",
    call={{"prompt": "a red circle", "height": 64, "width": 64, "guidance_scale": 7.5}},
    steps=2,
    scheduler="DDIMScheduler",
)
measure(SERVING, *{stacks!r}, suite="serving")
"""


def write_repository(folder: Path, *stacks: str) -> Path:
    """A user's repository with these cases and a reference; returns its folder."""
    (folder / "perf_tests").mkdir(parents=True)
    (folder / "perf_tests" / "test_serving.py").write_text(TEST_FILE.format(stacks=stacks))
    (folder / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\n")
    (folder / "baselines").mkdir()
    return folder


def until(holds: Callable[[], bool], *, limit_s: float = LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        # One that has ended may stay until the system's first process looks for it.
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False
