"""The settings in which faults show, and the places where they are injected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch

from diffusers_perf.faults.injection import CannotInject, Injection, Setting
from diffusers_perf.measurement.discovery import decoders, denoisers
from diffusers_perf.messages import faults as messages

# No longer than a detector needs. Counters are exact once a step is like the next; an image is one
# when its steps have moved it; a latency needs rounds.
COUNTED = Setting(steps=6)
# Most CPUs emulate float16, and take twenty times as long for an image as in bfloat16.
COUNTED_HALF = Setting(base=("fp16",), base_on_cpu=("bf16",), steps=6)
COUNTED_FOUR = Setting(workload="pndm25x4", num_images=4, steps=6)
SEEN = Setting(steps=20, image_only=True)
SEEN_HALF = Setting(base=("fp16",), base_on_cpu=("bf16",), steps=20, image_only=True)
SEEN_FP16 = Setting(base=("fp16",), steps=4, image_only=True)
# What a whole image hardly shows.
SEEN_STEP_WISE = Setting(case="fused_qkv", steps=4, image_only=True, changes={"step_wise": True})
SEEN_FOUR = Setting(workload="pndm25x4", num_images=4, steps=8, image_only=True)
REPEATED = Setting(steps=4, rounds=2)
TIMED = Setting(steps=4, rounds=5)
TIMED_DISTILLED = Setting(workload="pndm25x4", case="distilled_unet", steps=5, rounds=5)


def in_step(injection: Injection, act: Callable[[Any, torch.Tensor], object]) -> None:
    """Do this with the pipeline and the predicted noise at the start of each scheduler step."""

    def change(pipeline: Any) -> None:
        step = pipeline.scheduler.step

        @wraps(step)  # a pipeline asks for its signature
        def changed(noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            act(pipeline, noise)
            return step(noise, *args, **kwargs)

        pipeline.scheduler.step = changed

    injection.then(change)


def around_denoisers(
    injection: Injection, change: Callable[..., Any], *, only: str | None = None
) -> None:
    """Call this with each denoiser's own forward and its arguments, in its place."""

    def then(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            forward: Any = module.forward
            module.forward = partial(change, forward)

    injection.then(then, only=only)


def decoded(injection: Injection, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change what the decoder gives, images or frames in [-1, 1]."""

    def changed(decode: Any, *args: Any, **kwargs: Any) -> Any:
        sample, *rest = decode(*args, **kwargs)
        return (change(sample), *rest)

    around_decode(injection, changed)


def around_decode(injection: Injection, change: Callable[..., Any]) -> None:
    """Call this with each decoder's own decode and its arguments, in its place."""

    def then(pipeline: Any) -> None:
        for module in decoders(pipeline).values():
            decode: Any = module.decode
            module.decode = partial(change, decode)

    injection.then(then)


def encoded(injection: Injection, change: Callable[..., Any]) -> None:
    """Call this with the pipeline's own encode_prompt and its arguments, in its place."""

    def then(pipeline: Any) -> None:
        if not hasattr(pipeline, "encode_prompt"):
            raise CannotInject(f"{type(pipeline).__name__} has no encode_prompt")
        pipeline.encode_prompt = partial(change, pipeline.encode_prompt)

    injection.then(then)


def called(injection: Injection, change: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> None:
    """Change the arguments of the pipeline's call, given the pipeline and the arguments."""

    def changed(call: Callable[..., Any], pipeline: Any, arguments: dict[str, Any]) -> Any:
        return call(**change(pipeline, arguments))

    around_call(injection, changed)


def around_call(
    injection: Injection, change: Callable[[Callable[..., Any], Any, dict[str, Any]], Any]
) -> None:
    """Call this with the pipeline's own call, the pipeline and the arguments, in the call's
    place.
    """

    def then(pipeline: Any) -> None:
        real = type(pipeline)

        @wraps(real.__call__)
        def call(self: Any, **arguments: Any) -> Any:
            return change(partial(real.__call__, self), self, arguments)

        # Of the same name, by which an applied check may know it.
        pipeline.__class__ = type(real.__name__, (real,), {"__call__": call})

    injection.then(then)


def unet_of(pipeline: Any) -> Any:
    """The pipeline's UNet. `CannotInject` where its denoiser is none."""
    unet = getattr(pipeline, "unet", None)
    if unet is None or not hasattr(unet, "down_blocks"):
        raise CannotInject(messages.lacks(pipeline, messages.NO_UNET))
    return unet


def blocks_of(pipeline: Any) -> list[torch.nn.Module]:
    """The transformer blocks of the last of the denoisers. `CannotInject` where it has none."""
    (*_, denoiser) = denoisers(pipeline).values()
    found = [m for m in denoiser.modules() if "TransformerBlock" in type(m).__name__]
    if not found:
        raise CannotInject(messages.lacks(denoiser, messages.NO_BLOCKS))
    return found


def scale_a_head(pipeline: Any, factor: float = 1.02) -> str:
    """Scale what one head gives to a transformer block in the middle of the denoiser; the block's
    name. `CannotInject` where no block joins heads.
    """
    (*_, denoiser) = denoisers(pipeline).values()
    found: dict[str, Any] = {
        name: attention
        for name, block in denoiser.named_modules()
        if "TransformerBlock" in type(block).__name__
        for attention in [_joining_heads(block)]
        if attention is not None
    }
    if not found:
        raise CannotInject(messages.lacks(denoiser, messages.NO_BLOCKS))
    name = [*found][len(found) // 2]
    # The layer that joins the heads gets the first of them in its first columns.
    weight = found[name].to_out[0].weight.data
    weight[:, : weight.shape[1] // found[name].heads] *= factor
    return name


def _joining_heads(block: torch.nn.Module) -> Any:
    """The first attention of a block, if it joins its heads itself."""
    attentions = (m for m in block.modules() if hasattr(m, "heads") and hasattr(m, "to_out"))
    return next(attentions, None)
