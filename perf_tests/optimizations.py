"""Every optimization, one decorated function each; then the stacks worth measuring.

To add one: write the function, say what it needs, promises and how it proves itself, and add it to
a stack below. Its name is the test's id and its docstring the report's line; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from perf_tests import workloads
from perf_tests.harness import proofs
from perf_tests.harness.build import Build, flag
from perf_tests.harness.catalog import (
    NO_PROMISE,
    Closeness,
    Needs,
    Promise,
    measure,
    optimization,
    stack,
)
from perf_tests.techniques.conditioning import conditioning_is_kept, precompute
from perf_tests.techniques.cuda_graphs import Graphed, is_graphed
from perf_tests.techniques.deep_cache import is_cached, keep_blocks
from perf_tests.techniques.device_steps import guides, is_taken_over, steps_are_graphed, take_over
from perf_tests.techniques.fused import (
    add_biases_late,
    biases_are_late,
    fuse_group_norms,
    group_norms_are_fused,
)
from perf_tests.techniques.shared_prefix import prefix_is_shared, share_prefix

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
# What `python -m ci explore` keeps of a picture unless told otherwise.
LOSSLESS = SAME_ARITHMETIC
# What trades: 24 held-out prompts and seeds of the embedded model on a CPU, by `python -m
# perf_tests.models.recipe.prices`; in all of these pictures an evaluator still reads the prompt.
# Each promise is half-way between the lowest of them and the highest of a lost prompt's, 14.2 dB:
# the picture is still of what was asked for, which of another seed's (32.5 dB at most) or without
# guidance (34.0 dB) is true as well. Lowest: merged tokens 28.6 dB; blocks kept for three steps
# 26.3 dB (for two 30.9, for five 22.0); guidance in the first half 19.7 dB (in the first quarter
# 18.3, in three of them 21.7); on top of bfloat16, weights kept in float8 24.8 dB, and in products
# of float8 30.9 dB (on an H100, whose kernels they are).
# Seeded weights of full size (and the small model's), on a CPU in float32: guidance in the first
# half 50.7 dB (47.9), merged tokens 38.5 dB (28.4), blocks kept for three steps 33.4 dB (33.9), and
# with guidance in the first half 33.1 dB; SSIM 0.988 or more, of merged tokens 0.961. Half-way from
# the lower to no guidance's 19.7 dB, SSIM 0.814 (20.5 dB, 0.782). On bfloat16, weights kept in
# float8 31.6 dB (32.9), SSIM 0.986 or more. None of these was tried on a checkpoint.
MERGED = Promise(seeded=Closeness(psnr_db=24, ssim=0.87), embedded=Closeness(psnr_db=21))
CACHED = Promise(seeded=Closeness(psnr_db=26, ssim=0.90), embedded=Closeness(psnr_db=20))
LESS_GUIDED = Promise(seeded=Closeness(psnr_db=34, ssim=0.90), embedded=Closeness(psnr_db=17))
KEPT_IN_FLOAT8 = Promise(seeded=Closeness(psnr_db=25, ssim=0.90), embedded=Closeness(psnr_db=19))
FLOAT8 = Promise(embedded=Closeness(psnr_db=22))
# Int8 on top of bfloat16 is at 37.0 dB or more: half-way to no guidance's 34.0 dB. On seeded
# weights, full size or small, it is at 42.5 dB (0.998).
INT8 = Promise(seeded=Closeness(psnr_db=31, ssim=0.90), embedded=Closeness(psnr_db=35))
TENSOR_CORES = Needs(compute_capability=(8, 0))
CUDA = Needs(compute_capability=(6, 0))
# What torch.compile makes its kernels with; on a CPU it is a C++ compiler, and takes minutes.
COMPILER = Needs(compute_capability=(7, 0), package="triton")


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


@optimization(
    promise=FLOAT16,
    proof=proofs.computes_in(torch.float16),
    decides=("dtype",),
)
def fp16(build: Build) -> None:
    """Weights and activations in float16, as loaded with torch_dtype=torch.float16."""
    build.dtype = torch.float16


@optimization(
    promise=BFLOAT16,
    proof=proofs.computes_in(torch.bfloat16),
    decides=("dtype",),
)
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
    # DeepCache keeps what the mid block gives, and it has none.
    decides=("UNet's inner blocks",),
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


@optimization(
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_is("AttnProcessor"),
    decides=("attention",),
)
def naive_attention(build: Build) -> None:
    """Attention as written: the whole score matrix in memory, softmax, product."""

    @build.then
    def _(pipeline: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor

        pipeline.unet.set_attn_processor(AttnProcessor())


@optimization(
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_is("AttnProcessor2_0"),
    decides=("attention",),
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
        cause = proofs.unloadable_library("xformers") or str(error).strip().splitlines()[0]
        return f"xformers is installed and refuses to run: {cause}"
    return None


@optimization(
    needs=Needs(compute_capability=(7, 0), package="xformers", probe=_xformers_refuses),
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_is("XFormersAttnProcessor"),
    decides=("attention",),
)
def xformers(build: Build) -> None:
    """xFormers' memory-efficient attention in the UNet."""
    # Only the UNet's: the decoder's single head of 512 is wider than its kernels take.
    build.then(lambda pipeline: pipeline.unet.enable_xformers_memory_efficient_attention())


@optimization(
    needs=CUDA,
    promise=SAME_ARITHMETIC,
    proof=proofs.flag_reads(torch.backends.cudnn, "benchmark", True),
)
def cudnn_benchmark(build: Build) -> None:
    """cuDNN tries its convolution algorithms on each new shape and keeps the fastest."""
    build.during(flag(torch.backends.cudnn, "benchmark", True))


@optimization(
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_is("FusedAttnProcessor2_0"),
    decides=("attention",),
)
def fused_qkv(build: Build) -> None:
    """One matrix product for query, key and value of an attention in the UNet."""
    build.then(lambda pipeline: pipeline.fuse_qkv_projections(vae=False))


@optimization(
    needs=Needs(compute_capability=(8, 0), package="triton", optimization="channels_last"),
    promise=SAME_ARITHMETIC,
    proof=group_norms_are_fused,
    # A convolution's bias is read outside of it, and must be there as it is computed with.
    decides=("biases",),
)
def fused_group_norm(build: Build) -> None:
    """The UNet's group normalizations in one or two launches, with shift and SiLU (Triton)."""
    build.then(lambda pipeline: fuse_group_norms(pipeline.unet))


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
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_runs_on(SDPBackend.FLASH_ATTENTION),
    decides=("attention",),
)
def sdpa_flash(build: Build) -> None:
    """PyTorch's attention on its flash kernels."""
    _attend_on(build, SDPBackend.FLASH_ATTENTION)


@optimization(
    needs=CUDA,
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_runs_on(SDPBackend.EFFICIENT_ATTENTION),
    decides=("attention",),
)
def sdpa_efficient(build: Build) -> None:
    """PyTorch's attention on its memory-efficient kernels."""
    _attend_on(build, SDPBackend.EFFICIENT_ATTENTION)


@optimization(
    needs=TENSOR_CORES,
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_runs_on(SDPBackend.CUDNN_ATTENTION),
    decides=("attention",),
)
def sdpa_cudnn(build: Build) -> None:
    """PyTorch's attention on cuDNN's kernels."""
    _attend_on(build, SDPBackend.CUDNN_ATTENTION)


@optimization(
    promise=SAME_ARITHMETIC,
    proof=proofs.attention_runs_on(SDPBackend.MATH),
    decides=("attention",),
)
def sdpa_math(build: Build) -> None:
    """PyTorch's attention as separate products and softmax, which every device can do."""
    _attend_on(build, SDPBackend.MATH)


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
        for module in (pipeline.unet, pipeline.vae.decoder):
            # A batch of another size, as without guidance, gets kernels of its own.
            module.forward = torch.compile(module.forward, mode=mode, fullgraph=True, dynamic=False)


@optimization(
    needs=COMPILER,
    promise=SAME_ARITHMETIC,
    proof=proofs.is_compiled("unet", "vae.decoder"),
    hides_operators=True,
    decides=("compiler",),
    compiles=True,
)
def compile(build: Build) -> None:
    """UNet and decoder through torch.compile: elementwise work is fused into few kernels."""
    _compile(build)


@optimization(
    needs=Needs(compute_capability=(7, 0), optimization="compile"),
    promise=SAME_ARITHMETIC,
    proof=biases_are_late,
    compiles=True,
)
def late_bias(build: Build) -> None:
    """Biases of the UNet's transformer blocks added by what `compile` fuses behind the products."""
    build.then(lambda pipeline: add_biases_late(pipeline.unet))


@optimization(
    needs=COMPILER,
    promise=SAME_ARITHMETIC,
    proof=proofs.every(proofs.is_compiled("unet", "vae.decoder"), proofs.graphs_were_not_skipped),
    hides_operators=True,
    # Called again, its graphs write over what they gave, and slices or tiles are still needed.
    decides=("compiler", "UNet's launches", "decoder's launches", "decoder's calls"),
    compiles=True,
)
def compile_reduce_overhead(build: Build) -> None:
    """UNet and decoder through torch.compile, which replays them from CUDA graphs of its own."""
    _compile(build, mode="reduce-overhead")


@optimization(
    needs=COMPILER,
    promise=SAME_ARITHMETIC,
    proof=proofs.blocks_are_compiled,
    hides_operators=True,
    decides=("compiler",),
    compiles=True,
)
def compile_regional(build: Build) -> None:
    """Only the UNet's transformer blocks through torch.compile, once for each resolution."""
    build.during(_compiling())
    build.then(
        lambda pipeline: pipeline.unet.compile_repeated_blocks(fullgraph=True, dynamic=False)
    )


@optimization(
    needs=CUDA,
    promise=SAME_ARITHMETIC,
    proof=is_graphed("unet"),
    hides_operators=True,
    decides=("UNet's launches", "UNet's calls"),
)
def cuda_graph(build: Build) -> None:
    """The UNet's kernels launched at once, as a CUDA graph."""
    build.then(lambda pipeline: _graph(pipeline.unet))


@optimization(
    needs=CUDA,
    promise=SAME_ARITHMETIC,
    proof=is_graphed("vae.decoder"),
    hides_operators=True,
    decides=("decoder's launches",),
)
def cuda_graph_decoder(build: Build) -> None:
    """The decoder's kernels launched at once, as a CUDA graph."""
    build.then(lambda pipeline: _graph(pipeline.vae.decoder))


@optimization(
    needs=CUDA,
    promise=SAME_ARITHMETIC,
    proof=is_graphed("text_encoder"),
    hides_operators=True,
    decides=("text encoder's launches",),
)
def cuda_graph_text_encoder(build: Build) -> None:
    """The text encoder's kernels launched at once, as a CUDA graph."""
    build.then(lambda pipeline: _graph(pipeline.text_encoder))


def _graph(module: torch.nn.Module) -> None:
    module.forward = Graphed(module.forward)  # type: ignore[method-assign, unused-ignore]


@optimization(promise=SAME_ARITHMETIC, proof=is_taken_over, decides=("loop",))
def device_steps(build: Build) -> None:
    """The scheduler's arithmetic on the device: no step waits for a number to be read back."""
    build.then(take_over)


@optimization(
    needs=Needs(compute_capability=(6, 0), optimization="device_steps"),
    promise=SAME_ARITHMETIC,
    proof=steps_are_graphed,
    hides_operators=True,
    decides=("UNet's launches",),
)
def cuda_graph_step(build: Build) -> None:
    """A whole denoising step of `device_steps` launched at once, as a CUDA graph."""
    build.then(lambda pipeline: setattr(pipeline, "captured", True))


@optimization(
    needs=Needs(optimization="device_steps"),
    promise=SAME_ARITHMETIC,
    proof=conditioning_is_kept,
)
def precomputed_conditioning(build: Build) -> None:
    """What prompt and schedule alone decide is computed once a picture, by `device_steps`."""
    build.then(precompute)


@optimization(
    needs=Needs(optimization="device_steps"),
    promise=SAME_ARITHMETIC,
    proof=prefix_is_shared,
    skips_work=True,
)
def shared_prefix(build: Build) -> None:
    """What guidance does twice before the prompt comes in is done once, by `device_steps`."""
    build.then(share_prefix)


FRESH_EVERY = 3


@optimization(
    needs=Needs(package="DeepCache"),
    promise=CACHED,
    proof=is_cached(FRESH_EVERY),
    skips_work=True,
    uneven_steps=True,
    # Another thing from step to step, of which a graph of the UNet alone knows nothing.
    decides=("UNet's calls", "UNet's inner blocks"),
)
def deepcache(build: Build) -> None:
    """DeepCache: the UNet's inner blocks run in every third step alone."""

    @build.then
    def _(pipeline: Any) -> None:
        pipeline.deep_cache = keep_blocks(pipeline, interval=FRESH_EVERY)


GUIDED_SHARE = 0.5


@optimization(
    needs=Needs(optimization="device_steps"),
    promise=LESS_GUIDED,
    proof=guides(GUIDED_SHARE),
    skips_work=True,
    uneven_steps=True,
)
def guidance_cutoff(build: Build) -> None:
    """Guidance in the first half of the steps of `device_steps` alone: the rest cost half."""

    @build.then
    def _(pipeline: Any) -> None:
        pipeline.plan.guided_share = GUIDED_SHARE


@optimization(
    needs=Needs(package="tomesd"),
    promise=MERGED,
    proof=proofs.merges_tokens,
    skips_work=True,
)
def tome(build: Build) -> None:
    """Token merging: half of the tokens at full resolution are left out of self-attention."""
    import tomesd

    name = "bipartite_soft_matching_random2d"
    exact = _averaging_in_float64(getattr(tomesd.merge, name))
    build.during(flag(tomesd.merge, name, exact))

    @build.then
    def _(pipeline: Any) -> None:
        # At random, no two generations would be alike.
        tomesd.apply_patch(pipeline, ratio=0.5, use_rand=False)
        known = pipeline.unet._tome_info
        # It learns this from the UNet's call; who calls the UNet's forward alone leaves it unknown.
        known["size"] = (pipeline.unet.config.sample_size,) * 2
        # Made at its first use if not here, which neither a compiler nor a capture can follow.
        known["args"]["generator"] = torch.Generator(pipeline.unet.device)


def _averaging_in_float64(matching: Callable[..., Any]) -> Callable[..., Any]:
    """A GPU adds up what is merged in any order, and no two pictures may differ by that.

    In float32, compiled, two of one seed were at 48 dB (H100), in float64 the same: presumably a
    compiler leaves out the rounding to half precision before. Of 6.5 million averages of numbers
    that are not rounded, 631 change with the order in float32, none in float64 (twenty orders, on a
    CPU).
    """

    def matched(*args: Any, **kwargs: Any) -> Any:
        merge, unmerge = matching(*args, **kwargs)

        def merged(x: torch.Tensor, mode: str = "mean") -> torch.Tensor:
            averaged: torch.Tensor = merge(x.double(), mode)
            return averaged.to(x.dtype)

        return merged, unmerge

    return matched


def _quantize(build: Build, config: Callable[[], Any]) -> None:
    @build.then
    def _(pipeline: Any) -> None:
        from torchao.quantization import quantize_

        def takes(module: torch.nn.Module, name: str) -> bool:
            # Those of the time embedding have a row a picture, fewer than the kernels take.
            return isinstance(module, torch.nn.Linear) and "transformer_blocks" in name

        quantize_(pipeline.unet, config(), takes)


@optimization(
    needs=Needs(package="torchao"),
    promise=INT8,
    proof=proofs.weights_are_quantized(torch.int8),
    decides=("weights",),
)
def int8(build: Build) -> None:
    """The UNet's linear layers in int8: weights a channel, activations a token (torchao)."""

    def config() -> Any:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

        # Unless told, it sets flags of torch for the whole process, TF32 among them.
        return Int8DynamicActivationInt8WeightConfig(version=2, set_inductor_config=False)

    _quantize(build, config)


@optimization(
    needs=Needs(compute_capability=(8, 9), package="torchao"),
    promise=FLOAT8,
    proof=proofs.weights_are_quantized(torch.float8_e4m3fn),
    decides=("weights",),
)
def fp8(build: Build) -> None:
    """The UNet's linear layers in float8: a scale for each row, weights from bfloat16 (torchao)."""

    def config() -> Any:
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

        return Float8DynamicActivationFloat8WeightConfig(
            granularity=PerRow(), set_inductor_config=False
        )

    _quantize(build, config)


@optimization(
    promise=KEPT_IN_FLOAT8,
    proof=proofs.mostly_kept_in(torch.float8_e4m3fn),
    # A layer's weights lie elsewhere after each cast, in new parameters, which dynamo refuses.
    decides=("weights", "biases", "UNet's launches", "compiler"),
)
def layerwise_casting(build: Build) -> None:
    """The UNet's weights kept in float8, and each layer's cast back while it computes."""

    @build.then
    def _(pipeline: Any) -> None:
        pipeline.unet.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=build.dtype
        )


@optimization(
    promise=SAME_ARITHMETIC,
    proof=proofs.decodes_in_parts(images=2),
    decides=("decoder's calls",),
)
def vae_slicing(build: Build) -> None:
    """Latents decoded one picture at a time, whose activations alone are in memory."""
    build.then(lambda pipeline: pipeline.vae.enable_slicing())


# Nothing is promised: a decoder that sees half of a side normalizes by other statistics, and of the
# embedded model's 64 pixels a tile of 32 shows too little (13.9 dB, and 46 % of the prompts).
@optimization(
    promise=NO_PROMISE,
    proof=proofs.decodes_in_parts(images=1),
    decides=("decoder's calls",),
)
def vae_tiling(build: Build) -> None:
    """Latents decoded in overlapping tiles of half a side, blended into one another."""

    @build.then
    def _(pipeline: Any) -> None:
        vae = pipeline.vae
        vae.enable_tiling()
        # Its own are as large as the pictures that it was trained on: it would cut none of ours.
        vae.tile_sample_min_size //= 2
        vae.tile_latent_min_size //= 2


def _nowhere_to_offload_from() -> str | None:
    return None if torch.accelerator.is_available() else "there is no GPU memory to offload from"


@optimization(
    needs=Needs(compute_capability=(6, 0), probe=_nowhere_to_offload_from),
    promise=SAME_ARITHMETIC,
    proof=proofs.waits_on_host("vae", "text_encoder"),
    # What is captured has to stay where it is, and the pipeline's own loop moves modules.
    decides=("UNet's launches", "decoder's launches", "text encoder's launches", "loop"),
)
def model_offload(build: Build) -> None:
    """Each module in GPU memory while it is needed, and in the host's otherwise."""
    build.then(lambda pipeline: pipeline.enable_model_cpu_offload())


# The guide's first table, and its warning.
measure(workloads.DDIM50, "tf32", "fp16", "tf32+fp16")
measure(workloads.DDIM50, "fp16+autocast", against="fp16")
# Memory-efficient attention is promised against the naive one, in speed and in memory.
measure(workloads.DDIM50, "fp16+naive_attention")
measure(workloads.DDIM50, "fp16+sdpa", "fp16+xformers", against="fp16+naive_attention")
# The guide's second table, and its vase to look at.
measure(workloads.PNDM25X4, "distilled_unet", "distilled_unet+tiny_vae")
measure(workloads.VASE25, "distilled_unet", "distilled_unet+tiny_vae", picture_only=True)

# Past the guide: each technique alone, on what the guide ends with; then one on top of the other.
measure(
    workloads.DDIM50,
    "bf16",
    "fp16+channels_last",
    "fp16+cudnn_benchmark",
    "fp16+fused_qkv",
    "fp16+channels_last+fused_group_norm",
    "fp16+sdpa_flash",
    "fp16+sdpa_efficient",
    "fp16+sdpa_cudnn",
    "fp16+sdpa_math",
    "fp16+device_steps",
    "fp16+device_steps+precomputed_conditioning",
    "fp16+device_steps+shared_prefix",
    "fp16+cuda_graph",
    "fp16+cuda_graph_decoder",
    "fp16+cuda_graph_text_encoder",
    "fp16+device_steps+cuda_graph_step",
    "fp16+compile_regional",
    "fp16+compile",
    "fp16+compile+late_bias",
    "fp16+compile_reduce_overhead",
    chapter="past_guide",
)
FAST_KERNELS = stack("fast_kernels", "fp16+channels_last+cudnn_benchmark+fused_qkv")
CAPTURED = (
    "device_steps+precomputed_conditioning+shared_prefix+cuda_graph_step+cuda_graph_decoder"
    "+cuda_graph_text_encoder"
)
BEST_EAGER = stack(
    "best_eager",
    f"{FAST_KERNELS}+fused_group_norm+{CAPTURED}",
)
BEST_LOSSLESS = stack(
    "best_lossless",
    f"{FAST_KERNELS}+fused_group_norm+compile+late_bias+{CAPTURED}",
)
measure(
    workloads.DDIM50,
    FAST_KERNELS,
    f"{FAST_KERNELS}+compile",
    f"{FAST_KERNELS}+device_steps+cuda_graph_step",
    f"{FAST_KERNELS}+compile+device_steps+cuda_graph_step",
    f"{FAST_KERNELS}+fused_group_norm+compile+late_bias+device_steps+cuda_graph_step",
    BEST_EAGER,
    BEST_LOSSLESS,
    chapter="past_guide",
)
measure(
    workloads.PNDM25X4, "fast_kernels+compile+cuda_graph+cuda_graph_decoder", chapter="past_guide"
)
measure(workloads.DDIM50X8, "channels_last", "best_lossless", chapter="past_guide")

# Trading, each alone on what it is for. Quantized products pay only where what surrounds them is
# fused into them.
measure(
    workloads.DDIM50,
    "fp16+deepcache",
    "fp16+tome",
    "fp16+tiny_vae",
    "fp16+vae_tiling",
    "fp16+model_offload",
    "bf16+layerwise_casting",
    "bf16+compile",
    chapter="trading",
)
measure(
    workloads.DDIM50,
    "fp16+device_steps+deepcache",
    "fp16+device_steps+guidance_cutoff",
    against="fp16+device_steps",
    chapter="trading",
)
measure(
    workloads.DDIM50,
    "bf16+int8+compile",
    "bf16+fp8+compile",
    against="bf16+compile",
    chapter="trading",
)
measure(workloads.PNDM25X4, "deepcache", "tome", "tiny_vae", "vae_slicing", chapter="trading")
measure(workloads.DDIM50X8, "vae_slicing", chapter="trading")
# The fastest whose picture is still what was asked for; of one picture it takes 2.7 GiB. Of eight,
# the fastest that is to stay below 4 GiB; and the most pictures a second, where the GPU has enough
# to do for merged tokens to count.
BEST_LOSSY = stack("best_lossy", f"{BEST_LOSSLESS}+tiny_vae+deepcache+guidance_cutoff")
# Captured, each kind of step and the decoder would hold memory of their own.
BEST_IN_4GB = stack(
    "best_in_4gb",
    f"{FAST_KERNELS}+fused_group_norm+compile+late_bias+device_steps+precomputed_conditioning"
    "+shared_prefix+tiny_vae+deepcache+guidance_cutoff+vae_slicing",
)
BEST_THROUGHPUT = stack("best_throughput", f"{BEST_LOSSY}+tome")
measure(workloads.DDIM50, BEST_LOSSY, chapter="trading")
measure(
    workloads.DDIM50X8,
    "device_steps+deepcache+guidance_cutoff",
    BEST_LOSSY,
    BEST_IN_4GB,
    BEST_THROUGHPUT,
    chapter="trading",
)

# What says something on a CPU, on a small model.
measure(workloads.DDIM50_SMALL, "channels_last", "naive_attention")
measure(workloads.DDIM50_SMALL, "bf16", "fp16", picture_only=True)
measure(workloads.PNDM25X4_SMALL, "distilled_unet", "distilled_unet+tiny_vae")
measure(workloads.VASE25_SMALL, "distilled_unet", "distilled_unet+tiny_vae", picture_only=True)
measure(
    workloads.DDIM50_SMALL,
    "fused_qkv",
    "sdpa_math",
    "device_steps",
    "device_steps+precomputed_conditioning",
    chapter="past_guide",
)
measure(workloads.DDIM50_SMALL, "deepcache", "tome", "tiny_vae", chapter="trading")
measure(
    workloads.DDIM50_SMALL,
    "device_steps+deepcache",
    "device_steps+guidance_cutoff",
    against="device_steps",
    chapter="trading",
)
measure(
    workloads.DDIM50_SMALL,
    "bf16+layerwise_casting",
    "bf16+int8",
    picture_only=True,
    chapter="trading",
)
measure(workloads.PNDM25X4_SMALL, "vae_slicing", chapter="trading")
