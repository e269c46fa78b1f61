"""From eager to the fastest on the models that people serve: each technique, then their stacks.

Their seeded weights show what a lossy stack saves; what it costs, the embedded counterparts.
"""

from __future__ import annotations

from diffusers_perf import measure, stack
from perf_tests.cases import workloads
from perf_tests.cases.served import DEV28, SDXL6, SDXL30

# `precomputed_prompt` is as published speeds are measured; the full stacks have all but that.
LOOP = "device_steps+precomputed_conditioning"

# FLUX.1: the GPU is the bottleneck, so what the compiler fuses counts, and the host hardly.
FLUX_COMPILED = "channels_last+compile_regional+compile_decoder"
# Not beneath eight-bit products, which are of another kind.
FLUX_FUSED = f"fused_mlp+{FLUX_COMPILED}"
FLUX_FULL = f"{FLUX_FUSED}+{LOOP}+cuda_graph_step+cuda_graph_decoder"
FLUX_BEST_LOSSLESS = stack("flux_best_lossless", f"{FLUX_FULL}+precomputed_prompt")
# Not captured: a cache decides on the host what a step does.
FLUX_TO_CACHE = f"{FLUX_COMPILED}+{LOOP}+cuda_graph_decoder+precomputed_prompt"
FLUX_CACHED = f"{FLUX_TO_CACHE}+taylorseer_lite"
FLUX_BEST_LOSSY = stack("flux_best_lossy", f"{FLUX_CACHED}+fp8")
measure(
    DEV28,
    "precomputed_prompt",
    "channels_last",
    LOOP,
    "compile_regional+compile_decoder",
    "fused_mlp+compile_regional",
    "fused_rotary+compile_regional",
    FLUX_COMPILED,
    FLUX_FUSED,
    f"{FLUX_FUSED}+{LOOP}",
    FLUX_TO_CACHE,
    FLUX_FULL,
    FLUX_BEST_LOSSLESS,
    suite="lossless",
)
measure(
    DEV28,
    "sage+compile_regional",
    "compile_regional+int8",
    "compile_regional+fp8",
    "compile_regional+fp8_tensor",
    "fused_qkv+compile_regional+fp8",
    "compile_regional+first_block_cache",
    "compile_regional+mag_cache",
    "compile_regional+taylorseer_lite",
    "compile_regional+dbcache",
    "taylorseer",
    "pyramid_attention_broadcast",
    "faster_cache",
    FLUX_CACHED,
    FLUX_BEST_LOSSY,
    f"{FLUX_TO_CACHE}+dbcache+fp8",
    suite="lossy",
)

# The fastest that are to fit a GPU of so many GB, by the limits of `baselines/portable.json` on
# generations and on loading: half a GiB less, which CUDA itself takes. Their reference, which is
# measured before them, is not offloaded.
# Offloaded modules move, so that nothing is captured. In a suite of their own: to move all weights
# for each image, or in each step, takes longer than all else.
FLUX_BEST_IN_24GB = stack("flux_best_in_24gb", f"{FLUX_COMPILED}+model_offload")
FLUX_BEST_IN_16GB = stack("flux_best_in_16gb", f"{FLUX_COMPILED}+fp8+model_offload")
FLUX_BEST_IN_12GB = stack("flux_best_in_12gb", "channels_last+group_offload")
measure(DEV28, FLUX_BEST_IN_24GB, FLUX_BEST_IN_16GB, FLUX_BEST_IN_12GB, suite="memory")

# SDXL: the host is the bottleneck until a step is launched at once.
SDXL_KERNELS = "channels_last+cudnn_benchmark+fused_qkv+fused_group_norm"
SDXL_COMPILED_WHOLE = f"{SDXL_KERNELS}+compile+late_bias"
SDXL_COMPILED_PER_BLOCK = f"{SDXL_KERNELS}+compile_regional+compile_decoder"
SDXL_FULL = f"{SDXL_COMPILED_WHOLE}+{LOOP}+cuda_graph_step+cuda_graph_decoder"
SDXL_BEST_LOSSLESS = stack("sdxl_best_lossless", f"{SDXL_FULL}+precomputed_prompt")
# Compiling the whole UNet takes over a minute where nothing is cached, its blocks a few seconds.
SDXL_BEST_PER_BLOCK = stack(
    "sdxl_best_per_block",
    f"{SDXL_COMPILED_PER_BLOCK}+{LOOP}+cuda_graph_step+cuda_graph_decoder+precomputed_prompt",
)
# With `deepcache` the image is almost as far off (24.4 dB on an H200) as one whose prompt was lost
# (22.5 dB): `python -m perf_tests.training.fresh_steps sdxl`.
SDXL_BEST_LOSSY = stack("sdxl_best_lossy", f"{SDXL_BEST_LOSSLESS}+late_deepcache")
measure(
    SDXL30,
    "precomputed_prompt",
    LOOP,
    "device_steps+cuda_graph_step",
    "channels_last+fused_group_norm",
    "compile",
    SDXL_KERNELS,
    SDXL_COMPILED_WHOLE,
    SDXL_FULL,
    SDXL_BEST_LOSSLESS,
    SDXL_COMPILED_PER_BLOCK,
    SDXL_BEST_PER_BLOCK,
    suite="lossless",
)
# The best lossless one is to fit 16 GB. Captured, the decoder would hold memory of its own.
SDXL_BEST_IN_12GB = stack(
    "sdxl_best_in_12gb",
    f"{SDXL_COMPILED_WHOLE}+{LOOP}+cuda_graph_step",
)
measure(SDXL30, SDXL_BEST_IN_12GB, suite="memory")
measure(
    SDXL30,
    "device_steps+late_deepcache",
    "device_steps+guidance_cutoff",
    "sage+compile_regional",
    "compile+int8",
    "compile+fp8",
    "compile_regional+int8",
    "compile_regional+fp8",
    "compile_regional+fp8_tensor",
    SDXL_BEST_LOSSY,
    suite="lossy",
)
measure(SDXL6, "precomputed_prompt", "device_steps", LOOP, suite="lossless")

# What of it runs on a CPU, on the embedded transformer.
measure(workloads.FLUX8, "precomputed_prompt", LOOP, "fused_mlp", suite="lossless")
measure(workloads.FLUX28, "taylorseer_lite", "dbcache", suite="lossy")
