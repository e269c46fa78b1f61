"""What the prompt and the schedule alone decide, computed once an image and not in each step.

The keys and values of cross-attention follow from the prompt, which no step changes, and what a
residual block adds for its timestep follows from the schedule. In a UNet of Stable Diffusion v1.5
that is 54 matrix products a step, each too small to fill a GPU. In FLUX.1 it is what scales and
shifts each block's norms, 3.2 of its 11.9 billion weights for a product of one row, and the rotary
embeddings of all places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.techniques.device_steps import Buffers, DeviceSteps


class Kept(torch.nn.Module):
    """Stands for a layer and hands on what it made of the whole generation's inputs.

    Before the first generation it is the layer itself.
    """

    held: torch.Tensor | None

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("held", None, persistent=False)

    def keep(self, made: torch.Tensor) -> None:
        """Hand this on from now on.

        Where it was kept before in this shape it is written to the same place, since replayed
        kernels read there.
        """
        there = self.held
        if there is None or (there.shape, there.device) != (made.shape, made.device):
            self.held = made
        else:
            there.copy_(made)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What was made, whatever the inputs but for their number of rows."""
        # Read once, and no len() of a tensor: each is a Python call, in every layer of every step.
        held = self.held
        return self.layer(*inputs) if held is None else self.kept(held, inputs[-1].shape[0])

    def kept(self, held: torch.Tensor, rows: int) -> Any:
        """Of what is held, what an input of so many rows stands for."""
        raise NotImplementedError


class OfPrompt(Kept):
    """Rows for the empty prompts, then for the prompts; a step without guidance has only these."""

    def kept(self, held: torch.Tensor, rows: int) -> torch.Tensor:
        return held[-rows:]


class OfTimestep(Kept):
    """For each step a row, or where the prompt comes in as well, a row for each of them."""

    number: torch.Tensor
    """Of the step that it is, shape (1,)."""

    def kept(self, held: torch.Tensor, rows: int) -> torch.Tensor:
        own = held.index_select(0, self.number)
        return own if own.ndim == 2 else own[0, -rows:]


class OfPlaces(Kept):
    """Cosines and sines of the rotary embedding."""

    def kept(self, held: torch.Tensor, rows: int) -> tuple[torch.Tensor, ...]:
        return held.unbind()


def precompute(pipeline: Any) -> None:
    """Let a `DeviceSteps` pipeline compute its conditioning once a generation.

    `ValueError` for any other, which is not asked at the start of a generation.
    """
    if not isinstance(pipeline, DeviceSteps):
        raise ValueError("conditioning is precomputed by device_steps, which has to come before")
    parts = pipeline.components
    own = _of_unet(parts["unet"]) if "unet" in parts else _of_flux(parts["transformer"])
    pipeline.plan.begin = own


def _of_unet(unet: Any) -> Callable[[Buffers], None]:
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
        added = unet.get_aug_embed(embedded, buffers.states, buffers.conditioning)
        if added is not None:
            embedded = embedded[:, None] + added
        for nonlinearity, row in of_timestep:
            row.number = buffers.number
            row.keep(row.layer(nonlinearity(embedded)))
        for kept in of_prompt:
            kept.keep(kept.layer(buffers.states))

    return begin


def _of_flux(transformer: Any) -> Callable[[Buffers], None]:
    norms = [m for m in transformer.modules() if hasattr(m, "silu") and hasattr(m, "linear")]
    for norm in norms:
        norm.linear = OfTimestep(norm.linear)
    embedder = transformer.time_text_embed = OfTimestep(transformer.time_text_embed)
    states = transformer.context_embedder = OfPrompt(transformer.context_embedder)
    places = transformer.pos_embed = OfPlaces(transformer.pos_embed)

    def begin(buffers: Buffers) -> None:
        given, dtype = buffers.conditioning, buffers.states.dtype
        pooled, steps = given["pooled_projections"], len(buffers.timesteps)
        # Rounded on the way as in the pipeline and in the transformer.
        timesteps = (buffers.timesteps.to(dtype) / 1000) * 1000
        inputs = [timesteps.repeat_interleave(len(pooled))]
        if "guidance" in given:
            inputs.append((given["guidance"].to(dtype) * 1000).repeat(steps))
        embedded = embedder.layer(*inputs, pooled.repeat(steps, 1)).unflatten(0, (steps, -1))
        embedder.number = buffers.number
        embedder.keep(embedded)
        for norm in norms:
            norm.linear.number = buffers.number
            norm.linear.keep(norm.linear.layer(norm.silu(embedded)))
        states.keep(states.layer(buffers.states))
        cosines_and_sines = places.layer(torch.cat([given["txt_ids"], given["img_ids"]]))
        places.keep(torch.stack(cosines_and_sines))

    return begin


def conditioning_is_kept(pipeline: Any) -> None:
    """The denoiser's layers that see only the prompt or the timestep are computed once an image."""
    for kind in (OfPrompt, OfTimestep):
        for denoiser in denoisers(pipeline).values():
            if not any(isinstance(module, kind) for module in denoiser.modules()):
                raise NotApplied("the conditioning is computed in each step")
