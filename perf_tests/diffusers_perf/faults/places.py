"""The settings in which faults show, and the places where they are injected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diffusers_perf.faults.injection import Injection, Setting

# No longer than a measure needs. Counters are exact once a step is like the next; an image is one
# when its steps have moved it; a latency needs rounds.
COUNTED = Setting(steps=6)
# Most CPUs emulate float16, and take twenty times as long for an image as in bfloat16.
COUNTED_HALF = Setting(base=("fp16",), base_on_cpu=("bf16",), steps=6)
COUNTED_FOUR = Setting(workload="pndm25x4", steps=6)
SEEN = Setting(steps=20, image_only=True)
SEEN_FP16 = Setting(base=("fp16",), steps=4, image_only=True)
SEEN_FOUR = Setting(workload="pndm25x4", steps=8, image_only=True)
REPEATED = Setting(steps=4, rounds=2)
TIMED = Setting(steps=4, rounds=5)
TIMED_DISTILLED = Setting(workload="pndm25x4", case="distilled_unet", steps=5, rounds=5)


def in_step(injection: Injection, act: Callable[[Any, torch.Tensor], object]) -> None:
    """Do this with the pipeline and the predicted noise at the start of each scheduler step."""

    def change(pipeline: Any) -> None:
        step = pipeline.scheduler.step

        def changed(noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            act(pipeline, noise)
            return step(noise, *args, **kwargs)

        pipeline.scheduler.step = changed

    injection.then(change)


def around_unet(
    injection: Injection, change: Callable[..., Any], *, only: str | None = None
) -> None:
    """Call this with the UNet's own forward and its arguments, in its place."""

    def then(pipeline: Any) -> None:
        forward = pipeline.unet.forward
        pipeline.unet.forward = lambda *args, **kwargs: change(forward, *args, **kwargs)

    injection.then(then, only=only)


def decoded(injection: Injection, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change what the decoder gives, images in [-1, 1]."""

    def then(pipeline: Any) -> None:
        decode = pipeline.vae.decode

        def changed(*args: Any, **kwargs: Any) -> Any:
            sample, *rest = decode(*args, **kwargs)
            return (change(sample), *rest)

        pipeline.vae.decode = changed

    injection.then(then)


def encoded(injection: Injection, change: Callable[..., Any]) -> None:
    """Call this with the pipeline's own encode_prompt and its arguments, in its place."""

    def then(pipeline: Any) -> None:
        encode = pipeline.encode_prompt
        pipeline.encode_prompt = lambda *args, **kwargs: change(encode, *args, **kwargs)

    injection.then(then)
