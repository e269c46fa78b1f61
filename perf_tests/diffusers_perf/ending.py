"""Signals that end a job: each is a `KeyboardInterrupt`, so that what was measured is written and
no process is left behind.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Handler = Callable[..., object]
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, the end of a job in CI, and of the terminal that it was started in."""


@contextmanager
def ended_by(
    handler: Handler = signal.default_int_handler, *, over_own: bool = False
) -> Iterator[None]:
    """Call this handler for each signal of `ENDING`; in the main thread, where alone Python can.

    A handler that somebody else set stays, unless `over_own`, and a lost terminal is ignored under
    nohup. Ctrl-C is not, though a script's shell has what it starts in the background ignore it:
    the signal is sent to end the job.
    """
    before = {
        number: was
        for number in (ENDING if _in_main_thread() else ())
        if (was := signal.getsignal(number)) is not None
        and (was != signal.SIG_IGN or number != getattr(signal, "SIGHUP", None))
        and (over_own or not callable(was) or was is signal.default_int_handler)
    }
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


class Interruption:
    """A signal that ends: a `KeyboardInterrupt`, at once or as soon as nothing is half done."""

    def __init__(self) -> None:
        self._came = False
        self._is_held_back = False

    def __call__(self, *_: object) -> None:
        __tracebackhide__ = True  # pytest names the line that was running
        self._came = True
        if not self._is_held_back:
            raise KeyboardInterrupt

    def forget(self) -> None:
        """One that came has ended what it was meant to."""
        self._came = False

    def hold_back(self) -> None:
        """One that comes from now on changes nothing: what it would end is ending."""
        self._is_held_back = True

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """One that comes in here waits for the end of it."""
        try:
            self._is_held_back = True
            yield
        finally:
            self._is_held_back = False
            self.raise_if_it_came()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Within `held_back`: in here one comes at once, also one that came before."""
        try:
            self._is_held_back = False
            self.raise_if_it_came()
            yield
        finally:
            self._is_held_back = True

    @contextmanager
    def not_an_error(self) -> Iterator[None]:
        """An error in here that a library made of one, such as of a file that was not read to its
        end, is a `KeyboardInterrupt` again.
        """
        try:
            yield
        except Exception:
            # Of any type: whatever the library makes of it.
            self.raise_if_it_came()
            raise

    def raise_if_it_came(self) -> None:
        """Raise also one that a library caught and went on."""
        if self._came:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """A `kill` ends the process that is measuring, too, as Ctrl-C does."""
    interruption = Interruption()
    # Ray, for one, has a handler of its own for a `kill`.
    with ended_by(interruption, over_own=True):
        yield interruption


def renew() -> None:
    """Put the handlers for `ENDING` in place again, over those that a library has put there.

    LLVM does once Triton has compiled a kernel in this process. At a first signal it takes its own
    away, and a second one meanwhile kills the process: `timeout` sends each signal twice, to the
    process and to its group.
    """
    for number in ENDING if _in_main_thread() else ():
        if callable(handler := signal.getsignal(number)):
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
