"""What the prompt and the schedule alone decide, computed once an image and not in each step.

The keys and values of cross-attention follow from the prompt, which no step changes, and what a
residual block adds for its timestep follows from the schedule. In a UNet of Stable Diffusion v1.5
that is 54 matrix products a step, each too small to fill a GPU.
"""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.techniques.device_steps import Buffers, DeviceSteps


class Kept(torch.nn.Module):
    """Stands for a linear layer and hands on what it made of the whole generation's inputs.

    Before the first generation it is the layer itself.
    """

    held: torch.Tensor | None

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("held", None, persistent=False)

    def keep(self, inputs: torch.Tensor) -> None:
        """Compute it for these inputs, shape (rows, …).

        Where it was kept before in this shape it is written to the same place, since replayed
        kernels read there.
        """
        made = self.layer(inputs)
        there = self.held
        if there is None or (there.shape, there.device) != (made.shape, made.device):
            self.held = made
        else:
            there.copy_(made)


class OfPrompt(Kept):
    """Rows for the empty prompts, then for the prompts; a step without guidance has only these."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """What was made of the prompts, whatever the states; shape (batch, tokens, width)."""
        if self.held is None:
            made: torch.Tensor = self.layer(states)
            return made
        return self.held[-states.shape[0] :]


class OfTimestep(Kept):
    """A row for each step."""

    number: torch.Tensor
    """Of the step that it is, shape (1,)."""

    def forward(self, embedded: torch.Tensor) -> torch.Tensor:
        """The row of the step that it is; shape (1, channels)."""
        if self.held is None:
            made: torch.Tensor = self.layer(embedded)
            return made
        return self.held.index_select(0, self.number)


def precompute(pipeline: Any) -> None:
    """Let a `DeviceSteps` pipeline compute its conditioning once a generation.

    `ValueError` for any other, which is not asked at the start of a generation.
    """
    if not isinstance(pipeline, DeviceSteps):
        raise ValueError("conditioning is precomputed by device_steps, which has to come before")
    unet = pipeline.unet
    of_prompt: list[OfPrompt] = []
    of_timestep: list[tuple[torch.nn.Module, OfTimestep]] = []
    for module in list(unet.modules()):
        if getattr(module, "is_cross_attention", False):
            for name in ("to_kv",) if module.fused_projections else ("to_k", "to_v"):
                setattr(module, name, kept := OfPrompt(getattr(module, name)))
                of_prompt.append(kept)
        elif getattr(module, "time_emb_proj", None) is not None:
            module.time_emb_proj = row = OfTimestep(module.time_emb_proj)
            of_timestep.append((module.nonlinearity, row))

    def begin(buffers: Buffers) -> None:
        embedded = unet.time_embedding(unet.time_proj(buffers.timesteps).to(buffers.states.dtype))
        for nonlinearity, row in of_timestep:
            row.number = buffers.number
            row.keep(nonlinearity(embedded))
        for kept in of_prompt:
            kept.keep(buffers.states)

    pipeline.plan.begin = begin


def conditioning_is_kept(pipeline: Any) -> None:
    """The UNet's layers that see only the prompt or the timestep are computed once an image."""
    for kind in (OfPrompt, OfTimestep):
        if not any(isinstance(module, kind) for module in pipeline.unet.modules()):
            raise NotApplied("the conditioning is computed in each step")
