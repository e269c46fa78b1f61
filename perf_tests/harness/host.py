"""What a generation costs the host beside the clock, exactly: Python calls, and bytes kept."""

from __future__ import annotations

import cProfile
import gc
from typing import Any

import torch

from perf_tests.harness.pipelines import Generation
from perf_tests.harness.records import Count

STEPS = 6
STEADY = 4
"""Of the steps counted from zero, the one that speaks for all further ones: PNDM's first four do
other arithmetic, and the last of a schedule may do less."""


def observe(generation: Generation, device: torch.device) -> dict[str, Count]:
    """`python_calls`: functions entered and generators resumed. `kept_bytes`: tensors that are
    there after a generation and were not before it, which the next one would keep again.
    """
    calls = _calls(generation)
    # Of two that are alike: a scheduler holds its schedule and PNDM its last four noises, which are
    # more after more steps, and of another kind after a generation without data.
    generation.pictures(steps=1)
    before = _held_bytes(device)
    generation.pictures(steps=1)
    kept = max(0, _held_bytes(device) - before)
    return {"python_calls": calls, "kept_bytes": Count(fixed=kept, per_step=0)}


def _calls(generation: Generation) -> Count:
    profile = cProfile.Profile(builtins=False)

    def so_far() -> int:
        # Its types say nothing of what the documentation of `profile` shows.
        entries: list[Any] = profile.getstats()  # type: ignore[attr-defined, unused-ignore]
        return sum(entry.callcount for entry in entries)

    after_steps: list[int] = []
    with profile:
        generation.pictures(steps=STEPS, after_step=lambda: after_steps.append(so_far()))
    per_step = after_steps[STEADY] - after_steps[STEADY - 1]
    return Count(fixed=so_far() - per_step * STEPS, per_step=per_step)


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
