"""cache-dit's DBCache on a transformer: its blocks are computed where the first one changed.

The package can wrap a pipeline, and then changes the pipeline's class for the rest of the process.
Here it wraps a transformer alone, whose state is renewed at the start of each generation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import anatomy_of, denoisers, dtype_of, modules
from diffusers_perf.measurement.replay import device_of, uncompiled
from diffusers_perf.techniques.control_cache import before_each_generation

CHANGED = 0.24
"""Relative change of the first block's residual, from which on the other blocks are computed."""
COMPUTED_FIRST = 3
"""Steps at the start that are computed in any case."""
LEFT_OUT_IN_A_ROW = 3
"""The most steps without the other blocks, one after the other."""


def keep_blocks(pipeline: Any, *, steps: int) -> None:
    """Compute the first block of each kind, and the others where it changed; extrapolate them along
    their derivative in between.
    """
    import cache_dit

    # All of its loggers print through these how it is configured.
    for handler in logging.getLogger("CACHE_DIT").handlers:
        handler.setLevel(logging.ERROR)
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=CHANGED,
        max_warmup_steps=COMPUTED_FIRST,
        max_continuous_cached_steps=LEFT_OUT_IN_A_ROW,
        num_inference_steps=steps,
    )
    along = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1)
    for module in denoisers(pipeline).values():
        cache_dit.enable_cache(module, cache_config=config, calibrator_config=along)

    def begin() -> None:
        for module in denoisers(pipeline).values():
            cache_dit.refresh_context(module, cache_config=config, calibrator_config=along)

    pipeline.begin_dual_block_cache = begin
    before_each_generation(pipeline, begin)


def blocks_are_kept(pipeline: Any) -> None:
    """Called again and again with the same inputs, each denoiser leaves out its last block."""
    begin: Callable[[], None] | None = getattr(pipeline, "begin_dual_block_cache", None)
    if begin is None:
        raise NotApplied("the pipeline has no cache of cache-dit")
    begin()
    for denoiser in anatomy_of(pipeline).denoisers:
        module = modules(pipeline)[denoiser.name]
        args, kwargs = denoiser.call.on(device_of(pipeline), dtype_of(module))
        calls = COMPUTED_FIRST + 2
        computed: list[None] = []
        last = module.single_transformer_blocks[-1].proj_out
        hook = last.register_forward_hook(lambda *_, seen=computed: seen.append(None))
        # Hooks are not seen by what was compiled before.
        try:
            with torch.no_grad(), uncompiled():
                for _ in range(calls):
                    module(*args, **kwargs)
        finally:
            hook.remove()
        if not 0 < len(computed) < calls:
            raise NotApplied(
                f"the {denoiser.name} computed its last block in {len(computed)} of {calls} calls "
                "with the same inputs"
            )
    begin()
