"""The kernels that attention runs on."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import NO_TOLERANCE, Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import applied, layers
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.flag import flag
from diffusers_perf.messages.common import first_line
from diffusers_perf.optimizations import fitting
from diffusers_perf.optimizations.hardware import CUDA, TENSOR_CORES
from diffusers_perf.optimizations.tolerances import (
    SAME_ARITHMETIC,
)


@optimization(
    needs=Needs(fits=fitting.plain_attention),
    tolerance=SAME_ARITHMETIC,
    applied=layers.attention_is("AttnProcessor"),
    decides=(Slot.ATTENTION,),
    aim="comparison",
)
def naive_attention(build: Build) -> None:
    """Attention as written: the whole score matrix in memory, softmax, product."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor

        for module in denoisers(pipeline).values():
            module.set_attn_processor(AttnProcessor())


@optimization(
    needs=Needs(fits=fitting.plain_attention),
    tolerance=SAME_ARITHMETIC,
    applied=layers.attention_is("AttnProcessor2_0"),
    decides=(Slot.ATTENTION,),
    aim="comparison",
)
def sdpa(build: Build) -> None:
    """PyTorch's scaled dot product attention, the default since torch 2."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        for module in denoisers(pipeline).values():
            module.set_attn_processor(AttnProcessor2_0())


def _xformers_refuses() -> str | None:
    # Importing it proves nothing: a wheel built for another torch or CUDA imports, calls its
    # operators available, and refuses every call.
    import xformers.ops

    query = torch.zeros(1, 64, 8, 40, dtype=torch.float16, device="cuda")
    try:
        xformers.ops.memory_efficient_attention(query, query, query)
    except (NotImplementedError, RuntimeError, OSError) as error:
        cause = applied.unloadable_library("xformers") or str(error).strip().splitlines()[0]
        return f"xformers is installed and refuses to run: {cause}"
    return None


@optimization(
    needs=Needs(
        compute_capability=(7, 0),
        package="xformers",
        probe=_xformers_refuses,
        fits=fitting.plain_attention,
    ),
    tolerance=SAME_ARITHMETIC,
    applied=layers.attention_is("XFormersAttnProcessor"),
    decides=(Slot.ATTENTION,),
)
def xformers(build: Build) -> None:
    """xFormers' memory-efficient attention in the denoiser."""

    # Only there: the decoder's single head of 512 is wider than its kernels take.
    @build.then
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.enable_xformers_memory_efficient_attention()


DISPATCHED = {
    SDPBackend.FLASH_ATTENTION: "_native_flash",
    SDPBackend.EFFICIENT_ATTENTION: "_native_efficient",
    SDPBackend.CUDNN_ATTENTION: "_native_cudnn",
    SDPBackend.MATH: "_native_math",
}
"""What diffusers calls the implementations where a transformer's attention is dispatched."""


def _attend_on(build: Build, backend: SDPBackend) -> None:
    from diffusers.models.attention_dispatch import attention_backend

    # In the denoiser alone: the decoder's single head of 512 is wider than flash attention takes,
    # and its attention is not dispatched. Setting it on a module would set it for the process.
    build.during(attention_backend(DISPATCHED[backend]))

    @build.then
    def _(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            own: dict[str, Any] = getattr(module, "attn_processors", {})
            # What is dispatched follows the context above.
            if own and not any(hasattr(p, "_attention_backend") for p in own.values()):
                module.set_attn_processor({n: _pinned(p, backend) for n, p in own.items()})


def _pinned(processor: Any, backend: SDPBackend) -> Any:
    """A copy of a processor, whose attention runs on this implementation."""
    kind = type(processor)

    # Its signature says which arguments it is given.
    @wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(backend):
            return kind.__call__(self, *args, **kwargs)

    pinned = copy(processor)
    pinned.__class__ = type("Pinned", (kind,), {"__call__": call})
    return pinned


@optimization(
    needs=TENSOR_CORES,
    tolerance=SAME_ARITHMETIC,
    applied=layers.attention_runs_on(SDPBackend.FLASH_ATTENTION),
    decides=(Slot.ATTENTION,),
)
def sdpa_flash(build: Build) -> None:
    """PyTorch's attention on its flash kernels."""
    _attend_on(build, SDPBackend.FLASH_ATTENTION)


@optimization(
    needs=CUDA,
    tolerance=SAME_ARITHMETIC,
    applied=layers.attention_runs_on(SDPBackend.EFFICIENT_ATTENTION),
    decides=(Slot.ATTENTION,),
)
def sdpa_efficient(build: Build) -> None:
    """PyTorch's attention on its memory-efficient kernels."""
    _attend_on(build, SDPBackend.EFFICIENT_ATTENTION)


@optimization(
    needs=TENSOR_CORES,
    tolerance=SAME_ARITHMETIC,
    applied=layers.attention_runs_on(SDPBackend.CUDNN_ATTENTION),
    decides=(Slot.ATTENTION,),
)
def sdpa_cudnn(build: Build) -> None:
    """PyTorch's attention on cuDNN's kernels."""
    _attend_on(build, SDPBackend.CUDNN_ATTENTION)


@optimization(
    tolerance=SAME_ARITHMETIC,
    applied=layers.attention_runs_on(SDPBackend.MATH),
    decides=(Slot.ATTENTION,),
    aim="comparison",
)
def sdpa_math(build: Build) -> None:
    """PyTorch's attention as separate products and softmax, which every device can do."""
    _attend_on(build, SDPBackend.MATH)


SAGE_HEADS = (64, 96, 128)
"""The widths of heads that SageAttention's kernels take."""


def _sage_refuses() -> str | None:
    # Its kernels are Triton's, of another release than is installed: only a call shows.
    import sageattention

    query = torch.zeros(1, 2, 256, SAGE_HEADS[0], dtype=torch.float16, device="cuda")
    try:
        sageattention.sageattn(query, query.clone(), query.clone())
    except Exception as error:
        # A kernel that does not compile can fail in any way.
        cause = first_line(error) or type(error).__name__
        return f"sageattention is installed and refuses to run: {cause}"
    return None


def _by_sage(dispatched: Callable[..., Any]) -> Callable[..., Any]:
    import sageattention

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        # Text encoders mask or are causal, and the decoder's single head is wider.
        if attn_mask is None and not is_causal and query.shape[-1] in SAGE_HEADS:
            return sageattention.sageattn(query, key, value, sm_scale=scale)
        return dispatched(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )

    return attend


# No tolerance: no embedded model has heads of such a width. Emulated on the embedded transformer,
# with 12 prompts on a CPU, its rounding of queries and keys is at 67.4 dB to the float32 images.
@optimization(
    needs=Needs(
        compute_capability=(8, 0),
        package="sageattention",
        probe=_sage_refuses,
        fits=fitting.heads_of_width(*SAGE_HEADS),
    ),
    tolerance=NO_TOLERANCE,
    applied=layers.attention_is_called("sageattention", "sageattn"),
    decides=(Slot.ATTENTION,),
)
def sage(build: Build) -> None:
    """SageAttention: products of queries and keys in int8, of weights and values in float16."""
    # Not as diffusers' backend, which takes version 2.1.1 and later; the registry's last is 1.0.6.
    functional = torch.nn.functional
    attend = _by_sage(functional.scaled_dot_product_attention)
    build.during(flag(functional, "scaled_dot_product_attention", attend))
