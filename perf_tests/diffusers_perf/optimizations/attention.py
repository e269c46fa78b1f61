"""The kernels that attention runs on."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusers_perf.catalog.declarations import Needs, Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.build import Build
from diffusers_perf.optimizations.hardware import CUDA, TENSOR_CORES
from diffusers_perf.optimizations.tolerances import (
    SAME_ARITHMETIC,
)


@optimization(
    tolerance=SAME_ARITHMETIC,
    applied=applied.attention_is("AttnProcessor"),
    decides=(Slot.ATTENTION,),
)
def naive_attention(build: Build) -> None:
    """Attention as written: the whole score matrix in memory, softmax, product."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor

        pipeline.unet.set_attn_processor(AttnProcessor())


@optimization(
    tolerance=SAME_ARITHMETIC,
    applied=applied.attention_is("AttnProcessor2_0"),
    decides=(Slot.ATTENTION,),
)
def sdpa(build: Build) -> None:
    """PyTorch's scaled dot product attention, the default since torch 2."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        pipeline.unet.set_attn_processor(AttnProcessor2_0())


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
    needs=Needs(compute_capability=(7, 0), package="xformers", probe=_xformers_refuses),
    tolerance=SAME_ARITHMETIC,
    applied=applied.attention_is("XFormersAttnProcessor"),
    decides=(Slot.ATTENTION,),
)
def xformers(build: Build) -> None:
    """xFormers' memory-efficient attention in the UNet."""
    # Only the UNet's: the decoder's single head of 512 is wider than its kernels take.
    build.then(lambda pipeline: pipeline.unet.enable_xformers_memory_efficient_attention())


def _attend_on(build: Build, backend: SDPBackend) -> None:
    # In the UNet alone: the decoder's single head of 512 is wider than flash attention takes.
    @build.then
    def _(pipeline: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        class Pinned(AttnProcessor2_0):  # type: ignore[misc, unused-ignore]
            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                with sdpa_kernel(backend):
                    return super().__call__(*args, **kwargs)

        pipeline.unet.set_attn_processor(Pinned())  # type: ignore[no-untyped-call]


@optimization(
    needs=TENSOR_CORES,
    tolerance=SAME_ARITHMETIC,
    applied=applied.attention_runs_on(SDPBackend.FLASH_ATTENTION),
    decides=(Slot.ATTENTION,),
)
def sdpa_flash(build: Build) -> None:
    """PyTorch's attention on its flash kernels."""
    _attend_on(build, SDPBackend.FLASH_ATTENTION)


@optimization(
    needs=CUDA,
    tolerance=SAME_ARITHMETIC,
    applied=applied.attention_runs_on(SDPBackend.EFFICIENT_ATTENTION),
    decides=(Slot.ATTENTION,),
)
def sdpa_efficient(build: Build) -> None:
    """PyTorch's attention on its memory-efficient kernels."""
    _attend_on(build, SDPBackend.EFFICIENT_ATTENTION)


@optimization(
    needs=TENSOR_CORES,
    tolerance=SAME_ARITHMETIC,
    applied=applied.attention_runs_on(SDPBackend.CUDNN_ATTENTION),
    decides=(Slot.ATTENTION,),
)
def sdpa_cudnn(build: Build) -> None:
    """PyTorch's attention on cuDNN's kernels."""
    _attend_on(build, SDPBackend.CUDNN_ATTENTION)


@optimization(
    tolerance=SAME_ARITHMETIC,
    applied=applied.attention_runs_on(SDPBackend.MATH),
    decides=(Slot.ATTENTION,),
)
def sdpa_math(build: Build) -> None:
    """PyTorch's attention as separate products and softmax, which every device can do."""
    _attend_on(build, SDPBackend.MATH)
