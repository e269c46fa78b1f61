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


def multiple(value: float | None) -> str:
    """A ratio: ``1.25x``."""
    return "" if value is None else f"{value:.2f}x"


def mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:,.0f} MiB"


def decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"


def decibels_change(value: float) -> str:
    return f"{value:+.1f} dB".replace("-", "−") if abs(value) >= 0.05 else "±0 dB"


def similarity(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def words_and_command(step: str) -> tuple[str, str]:
    """What to do next, in words, and the command at its end; either may be empty."""
    found = COMMAND.search(step)
    if not found:
        return " ".join(step.split()), ""
    return " ".join(step[: found.start()].split()), " ".join(found[0].split())
