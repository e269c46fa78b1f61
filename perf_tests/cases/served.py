"""Workloads of the models that people serve, in full size on seeded weights, and their guide rows.

bfloat16 is the base, as it is served. Each has a short variant, for quick runs and faults.
"""

from __future__ import annotations

from dataclasses import replace

from diffusers_perf import Workload, measure

PROMPT = "a photo of an astronaut riding a horse on mars"
NO_GUIDANCE = {"guidance": {"guidance_scale": 1.0}}

SDXL30 = Workload(
    name="sdxl30",
    model="sdxl",
    call={"prompt": PROMPT, "height": 1024, "width": 1024, "guidance_scale": 5.0},
    steps=30,
    base=("bf16",),
    sensitive_to={
        **NO_GUIDANCE,
        "second text encoder": {"prompt_2": "a bowl of fruit on a wooden table"},
    },
)
SDXL6 = replace(SDXL30, name="sdxl6", steps=6, step_wise=True)
SDXL6_FLOAT32 = replace(SDXL6, name="sdxl6_float32", base=())
DEV28 = Workload(
    name="dev28",
    model="flux1-dev",
    call={
        "prompt": PROMPT,
        "height": 1024,
        "width": 1024,
        "guidance_scale": 3.5,
        "max_sequence_length": 512,
    },
    steps=28,
    base=("bf16",),
    sensitive_to={
        **NO_GUIDANCE,
        "second text encoder": {"prompt_2": "a bowl of fruit on a wooden table"},
    },
    # 28 steps make another image of mere rounding.
    step_wise=True,
)
DEV4 = replace(DEV28, name="dev4", steps=4)
DEV4_FLOAT32 = replace(DEV4, name="dev4_float32", base=())
SCHNELL4 = replace(
    DEV28,
    name="schnell4",
    model="flux1-schnell",
    call={**DEV28.call, "guidance_scale": 0.0, "max_sequence_length": 256},
    steps=4,
    sensitive_to={"second text encoder": DEV28.sensitive_to["second text encoder"]},
)

# A generation takes as long as four of `dev28`, so it is in a suite of its own.
DEV28X4 = replace(DEV28, name="dev28x4").changed(prompt=[PROMPT] * 4)

measure(
    SDXL30,
    "compile_regional",
    "fused_qkv",
    "sdpa_flash",
    "sdpa_cudnn",
    "channels_last",
    suite="models",
)
measure(
    DEV28,
    "compile_regional",
    "fused_qkv",
    "sdpa_flash",
    "sdpa_cudnn",
    suite="models",
)
# Offloading moves all weights over the bus, and FLUX has convolutions in its decoder alone: few
# steps show it. By module, which moves FLUX's back as well, a generation takes half a minute.
measure(SDXL6, "model_offload", "group_offload", suite="models")
measure(DEV4, "channels_last", "group_offload", suite="models")
measure(DEV4, "model_offload", suite="memory")
measure(SCHNELL4, "compile_regional", suite="models")
# Twice the memory: the numbers that bfloat16 replaces, and with products in TF32.
measure(SDXL6_FLOAT32, "tf32", suite="float32")
measure(DEV4_FLOAT32, "tf32", suite="float32")

# For `ab --quick`, and what faults are injected in.
measure(SDXL6, "fused_qkv", "channels_last", suite="short")
measure(DEV4, "fused_qkv", "sdpa_flash", suite="short")
measure(DEV28X4, suite="batch")
