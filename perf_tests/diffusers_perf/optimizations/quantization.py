"""Weights and products in eight bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import layers
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.tolerances import (
    FLOAT8,
    INT8,
    KEPT_IN_FLOAT8,
)


def _quantize(build: Build, config: Callable[[], Any]) -> None:
    @build.then
    def _(pipeline: Any) -> None:
        from torchao.quantization import quantize_

        # An offloaded denoiser may be larger than the GPU.
        offloaded_from = build.numbered_device if build.offloaded else None
        wide = layers.wide_layers(pipeline, offloaded_from=offloaded_from)
        for layer in wide.values():
            # Quantized where it computes, as the host may round otherwise, and kept where it was.
            kept_on = layer.weight.device
            quantize_(layer.to(build.device), config(), lambda module, path: True)
            layer.to(kept_on)


@optimization(
    needs=Needs(package="torchao"),
    tolerance=INT8,
    applied=layers.weights_are_quantized(torch.int8),
    decides=(Slot.WEIGHTS, Slot.LINEAR_LAYERS),
)
def int8(build: Build) -> None:
    """The denoiser's linear layers in int8: weights a channel, activations a token (torchao)."""

    def config() -> Any:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

        # By default it sets flags of torch for the whole process, TF32 among them.
        return Int8DynamicActivationInt8WeightConfig(version=2, set_inductor_config=False)

    _quantize(build, config)


FLOAT8_PRODUCTS = Needs(compute_capability=(8, 9), package="torchao")


def _to_float8(build: Build, granularity: str) -> None:
    def config() -> Any:
        from torchao import quantization

        return quantization.Float8DynamicActivationFloat8WeightConfig(
            granularity=getattr(quantization, granularity)(), set_inductor_config=False
        )

    _quantize(build, config)


@optimization(
    needs=FLOAT8_PRODUCTS,
    tolerance=FLOAT8,
    applied=layers.weights_are_quantized(torch.float8_e4m3fn),
    decides=(Slot.WEIGHTS, Slot.LINEAR_LAYERS),
)
def fp8(build: Build) -> None:
    """The denoiser's linear layers in float8: a scale for each row, of bfloat16 (torchao)."""
    _to_float8(build, "PerRow")


@optimization(
    needs=FLOAT8_PRODUCTS,
    tolerance=FLOAT8,
    applied=layers.weights_are_quantized(torch.float8_e4m3fn, one_scale=True),
    decides=(Slot.WEIGHTS, Slot.LINEAR_LAYERS),
)
def fp8_tensor(build: Build) -> None:
    """The denoiser's linear layers in float8: a scale for a whole weight or input (torchao)."""
    _to_float8(build, "PerTensor")


@optimization(
    needs=Needs(
        fits=fitting.each_denoiser("enable_layerwise_casting", "its layers keep their dtype")
    ),
    tolerance=KEPT_IN_FLOAT8,
    applied=layers.layers_wait_in(torch.float8_e4m3fn),
    # A layer's weights lie elsewhere after each cast, in new parameters, which dynamo refuses.
    decides=(Slot.WEIGHTS, Slot.BIASES, Slot.DENOISER_LAUNCHES, Slot.COMPILER),
    aim="memory",
)
def layerwise_casting(build: Build) -> None:
    """The denoiser's weights kept in float8, and each layer's cast back while it computes."""

    @build.then
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.enable_layerwise_casting(
                storage_dtype=torch.float8_e4m3fn, compute_dtype=build.dtype
            )
