"""LoRA adapters in the layers of the denoiser."""

from __future__ import annotations

from typing import Any

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import layers
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.tolerances import SAME_ARITHMETIC
from diffusers_perf.techniques import hot_swap


@optimization(
    needs=Needs(package="peft", fits=fitting.adapters),
    tolerance=SAME_ARITHMETIC,
    applied=layers.adapters_are_merged,
    decides=(Slot.ADAPTERS,),
)
def fused_lora(build: Build) -> None:
    """The adapters of the denoiser merged into the weights beside them."""

    @build.then
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.fuse_lora()


@optimization(
    needs=Needs(package="peft", fits=fitting.all_of(fitting.adapters, fitting.one_adapter)),
    tolerance=SAME_ARITHMETIC,
    applied=hot_swap.swaps_in_place,
    decides=(Slot.ADAPTERS,),
)
def lora_hotswap(build: Build) -> None:
    """The denoiser's adapter swapped into another's tensors, as a server does between users."""

    @build.then
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            hot_swap.take_the_place_of_another(module)
