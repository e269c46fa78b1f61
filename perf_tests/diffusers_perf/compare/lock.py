"""One process at a time in a command's folder, with those that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.messages import ab as messages
from diffusers_perf.records.files import unwritable

LOCK = "lock"


class InUse(Refusal):
    """Another process is at work in the folder."""


@contextmanager
def held(out: Path, *, by: str) -> Iterator[int]:
    """Hold --out for this process and those it starts; yields the lock's descriptor.

    Who inherits it holds the folder, too: a process that outlives its command, which was killed, is
    still measuring. `InUse` where another is at work in it, `Refusal` where it cannot be written or
    holds other files.
    """
    if is_of_others(out, by=by):
        raise Refusal(messages.is_of_others(out, by))
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise Refusal(f"--out {unwritable(out, error)}") from None
    try:
        # Windows has no such lock, and a second command there is not refused.
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InUse(messages.in_use(out, by)) from None
    try:
        yield lock
    finally:
        os.close(lock)


def is_of_others(folder: Path, *, by: str) -> bool:
    """Whether there are files in it, and this command has left none: it would write among them."""
    # The lock is there before all else, and is empty.
    if (folder / f"{by}.json").exists() or _is_empty_file(folder / LOCK):
        return False
    try:
        return any(not path.name.startswith(".") for path in folder.iterdir())
    except OSError:
        return False  # it is not there, or not readable, which is said elsewhere


def _is_empty_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0
