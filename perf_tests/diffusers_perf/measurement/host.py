"""What a generation costs the host beside the clock, exactly, and what it leaves for the next."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from diffusers_perf.catalog.metrics import DEFAULT_CALL
from diffusers_perf.measurement.clock import synchronized_clock
from diffusers_perf.measurement.core import set_profiler
from diffusers_perf.measurement.discovery import step_ends
from diffusers_perf.measurement.generation import BadOutput, Generation, Short, images_in
from diffusers_perf.measurement.growth import Growing, gpu_bytes, pytest_keeps_no_logs
from diffusers_perf.measurement.replay import compiling_nothing
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.pixels import Images

STEPS = 6
DEFAULT_CALLS = 2
STEADY = 4
"""Of the steps counted from zero, the one that speaks for all further ones: PNDM's first four do
other arithmetic, and the last of a schedule may do less."""
AOT_WRAPPERS = f"{Path(torch.__file__).parent}/_functorch/_aot_autograd/"
"""AOTAutograd's package, whose functions wrap each compiled graph. How many do depends on the cache
on disk: torch 2.11 has one fewer around a graph from there than around one that it just compiled.
Dynamo's and Inductor's are as many, and show a graph break."""
MUTATION_GUARD = f"{Path(torch.__file__).parent}/_dynamo/mutation_guard.py"
"""Of Dynamo, which follows each module that is made once something was compiled in the process, and
notes it in a table of this class:"""
GUARDS_TABLE = f"{Path(torch.__file__).parent}/_dynamo/utils.py:ExactWeakKeyDictionary."
LEFT_OUT = (AOT_WRAPPERS, MUTATION_GUARD, GUARDS_TABLE)
"""Beginnings of ``FILE:QUALIFIED NAME`` of functions whose calls are not the generation's own."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What one generation leaves for the next."""

    kept_bytes: int
    """Of tensors that are there after it and were not before, which the next would keep again."""
    ignored: tuple[str, ...]
    """Inputs that can change without the images: a buffer was not written again."""


@pytest_keeps_no_logs()
def left(generation: Generation, device: torch.device, *, growing: Growing | None = None) -> Left:
    """A generation as short as can be, and one more for each input that must change its images.

    `growing` makes them, where growth and stages are to be seen in them as well.
    """
    # Bytes between two that are alike: a scheduler holds its schedule and PNDM its last four
    # noises, which are more after more steps, and of another kind after a generation without data.
    short = growing.first() if growing else generation.keep_short()
    # A copy: others are kept in its place, and as many images must be there before as after.
    of, own = short.of, short.images.copy()
    del short
    before = _held_bytes(device)
    kept: int | None = None
    ignored = []
    for name, changed in of.probes.items():
        # Some arguments turn work off, such as guidance: their stages take less time.
        timed = name not in of.sensitive_to
        # Without guidance a batch is half as large: another graph, of which nothing is timed.
        with compiling_nothing():
            # Without a name for the images, which would live on where it is looked for what is
            # kept.
            same = np.array_equal(
                growing.images(changed, timed=timed) if growing else generation.shortest(changed),
                own,
            )
            if kept is None:
                kept = max(0, _held_bytes(device) - before)
            # In so few steps an input may have no say yet.
            if same and np.array_equal(generation.images(of=changed), generation.images(of=of)):
                ignored.append(name)
    if growing:
        growing.note()
    return Left(kept_bytes=kept or 0, ignored=tuple(ignored))


@dataclass(frozen=True, kw_only=True)
class DefaultCall:
    """The shortest call as users make it: with a generator, and the pipeline's own output type."""

    seconds: float
    """Of the fastest."""
    psnr_db: float | None
    """Of its images to those of the same call that gives arrays; None where they cannot be read or
    the second call's differ from the first's."""
    ignored: tuple[str, ...] = ()
    """The generator, where torch's global one decides about the images."""


def default_call(generation: Generation, *, briefly: bool = False) -> DefaultCall:
    """Time and look at calls as users make them, and compare them with one that gives arrays: the
    one that was kept, if any.

    `briefly` makes one where it is much like that.
    """
    own = generation.short or generation.keep_short()
    seconds: list[float] = []

    def made() -> Images | None:
        call = generation.call(steps=generation.anatomy.fewest, of=own.of, output_type=None)
        start = synchronized_clock()
        output = call()
        seconds.append(synchronized_clock() - start)
        try:
            return images_in(output)
        except BadOutput:
            return None

    first = last = made()
    if not (briefly and _much_like(own, first, seconds[0])):
        for _ in range(DEFAULT_CALLS - 1):
            last = made()
    if first is None or last is None or first.shape != own.images.shape:
        return DefaultCall(seconds=min(seconds), psnr_db=None)
    if np.array_equal(first, last):
        psnr_db = pixels.distance(last, own.images).psnr_db
        return DefaultCall(seconds=min(seconds), psnr_db=psnr_db)
    # State that leaks between generations does the same; a global seed does not undo it.
    with torch.random.fork_rng(devices=[]):
        seeded = []
        for _ in range(2):
            torch.manual_seed(own.of.seed)
            seeded.append(made())
    ignored = ("generator",) if _same(*seeded) else ()
    return DefaultCall(seconds=min(seconds), psnr_db=None, ignored=ignored)


def _much_like(own: Short, images: Images | None, seconds: float) -> bool:
    """Whether a call as users make it took hardly longer, and gave the same but for its 8 bits."""
    if images is None or images.shape != own.images.shape:
        return False
    is_rounded = float(np.abs(images - own.images).max()) <= 1 / 255
    return is_rounded and seconds <= (1 + DEFAULT_CALL.threshold) * own.seconds


def _same(one: Images | None, other: Images | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


class _Calls:
    """Counts the functions and the turns of generators that end in this thread.

    cProfile, from Python 3.12 on, counts those of all threads, of which Inductor keeps some.
    """

    def __init__(self) -> None:
        self._calls: Counter[int] = Counter()
        self._codes: dict[int, CodeType] = {}
        """By id, as its calls: those of two files may be equal. Held, so that it stays theirs."""

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """What `sys.setprofile` calls."""
        if event == "return":
            code = frame.f_code
            self._codes[id(code)] = code
            self._calls[id(code)] += 1

    def so_far(self) -> int:
        """Without those of `LEFT_OUT`."""
        # The next step counts this sum, once for each in it: what is left out must not be in it.
        return sum(
            self._calls[id(code)]
            for code in [*self._codes.values()]
            # No function of its own: this runs under the profiler, which would count each call.
            if not f"{code.co_filename}:{code.co_qualname}".startswith(LEFT_OUT)
        )


def python_calls(generation: Generation, pipeline: Any) -> Count:
    """Functions called and generators resumed in the pipeline's call, without `LEFT_OUT`."""
    calls = _Calls()
    steps = generation.asking_for(STEPS)
    after_steps: list[int] = []
    call = generation.call(steps=steps)
    before = sys.getprofile()
    with step_ends(pipeline, lambda: after_steps.append(calls.so_far())):
        sys.setprofile(calls.note)
        try:
            call()
        finally:
            sys.setprofile(None)
            set_profiler(before)
    if len(after_steps) <= STEADY:
        # A result that was cached: the rounds say so.
        return Count(fixed=calls.so_far(), per_step=0)
    per_step = after_steps[STEADY] - after_steps[STEADY - 1]
    return Count(fixed=calls.so_far() - per_step * generation.turns(steps), per_step=per_step)


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
