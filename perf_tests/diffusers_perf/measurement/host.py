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
from diffusers_perf.measurement.generation import BadOutput, Generation, images_in
from diffusers_perf.measurement.growth import Growing, gpu_bytes
from diffusers_perf.measurement.timing import synchronized_clock
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.pixels import Images

STEPS = 6
DEFAULT_CALLS = 2
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


def left(generation: Generation, device: torch.device, *, growing: Growing | None = None) -> Left:
    """A generation as short as can be, and one more for each input that must change its images.

    `growing` makes the latter, where growth is to be seen in them as well.
    """
    # Bytes between two that are alike: a scheduler holds its schedule and PNDM its last four
    # noises, which are more after more steps, and of another kind after a generation without data.
    # A copy: what the pipeline itself keeps of its last images must not live on in here.
    own = generation.shortest().copy()
    shortest = growing.images if growing else generation.shortest
    before = _held_bytes(device)
    kept: int | None = None
    ignored = []
    for name, changed in generation.workload.probes.items():
        same = np.array_equal(shortest(changed), own)
        if kept is None:
            kept = max(0, _held_bytes(device) - before)
        # In so few steps an input may have no say yet.
        if same and np.array_equal(generation.images(of=changed), generation.images()):
            ignored.append(name)
    if growing:
        growing.note()
    return Left(kept_bytes=kept or 0, ignored=tuple(ignored))


@dataclass(frozen=True, kw_only=True)
class DefaultCall:
    """The shortest call as users make it: with a generator, and the pipeline's own output type."""

    seconds: float
    """Of the fastest of `DEFAULT_CALLS`."""
    psnr_db: float | None
    """Of its images to those of the same call that gives arrays; None where they cannot be read or
    the second call's differ from the first's."""
    follows_generator: bool
    """Whether the generator, and not torch's global one, decides about the images."""


def default_call(generation: Generation) -> DefaultCall:
    """Time and look at calls as users make them, and compare them with one that gives arrays."""
    own = generation.shortest()
    seconds: list[float] = []

    def made() -> Images | None:
        call = generation.call(steps=generation.anatomy.fewest, output_type=None)
        start = synchronized_clock()
        output = call()
        seconds.append(synchronized_clock() - start)
        try:
            return images_in(output)
        except BadOutput:
            return None

    first, *_, last = (made() for _ in range(DEFAULT_CALLS))
    if first is None or last is None or first.shape != own.shape:
        return DefaultCall(seconds=min(seconds), psnr_db=None, follows_generator=True)
    if np.array_equal(first, last):
        psnr_db = pixels.distance(last, own).psnr_db
        return DefaultCall(seconds=min(seconds), psnr_db=psnr_db, follows_generator=True)
    # State that leaks between generations does the same; a global seed does not undo it.
    with torch.random.fork_rng(devices=[]):
        seeded = []
        for _ in range(2):
            torch.manual_seed(generation.workload.seed)
            seeded.append(made())
    by_global_seed = _same(*seeded)
    return DefaultCall(seconds=min(seconds), psnr_db=None, follows_generator=not by_global_seed)


def _same(one: Images | None, other: Images | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


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
