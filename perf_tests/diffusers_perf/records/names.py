"""Names that become file names. They come from run files, which anybody may have written."""

from __future__ import annotations

import re
from pathlib import Path

CHARACTER = r"""[^\s./\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]"""
"""No separator, no control character, and nothing that CI's artifacts refuse."""
NAME = re.compile(rf"{CHARACTER}(?:{CHARACTER}|[. ])*")
BYTES_MOST = 200
"""File systems take 255, and a name gets a suffix."""


class BadName(ValueError):
    """A name that cannot be a file's; a sentence."""


def image_file(folder: Path, name: str) -> Path:
    """Where images of this name lie in the folder. `BadName` for one that may lead elsewhere."""
    if not NAME.fullmatch(name) or len(name.encode()) > BYTES_MOST:
        raise BadName(f"{name[:60]!r} cannot be the name of a file")
    return folder / f"{name}.png"
