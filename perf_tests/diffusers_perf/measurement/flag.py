"""Attributes that hold a value for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def flag(holder: object, name: str, value: object) -> Iterator[None]:
    """Hold an attribute at a value, and put back what was there."""
    # As a class holds it: asked for it, a class gives no static method back.
    of_class = isinstance(holder, type) and name in vars(holder)
    before = vars(holder)[name] if of_class else getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)
