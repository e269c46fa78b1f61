"""What torch.compile makes of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.applied import decoders_below
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.hardware import COMPILER
from diffusers_perf.optimizations.tolerances import (
    SAME_ARITHMETIC,
)
from diffusers_perf.techniques.beneath import compile_beneath_hooks
from diffusers_perf.techniques.fused import (
    add_biases_late,
    biases_are_late,
)


@contextmanager
def _compiling() -> Iterator[None]:
    import torch._dynamo
    from torch._dynamo.utils import counters

    # Sixteen blocks that share their code and are each of a class of their own, as merged tokens
    # make them, are sixteen graphs: its limit of 8 guards against what never ends.
    more_graphs = torch._dynamo.config.patch(recompile_limit=64)
    # What was compiled for one case is in the next one's way, and holds memory.
    try:
        with more_graphs:
            yield
    finally:
        torch.compiler.reset()
        counters.clear()


def _compile(build: Build, *, mode: str | None = None) -> None:
    build.during(_compiling())

    @build.then
    def _(pipeline: Any) -> None:
        _compile_whole({**denoisers(pipeline), **decoders_below(pipeline)}, mode=mode)


def _compile_whole(modules: Mapping[str, Any], *, mode: str | None = None) -> None:
    for module in modules.values():
        # A batch of another size, as without guidance, gets kernels of its own.
        module.forward = torch.compile(module.forward, mode=mode, fullgraph=True, dynamic=False)


@optimization(
    needs=replace(COMPILER, fits=fitting.repeated_blocks),
    tolerance=SAME_ARITHMETIC,
    applied=applied.blocks_are_compiled,
    hides_operators=True,
    decides=(Slot.COMPILER,),
    compiles=True,
)
def compile_regional(build: Build) -> None:
    """Only the denoiser's repeated blocks through torch.compile, once for each shape."""
    build.during(_compiling())

    @build.then
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.compile_repeated_blocks(fullgraph=True, dynamic=False)
            compile_beneath_hooks(module)


@optimization(
    needs=replace(COMPILER, optimization="compile_regional", fits=fitting.an_image_decoder),
    tolerance=SAME_ARITHMETIC,
    applied=applied.are_compiled(decoders_below),
    hides_operators=True,
    decides=(Slot.DECODER_COMPILER,),
    compiles=True,
)
def compile_decoder(build: Build) -> None:
    """The decoder alone through torch.compile, beside `compile_regional` of the denoiser."""
    build.during(_compiling())
    build.then(lambda pipeline: _compile_whole(decoders_below(pipeline)))


@optimization(
    needs=COMPILER,
    tolerance=SAME_ARITHMETIC,
    applied=applied.modules_are_compiled,
    hides_operators=True,
    decides=(Slot.COMPILER, Slot.DECODER_COMPILER, Slot.DENOISER_FORWARD),
    compiles=True,
)
def compile(build: Build) -> None:
    """Denoiser and decoder through torch.compile: elementwise work is fused into few kernels."""
    _compile(build)


@optimization(
    needs=Needs(compute_capability=(7, 0), optimization="compile", fits=fitting.a_unet),
    tolerance=SAME_ARITHMETIC,
    applied=biases_are_late,
    compiles=True,
)
def late_bias(build: Build) -> None:
    """Biases of the UNet's transformer blocks added by what `compile` fuses behind the products."""
    build.then(lambda pipeline: add_biases_late(pipeline.unet))


@optimization(
    needs=COMPILER,
    tolerance=SAME_ARITHMETIC,
    applied=applied.every(applied.modules_are_compiled, applied.graphs_were_not_skipped),
    hides_operators=True,
    # Called again, its graphs write over what they gave, and slices or tiles are still needed.
    decides=(
        *(Slot.COMPILER, Slot.DECODER_COMPILER, Slot.DENOISER_FORWARD),
        *(Slot.DENOISER_LAUNCHES, Slot.DECODER_LAUNCHES, Slot.DECODER_CALLS),
    ),
    compiles=True,
)
def compile_reduce_overhead(build: Build) -> None:
    """Denoiser and decoder through torch.compile, replayed from CUDA graphs of its own."""
    _compile(build, mode="reduce-overhead")
