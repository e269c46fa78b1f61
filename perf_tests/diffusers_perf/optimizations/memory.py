"""Less GPU memory for more time."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import NO_TOLERANCE, Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.discovery import Call, anatomy_of, decoders
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.tolerances import (
    SAME_ARITHMETIC,
)


@optimization(
    needs=Needs(fits=fitting.a_decoder_that("use_slicing", "decode a batch image by image")),
    tolerance=SAME_ARITHMETIC,
    applied=applied.decodes_in_parts("use_slicing", images=2),
    decides=(Slot.DECODER_CALLS,),
    aim="memory",
)
def vae_slicing(build: Build) -> None:
    """Latents decoded one image at a time, whose activations alone are in memory."""

    @build.then
    def _(pipeline: Any) -> None:
        for module in decoders(pipeline).values():
            if hasattr(module, "use_slicing"):
                module.enable_slicing()


# Nothing is allowed: a decoder that sees half of a side normalizes by other statistics, and of the
# embedded model's 64 pixels a tile of 32 shows too little (13.9 dB, and 46 % of the prompts).
@optimization(
    needs=Needs(fits=fitting.a_decoder_that("use_tiling", "decode an image in tiles")),
    tolerance=NO_TOLERANCE,
    applied=applied.decodes_in_parts("use_tiling"),
    decides=(Slot.DECODER_CALLS,),
    aim="memory",
)
def vae_tiling(build: Build) -> None:
    """Latents decoded in overlapping tiles of half a side, blended into one another."""

    @build.then
    def _(pipeline: Any) -> None:
        for name, module in decoders(pipeline).items():
            if hasattr(module, "use_tiling"):
                module.enable_tiling()
                _cut_in_half(module, anatomy_of(pipeline).decodes.get(name))


def _cut_in_half(decoder: Any, call: Call | None) -> None:
    """Make its tiles half as wide and high as what it decodes.

    Its own are as large as the images that it was trained on, and would cut none of ours.
    """
    if hasattr(decoder, "tile_sample_min_size"):
        decoder.tile_sample_min_size //= 2
        decoder.tile_latent_min_size //= 2
        return
    if call is None:
        return
    for side, latents in zip(("height", "width"), call.args[0].shape[-2:], strict=True):
        pixels = latents * getattr(decoder, "spatial_compression_ratio", 8)
        setattr(decoder, f"tile_sample_min_{side}", pixels // 2)
        setattr(decoder, f"tile_sample_stride_{side}", pixels * 3 // 8)


def _nowhere_to_offload_from() -> str | None:
    return None if torch.accelerator.is_available() else "there is no GPU memory to offload from"


@optimization(
    needs=Needs(
        compute_capability=(6, 0), probe=_nowhere_to_offload_from, fits=fitting.offloadable
    ),
    tolerance=SAME_ARITHMETIC,
    applied=applied.waits_on_host,
    # What is captured has to stay where it is, and the pipeline's own loop moves modules.
    decides=(Slot.DENOISER_LAUNCHES, Slot.DECODER_LAUNCHES, Slot.TEXT_ENCODER_LAUNCHES, Slot.LOOP),
    offloads=True,
    aim="memory",
)
def model_offload(build: Build) -> None:
    """Each module in GPU memory while it is needed, and in the host's otherwise."""
    build.then(lambda pipeline: pipeline.enable_model_cpu_offload(device=build.device))


@optimization(
    needs=Needs(
        compute_capability=(6, 0), probe=_nowhere_to_offload_from, fits=fitting.offloadable_by_layer
    ),
    tolerance=SAME_ARITHMETIC,
    applied=applied.groups_wait_on_host,
    decides=(
        *(Slot.DENOISER_LAUNCHES, Slot.DECODER_LAUNCHES, Slot.TEXT_ENCODER_LAUNCHES),
        *(Slot.WEIGHTS, Slot.BIASES, Slot.COMPILER, Slot.DECODER_COMPILER),
    ),
    offloads=True,
    aim="memory",
)
def group_offload(build: Build) -> None:
    """Each layer of all modules in GPU memory while it computes; the denoiser's fetched ahead."""

    @build.then
    def _(pipeline: Any) -> None:
        pipeline.enable_group_offload(
            onload_device=build.numbered_device, offload_type="leaf_level", use_stream=True
        )
