"""Names that become file names. They come from run files, which anybody may have written."""

from __future__ import annotations

import re
from pathlib import Path

from diffusers_perf.catalog.file_name import is_file_name
from diffusers_perf.messages.records import bad_name

SEPARATOR = re.compile("[/:]")
"""A model is called ``owner/name`` on the Hub, and a builder ``module:function``."""


class BadName(ValueError):
    """A name that cannot be a file's; a sentence."""


def image_file(folder: Path, name: str) -> Path:
    """Where images of this name lie in the folder. `BadName` for one that may lead elsewhere."""
    _check(name)
    return folder / f"{name}.png"


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
