"""Runs the denoisers' recorded calls once more, for whatever wants to see inside of one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from diffusers_perf.measurement.discovery import anatomy_of, dtype_of, modules


def replay(pipeline: Any) -> None:
    """Each denoiser's recorded call, operator by operator, whatever is compiled or captured.

    Those would take its shape for one more to prepare for. What a cache keeps of it is forgotten.
    """
    own = modules(pipeline)
    with torch.no_grad(), uncompiled():
        for denoiser in anatomy_of(pipeline).denoisers:
            module = own[denoiser.name]
            args, kwargs = denoiser.call.on(device_of(pipeline), dtype_of(module))
            with _cache_context(module):
                _eager_forward(module)(*args, **kwargs)


def uncompiled() -> AbstractContextManager[Any]:
    """Whatever is compiled runs operator by operator while the context is open."""
    # Importing the compiler takes seconds, so only where something is compiled.
    compiles = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()


def device_of(pipeline: Any) -> torch.device:
    """Where the pipeline's inputs go."""
    device = getattr(pipeline, "_execution_device", None)
    if isinstance(device, torch.device):
        return device
    own: torch.device = next(p.device for m in modules(pipeline).values() for p in m.parameters())
    return own


def _eager_forward(module: Any) -> Any:
    # Offloaded weights, and a cache's states, come to a module through the forward that stands in
    # for its own.
    if hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook"):
        return getattr(module.forward, "function", module.forward)
    return partial(type(module).forward, module)


@contextmanager
def _cache_context(module: Any) -> Iterator[None]:
    """What a pipeline's loop opens around a call of a module that may have a cache."""
    if not getattr(module, "is_cache_enabled", False):
        yield
        return
    try:
        with module.cache_context("replay"):
            yield
    finally:
        module._reset_stateful_cache()
