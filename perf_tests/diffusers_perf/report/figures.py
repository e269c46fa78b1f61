"""How a number, or what to do next, reads: one way for the page and the comment."""

from __future__ import annotations

import re

COMMAND = re.compile(
    r"(?:^|(?<=\n)|(?<=[;:] ))(?:pytest|python|diffusers-perf|for \w+ in) .*$", re.S
)


def seconds(value: float | None) -> str:
    """Four digits, in seconds."""
    if value is None:
        return ""
    return f"{value:.3f} s" if value >= 0.0995 else f"{value * 1000:.3g} ms"


def times(value: float | None) -> str:
    """A ratio of speeds."""
    return "" if value is None else f"{value:.2f}x"


def mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:,.0f} MiB"


def decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"


def decibels_change(value: float) -> str:
    return f"{value:+.1f} dB".replace("-", "−") if abs(value) >= 0.05 else "±0 dB"


def similarity(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def percent(ratio: float | None) -> str:
    """A ratio as a signed change."""
    if ratio is None:
        return ""
    change = (ratio - 1) * 100
    return f"{change:+.1f} %".replace("-", "−") if abs(change) >= 0.05 else "±0 %"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def words_and_command(step: str) -> tuple[str, str]:
    """What to do next, in words, and the command at its end; either may be empty."""
    found = COMMAND.search(step)
    if not found:
        return " ".join(step.split()), ""
    return " ".join(step[: found.start()].split()), " ".join(found[0].split())
