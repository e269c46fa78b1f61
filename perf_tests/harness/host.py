"""What a generation costs the host beside the clock, exactly: Python calls, and bytes kept."""

from __future__ import annotations

import gc
import sys
from typing import Any

import torch

from perf_tests.harness.pipelines import Generation
from perf_tests.harness.records import Count

STEPS = (5, 6)
"""Both beyond PNDM's first four steps, which do other arithmetic."""


def observe(generation: Generation, device: torch.device) -> dict[str, Count]:
    """`python_calls`: functions entered and generators resumed. `kept_bytes`: tensors that are
    there after a generation and were not before it, which a second one would keep again.
    """
    many = _calls(generation, STEPS[1])
    # Of two generations of the same steps, since a schedule is as long as they are many.
    generation.pictures(steps=STEPS[0])
    before = _held_bytes(device)
    few = _calls(generation, STEPS[0])
    kept = max(0, _held_bytes(device) - before)
    return {
        "python_calls": Count.between(few, many, steps=STEPS),
        "kept_bytes": Count(fixed=kept, per_step=0),
    }


def _calls(generation: Generation, steps: int) -> int:
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        if event == "call":
            calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        generation.pictures(steps=steps)
    finally:
        sys.setprofile(before)
    return calls


def _held_bytes(device: torch.device) -> int:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    storages = {}
    for found in gc.get_objects():
        # Not isinstance: it would ask objects of all kinds for their class, and some object.
        if issubclass(type(found), torch.Tensor) and not found.is_meta:
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
