"""Wrong images."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.faults.injection import Injection, fault
from diffusers_perf.faults.places import REPEATED, SEEN, SEEN_FOUR, decoded, encoded


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
        prepare, step = pipeline.prepare_latents, pipeline.scheduler.step

        def prepared(*args: Any, **kwargs: Any) -> torch.Tensor:
            latents: torch.Tensor = prepare(*args, **kwargs)
            fits = last and last[0].device == latents.device
            return last[0] if fits else latents

        def kept(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            last[:] = [result[0]]
            return result

        pipeline.prepare_latents, pipeline.scheduler.step = prepared, kept

    injection.then(then)


@fault(detected_by="image", setting=SEEN)
def swapped_colours(injection: Injection) -> None:
    """Red and blue have changed places."""
    decoded(injection, lambda sample: sample[:, [2, 1, 0]])


def scaled(injection: Injection, factor: float) -> None:
    """Scale the latents on their way into the decoder."""

    def then(pipeline: Any) -> None:
        decode = pipeline.vae.decode
        pipeline.vae.decode = lambda latents, *a, **k: decode(latents * factor, *a, **k)

    injection.then(then)


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

        def shifted(*args: Any, **kwargs: Any) -> None:
            set_timesteps(*args, **kwargs)
            scheduler.timesteps = (scheduler.timesteps - shift).clamp(min=0)

        scheduler.set_timesteps = shifted

    injection.then(then)


@fault(detected_by="image", setting=SEEN)
def no_guidance(injection: Injection) -> None:
    """Guidance is lost."""

    def then(pipeline: Any) -> None:
        real = type(pipeline)
        pipeline.__class__ = type(
            real.__name__,
            (real,),
            {"do_classifier_free_guidance": property(lambda self: False)},
        )

    injection.then(then)


@fault(detected_by="image", setting=SEEN)
def prompt_lost(injection: Injection) -> None:
    """The prompt does not arrive: the images are of nothing in particular."""

    def emptied(encode: Any, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        return encode([""] * len(prompt), *args, **kwargs)

    encoded(injection, emptied)


@fault(detected_by="image", setting=SEEN)
def prompts_swapped(injection: Injection) -> None:
    """Guidance leads away from the prompt: the two halves of the batch have changed places."""

    def swapped(encode: Any, *args: Any, **kwargs: Any) -> Any:
        positive, negative = encode(*args, **kwargs)
        return negative, positive

    encoded(injection, swapped)


@fault(detected_by="image", setting=SEEN, unit="dB", sizes=(20, 30, 35, 40, 43, 46, 50))
def noise(injection: Injection) -> None:
    """Noise as coarse as the latents lies over every image."""
    deviation = 2 * 10 ** (-(injection.size or 0) / 20)

    def noisy(sample: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = sample.shape
        shape = (count, channels, height // 8, width // 8)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * deviation
        coarse = drawn.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        return sample + coarse.to(sample.device, sample.dtype)

    decoded(injection, noisy)
