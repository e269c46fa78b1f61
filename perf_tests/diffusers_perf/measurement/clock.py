"""The clock that waits for the device."""

from __future__ import annotations

from time import perf_counter

import torch


def synchronized_clock() -> float:
    """Seconds, read once the device has nothing left to do. A timer for pytest-benchmark."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return perf_counter()
