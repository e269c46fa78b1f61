"""The suites of this repository: the guide's rows, what is faster without a price, what has one."""

from __future__ import annotations

from diffusers_perf import measure, stack
from perf_tests.cases import workloads

# The guide's first table, and its warning.
measure(workloads.DDIM50, "tf32", "fp16", "tf32+fp16", suite="guide")
measure(workloads.DDIM50, "fp16+autocast", against="fp16", suite="guide")
# Memory-efficient attention is allowed against the naive one, in speed and in memory.
measure(workloads.DDIM50, "fp16+naive_attention", suite="guide")
measure(
    workloads.DDIM50, "fp16+sdpa", "fp16+xformers", against="fp16+naive_attention", suite="guide"
)
# The guide's second table, and its vase to look at.
measure(workloads.PNDM25X4, "distilled_unet", "distilled_unet+tiny_vae", suite="guide")
measure(
    workloads.VASE25, "distilled_unet", "distilled_unet+tiny_vae", image_only=True, suite="guide"
)

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
    suite="lossless",
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
    # As published speeds are measured.
    f"{BEST_LOSSLESS}+precomputed_prompt",
    suite="lossless",
)
measure(workloads.PNDM25X4, "fast_kernels+compile+cuda_graph+cuda_graph_decoder", suite="lossless")
measure(workloads.DDIM50X8, "channels_last", "best_lossless", suite="lossless")

# Lossy, each alone on what it is for. Quantized products pay only where what surrounds them is
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
    suite="lossy",
)
measure(
    workloads.DDIM50,
    "fp16+device_steps+deepcache",
    "fp16+device_steps+guidance_cutoff",
    against="fp16+device_steps",
    suite="lossy",
)
measure(
    workloads.DDIM50,
    "bf16+int8+compile",
    "bf16+fp8+compile",
    against="bf16+compile",
    suite="lossy",
)
measure(workloads.PNDM25X4, "deepcache", "tome", "tiny_vae", "vae_slicing", suite="lossy")
measure(workloads.DDIM50X8, "vae_slicing", suite="lossy")
# The fastest whose image is still what was asked for; of one image it takes 2.7 GiB. Of eight,
# the fastest whose peak is to stay below 4 GiB (no GPU of 4 GB is meant); and the most images a
# second, where the GPU has enough to do for merged tokens to count.
BEST_LOSSY = stack("best_lossy", f"{BEST_LOSSLESS}+tiny_vae+deepcache+guidance_cutoff")
# Beside less guidance, of 240 prompts no more are lost where blocks are kept longer.
BEST_SPARSE = stack("best_sparse", f"{BEST_LOSSLESS}+tiny_vae+sparse_deepcache+guidance_cutoff")
# Captured, each kind of step and the decoder would hold memory of their own.
BEST_IN_4GB = stack(
    "best_in_4gb",
    f"{FAST_KERNELS}+fused_group_norm+compile+late_bias+device_steps+precomputed_conditioning"
    "+shared_prefix+tiny_vae+deepcache+guidance_cutoff+vae_slicing",
)
BEST_THROUGHPUT = stack("best_throughput", f"{BEST_LOSSY}+tome")
measure(
    workloads.DDIM50,
    BEST_LOSSY,
    BEST_SPARSE,
    f"{BEST_SPARSE}+precomputed_prompt",
    suite="lossy",
)
measure(
    workloads.DDIM50X8,
    "device_steps+deepcache+guidance_cutoff",
    BEST_LOSSY,
    BEST_IN_4GB,
    BEST_THROUGHPUT,
    suite="lossy",
)

# What says something on a CPU, on a small model.
measure(workloads.DDIM50_SMALL, "channels_last", "naive_attention", suite="guide")
measure(workloads.DDIM50_SMALL, "bf16", "fp16", image_only=True, suite="guide")
measure(workloads.PNDM25X4_SMALL, "distilled_unet", "distilled_unet+tiny_vae", suite="guide")
measure(
    workloads.VASE25_SMALL,
    "distilled_unet",
    "distilled_unet+tiny_vae",
    image_only=True,
    suite="guide",
)
measure(
    workloads.DDIM50_SMALL,
    "fused_qkv",
    "sdpa_math",
    "device_steps",
    "device_steps+precomputed_conditioning",
    suite="lossless",
)
measure(workloads.DDIM50_SMALL, "deepcache", "tome", "tiny_vae", suite="lossy")
measure(
    workloads.DDIM50_SMALL,
    "device_steps+deepcache",
    "device_steps+guidance_cutoff",
    against="device_steps",
    suite="lossy",
)
measure(
    workloads.DDIM50_SMALL,
    "bf16+layerwise_casting",
    "bf16+int8",
    image_only=True,
    suite="lossy",
)
measure(workloads.PNDM25X4_SMALL, "vae_slicing", suite="lossy")
measure(workloads.UNGUIDED8, "channels_last", suite="guide")

# The embedded transformer's: what of the above says something of it, and a cache for transformers.
measure(workloads.FLUX8, "fused_qkv", "sdpa_math", suite="guide")
measure(workloads.FLUX8, "bf16", image_only=True, suite="guide")
measure(workloads.FLUX8, "bf16+int8", image_only=True, suite="lossy")
measure(workloads.FLUX28, "first_block_cache", suite="guide")
measure(
    workloads.FLUX28,
    "taylorseer",
    "mag_cache",
    "pyramid_attention_broadcast",
    "faster_cache",
    suite="lossy",
)
