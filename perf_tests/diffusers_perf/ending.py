"""Signals that end a job: each is a `KeyboardInterrupt`, so that what was measured is written."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Handler = Callable[..., object]
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, the end of a job in CI, and of the terminal that it was started in."""


@contextmanager
def ended_by(handler: Handler = signal.default_int_handler) -> Iterator[None]:
    """Call this handler for each signal of `ENDING`.

    Ctrl-C and a lost terminal stay ignored if they are, as in the background and under nohup.
    """
    before = {
        number: was
        for number in ENDING
        if (was := signal.getsignal(number)) is not None
        and (was != signal.SIG_IGN or number == signal.SIGTERM)
    }
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def leave_lost_terminal() -> None:
    """Send further output nowhere if the terminal is gone: writing to it would be an error."""
    if not hasattr(select, "poll"):
        return
    # Either is None where a process has no console.
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        with suppress(OSError, ValueError):
            descriptor = stream.fileno()
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
