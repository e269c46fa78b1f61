"""Noise that is the same in every dtype and on every device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

_first_of: ContextVar[int] = ContextVar("first_of", default=1)
"""How many times as much noise is drawn as is asked for; what is asked for comes first."""


@contextmanager
def as_first_of(count: int) -> Iterator[None]:
    """Let `drawn_on_host` give one image the noise that it has as the first of a batch."""
    token = _first_of.set(count)
    try:
        yield
    finally:
        _first_of.reset(token)


@contextmanager
def drawn_on_host() -> Iterator[None]:
    """Let every pipeline of diffusers draw its noise in float32 on the CPU, then cast it.

    In torch 2.11 a CPU generator draws other numbers in float16 than in float32 from the same seed,
    so that no two precisions could be compared. Diffusers draws all noise through one function,
    which its modules import by name: initial latents, a VAE's sample, a stochastic scheduler's.
    """
    from diffusers.utils import torch_utils

    own = torch_utils.randn_tensor

    def drawn(
        shape: Any,
        generator: Any = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
    ) -> torch.Tensor:
        layout = layout or torch.strided
        if isinstance(generator, list) and len(generator) > 1:
            # One for each of a batch.
            one = (1, *shape[1:])
            parts = [
                torch.randn(one, generator=g, dtype=torch.float32, layout=layout) for g in generator
            ]
            return torch.cat(parts).to(device=device, dtype=dtype)
        if isinstance(generator, list):
            (generator,) = generator
        whole = (shape[0] * _first_of.get(), *shape[1:])
        noise = torch.randn(whole, generator=generator, dtype=torch.float32, layout=layout)
        return noise[: shape[0]].to(device=device, dtype=dtype)

    _replace(own, drawn)
    try:
        yield
    finally:
        # What was imported meanwhile holds the stand-in as well.
        _replace(drawn, own)


def _replace(old: object, new: object) -> None:
    for module in list(sys.modules.values()):
        # Not getattr: a lazy module would import what it is asked for.
        names = getattr(module, "__dict__", {})
        if names.get("randn_tensor") is old:
            names["randn_tensor"] = new
