"""Work taken off the host: CUDA graphs, and a denoising loop on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement.applied import decoders_below
from diffusers_perf.measurement.discovery import denoisers, modules
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.hardware import CUDA
from diffusers_perf.optimizations.tolerances import (
    SAME_ARITHMETIC,
)
from diffusers_perf.techniques.conditioning import conditioning_is_kept, precompute
from diffusers_perf.techniques.cuda_graphs import Graphed, are_graphed
from diffusers_perf.techniques.device_steps import is_taken_over, steps_are_graphed
from diffusers_perf.techniques.kept_prompt import keep_prompt, prompt_is_kept
from diffusers_perf.techniques.shared_prefix import prefix_is_shared, share_prefix
from diffusers_perf.techniques.stepped import take_over, why_not


def _text_encoders(pipeline: Any) -> dict[str, torch.nn.Module]:
    own = modules(pipeline)
    return {name: module for name, module in own.items() if name.startswith("text_encoder")}


def _graph(found: Mapping[str, torch.nn.Module]) -> None:
    for module in found.values():
        module.forward = Graphed(module.forward)  # type: ignore[method-assign, unused-ignore]


@optimization(
    needs=Needs(fits=why_not),
    tolerance=SAME_ARITHMETIC,
    applied=is_taken_over,
    decides=(Slot.LOOP,),
)
def device_steps(build: Build) -> None:
    """The scheduler's arithmetic on the device: no step waits for a number to be read back."""
    build.then(take_over)


@optimization(
    needs=Needs(optimization="device_steps"),
    tolerance=SAME_ARITHMETIC,
    applied=conditioning_is_kept,
)
def precomputed_conditioning(build: Build) -> None:
    """What prompt and schedule alone decide is computed once an image, by `device_steps`."""
    build.then(precompute)


@optimization(
    needs=Needs(optimization="device_steps", fits=fitting.halves_begin_alike),
    tolerance=SAME_ARITHMETIC,
    applied=prefix_is_shared,
    skips_work=True,
)
def shared_prefix(build: Build) -> None:
    """What guidance does twice before the prompt comes in is done once, by `device_steps`."""
    build.then(share_prefix)


@optimization(
    needs=Needs(compute_capability=(6, 0), optimization="device_steps"),
    tolerance=SAME_ARITHMETIC,
    applied=steps_are_graphed,
    hides_operators=True,
    decides=(Slot.DENOISER_LAUNCHES, Slot.DENOISER_STEPS),
)
def cuda_graph_step(build: Build) -> None:
    """A whole denoising step of `device_steps` launched at once, as a CUDA graph."""
    build.then(lambda pipeline: setattr(pipeline, "captured", True))


@optimization(
    needs=CUDA,
    tolerance=SAME_ARITHMETIC,
    applied=are_graphed(denoisers),
    hides_operators=True,
    decides=(Slot.DENOISER_LAUNCHES, Slot.DENOISER_CALLS),
)
def cuda_graph(build: Build) -> None:
    """The denoiser's kernels launched at once, as a CUDA graph."""
    build.then(lambda pipeline: _graph(denoisers(pipeline)))


@optimization(
    needs=replace(CUDA, fits=fitting.an_image_decoder),
    tolerance=SAME_ARITHMETIC,
    applied=are_graphed(decoders_below),
    hides_operators=True,
    decides=(Slot.DECODER_LAUNCHES,),
)
def cuda_graph_decoder(build: Build) -> None:
    """The decoder's kernels launched at once, as a CUDA graph."""
    build.then(lambda pipeline: _graph(decoders_below(pipeline)))


@optimization(
    needs=replace(CUDA, fits=fitting.a_text_encoder),
    tolerance=SAME_ARITHMETIC,
    applied=are_graphed(_text_encoders),
    hides_operators=True,
    decides=(Slot.TEXT_ENCODER_LAUNCHES,),
)
def cuda_graph_text_encoder(build: Build) -> None:
    """Each text encoder's kernels launched at once, as a CUDA graph."""
    build.then(lambda pipeline: _graph(_text_encoders(pipeline)))


@optimization(
    needs=Needs(fits=fitting.a_prompt_encoder),
    tolerance=SAME_ARITHMETIC,
    applied=prompt_is_kept,
    skips_work=True,
)
def precomputed_prompt(build: Build) -> None:
    """What the text encoders make of a prompt is kept, as where embeddings are passed in."""
    build.then(keep_prompt)
