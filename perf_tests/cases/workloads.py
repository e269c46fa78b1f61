"""The pinned workloads: the guide's, and the same scaled down for the embedded model.

Source: diffusers' guide "Accelerate inference". Its first table is `ddim50`, its second
`pndm25x4`, and its vase is `vase25`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffusers_perf.catalog.workload import Workload


def _call(
    prompt: str, *, size: int = 512, num_images: int = 1, guidance: float = 7.5
) -> dict[str, Any]:
    return {
        # Each of a batch on its own: with num_images_per_prompt one would be encoded for all.
        "prompt": [prompt] * num_images,
        "height": size,
        "width": size,
        "guidance_scale": guidance,
    }


DDIM50 = Workload(
    name="ddim50",
    model="sd15",
    call=_call("a photo of an astronaut riding a horse on mars"),
    steps=50,
    scheduler="DDIMScheduler",
)
# The same for eight images at once: what a server that can wait for requests gives.
DDIM50X8 = replace(
    DDIM50,
    name="ddim50x8",
    call=_call("a photo of an astronaut riding a horse on mars", num_images=8),
    base=("fp16",),
)
PNDM25X4 = Workload(
    name="pndm25x4",
    model="sd15",
    call=_call("a photo of an astronaut riding a horse on mars", num_images=4),
    steps=25,
    scheduler="PNDMScheduler",
    base=("fp16",),
)
VASE25 = Workload(
    name="vase25",
    model="sd15",
    call=_call("a golden vase with different flowers"),
    steps=25,
    seed=2023,
    scheduler="PNDMScheduler",
    base=("fp16",),
)

# Half precision is slow on most CPUs, so nothing stands in for the guide's base there.
_SMALL_PROMPT = "a large red circle on a blue background in the middle"
# 25 steps of PNDM lose themselves under the embedded model's guidance of 7.5, which DDIM follows:
# of 24 held-out captions it obeys 24 at a guidance of 2, 23 at 3, 2 at 5 and none at 7.5.
_PNDM_GUIDANCE = 2.0
DDIM50_SMALL = replace(DDIM50, model="embedded", call=_call(_SMALL_PROMPT, size=64))
PNDM25X4_SMALL = replace(
    PNDM25X4,
    model="embedded",
    call=_call(_SMALL_PROMPT, size=64, num_images=4, guidance=_PNDM_GUIDANCE),
    base=(),
)
# At a scale of 1, guidance changes nothing and must cost nothing.
UNGUIDED8 = replace(
    DDIM50_SMALL,
    name="unguided8",
    call=_call(_SMALL_PROMPT, size=64, guidance=1.0),
    steps=8,
)
VASE25_SMALL = replace(
    VASE25,
    model="embedded",
    call=_call(
        "a small yellow star on a purple background at the top left",
        size=64,
        guidance=_PNDM_GUIDANCE,
    ),
    base=(),
)

# The embedded transformer's guidance is an input, and its prompts are padded to this length.
FLUX8 = Workload(
    name="flux8",
    model="embedded-flux",
    call={
        "prompt": _SMALL_PROMPT,
        "height": 64,
        "width": 64,
        "guidance_scale": 1.5,
        "max_sequence_length": 20,
    },
    steps=8,
    sensitive_to={"guidance": {"guidance_scale": 3.5}},
    # A failure names its first step, and the image shows the decoder alone.
    step_wise=True,
)
# Of eight steps, none is so like the one before that a cache could stand in for it. A cache makes
# other predictions by design, so its images are compared as they are.
FLUX28 = replace(FLUX8, name="flux28", steps=28, step_wise=False)
