"""What several test files stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# pytester forgets what a suite in this process imported first. A second copy of the bench would not
# see what a test patched in the first, and this one registers operators, which works once.
import torch._dynamo

from perf_tests.harness import baselines, bench  # noqa: F401
from perf_tests.unit.recorded import accept, process

# Small tensors: threads would only wait for each other, most of all on a shared machine.
torch.set_num_threads(1)


@pytest.fixture
def no_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of baselines in which nothing is accepted yet."""
    folder = tmp_path / "baselines"
    folder.mkdir()
    for name in ("portable.json", "published.json"):
        (folder / name).write_text((baselines.FOLDER / name).read_text())
    monkeypatch.setattr(baselines, "FOLDER", folder)
    return folder


@pytest.fixture
def accepted(no_baselines: Path) -> Path:
    """The same, with three recorded processes as their machine's baseline."""
    runs = [process(f"accepted-{number}") for number in range(3)]
    assert accept(runs, no_baselines) == 0
    return no_baselines
