"""Generate with a small Flux; what the images show is counted as for the first model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusers_perf.measurement.noise import drawn_on_host
from perf_tests.training.flux import architecture
from perf_tests.training.flux.words import MAX_TOKENS
from perf_tests.training.scores import BATCH
from perf_tests.training.shapes import IMAGE_SIDE

GUIDANCE = 3.5
"""FluxPipeline's default."""
STEPS = 28


def pipeline_of(
    *,
    vae: Any,
    text_encoder: Any,
    tokenizer: Any,
    text_encoder_2: Any,
    tokenizer_2: Any,
    transformer: Any,
) -> Any:
    """A pipeline around live modules."""
    from diffusers import FluxPipeline

    pipeline: Any = FluxPipeline(
        scheduler=architecture.scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pack(latents: Tensor) -> Tensor:
    """Latents (batch, 4, 8, 8) as the transformer takes them, (batch, 16, 16)."""
    from diffusers import FluxPipeline

    packed: Tensor = FluxPipeline._pack_latents(latents, *latents.shape)
    return packed


def generate(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    seed: int,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    classifier_free: float = 1.0,
    batch: int = BATCH,
) -> Tensor:
    """Images for the prompts, (prompts, 3, 64, 64) in [0, 1], float32 on the CPU.

    `guidance` is what the transformer is given; `classifier_free` above 1 adds a second pass
    with the empty prompt in each step.
    """
    generator = torch.Generator().manual_seed(seed)
    images = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        with drawn_on_host():
            result = pipeline(
                prompt=part,
                negative_prompt=[""] * len(part) if classifier_free > 1 else None,
                true_cfg_scale=classifier_free,
                height=IMAGE_SIDE,
                width=IMAGE_SIDE,
                generator=generator,
                num_inference_steps=steps,
                guidance_scale=guidance,
                max_sequence_length=MAX_TOKENS,
                output_type="pt",
            )
        images.append(result.images.float().cpu())
    return torch.cat(images)
