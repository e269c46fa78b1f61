"""Names that become file names. They come from run files, which anybody may have written."""

from __future__ import annotations

import re
from pathlib import Path

from diffusers_perf.messages.records import bad_name

CHARACTER = r"""[^\s./\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"""
"""No separator, no control character, and nothing that CI's artifacts refuse."""
NAME = re.compile(rf"{CHARACTER}(?:{CHARACTER}|[. ])*")
SEPARATOR = re.compile("[/:]")
"""A model is called ``owner/name`` on the Hub, and a builder ``module:function``."""
BYTES_MOST = 200
"""File systems take 255, and a name gets a suffix."""


class BadName(ValueError):
    """A name that cannot be a file's; a sentence."""


def image_file(folder: Path, name: str) -> Path:
    """Where images of this name lie in the folder. `BadName` for one that may lead elsewhere."""
    _check(name)
    return folder / f"{name}.png"


def is_file_name(name: str) -> bool:
    """Whether a file, with a suffix, can be called so on every system."""
    return bool(NAME.fullmatch(name)) and len(name.encode()) <= BYTES_MOST


def _check(name: str) -> None:
    if not is_file_name(name):
        raise BadName(bad_name(shown(name), "a file"))


def accepted_image_name(*, workload: str, model: str, weights: str) -> str:
    """Name of the accepted image of a workload's reference on these weights, without a suffix."""
    source = f"{model}-{weights}" if weights != model else model
    return f"{workload}-{SEPARATOR.sub('--', source)}"


def check_case(*, workload: str, case: str, model: str, weights: str) -> None:
    """`BadName` unless all names that a case's files get are names of files."""
    parts = (workload, case, *SEPARATOR.split(model), *SEPARATOR.split(weights))
    whole = accepted_image_name(workload=workload, model=model, weights=weights)
    for name in (*parts, f"{workload}-{case}", whole):
        _check(name)


def shown(name: str) -> str:
    """A name in a message, at most 60 characters of it."""
    return repr(name if len(name) <= 60 else f"{name[:57]}...")
