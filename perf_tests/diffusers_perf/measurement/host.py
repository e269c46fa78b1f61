"""What a generation costs the host beside the clock, exactly, and what it leaves for the next."""

from __future__ import annotations

import cProfile
import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from diffusers_perf.measurement.discovery import step_ends
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.growth import gpu_bytes
from diffusers_perf.records.measurement import Count

STEPS = 6
STEADY = 4
"""Of the steps counted from zero, the one that speaks for all further ones: PNDM's first four do
other arithmetic, and the last of a schedule may do less."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What one generation leaves for the next."""

    kept_bytes: int
    """Of tensors that are there after it and were not before, which the next would keep again."""
    ignored: tuple[str, ...]
    """Inputs that can change without the images: a buffer was not written again."""


def left(generation: Generation, device: torch.device) -> Left:
    """A generation as short as can be, and one more for each input that must change its images."""
    # Bytes between two that are alike: a scheduler holds its schedule and PNDM its last four
    # noises, which are more after more steps, and of another kind after a generation without data.
    # A copy: what the pipeline itself keeps of its last images must not live on in here.
    own = generation.shortest().copy()
    before = _held_bytes(device)
    kept: int | None = None
    ignored = []
    for name, changed in generation.workload.probes.items():
        same = np.array_equal(generation.shortest(changed), own)
        if kept is None:
            kept = max(0, _held_bytes(device) - before)
        # In so few steps an input may have no say yet.
        if same and np.array_equal(generation.images(of=changed), generation.images()):
            ignored.append(name)
    return Left(kept_bytes=kept or 0, ignored=tuple(ignored))


def python_calls(generation: Generation, pipeline: Any) -> Count:
    """Functions entered and generators resumed in the pipeline's call."""
    profile = cProfile.Profile(builtins=False)

    def so_far() -> int:
        # Its types lack what the documentation of `profile` shows.
        entries: list[Any] = profile.getstats()  # type: ignore[attr-defined, unused-ignore]
        return sum(entry.callcount for entry in entries)

    steps = generation.asking_for(STEPS)
    after_steps: list[int] = []
    call = generation.call(steps=steps)
    with step_ends(pipeline, lambda: after_steps.append(so_far())), profile:
        call()
    per_step = after_steps[STEADY] - after_steps[STEADY - 1]
    return Count(fixed=so_far() - per_step * generation.turns(steps), per_step=per_step)


def _held_bytes(device: torch.device) -> int:
    gc.collect()
    if device.type == "cuda":
        return gpu_bytes()
    storages = {}
    for found in gc.get_objects():
        # Not isinstance: it would ask objects of all kinds for their class, and some object.
        if issubclass(type(found), torch.Tensor):
            if is_traceable_wrapper_subclass(found):
                continue  # what is quantized holds tensors, which are found by themselves
            storage = found.untyped_storage()
            # What torch.compile traces with claims to be on the host and has no data.
            if storage.device.type != "meta":
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
