"""How fast the CPU core is now, by a calibration loop: the same work every time."""

from __future__ import annotations

import sys
import time
from typing import Any

LOOP_TURNS = 200_000
"""Of Python, about 10 ms."""


def loop_s() -> float:
    """Seconds of CPU time for it; 0 where the clock is too coarse.

    On a host that is shared a core slows down with what its neighbours do (seen: 9 ms and 23 ms),
    and no account of the system shows it: no thread waits, and nothing is taken from the machine.
    """
    # What follows each line or call of Python, as a debugger or a profiler does, slows this down
    # and no core.
    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.settrace(None)
    sys.setprofile(None)
    try:
        started = time.thread_time()
        number = 0
        for turn in range(LOOP_TURNS):
            number += turn * turn
        return time.thread_time() - started
    finally:
        sys.settrace(tracer)
        set_profiler(profiler)


def set_profiler(found: Any) -> None:
    """What `sys.getprofile` gave, as the profiler again."""
    if found is None or callable(found):
        sys.setprofile(found)
    else:
        found.enable()  # cProfile's own, until Python 3.11
