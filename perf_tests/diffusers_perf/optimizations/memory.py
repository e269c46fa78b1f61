"""Less GPU memory for more time."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.catalog.declarations import NO_TOLERANCE, Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.build import Build
from diffusers_perf.optimizations.tolerances import (
    SAME_ARITHMETIC,
)


@optimization(
    tolerance=SAME_ARITHMETIC,
    applied=applied.decodes_in_parts(images=2),
    decides=(Slot.DECODER_CALLS,),
)
def vae_slicing(build: Build) -> None:
    """Latents decoded one image at a time, whose activations alone are in memory."""
    build.then(lambda pipeline: pipeline.vae.enable_slicing())


# Nothing is allowed: a decoder that sees half of a side normalizes by other statistics, and of the
# embedded model's 64 pixels a tile of 32 shows too little (13.9 dB, and 46 % of the prompts).
@optimization(
    tolerance=NO_TOLERANCE,
    applied=applied.decodes_in_parts(images=1),
    decides=(Slot.DECODER_CALLS,),
)
def vae_tiling(build: Build) -> None:
    """Latents decoded in overlapping tiles of half a side, blended into one another."""

    @build.then
    def _(pipeline: Any) -> None:
        vae = pipeline.vae
        vae.enable_tiling()
        # Its own are as large as the images that it was trained on: it would cut none of ours.
        vae.tile_sample_min_size //= 2
        vae.tile_latent_min_size //= 2


def _nowhere_to_offload_from() -> str | None:
    return None if torch.accelerator.is_available() else "there is no GPU memory to offload from"


@optimization(
    needs=Needs(compute_capability=(6, 0), probe=_nowhere_to_offload_from),
    tolerance=SAME_ARITHMETIC,
    applied=applied.waits_on_host("vae", "text_encoder"),
    # What is captured has to stay where it is, and the pipeline's own loop moves modules.
    decides=(Slot.DENOISER_LAUNCHES, Slot.DECODER_LAUNCHES, Slot.TEXT_ENCODER_LAUNCHES, Slot.LOOP),
)
def model_offload(build: Build) -> None:
    """Each module in GPU memory while it is needed, and in the host's otherwise."""
    build.then(lambda pipeline: pipeline.enable_model_cpu_offload())
