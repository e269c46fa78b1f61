"""Generations of new prompts and seeds: what each adds to the memory, and the time of each stage.

Memory is that which is in use, whatever holds it (tensors, arrays, images, C++): on the host what
malloc gave and has not got back, on a GPU the bytes that were asked for.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from diffusers_perf.catalog.metrics import (
    DECODER_STAGE,
    DENOISING_STAGE,
    GPU_GROWTH,
    HOST_GROWTH,
    LEFT,
    TEXT_STAGE,
)
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.discovery import loop_begins, step_ends
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.loading import running_s

GENERATIONS = 7
"""Their six differences have a median that half of them can be noise without moving it."""
GENERATIONS_LEAST = 4
"""Where none of their three differences grows, further ones would say the same: what grows in every
second generation shows in one of three."""
GENERATIONS_MOST = 40
"""Where memory grows: so many fill a cache that has a bound."""
RESIDENT_GROWTH_MIN = 2**20
"""Less says nothing where only the resident memory is known: it moves in pages and arenas."""

STAGES = (TEXT_STAGE.field, DENOISING_STAGE.field, DECODER_STAGE.field)
"""In the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class Further:
    """What further generations showed."""

    growth_bytes: dict[str, int]
    """By `Metric.field`, what each adds to the memory of the host, and of a GPU."""
    stages_s: dict[str, float]
    """By `Metric.field`, the least of their host times."""


def observe(
    generation: Generation, pipeline: Any, device: torch.device, *, ends_early: bool = False
) -> Further:
    """Generate as short as can be until the memory stays, `GENERATIONS_MOST` times at most.

    `ends_early`: once nothing grew in `GENERATIONS_LEAST` of them in a row.
    """
    accounts: dict[str, Callable[[], int]] = {HOST_GROWTH.field: _host_bytes()}
    if device.type == "cuda":
        accounts[GPU_GROWTH.field] = gpu_bytes
    in_use: dict[str, list[int]] = {name: [] for name in accounts}
    stages = _Stages(pipeline)
    for number in count(1):
        stages.time(generation, _another(generation.workload, number))
        gc.collect()
        for name, bytes_in_use in accounts.items():
            in_use[name].append(bytes_in_use())
        latest = {name: values[-GENERATIONS_LEAST:] for name, values in in_use.items()}
        if ends_early and number >= GENERATIONS_LEAST and _stay(latest):
            growth = {name: growth_of(values) for name, values in latest.items()}
            return Further(growth_bytes=growth, stages_s=stages.least())
        if number < GENERATIONS:
            continue
        growth = {name: growth_of(values[-GENERATIONS:]) for name, values in in_use.items()}
        if number == GENERATIONS_MOST or all(growth[name] <= LEFT[name].most for name in growth):
            return Further(growth_bytes=growth, stages_s=stages.least())
    raise AssertionError("unreachable")


def _stay(in_use: dict[str, list[int]]) -> bool:
    """Whether each generation added no more than is allowed, to any account."""
    return all(
        after - before <= LEFT[name].most
        for name, values in in_use.items()
        for before, after in pairwise(values)
    )


def growth_of(bytes_in_use: list[int]) -> int:
    """The bytes that each generation adds, from the bytes in use after each of them.

    The median difference: a table that doubles or shrinks once in a while does not count.
    """
    return max(0, round(median(after - before for before, after in pairwise(bytes_in_use))))


def _another(workload: Workload, number: int) -> Workload:
    """The workload with a seed and a prompt of its own, the latter of one more token."""
    # A digit: as many tokens in each, so that nothing that is compiled is compiled again.
    prompt = {"prompt": f"{number % 10} {'again ' * (number // 10)}{workload.prompts[0]}"}
    changes: dict[str, Any] = prompt if workload.prompts else {}
    return workload.changed(seed=workload.seed + 100 + number, **changes)


class _Stages:
    """Times the stages of generations on the host."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._seen: dict[str, list[float]] = {}

    def time(self, generation: Generation, workload: Workload) -> None:
        """One generation as short as can be."""
        began: list[float] = []
        ends: list[float] = []
        call = generation.call(steps=generation.anatomy.fewest, of=workload)
        with ExitStack() as watching:
            watching.enter_context(loop_begins(self._pipeline, lambda: began.append(running_s())))
            watching.enter_context(step_ends(self._pipeline, lambda: ends.append(running_s())))
            started = running_s()
            call()
            ended = running_s()
        if not began or not ends:
            return  # replayed, without a word to the host
        borders = (started, began[0], ends[-1], ended)
        for name, (before, after) in zip(STAGES, pairwise(borders), strict=True):
            if after > before:
                self._seen.setdefault(name, []).append(after - before)

    def least(self) -> dict[str, float]:
        return {name: min(seconds) for name, seconds in self._seen.items()}


# Accounts


def gpu_bytes() -> int:
    """Of GPU memory, what tensors asked for."""
    torch.cuda.synchronize()
    # As asked for: a block that is free and up to a MiB larger is given whole, so that the same
    # tensors take more or less of the allocated memory, depending on where they come to lie.
    requested: int = torch.cuda.memory_stats()["requested_bytes.all.current"]
    # CUDA's own allocator (cudaMallocAsync) keeps no account of it.
    return requested or torch.cuda.memory_allocated()


class _Mallinfo(ctypes.Structure):
    """As in glibc's malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


@cache
def _host_bytes() -> Callable[[], int]:
    """The account of the host's memory: malloc's own where it keeps one."""
    try:
        libc = ctypes.CDLL(None)
        mallinfo: Any = libc.mallinfo2
    except (OSError, AttributeError):
        return _resident_bytes
    mallinfo.restype = _Mallinfo

    def allocated() -> int:
        seen = mallinfo()
        return int(seen.uordblks + seen.hblkhd)

    # Another allocator that was loaded ahead of glibc's leaves its account as it is.
    before = allocated()
    block = torch.empty(2**20, dtype=torch.uint8)
    knows = allocated() - before >= block.nbytes
    return allocated if knows else _resident_bytes


def _resident_bytes() -> int:
    """The process's own memory in whole `RESIDENT_GROWTH_MIN`; 0 where that is unknown."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    kibibytes = [line.split()[1] for line in status if line.startswith("RssAnon:")]
    return sum(1024 * int(k) for k in kibibytes) // RESIDENT_GROWTH_MIN * RESIDENT_GROWTH_MIN
