"""What an optimization may change, and how it says so. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffusers_perf.catalog.workload import Workload

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Build:
    """What an optimization may change. Handed to each of a stack in turn, then carried out."""

    dtype: torch.dtype
    """What every module is loaded in."""
    device: torch.device
    """What it computes on."""
    offloaded: bool = False
    """The pipeline is changed in the host's memory, and no more of it is on the device than one
    change needs."""
    workload: Workload | None = None
    """What is generated, where it is known."""
    variants: dict[str, str] = field(default_factory=dict)
    contexts: list[AbstractContextManager[Any]] = field(default_factory=list)
    rewrites: list[Callable[[Any], None]] = field(default_factory=list)
    changes: list[Callable[[Any], None]] = field(default_factory=list)

    @property
    def numbered_device(self) -> torch.device:
        """The device as its tensors name it: ``cuda:0`` where it is ``cuda``."""
        import torch

        return torch.empty(0, device=self.device).device

    def take(self, variant: str, *, place: str) -> None:
        """Load this variant in a module's place (``distilled_unet`` as ``unet``)."""
        self.variants[place] = variant

    def during(self, context: AbstractContextManager[Any]) -> None:
        """Hold this context from before loading to after the last image."""
        self.contexts.append(context)

    def rewrite(self, change: Callable[[Any], None]) -> None:
        """Call this before what `then` was given, wherever it stands in a stack: for what replaces
        forwards that casting and caches wrap.
        """
        self.rewrites.append(change)

    def then(self, change: Callable[[Any], None]) -> None:
        """Call this with the pipeline once it stands on the device, or the host where offloaded."""
        self.changes.append(change)
