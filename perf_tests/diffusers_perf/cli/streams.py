"""What a command prints, safe for a terminal and for a CI log, and lost without a traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from diffusers_perf.messages.common import cannot_print

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""All but tab and newline: with these, text could move the cursor or forge what is above it."""
COMMAND = re.compile(r"(?m)^(\s*)(::|##\[)")
"""GitHub carries out a line of the log that begins so."""


def plain(text: str) -> str:
    """Text that comes from a run, as it may be shown: control characters are written out, and no
    line is a command to the CI system.
    """
    return COMMAND.sub(r"\1\\\2", CONTROL.sub(_written_out, text))


def _written_out(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


class Lost(Exception):
    """What was printed could not be written: the reader has gone, or the disk is full.

    The text says why; it is empty for a reader that has gone, who wants to know no more.
    """

    def __init__(self, error: OSError) -> None:
        is_gone = isinstance(error, BrokenPipeError)
        super().__init__("" if is_gone else cannot_print(error.strerror))


class Plain:
    """A stream that shows all text as `plain`; else the stream that it is made of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = ""
        """What stands in the last line."""

    def write(self, text: str) -> int:
        first, newline, rest = text.partition("\n")
        # A line can come in parts, and is a command as a whole.
        whole = COMMAND.match(self._begun + first) and not COMMAND.match(self._begun)
        shown = "\\" * bool(whole) + CONTROL.sub(_written_out, first) + newline + plain(rest)
        self._begun = rest.rpartition("\n")[2] if newline else self._begun + first
        try:
            self._stream.write(shown)
        except OSError as error:
            raise Lost(error) from error
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise Lost(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def shown_plain() -> Iterator[None]:
    """Show what is printed in here as `plain`. `Lost` where it cannot be written, also at the end.

    A stream that is closed takes everything.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, Plain(_open(stream))) for stream in before)
    try:
        try:
            yield
        finally:
            _flush()
    finally:
        sys.stdout, sys.stderr = before


def _flush() -> None:
    """Write what buffers still have. What a reader misses that has gone changes no verdict."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Lost as lost:
            if str(lost):
                raise


def _open(stream: TextIO | None) -> TextIO:
    if stream is None or stream.closed:
        # Else the next file that is opened would take its place, and get what is printed.
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 (a device)
    # A terminal that lacks one of our characters must not silence everything.
    getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    return stream


def settle() -> None:
    """Drop what cannot be written, so that Python does not try again at its end and answer 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
