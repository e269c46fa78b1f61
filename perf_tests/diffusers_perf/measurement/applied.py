"""Checks that an optimization took effect. Much in this field is a silent no-op when misspelt.

Each looks at the pipeline's own denoisers, decoders and components, and fails where it finds none
of its subject: a check that matched nothing proves nothing.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.measurement.discovery import anatomy_of, decoders, denoisers, modules
from diffusers_perf.measurement.flag import flag
from diffusers_perf.measurement.replay import device_of, replay
from diffusers_perf.messages import applied as messages

AppliedCheck = Callable[[Any], None]

WEIGHTED = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


class NotApplied(Exception):
    """An optimization's applied check failed; says which, what was seen and what was expected."""


def every(*checks: AppliedCheck) -> AppliedCheck:
    """All of these, in order."""

    def check(pipeline: Any) -> None:
        for check_one in checks:
            check_one(pipeline)

    return check


def computes_in(dtype: torch.dtype) -> AppliedCheck:
    """Every parameter has the dtype, and so has what the denoisers' layers hand on.

    One of 8 bits is only kept so, and cast when it is needed. What a model keeps in float32 by
    declaration stays so.
    """

    def check(pipeline: Any) -> None:
        matched = 0
        for place, module in modules(pipeline).items():
            for name, parameter in module.named_parameters():
                if stays_in_float32(module, name):
                    continue
                matched += 1
                if parameter.dtype != dtype and parameter.dtype.itemsize > 1:
                    raise NotApplied(
                        messages.parameter_is(f"{place}.{name}", parameter.dtype, dtype)
                    )
        if not matched:
            raise NotApplied(messages.NO_PARAMETER)
        for name, seen in activation_dtypes(pipeline).items():
            if seen != dtype:
                raise NotApplied(messages.layers_output(name, seen, dtype))

    return check


def stays_in_float32(module: Any, name: str) -> bool:
    """Whether a parameter's name is one that the module's class keeps in float32."""
    kept = (
        *(getattr(module, "_keep_in_fp32_modules", None) or ()),
        *(getattr(module, "_keep_in_fp32_modules_strict", None) or ()),
    )
    return any(pattern in name.split(".") for pattern in kept)


def activation_dtypes(pipeline: Any) -> dict[str, torch.dtype]:
    """By denoiser, the dtype that a layer in its middle hands on when its call is replayed."""
    seen: dict[str, torch.dtype] = {}
    hooks = []
    for place, module in denoisers(pipeline).items():
        layers = [
            layer
            for name, layer in module.named_modules()
            if isinstance(layer, WEIGHTED) and not stays_in_float32(module, name)
        ]
        if not layers:
            raise NotApplied(messages.no_layer(place))
        # Of a UNet a convolution, which all of it runs through.
        convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
        chosen = convolutions if len(convolutions) > 2 else layers

        def note(layer: object, args: object, output: Any, place: str = place) -> None:
            seen[place] = output.dtype

        hooks.append(chosen[len(chosen) // 2].register_forward_hook(note))
    try:
        replay(pipeline)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def autocast_is_on(pipeline: Any) -> None:
    """torch.autocast is active on the pipeline's device."""
    if not torch.is_autocast_enabled(device_of(pipeline).type):
        raise NotApplied(messages.NO_AUTOCAST)


def flag_reads(holder: object, name: str, value: object) -> AppliedCheck:
    """An attribute of torch still has the value it was set to."""

    def check(pipeline: Any) -> None:
        seen = getattr(holder, name)
        if seen != value:
            raise NotApplied(messages.flag_reads(name, seen, value))

    return check


def matmul_rounds_to_tf32(pipeline: Any) -> None:
    """A float32 matmul on the device loses the bits that TF32 does not have (10 of 23)."""
    # 1 + 2**-12 is exact in float32 and rounds to 1 in TF32's 10 bits of mantissa. Wide enough
    # for a library to choose its tensor cores.
    ones = torch.ones(256, 256, device=device_of(pipeline))
    product = (ones * (1 + 2.0**-12)) @ ones
    if product[0, 0].item() != 256.0:
        raise NotApplied(messages.NO_TF32)


def decoders_below(pipeline: Any) -> dict[str, Any]:
    """The networks that decode an image at once, by their path: what can be compiled or captured.

    Not those of video, which go from frame to frame and keep what they saw.
    """
    return {
        f"{name}.decoder": module.decoder
        for name, module in decoders(pipeline).items()
        if isinstance(getattr(module, "decoder", None), torch.nn.Module)
        and not any(isinstance(layer, torch.nn.Conv3d) for layer in module.decoder.modules())
    }


def are_compiled(found: Callable[[Any], Mapping[str, Any]]) -> AppliedCheck:
    """What these modules of a pipeline run is torch.compile's."""

    def check(pipeline: Any) -> None:
        modules = found(pipeline)
        if not modules:
            raise NotApplied(messages.NOTHING_TO_COMPILE)
        for place, module in modules.items():
            # What is compiled can be captured as well.
            forward = getattr(module.forward, "function", module.forward)
            if not _is_compiled(forward):
                raise NotApplied(messages.not_compiled(place))

    return check


def _is_compiled(function: object) -> bool:
    return hasattr(function, "_torchdynamo_orig_callable")


modules_are_compiled = are_compiled(lambda p: {**denoisers(p), **decoders_below(p)})
"""What the denoisers and the image decoders run is torch.compile's."""


def graphs_were_not_skipped(pipeline: Any) -> None:
    """Nothing kept torch.compile from CUDA graphs since `torch.compiler` was reset: it says so in a
    count alone.
    """
    from torch._dynamo.utils import counters

    if skipped := counters["inductor"]["cudagraph_skips"]:
        raise NotApplied(messages.graphs_skipped(skipped))


def blocks_are_compiled(pipeline: Any) -> None:
    """Each of the denoisers' repeated blocks is compiled."""
    for place, module in denoisers(pipeline).items():
        # Merged tokens make a class of their own from a block's.
        repeated = {*(getattr(module, "_repeated_blocks", None) or ())}
        blocks = [m for m in module.modules() if repeated & {c.__name__ for c in type(m).__mro__}]
        if not blocks or not all(map(_block_is_compiled, blocks)):
            raise NotApplied(messages.blocks_not_compiled(place))


def _block_is_compiled(block: Any) -> bool:
    """Its call, or what a cache's hooks stand around."""
    registry = getattr(block, "_diffusers_hook", None)
    beneath = [reference.original_forward for reference in registry._fn_refs] if registry else []
    return block._compiled_call_impl is not None or any(map(_is_compiled, beneath))


def decodes_in_parts(flagged: str, *, images: int = 1) -> AppliedCheck:
    """The decoder is called more often for so many images than with this flag of its off."""

    def check(pipeline: Any) -> None:
        matched = 0
        for name, call in anatomy_of(pipeline).decodes.items():
            module: Any = modules(pipeline).get(name)
            if module is None or not hasattr(module, flagged):
                continue
            matched += 1
            latents = call.on(device_of(pipeline), module.dtype)[0][0]
            latents = torch.cat([latents[:1]] * images)
            now = _decoder_calls(pipeline, module, latents)
            with flag(module, flagged, False):
                whole = _decoder_calls(pipeline, module, latents)
            if now <= whole:
                shape = " by ".join(map(str, (images, *latents.shape[2:])))
                raise NotApplied(messages.decoded_whole(name, shape))
        if not matched:
            raise NotApplied(messages.DECODES_WHOLE)

    return check


def _decoder_calls(pipeline: Any, module: Any, latents: torch.Tensor) -> int:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = module.decoder.register_forward_pre_hook(count)
    try:
        with torch.no_grad():
            module.decode(latents)
    finally:
        hook.remove()
        # As a pipeline's own call ends: what is offloaded goes back to the host.
        if hasattr(pipeline, "maybe_free_model_hooks"):
            pipeline.maybe_free_model_hooks()
    return calls


def waits_on_host(pipeline: Any) -> None:
    """All modules but the denoisers lie in the host's memory while they are not needed."""
    others = [place for place in modules(pipeline) if place not in denoisers(pipeline)]
    if not others:
        raise NotApplied(messages.NOTHING_TO_OFFLOAD)
    for place in others:
        module = modules(pipeline)[place]
        device = next(module.parameters()).device
        if device.type != "cpu" or not hasattr(module, "_hf_hook"):
            raise NotApplied(messages.stays_on(place, device))


def groups_wait_on_host(pipeline: Any) -> None:
    """Most of each module's parameters lie in the host's memory between its calls, in groups."""
    for place, module in modules(pipeline).items():
        groups = [m for layer in module.modules() if (m := getattr(layer, "_diffusers_hook", None))]
        grouped = any(group.get_hook("group_offloading") for group in groups)
        parameters = list(module.parameters())
        waiting = sum(p.numel() for p in parameters if p.device.type == "cpu")
        share = waiting / sum(p.numel() for p in parameters) if grouped else 0.0
        if share < 0.5:
            raise NotApplied(messages.few_wait(place, share))


def convolved(pipeline: Any) -> dict[str, Any]:
    """The denoisers and decoders with convolutions of images, and none of videos: torch gives a
    module one layout, and each of the two kinds has its own.
    """
    return {
        place: module
        for place, module in {**denoisers(pipeline), **decoders(pipeline)}.items()
        if 4 in (ranks := {parameter.ndim for parameter in module.parameters()}) and 5 not in ranks
    }


def layout_is_channels_last(pipeline: Any) -> None:
    """The denoisers' and the decoders' convolution weights lie channels last."""
    matched = 0
    for place, module in convolved(pipeline).items():
        for name, parameter in module.named_parameters():
            if parameter.ndim != 4:
                continue
            matched += 1
            if not parameter.is_contiguous(memory_format=torch.channels_last):
                raise NotApplied(messages.not_channels_last(f"{place}.{name}"))
    if not matched:
        raise NotApplied(messages.NO_CONVOLUTION)


def smaller_than_reference(place: str, *, layers_per_block: int) -> AppliedCheck:
    """The module in this place is the distilled one: fewer layers a block, no mid block."""

    def check(pipeline: Any) -> None:
        module = getattr(pipeline, place)
        layers, mid_block = module.config.layers_per_block, module.mid_block is not None
        if layers != layers_per_block or mid_block:
            raise NotApplied(messages.not_distilled(place, layers, mid_block))

    return check


def class_is(place: str, name: str) -> AppliedCheck:
    """The module in this place is of this class."""

    def check(pipeline: Any) -> None:
        seen = type(getattr(pipeline, place)).__name__
        if seen != name:
            raise NotApplied(messages.class_is(place, seen, name))

    return check


def unloadable_library(package: str) -> str | None:
    """What the dynamic linker says of a package's own compiled library, if it refuses it."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in Path(folder).glob("_C*.so"):
            try:
                ctypes.CDLL(str(library))
            except OSError as error:
                return str(error)
    return None
