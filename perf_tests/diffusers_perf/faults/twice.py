"""Work that the pipeline does twice, or in parts."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from diffusers_perf.faults.injection import CannotInject, Injection, Setting, fault
from diffusers_perf.faults.places import (
    COUNTED,
    COUNTED_FOUR,
    around_decode,
    around_denoisers,
    in_step,
    unet_of,
)
from diffusers_perf.measurement.discovery import decoders
from diffusers_perf.messages import faults as messages


@fault(detected_by="counter", setting=COUNTED)
def guidance_in_two_calls(injection: Injection) -> None:
    """With and without the prompt are two calls of the UNet, not one of two samples."""

    def one_by_one(forward: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(sample) == 1:
            return forward(sample, *args, **kwargs)

        def half(given: Any, number: int) -> Any:
            """SDXL's size of the image and its pooled prompt are of the whole batch, too."""
            batched = isinstance(given, torch.Tensor) and given.shape[:1] == sample.shape[:1]
            return given.chunk(2)[number] if batched else given

        halves = (tree_map(partial(half, number=n), (sample, args, kwargs)) for n in range(2))
        noise = [forward(x, *others, **named)[0] for x, others, named in halves]
        return (torch.cat(noise),)

    injection.then(unet_of)
    around_denoisers(injection, one_by_one)


@fault(
    detected_by="counter",
    setting=Setting(workload="unguided8", steps=6),
    where="cpu",
    source="pipelines that test the scale for being 0",
)
def guidance_at_scale_1(injection: Injection) -> None:
    """At a scale of 1, the UNet still computes the sample without the prompt."""
    from diffusers import StableDiffusionPipeline

    injection.put(
        StableDiffusionPipeline, "do_classifier_free_guidance", property(lambda pipeline: True)
    )


@fault(detected_by="counter", setting=COUNTED)
def prompt_in_each_step(injection: Injection) -> None:
    """The prompt is encoded again in each step."""

    def encode(pipeline: Any, noise: torch.Tensor) -> None:
        if type(pipeline).__name__ != "StableDiffusionPipeline":
            raise CannotInject(messages.lacks(pipeline, messages.OTHER_PROMPTS))
        pipeline.encode_prompt(["again"], noise.device, 1, True)

    in_step(injection, encode)


def _twice(decode: Any, *args: Any, **kwargs: Any) -> Any:
    decode(*args, **kwargs)
    return decode(*args, **kwargs)


@fault(detected_by="counter", setting=COUNTED_FOUR, where="cpu")
def decoded_twice(injection: Injection) -> None:
    """The decoder runs twice for each batch of images."""
    around_decode(injection, _twice)


@fault(detected_by="GPU busy", setting=COUNTED_FOUR, where="cuda")
def decoded_twice_on_gpu(injection: Injection) -> None:
    """The same: few launches of a generation, and a tenth of the GPU's time."""
    around_decode(injection, _twice)


@fault(detected_by="counter", setting=COUNTED_FOUR)
def decoded_one_by_one(injection: Injection) -> None:
    """VAE slicing, meant to save memory, was left on: four images are decoded one by one."""

    def then(pipeline: Any) -> None:
        for module in decoders(pipeline).values():
            if not hasattr(module, "enable_slicing"):
                raise CannotInject(messages.lacks(module, messages.NO_SLICING))
            module.enable_slicing()

    injection.then(then)
