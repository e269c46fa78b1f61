"""What was compiled or captured, and is again, or no longer is."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.faults.injection import Injection, fault
from diffusers_perf.faults.places import COUNTED, COUNTED_HALF, blocks_of, encoded, unet_of
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.techniques.cuda_graphs import Graphed


def compile_one_block(pipeline: Any) -> None:
    """Compile a small part of the UNet."""
    _compile(unet_of(pipeline).mid_block.resnets[0])


def compile_middle(pipeline: Any) -> None:
    """Compile as much of the UNet as takes longer to trace than a round of a few steps to run."""
    _compile(unet_of(pipeline).mid_block)


def compile_blocks(pipeline: Any) -> None:
    """Compile each transformer block."""
    _compile(*blocks_of(pipeline))


def _compile(*blocks: torch.nn.Module) -> None:
    """Traced, and run as it is: its graphs are what matters."""
    torch.compiler.reset()
    for block in blocks:
        block.forward = _compiled(block.forward, backend="eager")


def _compiled(eager: Any, *, backend: str) -> Any:
    compiled = torch.compile(eager, backend=backend, dynamic=False)

    def forward(*args: Any, **kwargs: Any) -> Any:
        # What is counted without data is counted as written.
        first = next(iter((*args, *kwargs.values())))
        return (eager if first.is_meta else compiled)(*args, **kwargs)

    return forward


@fault(detected_by="counter", setting=COUNTED, source="diffusers #4305")
def graph_break(injection: Injection) -> None:
    """A compiled block breaks into two graphs."""
    injection.given(compile_one_block)

    def then(pipeline: Any) -> None:
        act = unet_of(pipeline).mid_block.resnets[0].nonlinearity
        forward = act.forward

        def broken(x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            y: torch.Tensor = forward(x)
            return y

        act.forward = broken

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED, source="SGLang #23648")
def graph_break_per_block(injection: Injection) -> None:
    """Every compiled transformer block breaks into several graphs, at its normalizations."""
    injection.given(compile_blocks)
    normalize = torch.nn.LayerNorm.forward

    def broken(self: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return normalize(self, x)

    injection.put(torch.nn.LayerNorm, "forward", broken)


@fault(detected_by="counter", setting=COUNTED_HALF, source="vLLM-Omni #3266", where="cuda")
def norms_opaque(injection: Injection) -> None:
    """Normalizations are a custom operator, which the compiler cannot fuse with what follows."""

    def compile_them(pipeline: Any) -> None:
        torch.compiler.reset()
        for block in blocks_of(pipeline):
            block.forward = _compiled(block.forward, backend="inductor")

    def layered(self: torch.nn.LayerNorm, x: torch.Tensor) -> Any:
        return opaque_layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def rooted(self: torch.nn.RMSNorm, x: torch.Tensor) -> Any:
        return opaque_rms_norm(x, self.normalized_shape, self.weight, self.eps)

    injection.given(compile_them)
    injection.put(torch.nn.LayerNorm, "forward", layered)
    injection.put(torch.nn.RMSNorm, "forward", rooted)


def _opaque(name: str, function: Any, schema: str) -> Any:
    """The function as an operator that a compiler calls as it is."""
    own = torch.library.custom_op(
        f"diffusers_perf_faults::{name}", function, mutates_args=(), schema=schema
    )
    own.register_fake(lambda x, *_: torch.empty_like(x))
    return own


opaque_layer_norm = _opaque(
    "layer_norm",
    lambda *args: torch.nn.functional.layer_norm(*args),
    "(Tensor x, int[] shape, Tensor? weight, Tensor? bias, float eps) -> Tensor",
)
opaque_rms_norm = _opaque(
    "rms_norm",
    lambda *args: torch.nn.functional.rms_norm(*args),
    "(Tensor x, int[] shape, Tensor? weight, float? eps) -> Tensor",
)


@fault(detected_by="counter", setting=COUNTED, source="diffusers #14297")
def adapter_swapped(injection: Injection) -> None:
    """Each image swaps a compiled block's adapter for one of another rank: compiled again."""
    adapted: list[Any] = []

    def given(pipeline: Any) -> None:
        block = blocks_of(pipeline)[0]
        layer: Any = next(m for m in block.modules() if isinstance(m, torch.nn.Linear))
        own = layer.forward
        _adapt(layer, rank=1)

        def forward(x: torch.Tensor) -> torch.Tensor:
            adapted_x: torch.Tensor = x @ layer.adapter_in.T @ layer.adapter_out.T
            made: torch.Tensor = own(x) + adapted_x
            return made

        layer.forward = forward
        adapted[:] = [layer]
        _compile(block)

    def swapped(encode: Any, *args: Any, **kwargs: Any) -> Any:
        (layer,) = adapted
        # What is counted without data has the adapter that was there.
        if not layer.adapter_in.is_meta:
            _adapt(layer, rank=min(len(layer.adapter_in) + 1, RANKS))
        return encode(*args, **kwargs)

    injection.given(given)
    encoded(injection, swapped)


RANKS = 7
"""Torch compiles a block anew for each of so few; beyond its limit it would stop compiling it."""


def _adapt(layer: Any, *, rank: int) -> None:
    """An adapter that changes nothing."""
    layer.adapter_in = torch.nn.Parameter(layer.weight.new_zeros(rank, layer.in_features))
    layer.adapter_out = torch.nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))


@fault(detected_by="counter", setting=COUNTED, source="torch #174575")
def compiled_again(injection: Injection) -> None:
    """What was compiled is forgotten between images, and compiled again."""
    injection.given(compile_one_block)

    def forgetful(encode: Any, *args: Any, **kwargs: Any) -> Any:
        torch.compiler.reset()
        return encode(*args, **kwargs)

    encoded(injection, forgetful)


def _graphed(pipeline: Any) -> None:
    for module in denoisers(pipeline).values():
        module.forward = Graphed(module.forward)


@fault(detected_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_off(injection: Injection) -> None:
    """The denoiser's CUDA graph is silently off: every kernel is launched on its own."""
    injection.given(_graphed)

    def then(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.forward = module.forward.function

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_recorded_again(injection: Injection) -> None:
    """The denoiser's CUDA graph is recorded again for each image."""
    injection.given(_graphed)

    def then(pipeline: Any) -> None:
        encode = pipeline.encode_prompt

        def forgetful(*args: Any, **kwargs: Any) -> Any:
            for module in denoisers(pipeline).values():
                module.forward = Graphed(module.forward.function)
            return encode(*args, **kwargs)

        pipeline.encode_prompt = forgetful

    injection.then(then)
