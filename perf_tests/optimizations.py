"""Every optimization, one decorated function each; then the stacks worth measuring.

To add one: write the function, say what it needs, promises and how it proves itself, and add it to
a stack below. Its name is the test's id and its docstring the report's line; nothing else changes.
"""

from __future__ import annotations

from typing import Any

import torch

from perf_tests import workloads
from perf_tests.harness import proofs
from perf_tests.harness.build import Build, flag
from perf_tests.harness.catalog import Closeness, Needs, Promise, measure, optimization

# Half-way between the worst legitimate variant and the weakest fault, in PSNR on the float32
# reference. Seeded weights at full size, on an H100: fp16 60.1 dB and tf32 68.9 dB (SSIM 1.000); no
# guidance 19.7 dB (0.814), another prompt 18.9 dB (0.817), another seed 14.1 dB (0.094).
# A checkpoint nobody calibrated here promises only that it is plainly the same picture.
# The small seeded model, on a CPU: fp16 61.0 dB, bf16 44.1 dB (SSIM 0.999); another prompt 21.9 dB
# (0.852), no guidance 20.5 dB (0.782).
# The embedded model, 24 held-out prompts and seeds on an H200 (lowest of the legitimate, highest of
# the faults): fp16 57.8 dB, bf16 36.5 dB; no guidance 34.0 dB, an attention block skipped 32.9 dB,
# another seed 32.5 dB, q halved 31.0 dB, the prompt zeroed 14.2 dB, another prompt 12.2 dB.
FLOAT16 = Promise(
    seeded=Closeness(psnr_db=40, ssim=0.93),
    embedded=Closeness(psnr_db=45),
    checkpoint=Closeness(ssim=0.90),
)
BFLOAT16 = Promise(
    seeded=Closeness(psnr_db=33, ssim=0.93),
    embedded=Closeness(psnr_db=35),
    checkpoint=Closeness(ssim=0.90),
)
# A distilled module makes comparable pictures where it was trained to: on the embedded model, with
# 24 held-out prompts on a CPU, the distilled UNet's are at 17.1 dB or more, with the tiny
# autoencoder too at 15.8 dB; another prompt is at 12.9 dB at most, a lost prompt at 14.2 dB. Seeded
# modules were never taught to agree.
DISTILLED = Promise(embedded=Closeness(psnr_db=15))
# Another order of the same sums in float32: 120 dB on the small model; in float16 59 dB.
SAME_ARITHMETIC = FLOAT16
TENSOR_CORES = Needs(compute_capability=(8, 0))
CUDA = Needs(compute_capability=(6, 0))


@optimization(
    needs=TENSOR_CORES,
    promise=FLOAT16,
    proof=proofs.every(
        proofs.flag_reads(torch.backends.cuda.matmul, "allow_tf32", True),
        proofs.matmul_rounds_to_tf32,
    ),
)
def tf32(build: Build) -> None:
    """Matrix products of float32 in TF32, as convolutions already are."""
    # Only through the legacy flags: mixing them with fp32_precision raises.
    build.during(flag(torch.backends.cuda.matmul, "allow_tf32", True))


@optimization(promise=FLOAT16, proof=proofs.computes_in(torch.float16))
def fp16(build: Build) -> None:
    """Weights and activations in float16, as loaded with torch_dtype=torch.float16."""
    build.dtype = torch.float16


@optimization(promise=BFLOAT16, proof=proofs.computes_in(torch.bfloat16))
def bf16(build: Build) -> None:
    """Weights and activations in bfloat16: float32's range with 8 bits of precision."""
    build.dtype = torch.bfloat16


@optimization(needs=CUDA, promise=FLOAT16, proof=proofs.autocast_is_on)
def autocast(build: Build) -> None:
    """What the guide warns of: torch.autocast around a pipeline. Slower than pure float16."""
    build.during(torch.autocast("cuda", dtype=torch.float16))


@optimization(promise=SAME_ARITHMETIC, proof=proofs.layout_is_channels_last)
def channels_last(build: Build) -> None:
    """Convolutions in NHWC layout, which tensor cores read without a transposition."""

    @build.then
    def _(pipeline: Any) -> None:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)


@optimization(
    needs=Needs(variant="distilled_unet"),
    promise=DISTILLED,
    proof=proofs.smaller_than_reference("unet", layers_per_block=1),
)
def distilled_unet(build: Build) -> None:
    """A UNet of one layer a block and no mid block, trained to imitate the full one (BK-SDM)."""
    build.take("distilled_unet", place="unet")


@optimization(
    needs=Needs(variant="tiny_vae"),
    promise=DISTILLED,
    proof=proofs.class_is("vae", "AutoencoderTiny"),
)
def tiny_vae(build: Build) -> None:
    """A tiny autoencoder distilled from the VAE (TAESD) decodes the latents."""
    build.take("tiny_vae", place="vae")


@optimization(promise=SAME_ARITHMETIC, proof=proofs.attention_is("AttnProcessor"))
def naive_attention(build: Build) -> None:
    """Attention as written: the whole score matrix in memory, softmax, product."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor

        pipeline.unet.set_attn_processor(AttnProcessor())


@optimization(promise=SAME_ARITHMETIC, proof=proofs.attention_is("AttnProcessor2_0"))
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
        cause = proofs.unloadable_library("xformers") or str(error).strip().splitlines()[0]
        return f"xformers is installed and refuses to run: {cause}"
    return None


@optimization(
    needs=Needs(compute_capability=(7, 0), package="xformers", probe=_xformers_refuses),
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_is("XFormersAttnProcessor"),
)
def xformers(build: Build) -> None:
    """xFormers' memory-efficient attention in the UNet."""
    # Only the UNet's: the decoder's single head of 512 is wider than its kernels take.
    build.then(lambda pipeline: pipeline.unet.enable_xformers_memory_efficient_attention())


# The guide's first table, and its warning.
measure(workloads.DDIM50, "tf32", "fp16", "tf32+fp16")
measure(workloads.DDIM50, "fp16+autocast", against="fp16")
# Memory-efficient attention is promised against the naive one, in speed and in memory.
measure(workloads.DDIM50, "fp16+naive_attention")
measure(workloads.DDIM50, "fp16+sdpa", "fp16+xformers", against="fp16+naive_attention")
# The guide's second table, and its vase to look at.
measure(workloads.PNDM25X4, "distilled_unet", "distilled_unet+tiny_vae")
measure(workloads.VASE25, "distilled_unet", "distilled_unet+tiny_vae", picture_only=True)

# What says something on a CPU, on a small model.
measure(workloads.DDIM50_SMALL, "channels_last", "naive_attention")
measure(workloads.DDIM50_SMALL, "bf16", "fp16", picture_only=True)
measure(workloads.PNDM25X4_SMALL, "distilled_unet", "distilled_unet+tiny_vae")
measure(workloads.VASE25_SMALL, "distilled_unet", "distilled_unet+tiny_vae", picture_only=True)
