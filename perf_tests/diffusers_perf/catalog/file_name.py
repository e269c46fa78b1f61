"""Which names can be a file's."""

from __future__ import annotations

import re

CHARACTER = r"""[^\s./\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"""
"""No separator, no control character, and nothing that CI's artifacts refuse."""
NAME = re.compile(rf"{CHARACTER}(?:{CHARACTER}|[. ])*")
BYTES_MOST = 200
"""File systems take 255, and a name gets a suffix."""


def is_file_name(name: str) -> bool:
    """Whether a file, with a suffix, can be called so on every system."""
    return bool(NAME.fullmatch(name)) and len(name.encode()) <= BYTES_MOST
