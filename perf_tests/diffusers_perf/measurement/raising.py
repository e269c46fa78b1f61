"""What code of the user's raised, in one sentence."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch

from diffusers_perf.messages import measurement as messages

NOT_THEIRS = (f"{Path(__file__).parents[1]}/", f"{Path(torch.__file__).parent}/")
"""Folders of code through which theirs is called."""
STANDARD, INSTALLED = (f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib"))
"""Folders of Python's library, and of the packages that are often in it."""


def raised(error: BaseException) -> str:
    """The error with its type, and its line as `at_line` finds it."""
    return _placed(f"{type(error).__name__}: {error}", error)


def at_line(error: Exception) -> str:
    """The error and its line, the innermost one that is not torch's or this library's; the error
    alone where there is none.
    """
    return _placed(str(error), error)


def _placed(said: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _may_be_theirs(frame.filename)]
    return messages.at_line(said, theirs[-1].filename, theirs[-1].lineno or 0) if theirs else said


def _may_be_theirs(file: str) -> bool:
    is_pythons = file.startswith(STANDARD) and not file.startswith(INSTALLED)
    return not (is_pythons or file.startswith(NOT_THEIRS))
