"""What every command answers, how it refuses, and which numbers it takes."""

from __future__ import annotations

import math
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

from diffusers_perf.compare.sides import repository
from diffusers_perf.records.store import BaselineStore

CANNOT_JUDGE = 2
"""Beside 0, it holds, and 1, a regression."""


def refuse(sentence: str) -> int:
    """Say why nothing can be done as asked; returns the answer."""
    print(f"error: {sentence}", file=sys.stderr)
    return CANNOT_JUDGE


def unwritable(path: Path, error: OSError) -> str:
    """Why nothing could be written there, in a sentence."""
    reason = error.strerror
    if isinstance(error, FileExistsError | NotADirectoryError):
        # So it says of a file in the way, and not which.
        file = next((part for part in (path, *path.parents) if part.is_file()), None)
        reason = f"{file} is a file and no folder" if file else reason
    return f"{path}: cannot be written ({reason})"


def named(text: str) -> Path:
    """An option's type: a path. A variable that is not set, in a script, is none."""
    if not text:
        raise ArgumentTypeError("it takes a path, and not an empty one")
    return Path(text)


def add_baselines(parser: ArgumentParser) -> None:
    """The option of commands that read or write baselines."""
    parser.add_argument(
        "--baselines",
        type=named,
        metavar="FOLDER",
        help="the accepted baselines (default: baselines in this repository)",
    )


def store_of(args: Namespace) -> BaselineStore:
    """The baselines that a command was given."""
    return BaselineStore(args.baselines or repository() / "baselines")


MOST = 1e6


def number(takes: str, *, low: float, high: float = MOST) -> Callable[[str], float]:
    """An option's type: a number from `low` to `high`; `takes` says so to who gives another."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            most = f", at most {MOST:g}" if value > high == MOST else ""
            raise ArgumentTypeError(f"it takes {takes}{most}, and not {text}")
        return value

    return parse


positive = number("more than 0", low=sys.float_info.min)
