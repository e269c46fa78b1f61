"""How long loading takes the process, and whether it found a cache warm."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from diffusers_perf.catalog.metrics import (
    COLD_FIRST_IMAGE,
    COLD_IMPORT,
    COLD_LOAD,
    FIRST_IMAGE,
    IMPORT,
    IMPORT_IDLE,
    LOAD,
    LOAD_MEMORY,
)
from diffusers_perf.measurement import core
from diffusers_perf.measurement.bytecode import Compiled, compiled
from diffusers_perf.messages import measurement as messages

COLD_BYTES = 2**25
"""Whoever reads more from the disk found a cold cache: libraries and weights are larger."""
PART_S = 0.1
"""A part of an import that took less needs no calibration loop of its own."""
START_TICK_S = 0.01
"""When a process was started is known in ticks of this length."""
_IMPORTED_S = time.time()
"""What stands for that time where the system does not say it."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a load took."""

    seconds: float
    """Wall clock, without the time in which the thread was ready and another ran instead."""
    read_bytes: int
    """From the disk, by this process."""
    idle_s: float = 0.0
    """Of the seconds, those in which the thread neither computed nor was ready to: it slept, or
    waited for the disk, the network or another process."""
    is_first: bool = False
    """Nothing of it was loaded by this process before."""
    compiled: Compiled = field(default_factory=Compiled)
    """What it compiled from source: it is compared with no load that found bytecode."""
    peak_bytes: int | None = None
    """The most GPU memory until all was loaded and changed; None without a GPU."""
    parts: tuple[tuple[float, float], ...] = ()
    """Of each longer part its seconds, and those of the calibration loop after it, which are in no
    part."""

    def __add__(self, further: Load) -> Load:
        return Load(
            seconds=self.seconds + further.seconds,
            read_bytes=self.read_bytes + further.read_bytes,
            idle_s=self.idle_s + further.idle_s,
            parts=self.parts + further.parts,
        )

    @property
    def is_cold(self) -> bool:
        return self.is_first or self.read_bytes > COLD_BYTES


class Loading:
    """Measures from when this was made."""

    def __init__(self) -> None:
        self._modules = frozenset(sys.modules)
        self._began = running_s(), time.thread_time(), read_bytes()

    def ended(self, *, is_first: bool = False) -> Load:
        began_s, computed_before_s, read_before = self._began
        seconds = running_s() - began_s
        return Load(
            seconds=max(1e-6, seconds),
            read_bytes=read_bytes() - read_before,
            idle_s=max(0.0, seconds - (time.thread_time() - computed_before_s)),
            is_first=is_first,
        )

    def compiled(self) -> Compiled:
        """What was compiled of the modules that were imported meanwhile."""
        return compiled(sys.modules.keys() - self._modules, since_s=_started_s())


_LOADS: WeakKeyDictionary[Any, Load] = WeakKeyDictionary()
_LOADED: WeakSet[Any] = WeakSet()
"""Sources from which this process has loaded."""


def note(pipeline: Any, source: object, loading: Loading) -> None:
    """Keep what loading this pipeline took."""
    load = loading.ended(is_first=source not in _LOADED)
    _LOADS[pipeline] = replace(load, compiled=loading.compiled())
    _LOADED.add(source)


def note_peak(pipeline: Any, *peaks_bytes: int | None) -> None:
    """Keep the most GPU memory that this pipeline took until it was changed, of several parts."""
    known = [peak for peak in peaks_bytes if peak is not None]
    _LOADS[pipeline] = replace(_LOADS[pipeline], peak_bytes=max(known, default=None))


def load_of(pipeline: Any) -> Load | None:
    """None where something else built it."""
    return _LOADS.get(pipeline)


class Importing:
    """What importing takes this process since it was started. Between its parts the calibration
    loop is timed, which shows the core's speed then and is in none of them.
    """

    def __init__(self) -> None:
        self._load = _with_loop(since_start())
        self._part = Loading()

    def begin_part(self) -> None:
        """Until here nothing was imported that counts."""
        self._part = Loading()

    def end_part(self) -> None:
        """What was imported since the last part ended or was begun counts."""
        part = self._part.ended()
        self._load = self._load + (_with_loop(part) if part.seconds > PART_S else part)
        self.begin_part()

    def load(self) -> Load:
        """All parts that have ended, with what was compiled of all that is imported."""
        return with_compiled(self._load)


def _with_loop(load: Load) -> Load:
    loop_s = core.loop_s()
    return replace(load, parts=((load.seconds, loop_s),)) if loop_s else load


def import_times(imports: Iterable[Load]) -> dict[str, float]:
    """What importing took, by `Metric.field`."""
    judged = _judged_imports(imports)
    seen = {field: load.seconds for field, load in judged.items()}
    if warm := judged.get(IMPORT.field):
        seen[IMPORT_IDLE.field] = max(START_TICK_S, warm.idle_s)
    return seen


def import_parts(imports: Iterable[Load]) -> dict[str, tuple[tuple[float, float], ...]]:
    """The same of the parts of each, as far as a calibration loop was timed after them."""
    return {field: load.parts for field, load in _judged_imports(imports).items() if load.parts}


def _judged_imports(imports: Iterable[Load]) -> dict[str, Load]:
    """By `Metric.field`: of several with a warm or a cold cache, the last.

    One that compiled much from source is neither.
    """
    return {
        (COLD_IMPORT if load.is_cold else IMPORT).field: load
        for load in imports
        if not load.compiled.is_much
    }


def before_first_image(
    load: Load | None,
    first_s: float | None,
    like_first_s: float,
    compile_cache: str | None,
    compiled: Compiled,
) -> dict[str, float]:
    """Times and memory before the first image, by `Metric.field`; none of a pipeline whose load is
    not known, and no times where much was compiled from source: `compiled` until the first image
    was there.

    The first image took `first_s`, None if there was none, and a later one takes `like_first_s`.
    """
    if load is None:
        return {}
    memory = {LOAD_MEMORY.field: float(load.peak_bytes)} if load.peak_bytes else {}
    if load.compiled.is_much:
        return memory
    seen = {(COLD_LOAD if load.is_cold else LOAD).field: load.seconds}
    if first_s is not None and not compiled.is_much:
        # A busy machine lengthens all images: what the first alone takes is its own.
        more_s = max(0.0, first_s - like_first_s)
        is_cold = load.is_cold or compile_cache not in (None, "warm")
        metric = COLD_FIRST_IMAGE if is_cold else FIRST_IMAGE
        seen[metric.field] = load.seconds + more_s
    return seen | memory


def import_notes(imports: Sequence[Load]) -> Iterator[str]:
    """Why none of these is judged, or another than the last, which is this process's."""
    own = imports[-1].compiled if imports else Compiled()
    if own.is_much and not import_times(imports):
        yield messages.not_judged([IMPORT.label], _why(own))
    elif own.is_lost:
        yield messages.import_of_another_process(_why(own))


def starting_notes(load: Load | None, compiled: Compiled) -> Iterator[str]:
    """Which times of `before_first_image` are not judged, and why."""
    if load is not None and load.compiled.is_much:
        yield messages.not_judged([LOAD.label, FIRST_IMAGE.label], _why(load.compiled))
    elif load is not None and compiled.is_much:
        yield messages.not_judged([FIRST_IMAGE.label], _why(compiled))


def _why(compiled: Compiled) -> str:
    return messages.compiled_from_source(
        compiled.modules, is_lost=compiled.is_lost, is_forbidden=sys.dont_write_bytecode
    )


def since_start() -> Load:
    """What this process has taken since it was started; nothing where the system does not say."""
    seconds = _age_s()
    if seconds is None:
        return Load(seconds=1e-6, read_bytes=0)
    seconds -= _waited_s()
    idle_s = max(0.0, seconds - time.thread_time())
    return Load(seconds=max(1e-6, seconds), read_bytes=read_bytes(), idle_s=idle_s)


def with_compiled(load: Load) -> Load:
    """A load of all that this process has imported, with what was compiled of it."""
    return replace(load, compiled=compiled([*sys.modules], since_s=_started_s()))


def _started_s() -> float:
    """When this process was started, as a file's time says it."""
    age_s = _age_s()
    return _IMPORTED_S if age_s is None else time.time() - age_s


def _age_s() -> float | None:
    """For how long this process has been there; None where the system does not say."""
    try:
        # After the name in brackets, which may hold spaces: the 22nd field of proc_pid_stat(5).
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return None


def read_bytes() -> int:
    """What this process has read from the disk; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), 0)


def running_s() -> float:
    """A clock that stands still while this thread is ready to run and another runs instead."""
    return time.perf_counter() - _waited_s()


def _waited_s() -> float:
    """Seconds for which this thread was ready to run and another ran instead."""
    try:
        schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        return int(schedstat.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
