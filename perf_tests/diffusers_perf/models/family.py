"""A model that people serve, in full size: what each file `models/<family>.py` declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers_perf.models.architectures import Architecture


@dataclass(frozen=True, kw_only=True)
class Family:
    """The published model's pipeline, but for its weights."""

    pipeline: str
    """Its class, of diffusers."""
    modules: Mapping[str, Architecture]
    """By the pipeline's name for each."""
    scheduler: str
    scheduler_config: Mapping[str, Any]
    tokenizers: Callable[[], Mapping[str, Any]]
    stands_in: str = ""
    """What takes the place of something that cannot be shipped, in words."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the class."""
