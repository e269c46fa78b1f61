"""How messages write counts and changes."""

from __future__ import annotations

import math


def plural(number: int, one: str, many: str = "") -> str:
    """``1 case``, ``2 cases``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(ratio: float | None) -> str:
    """A ratio as a signed change: ``+5.0 %``, ``±0 %``; empty for None."""
    if ratio is None:
        return ""
    if math.isinf(ratio):
        return "from zero"
    change = 100 * (ratio - 1)
    return f"{change:+.1f} %".replace("-", "−") if abs(change) >= 0.05 else "±0 %"
