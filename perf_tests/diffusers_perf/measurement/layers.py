"""Applied checks on single layers of the denoisers: attention, weights, tokens, projections."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from diffusers_perf.measurement import counting
from diffusers_perf.measurement.applied import AppliedCheck, NotApplied, stays_in_float32
from diffusers_perf.measurement.dataless import NotCountable
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.flag import flag
from diffusers_perf.measurement.replay import replay
from diffusers_perf.messages import applied as messages

ROWS_LEAST = 17
"""The fewest rows of an eight-bit product that its kernels take."""
SIDES_OF = 16
"""Its weight's sides are multiples of this."""
ADAPTERS = ("lora_", "lokr_", "hada_")
"""In the names of an adapter's layers."""


def attention_is(*processors: str) -> AppliedCheck:
    """Every attention of the denoisers runs through one of these processor classes."""

    def check(pipeline: Any) -> None:
        for place, module in denoisers(pipeline).items():
            seen = {type(p).__name__ for p in getattr(module, "attn_processors", {}).values()}
            if not seen or not seen <= set(processors):
                raise NotApplied(messages.attention_through(place, sorted(seen), processors))

    return check


def attention_runs_on(backend: SDPBackend) -> AppliedCheck:
    """PyTorch's dispatcher sends every attention of the denoisers to this implementation."""

    def check(pipeline: Any) -> None:
        seen: set[str] = set()
        dispatched = torch.nn.functional.scaled_dot_product_attention

        def noting(*args: Any, **kwargs: Any) -> Any:
            # Private, and the only word on which of the implementations it will be.
            known = {name: kwargs[name] for name in kwargs if name != "enable_gqa"}
            seen.add(SDPBackend(torch._fused_sdp_choice(*args, **known)).name)
            return dispatched(*args, **kwargs)

        with flag(torch.nn.functional, "scaled_dot_product_attention", noting):
            replay(pipeline)
        if seen != {backend.name}:
            raise NotApplied(messages.attention_on(sorted(seen), backend.name))

    return check


def attention_is_called(package: str, function: str) -> AppliedCheck:
    """Every attention of the denoisers calls this function of a package."""

    def check(pipeline: Any) -> None:
        holder = importlib.import_module(package)
        calls: list[None] = []
        called = getattr(holder, function)

        def noting(*args: Any, **kwargs: Any) -> Any:
            calls.append(None)
            return called(*args, **kwargs)

        with flag(holder, function, noting):
            replay(pipeline)
        own = [m for root in denoisers(pipeline).values() for m in root.modules()]
        expected = sum(hasattr(m, "to_q") for m in own)
        if not expected or len(calls) < expected:
            raise NotApplied(messages.few_attend(len(calls), expected, function))

    return check


def projections_are_fused(pipeline: Any) -> None:
    """Every attention of the denoisers that can, projects with one product."""
    for place, module in denoisers(pipeline).items():
        able = [m for m in module.modules() if hasattr(m, "fuse_projections")]
        fused = [m for m in able if getattr(m, "fused_projections", False)]
        can_not = [m for m in able if not getattr(m, "_supports_qkv_fusion", True)]
        if not fused or len(fused) + len(can_not) < len(able):
            raise NotApplied(messages.few_fused(place, len(fused), len(able)))


def merges_tokens(pipeline: Any) -> None:
    """The denoiser's largest self-attentions see fewer tokens than their blocks were given."""
    tokens: dict[str, list[int]] = {"given": [], "seen": []}

    def noting(which: str) -> Callable[..., None]:
        return lambda module, args, *_: tokens[which].append(args[0].shape[1])

    blocks = [
        m for root in denoisers(pipeline).values() for m in root.modules() if hasattr(m, "attn1")
    ]
    hooks = [b.register_forward_pre_hook(noting("given")) for b in blocks]
    hooks += [b.attn1.register_forward_pre_hook(noting("seen")) for b in blocks]
    try:
        replay(pipeline)
    finally:
        for hook in hooks:
            hook.remove()
    if max(tokens["seen"], default=0) >= max(tokens["given"], default=0):
        raise NotApplied(messages.NOTHING_MERGED)


def wide_layers(
    pipeline: Any, *, offloaded_from: torch.device | None = None
) -> dict[str, torch.nn.Linear]:
    """The denoisers' linear layers that products in eight bits pay for and can take, by path.

    Those that see many rows: not those of the timestep, of which there is a row an image. Found by
    replaying the recorded calls; of weights that wait on the host, without ever having them all on
    the device that they are offloaded from.
    """
    rows: dict[str, int] = {}
    found: dict[str, torch.nn.Linear] = {}
    hooks = []
    for place, root in denoisers(pipeline).items():
        for name, layer in root.named_modules():
            if not isinstance(layer, torch.nn.Linear) or stays_in_float32(root, name):
                continue
            path = f"{place}.{name}"
            found[path] = layer

            def note(layer: object, args: Any, path: str = path) -> None:
                if args:
                    rows[path] = args[0].numel() // args[0].shape[-1]

            hooks.append(layer.register_forward_pre_hook(note))
    try:
        if offloaded_from is None:
            replay(pipeline)
        else:
            _replay_offloaded(pipeline, offloaded_from)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        path: layer
        for path, layer in found.items()
        if rows.get(path, 0) >= ROWS_LEAST
        and layer.in_features % SIDES_OF == 0
        and layer.out_features % SIDES_OF == 0
    }


def _replay_offloaded(pipeline: Any, device: torch.device) -> None:
    try:
        with counting.without_data(pipeline), counting.counted(pipeline):
            replay(pipeline)
    except NotCountable:
        # A router sends tokens to its experts by their values. Moving all weights takes a while.
        with counting.undone(pipeline):
            replay(pipeline, fetching_to=device)


def weights_are_quantized(kept: torch.dtype, *, one_scale: bool = False) -> AppliedCheck:
    """The denoisers' wide linear layers keep their weights in this dtype, with one scale each or
    with one for each row.
    """

    def check(pipeline: Any) -> None:
        layers = wide_layers(pipeline)
        if not layers:
            raise NotApplied(messages.NOTHING_TO_QUANTIZE)
        for path, layer in layers.items():
            weight: Any = layer.weight
            seen = _dtypes_within(weight)
            if kept not in seen:
                raise NotApplied(messages.weight_kept_in(path, [*map(str, seen)], kept))
            scales, expected = weight.scale.numel(), 1 if one_scale else layer.out_features
            if scales != expected:
                raise NotApplied(messages.weight_scales(path, scales, expected))

    return check


def _dtypes_within(tensor: torch.Tensor) -> list[torch.dtype]:
    """Of the plain tensors that a tensor is made of; its own claims what it computes in."""
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor.dtype]
    names, _ = tensor.__tensor_flatten__()
    return [dtype for name in names for dtype in _dtypes_within(getattr(tensor, name))]


def layers_wait_in(dtype: torch.dtype) -> AppliedCheck:
    """The weights of every layer that diffusers casts wait in this dtype until they are needed.

    Those of an adapter are few and stay as they are. Each family leaves out other layers: of
    SD3.5's parameters 66 % are kept so, of Flux's 73 %.
    """

    def check(pipeline: Any) -> None:
        from diffusers.hooks import _common
        from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

        for place, root in denoisers(pipeline).items():
            left_out = (
                *ADAPTERS,
                *DEFAULT_SKIP_MODULES_PATTERN,
                *(getattr(root, "_skip_layerwise_casting_patterns", None) or ()),
                *(getattr(root, "_keep_in_fp32_modules", None) or ()),
            )
            layers = {
                name: layer
                for name, layer in root.named_modules()
                if isinstance(layer, _common._GO_LC_SUPPORTED_PYTORCH_LAYERS)
                and not any(re.search(pattern, name) for pattern in left_out)
            }
            if not layers:
                raise NotApplied(messages.nothing_waits(place, dtype))
            for name, layer in layers.items():
                if layer.weight.dtype != dtype:
                    raise NotApplied(
                        messages.weight_waits_in(f"{place}.{name}", layer.weight.dtype, dtype)
                    )

    return check


def cache_is_hooked(*names: str) -> AppliedCheck:
    """A cache of diffusers is enabled on each denoiser, with hooks of these names in it."""

    def check(pipeline: Any) -> None:
        for place, root in denoisers(pipeline).items():
            hooked = [
                module
                for module in root.modules()
                if (registry := getattr(module, "_diffusers_hook", None)) is not None
                and any(registry.get_hook(name) is not None for name in names)
            ]
            if not getattr(root, "is_cache_enabled", False) or not hooked:
                raise NotApplied(messages.not_cached(place))

    return check


def adapters_are_merged(pipeline: Any) -> None:
    """Every adapter's layer in the denoisers is merged into the weights beside it."""
    layers = [
        module
        for root in denoisers(pipeline).values()
        for module in root.modules()
        if hasattr(module, "merged_adapters")
    ]
    if not layers:
        raise NotApplied(messages.NO_ADAPTER)
    apart = sum(not layer.merged_adapters for layer in layers)
    if apart:
        raise NotApplied(messages.not_merged(apart, len(layers)))
