"""Work that is left out: features and control kept, guidance cut off, tokens merged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import layers
from diffusers_perf.measurement.discovery import anatomy_of
from diffusers_perf.measurement.flag import flag
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.tolerances import (
    CACHED,
    CONTROL_CACHED,
    LESS_GUIDED,
    MERGED,
    SPARSELY_CACHED,
)
from diffusers_perf.techniques import control_cache
from diffusers_perf.techniques.deep_cache import is_cached, keep_blocks
from diffusers_perf.techniques.device_steps import (
    guides,
)

FRESH_EVERY = 3
SPARSELY_FRESH_EVERY = 5
FRESH_FIRST = 3
"""On seeded weights it is the first steps that decide how far off the image is:
`models/SDXL.md`."""


_deep_cache = partial(
    optimization,
    skips_work=True,
    uneven_steps=True,
    # Another thing from step to step, of which a graph of the UNet alone knows nothing.
    decides=(Slot.DENOISER_CALLS, Slot.DENOISER_BLOCKS),
)


@_deep_cache(
    needs=Needs(package="DeepCache", fits=fitting.a_unet),
    tolerance=CACHED,
    applied=is_cached(FRESH_EVERY),
)
def deepcache(build: Build) -> None:
    """DeepCache: the UNet's inner blocks run in every third step alone."""
    build.then(partial(keep_blocks, interval=FRESH_EVERY))


@_deep_cache(
    needs=Needs(package="DeepCache", fits=fitting.a_unet),
    tolerance=SPARSELY_CACHED,
    applied=is_cached(SPARSELY_FRESH_EVERY),
)
def sparse_deepcache(build: Build) -> None:
    """DeepCache: the UNet's inner blocks run in every fifth step alone."""
    build.then(partial(keep_blocks, interval=SPARSELY_FRESH_EVERY))


@_deep_cache(
    needs=Needs(package="DeepCache", optimization="device_steps", fits=fitting.a_unet),
    tolerance=CACHED,
    applied=is_cached(FRESH_EVERY, first=FRESH_FIRST),
)
def late_deepcache(build: Build) -> None:
    """`deepcache` whose first three steps are whole, as the image is decided in them."""
    build.then(partial(keep_blocks, interval=FRESH_EVERY, first=FRESH_FIRST))


@optimization(
    needs=Needs(fits=fitting.all_of(fitting.a_controlnet, fitting.one_call_per_step)),
    tolerance=CONTROL_CACHED,
    applied=control_cache.is_cached(control_cache.FRESH_EVERY),
    skips_work=True,
    uneven_steps=True,
    decides=(Slot.DENOISER_CALLS,),
)
def controlnet_cache(build: Build) -> None:
    """A ControlNet runs in every second step alone, and gives the same in the one after."""
    build.then(control_cache.keep_control)


GUIDED_SHARE = 0.5


@optimization(
    needs=Needs(optimization="device_steps", fits=fitting.guidance_in_a_batch),
    tolerance=LESS_GUIDED,
    applied=guides(GUIDED_SHARE),
    skips_work=True,
    uneven_steps=True,
)
def guidance_cutoff(build: Build) -> None:
    """Guidance in the first half of the steps of `device_steps` alone: the rest cost half."""

    @build.then
    def _(pipeline: Any) -> None:
        pipeline.plan.guided_share = GUIDED_SHARE


@optimization(
    needs=Needs(
        package="tomesd",
        fits=fitting.all_of(fitting.a_unet, fitting.attention_at_full_resolution),
    ),
    tolerance=MERGED,
    applied=layers.merges_tokens,
    skips_work=True,
)
def tome(build: Build) -> None:
    """Token merging: half of the tokens at full resolution are left out of self-attention."""
    import tomesd

    name = "bipartite_soft_matching_random2d"
    exact = _averaging_in_float64(getattr(tomesd.merge, name))
    build.during(flag(tomesd.merge, name, exact))

    @build.then
    def _(pipeline: Any) -> None:
        # At random, no two generations would be alike.
        tomesd.apply_patch(pipeline.unet, ratio=0.5, use_rand=False)
        known = pipeline.unet._tome_info
        # It learns this from the UNet's call; who calls the UNet's forward alone leaves it unknown.
        (unet,) = anatomy_of(pipeline).denoisers
        known["size"] = tuple(unet.call.args[0].shape[-2:])
        # Made at its first use if it is not there or on a device of another name, which neither a
        # compiler nor a capture can follow.
        known["args"]["generator"] = torch.Generator(build.numbered_device)


def _averaging_in_float64(matching: Callable[..., Any]) -> Callable[..., Any]:
    """A GPU adds up what is merged in any order, and no two images may differ by that.

    In float32, compiled, two of one seed were at 48 dB (H100), in float64 the same: presumably a
    compiler leaves out the rounding to half precision before. Of 6.5 million averages of numbers
    that are not rounded, 631 change with the order in float32, none in float64 (twenty orders, on a
    CPU).
    """

    def matched(*args: Any, **kwargs: Any) -> Any:
        merge, unmerge = matching(*args, **kwargs)

        def merged(x: torch.Tensor, mode: str = "mean") -> torch.Tensor:
            averaged: torch.Tensor = merge(x.double(), mode)
            return averaged.to(x.dtype)

        return merged, unmerge

    return matched
