"""What a history says, as text and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffusers_perf.catalog.metric import Unit
from diffusers_perf.history.changes import Shape
from diffusers_perf.history.trends import Event

BARS = "▁▂▃▄▅▆▇█"


def event_text(event: Event) -> str:
    """``ddim50-fp16 GPU busy: step 0.6170 s → 0.6480 s (+5.0 %)``."""
    row, unit = event.after, Unit(event.after.unit)
    levels = f"{unit.shown(event.level_before)} → {unit.shown(event.level_after)}"
    text = f"{row.case} {row.metric}: {event.shape} {levels} ({percent(event.ratio)})"
    if event.shape is Shape.DRIFT:
        text += f", from {event.before.time:%Y-%m-%d} to {event.last.time:%Y-%m-%d}"
    return text


def percent(ratio: float) -> str:
    """A ratio as a change with its sign."""
    return "from zero" if math.isinf(ratio) else f"{100 * (ratio - 1):+.1f} %"


def sparkline(values: Sequence[float]) -> str:
    """The values as a line of bars, lowest to highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if high == low:
        return BARS[0] * len(values)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (value - low) / (high - low))] for value in values)
