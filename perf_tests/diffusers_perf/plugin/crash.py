"""What code that is not this library's raises while a case runs, in one sentence."""

from __future__ import annotations

import traceback
from importlib.util import find_spec
from pathlib import Path

from diffusers_perf.measurement.raising import INSTALLED, NOT_THEIRS, STANDARD, at_line, raised
from diffusers_perf.messages.common import first_line
from diffusers_perf.records.pixels import NotComparable

LIBRARY, TORCH = NOT_THEIRS
CALLS_THEIRS = tuple(
    str(Path(LIBRARY, name)) for name in ("measurement", "models", "optimizations", "techniques")
)
"""Of this library, what calls pipelines and what changes them."""
PACKAGES = (
    "PIL",
    "accelerate",
    "huggingface_hub",
    "msgspec",
    "numpy",
    "scipy",
    "skimage",
    "tokenizers",
    "transformers",
    "triton",
)
"""What this library calls without a pipeline between; not all are installed everywhere."""
PASSED_THROUGH = (
    TORCH,
    *(f"{Path(spec.origin).parent}/" for n in PACKAGES if (spec := find_spec(n)) and spec.origin),
)


def crash(error: Exception) -> str:
    """The error and its line, if a pipeline or what changes it raised it: a user's code, or that of
    a library. Empty for a bug of this library, whose traceback is to be seen.
    """
    return " ".join(raised(error).split()) if _is_theirs(error) else ""


def in_a_line(error: Exception) -> str:
    """The same, of an error's first line alone; and that line for any other."""
    text, kind = first_line(error), type(error)
    if _is_theirs(error):
        return at_line(Exception(f"{kind.__name__}: {text}").with_traceback(error.__traceback__))
    # Refusals of this library's own are sentences.
    return text if kind in (ValueError, NotComparable) else f"{kind.__name__}: {text}"


def _is_theirs(error: Exception) -> bool:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files = [file for file in files if not _is_passed_through(file)]
    ours = [number for number, file in enumerate(files) if file.startswith(LIBRARY)]
    if not files or (ours and ours[-1] == len(files) - 1):
        return False
    return not ours or files[ours[-1]].startswith(CALLS_THEIRS)


def _is_passed_through(file: str) -> bool:
    """Whether it is of Python or a package that both this library and pipelines call."""
    is_pythons = file.startswith(STANDARD) and not file.startswith(INSTALLED)
    return is_pythons or file.startswith((*PASSED_THROUGH, "<"))
