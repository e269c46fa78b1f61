"""What an optimization may change, and how it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from diffusers_perf.catalog.declarations import Workload


@dataclass(kw_only=True)
class Build:
    """What an optimization may change. Handed to each of a stack in turn, then carried out."""

    workload: Workload | None = None
    """What is generated, where it is known."""
    dtype: torch.dtype = torch.float32
    """What every module is loaded in."""
    variants: dict[str, str] = field(default_factory=dict)
    contexts: list[AbstractContextManager[Any]] = field(default_factory=list)
    changes: list[Callable[[Any], None]] = field(default_factory=list)

    def take(self, variant: str, *, place: str) -> None:
        """Load this variant in a module's place (``distilled_unet`` as ``unet``)."""
        self.variants[place] = variant

    def during(self, context: AbstractContextManager[Any]) -> None:
        """Hold this context from before loading to after the last image."""
        self.contexts.append(context)

    def then(self, change: Callable[[Any], None]) -> None:
        """Call this with the pipeline once it stands on the device."""
        self.changes.append(change)


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
