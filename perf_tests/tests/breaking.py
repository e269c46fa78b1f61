"""A command whose writes fail from some call on, because it is killed or the disk is full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from perf_tests.tests.unit.environments import Place

CALLS = ((Path, "open"), (Path, "replace"), (Path, "unlink"), (os, "fsync"))
"""What changes the disk when a command writes, beside making folders."""
MOST = 300
FULL = OSError(28, "No space left on device")


class Killed(BaseException):
    """The process is gone: from here on it does nothing at all."""

    filename: str | None


@contextmanager
def fault_at(number: int, error: Killed | OSError, *, below: Path) -> Iterator[list[int]]:
    """The call of this number that writes below a folder fails; if it kills, all after it too."""
    counted = [0]

    def failing(original: Callable[..., Any], *, reads: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            mode = args[1] if len(args) > 1 else kwargs.get("mode", "r")
            inside = not isinstance(args[0], Path) or below in args[0].parents
            if inside and not (reads and str(mode).startswith("r")):
                counted[0] += 1
                stays = isinstance(error, Killed) and counted[0] > number
                if counted[0] == number or stays:
                    # As the system does, where it is given a name.
                    error.filename = str(args[0]) if isinstance(args[0], Path) else None
                    raise error
            return original(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, failing(getattr(owner, name), reads=name == "open"))
        yield counted


def comparison(error: Killed | OSError, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fail at each write of `ab` in turn: it goes on, and measures no more than one pair again."""
    for number in range(1, MOST):
        place = Place.made(here := folder / str(number))
        capsys.readouterr()
        with fault_at(number, error, below=here) as counted, suppress(Killed):
            code = place.ab()
            assert code == (2 if number <= counted[0] else 0)
            said = capsys.readouterr()
            assert "Traceback" not in said.err
            assert number > counted[0] or str(here) in said.err, "it names the file"
        before = place.finished()
        kept = {pair for _, pair in before if {("base", pair), ("head", pair)} <= before}
        measured = len(place.calls)
        assert len(before) >= measured - 1
        assert place.ab() == 0
        assert len(place.finished()) == 10
        assert len(place.calls) == measured + 10 - 2 * len(kept), f"at write {number}"
        shutil.rmtree(here)
        if counted[0] < number:
            break
    assert 10 < number < MOST - 1
