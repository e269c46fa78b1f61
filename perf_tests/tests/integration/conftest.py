"""What the tests of real pipelines stand on."""

from __future__ import annotations

import gc
import os

import pytest
import torch

LONG = ("test_wheel.py", "test_examples.py")
"""Files with tests of half a minute."""

# A pytest that a test starts is not a worker of this one, and times what it runs.
for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[name]

# Small tensors: threads would only wait for each other, most of all on a shared machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _settled() -> None:
    # Counting collects garbage often: let it pass by the millions of objects that the libraries
    # hold.
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # First, so that no process of `-n` waits in the end for one that has just begun with them.
    items.sort(key=lambda item: item.path.name not in LONG)
