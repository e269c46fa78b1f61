"""Weights drawn from a seed on the real architectures: the real arithmetic without a download.

Tolerance on them is about arithmetic, not about images. They are drawn once a process, each
parameter from its own seed, and stay where they are; a pipeline gets copies.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

from diffusers_perf.catalog.declarations import WeightsKind
from diffusers_perf.catalog.workload import Scale
from diffusers_perf.measurement.dataless import HOST
from diffusers_perf.messages import models as messages
from diffusers_perf.models.architectures import ARCHITECTURES, SCHEDULER, Architecture
from diffusers_perf.models.checkpoint import scheduler_class
from diffusers_perf.models.tokenizers import clip_tokenizer

SEED = 2023


class Seeded:
    """Seeded weights on a model of `ARCHITECTURES`, its distilled UNet and tiny autoencoder too."""

    weights = f"seeded-{SEED}"
    kind: WeightsKind = "seeded"
    family = "StableDiffusionPipeline"
    variants = frozenset({"distilled_unet", "tiny_vae"})

    def __init__(self, name: str, *, scale: Scale) -> None:
        self.name = name
        self.scale: Scale = scale

    def load(
        self,
        *,
        scheduler: str | None,
        variants: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device,
        offloaded: bool = False,
    ) -> Any:
        """See `Source.load`."""
        import diffusers

        kept_on = HOST if offloaded else device
        modules = {
            place: self._module(variants.get(place, place), dtype=dtype, device=kept_on)
            for place in ("unet", "vae", "text_encoder")
        }
        return diffusers.StableDiffusionPipeline(
            **modules,
            tokenizer=clip_tokenizer(),
            scheduler=scheduler_class(scheduler or "DDIMScheduler").from_config(SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def keep_on(self, device: torch.device) -> None:
        """Draw all weights and leave them there, float32, for the pipelines that are built next."""
        for role in ARCHITECTURES[self.name]:
            drawn(self.name, role).to(device)

    def without_weights(self) -> Skeletons:
        """The same to be counted where its weights would not fit."""
        return Skeletons(self.name, scale=self.scale)

    def _module(self, role: str, *, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        return on_device(drawn(self.name, role), dtype=dtype, device=device)


class Skeletons(Seeded):
    """The same models without weights, to be counted where they would not fit."""

    weights = "none"

    def _module(self, role: str, *, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        module = without_weights(ARCHITECTURES[self.name][role])
        # PyTorch's own `to`: diffusers' warns about what matters only to weights.
        return torch.nn.Module.to(module, dtype=dtype).eval().requires_grad_(False)


@cache
def drawn(model: str, role: str) -> torch.nn.Module:
    """A model's module for a role of `ARCHITECTURES`, float32, on the host until `keep_on`.
    Shared: only copy it.

    `RuntimeError` if the class no longer has the parameters that the checkpoint has.
    """
    architecture = ARCHITECTURES[model][role]
    module = skeleton(architecture)
    parameters = sum(p.numel() for p in module.parameters())
    if parameters != architecture.parameters:
        raise RuntimeError(
            messages.other_parameters(
                f"{model}'s {role}", architecture.class_name, parameters, architecture.parameters
            )
        )
    layers = {name: layer for name, layer in module.named_modules() if holds_weights(layer)}
    with ThreadPoolExecutor() as threads:
        draws = [
            threads.submit(_draw, f"{role}.{name}", layer, architecture.gain)
            for name, layer in layers.items()
        ]
        for draw in draws:
            draw.result()
    if architecture.output_bias:
        last = [layer for layer in layers.values() if isinstance(layer, torch.nn.Conv2d)][-1]
        if last.bias is not None:
            last.bias.data.add_(architecture.output_bias)
    return module.eval().requires_grad_(False)


def skeleton(architecture: Architecture) -> torch.nn.Module:
    """The module with whatever is in memory as weights, and its buffers as they should be."""
    module = without_weights(architecture)
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            empty = torch.empty_like(parameter, device="cpu")
            setattr(layer, name, torch.nn.Parameter(empty, False))
    return module


def without_weights(architecture: Architecture) -> torch.nn.Module:
    """The module with parameters that have no data, and buffers that have theirs."""
    # Ships no types.
    from accelerate import init_empty_weights  # type: ignore[import-untyped, unused-ignore]

    with init_empty_weights(include_buffers=False):
        module = constructed(architecture)
    # What it shares, it shares no more once each of its parameters was replaced.
    tie: Any = getattr(module, "tie_weights", None)
    if tie is not None:
        tie()
    return module


def constructed(architecture: Architecture) -> torch.nn.Module:
    """The module as its library makes it, on the device of the context it is called in.

    On `meta` it has shapes and no numbers, and costs next to nothing.
    """
    import diffusers
    import transformers

    module: torch.nn.Module
    if architecture.library == "transformers":
        config = getattr(transformers, architecture.config_class)(**architecture.config)
        module = getattr(transformers, architecture.class_name)(config)
    else:
        module = getattr(diffusers, architecture.class_name)(**architecture.config)
    return module


def holds_weights(layer: torch.nn.Module) -> bool:
    return any(True for _ in layer.parameters(recurse=False))


def _draw(name: str, layer: torch.nn.Module, gain: float) -> None:
    # One generator a parameter, seeded by its name, and only uniform numbers: the same bits
    # whatever the order, the number of threads, or the library's own initialization.
    for own, parameter in layer.named_parameters(recurse=False):
        generator = torch.Generator().manual_seed(SEED + zlib.crc32(f"{name}.{own}".encode()))
        data = parameter.data
        if isinstance(layer, torch.nn.GroupNorm | torch.nn.LayerNorm):
            data.fill_(1.0 if own == "weight" else 0.0)
        elif isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            if own == "weight":
                bound *= gain
            data.uniform_(-bound, bound, generator=generator)
        elif isinstance(layer, torch.nn.Embedding):
            # The spread of CLIP's own initialization, 0.02.
            data.uniform_(-0.02 * math.sqrt(3), 0.02 * math.sqrt(3), generator=generator)
        else:
            raise TypeError(messages.no_rule(name, type(layer).__name__))


def on_device(
    module: torch.nn.Module, *, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    """A copy of a host module whose parameters go straight to the device in this dtype.

    They require gradients, as those of a loaded checkpoint do: what a lost no_grad keeps must show.
    """
    moved = {
        id(parameter): torch.nn.Parameter(parameter.to(device, dtype, copy=True))
        for parameter in module.parameters()
    }
    # deepcopy takes what is in its memo for copied, so that weights are never doubled here.
    return copy.deepcopy(module, moved).to(device)
