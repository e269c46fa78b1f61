"""Checks that an optimization took effect. Much in this field is a silent no-op when misspelt."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from diffusers_perf.measurement.build import flag

AppliedCheck = Callable[[Any], None]


class NotApplied(Exception):
    """An optimization's applied check failed; says which, what was seen and what was expected."""


def every(*checks: AppliedCheck) -> AppliedCheck:
    """All of these, in order."""

    def check(pipeline: Any) -> None:
        for check_one in checks:
            check_one(pipeline)

    return check


def computes_in(dtype: torch.dtype) -> AppliedCheck:
    """Every parameter has the dtype, and so has what the UNet's layers hand on.

    One of 8 bits is only kept so, and cast when it is needed.
    """

    def check(pipeline: Any) -> None:
        for place in ("unet", "vae", "text_encoder"):
            for name, parameter in getattr(pipeline, place).named_parameters():
                if parameter.dtype != dtype and parameter.dtype.itemsize > 1:
                    raise NotApplied(f"parameter {place}.{name} is {parameter.dtype}, not {dtype}")
        seen = activation_dtype(pipeline)
        if seen != dtype:
            raise NotApplied(f"the UNet's convolutions hand on {seen}, not {dtype}")

    return check


def autocast_is_on(pipeline: Any) -> None:
    """torch.autocast is active on the pipeline's device."""
    if not torch.is_autocast_enabled(pipeline._execution_device.type):
        raise NotApplied("torch.autocast is not active while the pipeline runs")


def activation_dtype(pipeline: Any) -> torch.dtype:
    """The dtype that a convolution in the middle of the UNet hands on, on one sample."""
    unet = pipeline.unet
    convolutions = [m for m in unet.modules() if isinstance(m, torch.nn.Conv2d)]
    seen: list[torch.dtype] = []
    middle = convolutions[len(convolutions) // 2]
    hook = middle.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    try:
        forward_once(pipeline)
    finally:
        hook.remove()
    return seen[0]


def forward_once(pipeline: Any) -> None:
    """One UNet forward on a sample of the size that the model is made for.

    A smaller one would not do: merged tokens are only merged at full resolution, and kernels refuse
    a single token. Operator by operator, whatever is compiled or replayed: those would take its
    shape for one more to prepare for.
    """
    unet, text = pipeline.unet, pipeline.text_encoder
    options = {"device": pipeline._execution_device, "dtype": unet.dtype}
    side = unet.config.sample_size
    sample = torch.zeros(1, unet.config.in_channels, side, side, **options)
    states = torch.zeros(1, 77, text.config.hidden_size, **options)
    # Importing the compiler takes seconds, so only where something is compiled.
    compiles = "torch._dynamo" in sys.modules
    eager = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
    # Offloaded weights come to the device through accelerate's own forward alone.
    forward = unet.forward if hasattr(unet, "_hf_hook") else partial(type(unet).forward, unet)
    with torch.no_grad(), eager:
        # A tensor, as pipelines give it: who wraps the UNet may read it.
        timestep = torch.ones((), dtype=torch.long, device=sample.device)
        forward(sample, timestep, encoder_hidden_states=states)


def flag_reads(holder: object, name: str, value: object) -> AppliedCheck:
    """An attribute of torch still has the value it was set to."""

    def check(pipeline: Any) -> None:
        seen = getattr(holder, name)
        if seen != value:
            raise NotApplied(f"the flag {name} reads {seen}, not {value}")

    return check


def matmul_rounds_to_tf32(pipeline: Any) -> None:
    """A float32 matmul on the device loses the bits that TF32 does not have (10 of 23)."""
    device = pipeline._execution_device
    # 1 + 2**-12 is exact in float32 and rounds to 1 in TF32's 10 bits of mantissa. Wide enough
    # for a library to choose its tensor cores.
    ones = torch.ones(256, 256, device=device)
    product = (ones * (1 + 2.0**-12)) @ ones
    if product[0, 0].item() != 256.0:
        raise NotApplied("a float32 matmul keeps bits that TF32 drops: it did not run in TF32")


def attention_is(*processors: str) -> AppliedCheck:
    """Every attention of the UNet runs through one of these processor classes."""

    def check(pipeline: Any) -> None:
        seen = {type(p).__name__ for p in pipeline.unet.attn_processors.values()}
        if not seen <= set(processors):
            raise NotApplied(
                f"the UNet's attention runs through {', '.join(sorted(seen))}, "
                f"not {' or '.join(processors)}"
            )

    return check


def attention_runs_on(backend: SDPBackend) -> AppliedCheck:
    """PyTorch's dispatcher sends every attention of the UNet to this implementation."""

    def check(pipeline: Any) -> None:
        seen: set[str] = set()
        dispatched = torch.nn.functional.scaled_dot_product_attention

        def noting(*args: Any, **kwargs: Any) -> Any:
            # Private, and the only word on which of the implementations it will be.
            seen.add(SDPBackend(torch._fused_sdp_choice(*args, **kwargs)).name)
            return dispatched(*args, **kwargs)

        with flag(torch.nn.functional, "scaled_dot_product_attention", noting):
            forward_once(pipeline)
        if seen != {backend.name}:
            raise NotApplied(
                f"the UNet's attention runs on {', '.join(sorted(seen)) or 'none of PyTorch'}, "
                f"not {backend.name}"
            )

    return check


def is_compiled(*places: str) -> AppliedCheck:
    """What these modules run is torch.compile's (``vae.decoder``)."""

    def check(pipeline: Any) -> None:
        for place in places:
            forward = attrgetter(place)(pipeline).forward
            # What is compiled can be captured as well.
            forward = getattr(forward, "function", forward)
            if not hasattr(forward, "_torchdynamo_orig_callable"):
                raise NotApplied(f"the {place} is not compiled")

    return check


def graphs_were_not_skipped(pipeline: Any) -> None:
    """Nothing kept torch.compile from CUDA graphs since `torch.compiler` was reset: it says so in a
    count alone.
    """
    from torch._dynamo.utils import counters

    if skipped := counters["inductor"]["cudagraph_skips"]:
        raise NotApplied(f"torch.compile left out {skipped} CUDA graphs")


def blocks_are_compiled(pipeline: Any) -> None:
    """Each of the UNet's repeated blocks is compiled."""
    unet = pipeline.unet
    # Merged tokens make a class of their own from a block's.
    repeated = {*unet._repeated_blocks}
    blocks = [m for m in unet.modules() if repeated & {c.__name__ for c in type(m).__mro__}]
    if not blocks or any(block._compiled_call_impl is None for block in blocks):
        raise NotApplied("not all of the UNet's repeated blocks are compiled")


def merges_tokens(pipeline: Any) -> None:
    """The UNet's largest self-attentions see fewer tokens than their blocks were given."""
    tokens: dict[str, list[int]] = {"given": [], "seen": []}

    def noting(which: str) -> Callable[..., None]:
        return lambda module, args, *_: tokens[which].append(args[0].shape[1])

    blocks = [m for m in pipeline.unet.modules() if hasattr(m, "attn1")]
    hooks = [b.register_forward_pre_hook(noting("given")) for b in blocks]
    hooks += [b.attn1.register_forward_pre_hook(noting("seen")) for b in blocks]
    try:
        forward_once(pipeline)
    finally:
        for hook in hooks:
            hook.remove()
    if max(tokens["seen"], default=0) >= max(tokens["given"], default=0):
        raise NotApplied("the UNet's largest self-attention sees every token: none are merged")


def weights_are_quantized(kept: torch.dtype) -> AppliedCheck:
    """The linear layers of the UNet's transformer blocks keep their weights in this dtype."""

    def check(pipeline: Any) -> None:
        for name, module in pipeline.unet.named_modules():
            if not (isinstance(module, torch.nn.Linear) and "transformer_blocks" in name):
                continue
            seen = _dtypes_within(module.weight)
            if kept not in seen:
                raise NotApplied(
                    f"the weight of unet.{name} is kept in {', '.join(map(str, seen))}, not {kept}"
                )

    return check


def _dtypes_within(tensor: torch.Tensor) -> list[torch.dtype]:
    """Of the plain tensors that a tensor is made of; its own claims what it computes in."""
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor.dtype]
    names, _ = tensor.__tensor_flatten__()
    return [dtype for name in names for dtype in _dtypes_within(getattr(tensor, name))]


def mostly_kept_in(dtype: torch.dtype) -> AppliedCheck:
    """Most of the UNet's parameters wait in this dtype until they are needed."""

    def check(pipeline: Any) -> None:
        parameters = list(pipeline.unet.parameters())
        kept = sum(p.numel() for p in parameters if p.dtype == dtype)
        share = kept / sum(p.numel() for p in parameters)
        if share < 0.9:
            raise NotApplied(f"{share:.0%} of the UNet's parameters are kept in {dtype}, not most")

    return check


def decodes_in_parts(images: int) -> AppliedCheck:
    """The decoder is called more than once for the latents of so many images."""

    def check(pipeline: Any) -> None:
        vae, calls = pipeline.vae, 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        side = pipeline.unet.config.sample_size
        shape = (images, vae.config.latent_channels, side, side)
        latents = torch.zeros(shape, device=pipeline._execution_device, dtype=vae.dtype)
        hook = vae.decoder.register_forward_pre_hook(count)
        try:
            with torch.no_grad():
                vae.decode(latents)
        finally:
            hook.remove()
            # As a pipeline's own call ends: what is offloaded goes back to the host.
            pipeline.maybe_free_model_hooks()
        if calls < 2:
            raise NotApplied(f"the decoder takes {images} by {side} by {side} latents in one call")

    return check


def waits_on_host(*places: str) -> AppliedCheck:
    """These modules lie in the host's memory while they are not needed."""

    def check(pipeline: Any) -> None:
        for place in places:
            module = getattr(pipeline, place)
            device = next(module.parameters()).device
            if device.type != "cpu" or not hasattr(module, "_hf_hook"):
                raise NotApplied(f"the {place} stays on {device}, needed or not")

    return check


def layout_is_channels_last(pipeline: Any) -> None:
    """The UNet's and the decoder's convolution weights lie channels last."""
    for place in ("unet", "vae"):
        for name, parameter in getattr(pipeline, place).named_parameters():
            if parameter.ndim == 4 and not parameter.is_contiguous(
                memory_format=torch.channels_last
            ):
                raise NotApplied(f"parameter {place}.{name} is not in channels_last layout")


def smaller_than_reference(place: str, *, layers_per_block: int) -> AppliedCheck:
    """The module in this place is the distilled one: fewer layers a block, no mid block."""

    def check(pipeline: Any) -> None:
        module = getattr(pipeline, place)
        if module.config.layers_per_block != layers_per_block or module.mid_block is not None:
            raise NotApplied(
                f"the {place} has {module.config.layers_per_block} layers a block"
                f"{'' if module.mid_block is None else ' and a mid block'}: not the distilled one"
            )

    return check


def class_is(place: str, name: str) -> AppliedCheck:
    """The module in this place is of this class."""

    def check(pipeline: Any) -> None:
        seen = type(getattr(pipeline, place)).__name__
        if seen != name:
            raise NotApplied(f"the {place} is a {seen}, not an {name}")

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
