"""What several parts say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

AGAIN = "run the same command again to continue"
INTERRUPTED = f"interrupted; {AGAIN}"
OUT_OF_MEMORY = "out of memory"
IMPORT = "from diffusers_perf import test_generation as test_generation"
"""The line that a test file needs."""
CLOSE_MOST = 3
CONTAINED_LEAST = 3
"""Letters: fewer are in many names."""


def last_line(output: str) -> str:
    """Of what a program printed."""
    return (output.strip().splitlines() or ["no reason given"])[-1]


def first_line(error: object) -> str:
    """Of what an exception says; empty where it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]


def cannot_write(path: Path | str, reason: object) -> str:
    return f"{path}: cannot be written ({reason})"


def cannot_read(path: Path, reason: object) -> str:
    return f"{path}: cannot be read ({reason})"


def not_written_by(path: Path, command: str, option: str) -> str:
    return f"{path}: not written by {command}; choose another {option}"


def other_settings(folder: Path, name: str, values: tuple[str, str] | None, option: str) -> str:
    """`values` before and now; None where they are too long to show."""
    shown = f"{name}: {values[0]}, now {values[1]}" if values else f"{name} changed"
    return (
        f"{folder} was measured otherwise ({shown}); choose another {option}, or remove the folder"
    )


def seconds_left(left: float) -> str:
    """Of a run or a comparison."""
    return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"


def meant(name: str, known: Collection[str]) -> str:
    """Which known names are like one that is not, or else contain it; empty where none does."""
    names = [*dict.fromkeys(known)]
    close = get_close_matches(name, names, n=CLOSE_MOST)
    if not close and len(name) >= CONTAINED_LEAST:
        close = [one for one in names if name.lower() in one.lower()][:CLOSE_MOST]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def name_taken(name: str) -> str:
    return f"the name {name!r} is taken"


# Arguments of commands

NOTHING_JUDGED = "interrupted: nothing was judged; what was written before stays"
EMPTY_PATH = "must be a path (got an empty text)"


def positive_integer(text: str) -> str:
    return must_be("a positive integer", text)


def must_be(what: str, text: str) -> str:
    return f"must be {what} (got {text})"


def unrecognized(arguments: Sequence[str], line: str | None) -> str:
    """`line` has them where pytest's options go; None for a command that hands nothing on."""
    hint = f"; options of pytest go behind `--`: {line}" if line else ""
    return f"unrecognized arguments: {' '.join(arguments)}{hint}"


def cannot_print(reason: object) -> str:
    return f"the output cannot be written ({reason})"
