"""What the tests of real pipelines stand on."""

from __future__ import annotations

import gc
import os

import pytest
import torch

# A pytest that a test starts is no worker of this one, and times what it runs.
for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[name]

# Small tensors: threads would only wait for each other, most of all on a shared machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _settled() -> None:
    # Counting collects garbage often: let it pass by the millions of objects that the libraries
    # hold.
    gc.freeze()
