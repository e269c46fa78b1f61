"""What code of the user's raised, in one sentence."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

import diffusers_perf
from diffusers_perf.messages import measurement as messages

NOT_THEIRS = tuple(f"{Path(str(package.__file__)).parent}/" for package in (diffusers_perf, torch))
"""Folders of code through which theirs is called."""


def raised(error: Exception) -> str:
    """The error and its line: the innermost one that is not torch's or this library's."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(NOT_THEIRS)]
    frame = (theirs or frames)[-1]
    return messages.raised(type(error).__name__, error, frame.filename, frame.lineno or 0)
