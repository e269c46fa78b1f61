"""What every verb answers, and how it refuses."""

from __future__ import annotations

import sys

CANNOT_JUDGE = 2
"""Beside 0, it holds, and 1, a regression."""


def refuse(sentence: str) -> int:
    """Say why nothing can be done as asked; returns the answer."""
    print(f"error: {sentence}", file=sys.stderr)
    return CANNOT_JUDGE
