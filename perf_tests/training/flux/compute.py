"""In which precision the recipe computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn


class Compute(StrEnum):
    """How the velocity is computed while training. Weights and optimizer are float32 in each."""

    BF16 = "bf16"
    FLOAT32 = "float32"

    @classmethod
    def default(cls, device: torch.device) -> Compute:
        return cls.BF16 if device.type == "cuda" else cls.FLOAT32

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Matrix products in bfloat16, except in float32."""
        if self is Compute.FLOAT32:
            yield
            return
        # A captured step must make its casts itself: those in the cache belong to an earlier one.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield

    def prepare(self, transformer: Any) -> None:
        """Make a transformer ready for `autocast`."""
        if self is Compute.FLOAT32:
            return
        # cuDNN's backward pass of attention in bfloat16 has failed on Hopper with short sequences.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # The transformer rounds the level and the guidance to the type of its embedded input.
        transformer.x_embedder.register_forward_hook(_as_float32)


def _as_float32(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output.float()
