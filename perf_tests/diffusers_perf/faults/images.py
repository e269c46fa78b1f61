"""Wrong images."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch

from diffusers_perf.faults.injection import CannotInject, Injection, fault
from diffusers_perf.faults.places import (
    REPEATED,
    SEEN,
    SEEN_FOUR,
    around_decode,
    blocks_of,
    called,
    decoded,
    encoded,
)
from diffusers_perf.measurement.discovery import decoders
from diffusers_perf.messages import faults as messages


@fault(detected_by="image", setting=SEEN, source="a false alarm of the safety checker")
def black(injection: Injection) -> None:
    """The decoder's output is black."""
    decoded(injection, lambda sample: torch.full_like(sample, -1.0))


@fault(detected_by="image", setting=SEEN)
def grey(injection: Injection) -> None:
    """The decoder's output is one even grey."""
    decoded(injection, torch.zeros_like)


@fault(detected_by="image", setting=SEEN_FOUR)
def nan(injection: Injection) -> None:
    """One number in the last image of a batch of four is NaN."""

    def change(sample: torch.Tensor) -> torch.Tensor:
        if len(sample) == 4:
            sample = sample.clone()
            sample[-1, 0, 0, 0] = torch.nan
        return sample

    decoded(injection, change)


@fault(detected_by="image", setting=SEEN_FOUR)
def another_of_the_batch(injection: Injection) -> None:
    """Two images of a batch of four have changed places."""
    decoded(injection, lambda sample: sample[[0, 2, 1, 3]] if len(sample) == 4 else sample)


@fault(detected_by="image", setting=REPEATED)
def stale_latents(injection: Injection) -> None:
    """A generation starts from where the one before it ended."""

    def then(pipeline: Any) -> None:
        last: list[torch.Tensor] = []
        if not hasattr(pipeline, "prepare_latents"):
            raise CannotInject(f"{type(pipeline).__name__} has no prepare_latents")
        prepare, step = pipeline.prepare_latents, pipeline.scheduler.step

        def prepared(*args: Any, **kwargs: Any) -> Any:
            made = prepare(*args, **kwargs)
            latents, *others = made if isinstance(made, tuple) else (made,)
            fits = last and (last[0].device, last[0].shape) == (latents.device, latents.shape)
            latents = last[0] if fits else latents
            return (latents, *others) if isinstance(made, tuple) else latents

        @wraps(step)
        def kept(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            last[:] = [result[0]]
            return result

        pipeline.prepare_latents, pipeline.scheduler.step = prepared, kept

    injection.then(then)


@fault(detected_by="image", setting=REPEATED)
def stale_output(injection: Injection) -> None:
    """Every generation gives what the first one did: a buffer is not written again."""

    def then(pipeline: Any) -> None:
        for module in decoders(pipeline).values():
            first: dict[torch.device, Any] = {}
            decode: Any = module.decode

            def kept(*args: Any, decode: Any = decode, first: Any = first, **kwargs: Any) -> Any:
                made = decode(*args, **kwargs)
                return first.setdefault(made[0].device, made)

            module.decode = kept

    injection.then(then)


@fault(detected_by="image", setting=SEEN)
def swapped_colours(injection: Injection) -> None:
    """Red and blue have changed places."""
    decoded(injection, lambda sample: sample[:, [2, 1, 0]])


def scaled(injection: Injection, factor: float) -> None:
    """Scale the latents on their way into the decoder."""

    around_decode(injection, lambda decode, latents, *a, **k: decode(latents * factor, *a, **k))


@fault(detected_by="image", setting=SEEN)
def latents_not_scaled(injection: Injection) -> None:
    """The decoder gets latents that were not scaled back."""
    scaled(injection, 0.18215)


@fault(detected_by="image", setting=SEEN, source="SDXL's decoder under SD's latents", where="cpu")
def another_scaling_factor(injection: Injection) -> None:
    """The latents are scaled for another model's decoder."""
    scaled(injection, 0.18215 / 0.13025)


@fault(
    detected_by="image",
    setting=SEEN,
    source="steps_offset, of which diffusers warns since its first schedulers",
    unit="timesteps",
    sizes=(100, 50, 20, 10, 5, 1),
)
def schedule_shifted(injection: Injection) -> None:
    """The schedule is some of its thousand timesteps too early."""
    shift = int(injection.size or 0)

    def then(pipeline: Any) -> None:
        scheduler = pipeline.scheduler
        set_timesteps = scheduler.set_timesteps

        @wraps(set_timesteps)  # a pipeline asks for its signature
        def shifted(*args: Any, **kwargs: Any) -> None:
            set_timesteps(*args, **kwargs)
            scheduler.timesteps = (scheduler.timesteps - shift).clamp(min=0)

        scheduler.set_timesteps = shifted

    injection.then(then)


GUIDANCE = ("guidance_scale", "true_cfg_scale")
"""What pipelines call the scale of guidance; 1 is none."""


@fault(detected_by="image", setting=SEEN)
def block_skipped(injection: Injection) -> None:
    """A transformer block in the middle of the denoiser adds nothing."""

    def then(pipeline: Any) -> None:
        blocks = blocks_of(pipeline)
        for layer in blocks[len(blocks) // 2].modules():
            if isinstance(layer, torch.nn.Linear):
                for parameter in layer.parameters(recurse=False):
                    parameter.data.zero_()

    injection.then(then)


@fault(detected_by="image", setting=SEEN)
def no_guidance(injection: Injection) -> None:
    """Guidance is lost."""

    def unguided(pipeline: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        scales = [name for name in GUIDANCE if name in arguments]
        if not scales:
            raise CannotInject(messages.lacks(pipeline, messages.NO_GUIDANCE))
        return arguments | dict.fromkeys(scales, 1.0)

    called(injection, unguided)


@fault(detected_by="image", setting=SEEN)
def prompt_lost(injection: Injection) -> None:
    """The prompt does not arrive: the images are of nothing in particular."""

    def emptied(pipeline: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        prompt = arguments.get("prompt")
        if prompt is None:
            raise CannotInject(messages.lacks(pipeline, messages.NO_PROMPT))
        return arguments | {"prompt": "" if isinstance(prompt, str) else [""] * len(prompt)}

    called(injection, emptied)


@fault(detected_by="image", setting=SEEN)
def prompts_swapped(injection: Injection) -> None:
    """Guidance leads away from the prompt: the two halves of the batch have changed places."""

    def swapped(encode: Any, *args: Any, **kwargs: Any) -> Any:
        made = encode(*args, **kwargs)
        if len(made) != 2:
            raise CannotInject(messages.NOT_TWO_PROMPTS)
        positive, negative = made
        return negative, positive

    encoded(injection, swapped)


@fault(detected_by="image", setting=SEEN, unit="dB", sizes=(20, 30, 35, 40, 43, 46, 50, 60, 70, 80))
def noise(injection: Injection) -> None:
    """Noise as coarse as the latents lies over every image."""
    deviation = 2 * 10 ** (-(injection.size or 0) / 20)

    def noisy(sample: torch.Tensor) -> torch.Tensor:
        *others, height, width = sample.shape
        shape = (*others, height // 8, width // 8)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * deviation
        coarse = drawn.repeat_interleave(8, dim=-2).repeat_interleave(8, dim=-1)
        return sample + coarse.to(sample.device, sample.dtype)

    decoded(injection, noisy)
