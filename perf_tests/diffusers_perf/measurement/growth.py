"""Generations of new prompts and seeds: what each adds to the memory, and the time of each stage.

Memory is that which is in use, whatever holds it (tensors, arrays, images, C++): on the host what
malloc gave and has not got back, on a GPU the bytes that were asked for.
"""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
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
from diffusers_perf.measurement.generation import Generation, Short, images_in
from diffusers_perf.measurement.loading import running_s
from diffusers_perf.records.pixels import Images

GENERATIONS = 7
"""Their six differences have a median that half of them can be noise without moving it."""
GENERATIONS_LEAST = 4
"""Where none of their three differences grows, further ones would say the same: what grows in every
second generation shows in one of three."""
GENERATIONS_TIMED = 3
"""The least of their stages' times, where memory is noted around other generations too."""
GENERATIONS_MOST = 40
"""Where memory grows: so many fill a cache that has a bound."""
RESIDENT_GROWTH_MIN = 2**20
"""Less says nothing where only the resident memory is known: it moves in pages and arenas."""

STAGES = (TEXT_STAGE.field, DENOISING_STAGE.field, DECODER_STAGE.field)
"""In the order in which they run."""


@contextmanager
def pytest_keeps_no_logs() -> Iterator[None]:
    """Stop pytest from storing log records for its report, which would count as growth.

    Its live log, its log file and all other handlers go on.
    """

    def refuse(record: logging.LogRecord) -> bool:
        return False

    # Not removed from the root logger: pytest adds them to each logger that does not propagate as
    # well, such as diffusers' own.
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if type(handler).__module__ == "_pytest.logging" and hasattr(handler, "records")
    ]
    for handler in handlers:
        handler.addFilter(refuse)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(refuse)


@dataclass(frozen=True, kw_only=True)
class Further:
    """What further generations showed."""

    growth_bytes: dict[str, int]
    """By `Metric.field`, what each adds to the memory of the host, and of a GPU."""
    stages_s: dict[str, float]
    """By `Metric.field`, the least of their host times."""


class Growing:
    """Generations as short as can be: the memory in use between them, and their stages' times.

    Stages are timed under the workload's own call, with another prompt and seed.
    """

    def __init__(self, generation: Generation, pipeline: Any, device: torch.device) -> None:
        self._generation = generation
        self._accounts: dict[str, Callable[[], int]] = {HOST_GROWTH.field: _host_bytes()}
        if device.type == "cuda":
            self._accounts[GPU_GROWTH.field] = gpu_bytes
        self._in_use: dict[str, list[int]] = {name: [] for name in self._accounts}
        self._stages = _Stages(pipeline)

    def note(self) -> None:
        """Note how much memory is in use."""
        gc.collect()
        for name, bytes_in_use in self._accounts.items():
            self._in_use[name].append(bytes_in_use())

    def first(self) -> Short:
        """A generation of another prompt and seed, which others can be compared with."""
        return self._timed(_another(self._generation.workload, 0))

    def images(self, of: Workload, *, timed: bool) -> Images:
        """The images of a workload's shortest generation, ahead of which the memory is noted."""
        self.note()
        return self._timed(of).images if timed else self._generation.shortest(of)

    def _timed(self, of: Workload) -> Short:
        # Kept: a call as users make it is compared with the latest, whose prompt is known.
        return self._generation.keep_short(of, partial(self._stages.time, self._generation))

    @pytest_keeps_no_logs()
    def further(self, *, ends_early: bool = False) -> Further:
        """Generate until the memory stays, `GENERATIONS_MOST` times at most.

        `ends_early`: until `GENERATIONS_TIMED` were timed, if nothing grew in `GENERATIONS_LEAST`
        notes or more, and else until nothing grew in as many in a row.
        """
        for number in count():
            if number:
                self._timed(_another(self._generation.workload, number))
                self.note()
            since = GENERATIONS_LEAST if number >= GENERATIONS_LEAST else 0
            is_timed = self._stages.generations >= GENERATIONS_TIMED
            if ends_early and is_timed and self._stays(since):
                return self._seen(since)
            if number < GENERATIONS:
                continue
            further = self._seen(GENERATIONS)
            growth = further.growth_bytes
            if number == GENERATIONS_MOST or all(growth[n] <= LEFT[n].most for n in growth):
                return further
        raise AssertionError("unreachable")

    def _stays(self, latest: int) -> bool:
        """Whether nothing grew by more than is allowed in so many of the latest notes; 0: in all,
        which have to be `GENERATIONS_LEAST`.
        """
        return all(
            len(values) >= GENERATIONS_LEAST
            and all(b - a <= LEFT[name].most for a, b in pairwise(values[-latest:]))
            for name, values in self._in_use.items()
        )

    def _seen(self, latest: int) -> Further:
        growth = {name: growth_of(values[-latest:]) for name, values in self._in_use.items()}
        return Further(growth_bytes=growth, stages_s=self._stages.least())


def growth_of(bytes_in_use: list[int]) -> int:
    """The bytes that each generation adds, from the bytes in use after each of them.

    The median difference: a table that doubles or shrinks once in a while does not count.
    """
    return max(0, round(median(after - before for before, after in pairwise(bytes_in_use))))


def _another(workload: Workload, number: int) -> Workload:
    """The workload with a seed and, where it has one, a prompt of its own, the latter of one more
    token.
    """
    another = workload.changed(seed=workload.seed + 100 + number)
    if not workload.prompts:
        return another
    # A digit: as many tokens in each, so that nothing that is compiled is compiled again.
    prompt = f"{number % 10} {'again ' * (number // 10)}{workload.prompts[0]}"
    return another.changed(prompt=prompt)


class _Stages:
    """Times the stages of generations on the host."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._seen: dict[str, list[float]] = {}
        self._prompts: list[str] = []
        self.generations = 0

    def time(self, generation: Generation, workload: Workload) -> Images:
        """One generation as short as can be; its images."""
        began: list[float] = []
        ends: list[float] = []
        call = generation.call(steps=generation.anatomy.fewest, of=workload)
        with ExitStack() as watching:
            watching.enter_context(loop_begins(self._pipeline, lambda: began.append(running_s())))
            watching.enter_context(step_ends(self._pipeline, lambda: ends.append(running_s())))
            started = running_s()
            output = call()
            ended = running_s()
        # What was made of a prompt can be kept for the next generation.
        is_known = workload.prompts and workload.prompts == self._prompts
        self._prompts = workload.prompts
        self.generations += 1
        if began and ends:  # else replayed, without a word to the host
            borders = (started, began[0], ends[-1], ended)
            for name, (before, after) in zip(STAGES, pairwise(borders), strict=True):
                if after > before and not (is_known and name == TEXT_STAGE.field):
                    self._seen.setdefault(name, []).append(after - before)
        return images_in(output)

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
