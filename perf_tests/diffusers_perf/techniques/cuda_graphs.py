"""Captures what a function launches into a CUDA graph, and replays it with one launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from diffusers_perf.measurement.applied import AppliedCheck, NotApplied
from diffusers_perf.measurement.flag import flag

WARM_UPS = 3
"""Calls before a capture: what is compiled, chosen or allocated at first is not to be captured."""


@cache
def _aside() -> torch.cuda.Stream:
    """The one stream of all first runs: cuBLAS keeps memory for each that it sees."""
    return torch.cuda.Stream()


@contextmanager
def _taken_back(pool: Any) -> Iterator[None]:
    """A capture that fails leaves nothing behind.

    torch 2.11 would stay on the capture's stream and go on allocating in its pool, and every later
    capture or emptying of the cache in the process would fail.
    """
    before = torch.cuda.current_stream()
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(before)
        with suppress(RuntimeError):  # where it got as far as ending that itself
            torch._C._cuda_endAllocateToPool(before.device_index, pool)
            torch._C._cuda_releasePool(before.device_index, pool)
        raise


class Graphed:
    """Stands for a function of tensors on the GPU: captured once for each shape of its arguments.

    A replay reads and writes the addresses of its capture, so arguments are copied in and results
    copied out. What else the function keeps must stay where it is. `TypeError` for a tensor on
    the host, whose value a replay would never ask for again.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._captures: dict[object, tuple[torch.cuda.CUDAGraph, list[Any], Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, tree = tree_flatten((args, kwargs))
        if any(isinstance(leaf, torch.Tensor) and not leaf.is_cuda for leaf in leaves):
            raise TypeError("a CUDA graph takes tensors on the GPU alone")
        key = (
            len(args),
            *kwargs,
            *((x.shape, x.dtype) if isinstance(x, torch.Tensor) else x for x in leaves),
        )
        if key not in self._captures:
            self._captures[key] = self._capture(leaves, tree)
        graph, inputs, outputs = self._captures[key]
        for held, given in zip(inputs, leaves, strict=True):
            if isinstance(held, torch.Tensor):
                held.copy_(given)
        graph.replay()
        return tree_map_only(torch.Tensor, torch.clone, outputs)

    def _capture(self, leaves: list[Any], tree: Any) -> tuple[torch.cuda.CUDAGraph, list[Any], Any]:
        inputs = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(inputs, tree)
        # On another stream, as capturing wants it.
        stream = _aside()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self.function(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(stream)
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        # What libraries do otherwise under capture is not what was just run: transformers 5.17 then
        # builds an attention mask that it else leaves out.
        unaware = flag(torch.cuda, "is_current_stream_capturing", lambda: False)
        with _taken_back(pool), torch.cuda.graph(graph, pool=pool), unaware:
            outputs = self.function(*args, **kwargs)
        return graph, inputs, outputs


def are_graphed(found: Callable[[Any], Mapping[str, torch.nn.Module]]) -> AppliedCheck:
    """What these modules of a pipeline run is replayed from a CUDA graph."""

    def check(pipeline: Any) -> None:
        modules = found(pipeline)
        if not modules:
            raise NotApplied("the pipeline has no module to capture")
        for place, module in modules.items():
            if not isinstance(module.forward, Graphed):
                raise NotApplied(f"the {place} is launched kernel by kernel, not as a CUDA graph")

    return check
