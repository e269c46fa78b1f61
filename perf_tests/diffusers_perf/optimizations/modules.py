"""Modules that are laid out, replaced or fused."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import applied, layers
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.tolerances import (
    DISTILLED,
    SAME_ARITHMETIC,
)
from diffusers_perf.techniques.fused import (
    fuse_group_norms,
    group_norms_are_fused,
)
from diffusers_perf.techniques.fused_mlp import fuse_mlps, mlps_are_fused, why_mlps_do_not_fuse
from diffusers_perf.techniques.fused_rotary import (
    fuse_rotary,
    rotary_is_fused,
    why_rotary_does_not_fuse,
)


@optimization(
    needs=Needs(fits=fitting.convolutions),
    tolerance=SAME_ARITHMETIC,
    applied=applied.layout_is_channels_last,
)
def channels_last(build: Build) -> None:
    """Convolutions in NHWC layout, which tensor cores read without a transposition."""

    @build.then
    def _(pipeline: Any) -> None:
        for module in applied.convolved(pipeline).values():
            module.to(memory_format=torch.channels_last)


@optimization(
    needs=Needs(variant="distilled_unet"),
    tolerance=DISTILLED,
    applied=applied.smaller_than_reference("unet", layers_per_block=1),
    # DeepCache keeps what the mid block gives, and it has none.
    decides=(Slot.DENOISER_BLOCKS,),
)
def distilled_unet(build: Build) -> None:
    """A UNet of one layer a block and no mid block, trained to imitate the full one (BK-SDM)."""
    build.take("distilled_unet", place="unet")


@optimization(
    needs=Needs(variant="tiny_vae"),
    tolerance=DISTILLED,
    applied=applied.class_is("vae", "AutoencoderTiny"),
)
def tiny_vae(build: Build) -> None:
    """A tiny autoencoder distilled from the VAE (TAESD) decodes the latents."""
    build.take("tiny_vae", place="vae")


@optimization(
    needs=Needs(fits=fitting.fusable_projections),
    tolerance=SAME_ARITHMETIC,
    applied=layers.projections_are_fused,
    decides=(Slot.ATTENTION,),
)
def fused_qkv(build: Build) -> None:
    """One matrix product for query, key and value of an attention in the denoiser."""

    @build.then
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.fuse_qkv_projections()


@optimization(
    needs=Needs(fits=why_mlps_do_not_fuse),
    tolerance=SAME_ARITHMETIC,
    applied=mlps_are_fused,
    decides=(Slot.LINEAR_LAYERS,),
)
def fused_mlp(build: Build) -> None:
    """GELU in the epilogue of the product before it, and no concatenation in FLUX's blocks."""

    @build.rewrite
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            fuse_mlps(module)


@optimization(
    needs=Needs(fits=why_rotary_does_not_fuse),
    tolerance=SAME_ARITHMETIC,
    applied=rotary_is_fused,
)
def fused_rotary(build: Build) -> None:
    """Queries and keys of FLUX.1 normalized and turned in one pass, where they are compiled."""

    @build.rewrite
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            fuse_rotary(module)


@optimization(
    needs=Needs(
        compute_capability=(8, 0),
        package="triton",
        optimization="channels_last",
        fits=fitting.a_unet,
    ),
    tolerance=SAME_ARITHMETIC,
    applied=group_norms_are_fused,
    # A convolution's bias is read outside of it, and must be there as it is computed with.
    decides=(Slot.BIASES,),
)
def fused_group_norm(build: Build) -> None:
    """The UNet's group normalizations in one or two launches, with shift and SiLU (Triton)."""
    build.rewrite(lambda pipeline: fuse_group_norms(pipeline.unet))
