"""Signals that end a comparison, which must not leave a process behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers_perf.ending import ended_by


class Interruption:
    """A signal that ends: a `KeyboardInterrupt`, at once or as soon as nothing is half done."""

    def __init__(self) -> None:
        self._came = False
        self._is_held_back = False

    def __call__(self, *_: object) -> None:
        self._came = True
        if not self._is_held_back:
            raise KeyboardInterrupt

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """One that comes in here waits for the end of it."""
        try:
            self._is_held_back = True
            yield
        finally:
            self._is_held_back = False
            self._raise_if_it_came()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Within `held_back`: in here one comes at once, also one that came before."""
        try:
            self._is_held_back = False
            self._raise_if_it_came()
            yield
        finally:
            self._is_held_back = True

    def _raise_if_it_came(self) -> None:
        if self._came:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """A `kill` ends the process that is measuring, too, as Ctrl-C does."""
    interruption = Interruption()
    with ended_by(interruption):
        yield interruption
