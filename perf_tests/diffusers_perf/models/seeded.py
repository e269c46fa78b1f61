"""Weights drawn from a seed on the real architectures: the real arithmetic without a download.

Tolerance on them is about arithmetic, not about images. They are drawn once a process, each
parameter from its own seed, and stay on the host; a pipeline gets copies.
"""

from __future__ import annotations

import copy
import gzip
import math
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.catalog.declarations import WeightsKind
from diffusers_perf.catalog.workload import Scale
from diffusers_perf.models.architectures import ARCHITECTURES, SCHEDULER, Architecture
from diffusers_perf.models.checkpoint import scheduler_class

CLIP_BPE = Path(__file__).parent / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
CLIP_MERGES = 48_894
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
    ) -> Any:
        """See `Source.load`."""
        import diffusers

        modules = {
            place: self._module(variants.get(place, place), dtype=dtype, device=device)
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
    """A model's module for a role of `ARCHITECTURES`, float32 on the host. Shared: only copy it.

    `RuntimeError` if the class no longer has the parameters that the checkpoint has.
    """
    architecture = ARCHITECTURES[model][role]
    module = skeleton(architecture)
    parameters = sum(p.numel() for p in module.parameters())
    if parameters != architecture.parameters:
        raise RuntimeError(
            f"{model}'s {role}: {architecture.class_name} has {parameters:,} parameters and "
            f"should have {architecture.parameters:,}"
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
        return constructed(architecture)


def constructed(architecture: Architecture) -> torch.nn.Module:
    """The module as its library makes it, on the device of the context it is called in.

    On `meta` it has shapes and no numbers, and costs next to nothing.
    """
    import diffusers
    import transformers

    module: torch.nn.Module
    if architecture.library == "transformers":
        config = transformers.CLIPTextConfig(**architecture.config)
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
            raise TypeError(f"{name} is a {type(layer).__name__}, which has no rule to be drawn by")


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


@cache
def clip_tokenizer() -> Any:
    """CLIP's tokenizer, from its published byte pair merges: 49,408 entries."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    lines = gzip.decompress(CLIP_BPE.read_bytes()).decode().split("\n")
    # Annotated as strings, but the tokenizers library takes pairs only.
    merges: list[Any] = [tuple(line.split()) for line in lines[1 : CLIP_MERGES + 1]]
    letters = list(bytes_to_unicode().values())
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(merge) for merge in merges),
    ]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
