"""The pinned workloads: the guide's, and the same scaled down for the embedded model.

Source: diffusers' guide "Accelerate inference". Its first table is `ddim50`, its second
`pndm25x4`, and its vase is `vase25`.
"""

from __future__ import annotations

from dataclasses import replace

from diffusers_perf.catalog.declarations import Workload

DDIM50 = Workload(
    name="ddim50",
    scale="full",
    prompt="a photo of an astronaut riding a horse on mars",
    size=512,
    scheduler="DDIMScheduler",
    steps=50,
    num_images=1,
    guidance=7.5,
    seed=0,
)
# The same for eight images at once: what a server that can wait for requests gives.
DDIM50X8 = replace(DDIM50, name="ddim50x8", num_images=8, base=("fp16",))
PNDM25X4 = Workload(
    name="pndm25x4",
    scale="full",
    prompt="a photo of an astronaut riding a horse on mars",
    size=512,
    scheduler="PNDMScheduler",
    steps=25,
    num_images=4,
    guidance=7.5,
    seed=0,
    base=("fp16",),
)
VASE25 = Workload(
    name="vase25",
    scale="full",
    prompt="a golden vase with different flowers",
    size=512,
    scheduler="PNDMScheduler",
    steps=25,
    num_images=1,
    guidance=7.5,
    seed=2023,
    base=("fp16",),
)

# Half precision is slow on most CPUs, so nothing stands in for the guide's base there.
_SMALL_PROMPT = "a large red circle on a blue background in the middle"
# 25 steps of PNDM lose themselves under the embedded model's guidance of 7.5, which DDIM follows:
# of 24 held-out captions it obeys 24 at a guidance of 2, 23 at 3, 2 at 5 and none at 7.5.
_PNDM_GUIDANCE = 2.0
DDIM50_SMALL = replace(DDIM50, scale="small", size=64, prompt=_SMALL_PROMPT)
PNDM25X4_SMALL = replace(
    PNDM25X4, scale="small", size=64, prompt=_SMALL_PROMPT, guidance=_PNDM_GUIDANCE, base=()
)
VASE25_SMALL = replace(
    VASE25,
    scale="small",
    size=64,
    prompt="a small yellow star on a purple background at the top left",
    guidance=_PNDM_GUIDANCE,
    base=(),
)
