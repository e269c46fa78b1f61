"""What a JSON must look like, declared beside what reads it; one sentence where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 1e18
"""No time, ratio, count or size that a machine can have is larger."""


class BadShape(Exception):
    """A value that is not what it must be; one sentence says where and what."""


@dataclass(frozen=True)
class Leaf:
    """A single value."""

    name: str
    """What it must be, behind "not"."""
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Optional:
    """The same, or null."""

    shape: Any


@dataclass(frozen=True)
class Only:
    """An object of these names and no others; some may be missing."""

    shape: Mapping[str, Any]
    some: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Each:
    """An object whose every value is of this shape, whatever their names."""

    shape: Any


@dataclass(frozen=True)
class Some:
    """A list of this shape that is not empty."""

    shape: Any


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


POSITIVE = Leaf("a positive number", lambda value: _number(value) and value > 0)
NUMBER = Leaf("a number", _number)
WHOLE = Leaf("a whole number", lambda value: _number(value) and isinstance(value, int))
TEXT = Leaf("a text", lambda value: isinstance(value, str))
ANYTHING = Leaf("anything", lambda value: True)
FLAG = Leaf("true or false", lambda value: isinstance(value, bool))


def one_of(values: Sequence[str]) -> Leaf:
    """A leaf that is one of these words."""
    return Leaf(f"one of {', '.join(values)}", lambda value: value in values)


def check(value: Any, shape: Any, where: str) -> None:
    """`BadShape` unless the value, called `where`, is of this shape.

    A shape is a leaf, `Optional`, `Only`, `Each`, `Some`, a list of one shape, or a dictionary of
    the names that must be there; others may be.
    """
    if isinstance(shape, Leaf):
        if not shape.fits(value):
            raise BadShape(f"{where} is {_short(value)}, not {shape.name}")
    elif isinstance(shape, Optional):
        if value is not None:
            check(value, shape.shape, where)
    elif isinstance(shape, Some):
        check(value, [shape.shape], where)
        if not value:
            raise BadShape(f"{where} is empty")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise BadShape(f"{where} is {_short(value)}, not a list")
        for item in value:
            check(item, shape[0], where)
    elif not isinstance(value, Mapping):
        raise BadShape(f"{where} is {_short(value)}, not an object")
    elif isinstance(shape, Only):
        known = {**shape.shape, **shape.some}
        if unknown := sorted(set(value) - set(known)):
            said = ", ".join(sorted(known))
            raise BadShape(f"{where}: unknown key {unknown[0]!r}; known are {said}")
        check(value, {n: s for n, s in known.items() if n in shape.shape or n in value}, where)
    else:
        names = dict.fromkeys(value, shape.shape) if isinstance(shape, Each) else shape
        for name, inner in names.items():
            if name not in value:
                raise BadShape(f"{where}: has no {name}")
            check(value[name], inner, f"{where}: {name}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
