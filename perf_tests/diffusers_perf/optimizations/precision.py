"""The number formats that arithmetic runs in."""

from __future__ import annotations

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Slot
from diffusers_perf.catalog.recording import optimization
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.flag import flag
from diffusers_perf.optimizations.hardware import CUDA, TENSOR_CORES
from diffusers_perf.optimizations.tolerances import (
    BFLOAT16,
    FLOAT16,
    SAME_ARITHMETIC,
)


@optimization(
    needs=TENSOR_CORES,
    tolerance=FLOAT16,
    applied=applied.every(
        applied.flag_reads(torch.backends.cuda.matmul, "allow_tf32", True),
        applied.matmul_rounds_to_tf32,
    ),
)
def tf32(build: Build) -> None:
    """Matrix products of float32 in TF32, as convolutions already are."""
    # Only through the legacy flags: mixing them with fp32_precision raises.
    build.during(flag(torch.backends.cuda.matmul, "allow_tf32", True))


@optimization(
    tolerance=FLOAT16,
    applied=applied.computes_in(torch.float16),
    decides=(Slot.DTYPE,),
)
def fp16(build: Build) -> None:
    """Weights and activations in float16, as loaded with torch_dtype=torch.float16."""
    build.dtype = torch.float16


@optimization(
    tolerance=BFLOAT16,
    applied=applied.computes_in(torch.bfloat16),
    decides=(Slot.DTYPE,),
)
def bf16(build: Build) -> None:
    """Weights and activations in bfloat16: float32's range with 8 bits of precision."""
    build.dtype = torch.bfloat16


@optimization(needs=CUDA, tolerance=FLOAT16, applied=applied.autocast_is_on, aim="comparison")
def autocast(build: Build) -> None:
    """What the guide warns of: torch.autocast around a pipeline. Slower than pure float16."""
    build.during(torch.autocast("cuda", dtype=torch.float16))


@optimization(
    needs=CUDA,
    tolerance=SAME_ARITHMETIC,
    applied=applied.flag_reads(torch.backends.cudnn, "benchmark", True),
)
def cudnn_benchmark(build: Build) -> None:
    """cuDNN tries its convolution algorithms on each new shape and keeps the fastest."""
    build.during(flag(torch.backends.cudnn, "benchmark", True))
