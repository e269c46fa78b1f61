"""Scales of a chart: where a value is drawn, and the round numbers that label an axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

STEPS = (1.0, 2.0, 5.0, 10.0)
"""What one step of an axis may be, times a power of ten."""
MILLISECONDS_BELOW_S = 0.1
"""An axis of time that ends below is labelled in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One labelled place on an axis."""

    at: float
    """In the axis's own measure: percent of a width, or pixels of a height."""
    label: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values linearly: `low` is at `start` and `high` at `end`."""

    low: float
    high: float
    start: float = 0.0
    end: float = 100.0

    def at(self, value: float) -> float:
        """Where the value is, which may be beyond the ends."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def round_values(low: float, high: float, *, most: int) -> tuple[float, ...]:
    """Round numbers in equal steps from `low` to `high`, at most `most` + 1 of them."""
    width = (high - low) / most
    power = 10.0 ** math.floor(math.log10(width))
    step = next(power * step for step in STEPS if power * step >= width * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Multiplied, not summed: sums drift away from round numbers.
    return tuple(number * step for number in range(first, last + 1))


def time_ticks(scale: Scale, *, most: int) -> tuple[Tick, ...]:
    """Ticks of an axis in seconds, each with its unit."""
    values = round_values(scale.low, scale.high, most=most)
    milli = scale.high < MILLISECONDS_BELOW_S
    factor, unit = (1000, "ms") if milli else (1, "s")
    digits = _digits([value * factor for value in values])
    return tuple(
        Tick(at=scale.at(value), label=f"{value * factor:.{digits}f} {unit}" if value else "0")
        for value in values
    )


def number_ticks(scale: Scale, *, most: int) -> tuple[Tick, ...]:
    """Ticks of an axis without a unit."""
    values = round_values(scale.low, scale.high, most=most)
    digits = _digits(values)
    return tuple(Tick(at=scale.at(value), label=f"{value:.{digits}f}") for value in values)


def _digits(values: tuple[float, ...] | list[float]) -> int:
    """Decimals with which all of these round numbers are exact."""
    return next(
        (n for n in range(6) if all(math.isclose(v, round(v, n), abs_tol=1e-9) for v in values)), 6
    )
