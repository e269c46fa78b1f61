"""Runs the denoisers' recorded calls once more, for whatever wants to see inside of one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch

from diffusers_perf.measurement.discovery import anatomy_of, dtype_of, modules


def replay(pipeline: Any, *, fetching_to: torch.device | None = None) -> None:
    """Each denoiser's recorded call, operator by operator, whatever is compiled or captured.

    Those would take its shape for one more to prepare for. What a cache keeps of it is forgotten.
    Where the weights wait on the host, they are fetched to a device layer by layer.
    """
    own = modules(pipeline)
    with torch.no_grad(), uncompiled():
        for denoiser in anatomy_of(pipeline).denoisers:
            module = own[denoiser.name]
            device = fetching_to or device_of(pipeline)
            args, kwargs = denoiser.call.on(device, dtype_of(module))
            fetching = _fetching(module, fetching_to) if fetching_to else nullcontext()
            with _cache_context(module), fetching:
                _eager_forward(module)(*args, **kwargs)


def uncompiled() -> AbstractContextManager[Any]:
    """Whatever is compiled runs operator by operator while the context is open."""
    return _stance("force_eager")


def compiling_nothing() -> AbstractContextManager[Any]:
    """What would have to be compiled anew runs operator by operator while the context is open."""
    return _stance("eager_on_recompile")


def _stance(name: Literal["force_eager", "eager_on_recompile"]) -> AbstractContextManager[Any]:
    # Importing the compiler takes seconds, so only where something is compiled.
    compiles = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance(name) if compiles else nullcontext()


def device_of(pipeline: Any) -> torch.device:
    """Where the pipeline's inputs go."""
    device = getattr(pipeline, "_execution_device", None)
    if isinstance(device, torch.device):
        return device
    own: torch.device = next(p.device for m in modules(pipeline).values() for p in m.parameters())
    return own


@contextmanager
def _fetching(root: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Each module's own weights are on the device while it computes, and wait where they are."""
    waiting: dict[torch.nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def fetch(module: torch.nn.Module, *_: object) -> None:
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        waiting[module] = [(tensor, tensor.data) for tensor in own]
        for tensor in own:
            tensor.data = tensor.data.to(device)

    def put_back(module: torch.nn.Module, *_: object) -> None:
        for tensor, data in waiting.pop(module, []):
            tensor.data = data

    with ExitStack() as contexts:
        for module in root.modules():
            # The forward of the root is called without its hooks.
            if module is not root:
                contexts.callback(module.register_forward_pre_hook(fetch).remove)
                hook = module.register_forward_hook(put_back, always_call=True)
                contexts.callback(hook.remove)
        fetch(root)
        contexts.callback(put_back, root)
        yield


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
