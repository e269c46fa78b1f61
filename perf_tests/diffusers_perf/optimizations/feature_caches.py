"""The caches that there are for transformers: what a block made is taken for a later step's.

How far an image may move is each model's own: the tolerances are the embedded transformer's, and
hold on no other weights.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import layers
from diffusers_perf.measurement.discovery import anatomy_of, denoisers
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.tolerances import (
    ATTENTION_APPROXIMATED,
    ATTENTION_KEPT,
    EXTRAPOLATED,
    EXTRAPOLATED_OUTPUT,
    FIRST_BLOCK_CACHED,
    FIRST_BLOCK_EXTRAPOLATED,
    STEPS_LEFT_OUT,
)
from diffusers_perf.techniques.beneath import compile_beneath_hooks
from diffusers_perf.techniques.dual_block_cache import blocks_are_kept, keep_blocks

CACHED = (Slot.DENOISER_CALLS, Slot.DENOISER_BLOCKS, Slot.DENOISER_FORWARD, Slot.DENOISER_STEPS)
"""Another thing from step to step, of which a graph of the denoiser or of a step knows nothing, and
around blocks, which a compiler of the whole denoiser would have to follow."""
CACHED_WITHIN = (*CACHED, Slot.COMPILER)
"""Within blocks, so that these cannot be compiled either."""
FIRST_BLOCK_CHANGED = 0.1
"""Relative change of the first block's residual, from which on the other blocks are computed. With
it the embedded transformer computes 64 % of its products in 28 steps, and 99 % with diffusers'
0.05."""


def _enable(pipeline: Any, config: Any) -> None:
    for module in denoisers(pipeline).values():
        module.enable_cache(config)
        compile_beneath_hooks(module)


def _timestep_of(pipeline: Any) -> Any:
    # Between generations, as where a check calls the denoiser: outside of every range.
    timestep = getattr(pipeline, "current_timestep", None)
    return math.inf if timestep is None else timestep


@optimization(
    needs=Needs(fits=fitting.cacheable),
    tolerance=FIRST_BLOCK_CACHED,
    applied=layers.cache_is_hooked("fbc_leader_block_hook"),
    skips_work=True,
    uneven_steps=True,
    follows_values=True,
    decides=CACHED,
)
def first_block_cache(build: Build) -> None:
    """A step whose first block changed little takes the rest of the blocks from the one before."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers import FirstBlockCacheConfig

        _enable(pipeline, FirstBlockCacheConfig(threshold=FIRST_BLOCK_CHANGED))


@optimization(
    needs=Needs(
        fits=fitting.all_of(fitting.cacheable, fitting.says_its_timestep, fitting.one_call_per_step)
    ),
    tolerance=ATTENTION_KEPT,
    applied=layers.cache_is_hooked("pyramid_attention_broadcast"),
    skips_work=True,
    uneven_steps=True,
    decides=CACHED_WITHIN,
)
def pyramid_attention_broadcast(build: Build) -> None:
    """Attention in the middle of the schedule computed in every second step alone."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers import PyramidAttentionBroadcastConfig

        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(100, 800),
            current_timestep_callback=partial(_timestep_of, pipeline),
        )
        _enable(pipeline, config)


@optimization(
    needs=Needs(
        fits=fitting.all_of(fitting.cacheable, fitting.says_its_timestep, fitting.one_call_per_step)
    ),
    tolerance=ATTENTION_APPROXIMATED,
    applied=layers.cache_is_hooked("faster_cache_block"),
    skips_work=True,
    uneven_steps=True,
    decides=CACHED_WITHIN,
)
def faster_cache(build: Build) -> None:
    """Attention late in the schedule computed in every second step, and approximated between."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers import FasterCacheConfig

        config = FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 681),
            current_timestep_callback=partial(_timestep_of, pipeline),
            attention_weight_callback=lambda module: 0.5,
            tensor_format="BCFHW" if _makes_video(pipeline) else "BCHW",
            # Guidance in a call of its own cannot be left out as half of a batch.
            is_guidance_distilled=True,
        )
        _enable(pipeline, config)


def _makes_video(pipeline: Any) -> bool:
    return any(call.args[0].ndim == 5 for call in anatomy_of(pipeline).decodes.values())


@optimization(
    needs=Needs(fits=fitting.all_of(fitting.cacheable, fitting.transformer_blocks)),
    tolerance=EXTRAPOLATED,
    applied=layers.cache_is_hooked("taylorseer_cache"),
    skips_work=True,
    uneven_steps=True,
    decides=CACHED_WITHIN,
)
def taylorseer(build: Build) -> None:
    """Features computed in every fifth step, and extrapolated along their derivative between."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers import TaylorSeerCacheConfig

        config = TaylorSeerCacheConfig(
            cache_interval=5, disable_cache_before_step=3, taylor_factors_dtype=build.dtype
        )
        _enable(pipeline, config)


@optimization(
    needs=Needs(fits=fitting.all_of(fitting.cacheable, fitting.transformer_blocks)),
    tolerance=EXTRAPOLATED_OUTPUT,
    applied=layers.cache_is_hooked("taylorseer_cache"),
    skips_work=True,
    uneven_steps=True,
    decides=CACHED,
)
def taylorseer_lite(build: Build) -> None:
    """All blocks computed in every third step, and their outcome extrapolated between."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers import TaylorSeerCacheConfig

        config = TaylorSeerCacheConfig(
            cache_interval=3,
            disable_cache_before_step=3,
            taylor_factors_dtype=build.dtype,
            use_lite_mode=True,
        )
        _enable(pipeline, config)


@optimization(
    needs=Needs(fits=fitting.all_of(fitting.cacheable, fitting.flux)),
    tolerance=STEPS_LEFT_OUT,
    applied=layers.cache_is_hooked("mag_cache_leader_block_hook"),
    skips_work=True,
    uneven_steps=True,
    decides=CACHED,
)
def mag_cache(build: Build) -> None:
    """Steps left out where residuals of this model are known to change little in size."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers import MagCacheConfig
        from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

        steps = build.workload.steps if build.workload else len(FLUX_MAG_RATIOS)
        config = MagCacheConfig(mag_ratios=FLUX_MAG_RATIOS, num_inference_steps=steps)
        _enable(pipeline, config)


@optimization(
    needs=Needs(package="cache_dit", fits=fitting.flux),
    tolerance=FIRST_BLOCK_EXTRAPOLATED,
    applied=blocks_are_kept,
    skips_work=True,
    uneven_steps=True,
    follows_values=True,
    decides=CACHED,
)
def dbcache(build: Build) -> None:
    """DBCache of cache-dit: blocks computed where the first changed, extrapolated between."""
    steps = build.workload.steps if build.workload else 1
    build.then(lambda pipeline: keep_blocks(pipeline, steps=steps))
