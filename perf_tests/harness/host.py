"""What a generation costs the host beside the clock, exactly: Python calls, and bytes kept."""

from __future__ import annotations

import cProfile
import gc
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
    profile = cProfile.Profile(builtins=False)
    with profile:
        generation.pictures(steps=steps)
    # Its types say nothing of what the documentation of `profile` shows.
    entries: list[Any] = profile.getstats()  # type: ignore[attr-defined, unused-ignore]
    return sum(entry.callcount for entry in entries)


def _held_bytes(device: torch.device) -> int:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    storages = {}
    for found in gc.get_objects():
        # Not isinstance: it would ask objects of all kinds for their class, and some object.
        if issubclass(type(found), torch.Tensor):
            storage = found.untyped_storage()
            # What torch.compile traces with claims to be on the host and has no data.
            if storage.device.type != "meta":
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
