"""Generate with held-out captions, and count what the images got right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from diffusers_perf.measurement.noise import drawn_on_host
from perf_tests.training import architecture
from perf_tests.training.captions import Caption
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.shapes import IMAGE_SIDE

GUIDANCE = 7.5
BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Score:
    """Shares of images, 0 to 1; `place` and `size` among the captions that name them."""

    captions: int
    right: float
    """Shape and both colours."""
    shape: float
    colour: float
    background: float
    place: float
    size: float
    shuffled: float
    """`right` of the same images against the captions of others: what chance would reach."""
    fit: float
    """Mean overlap of the outlines with those of the shapes they were taken for."""

    def line(self) -> str:
        return (
            f"right {self.right:.1%} (shape {self.shape:.1%}, colour {self.colour:.1%}, "
            f"background {self.background:.1%}), place {self.place:.1%}, size {self.size:.1%}, "
            f"shuffled {self.shuffled:.1%}, fit {self.fit:.2f}"
        )

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def pipeline_of(*, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> Any:
    """A pipeline around live modules, with the DDIM scheduler."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler.from_config(architecture.scheduler().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    seed: int,
    steps: int = 50,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Images for the prompts, (prompts, 3, 64, 64) in [0, 1], float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        with drawn_on_host():
            result = pipeline(
                prompt=part,
                height=IMAGE_SIDE,
                width=IMAGE_SIDE,
                generator=generator,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="pt",
            )
        images.append(result.images.float().cpu())
    return torch.cat(images)


def score(evaluator: Evaluator, images: Tensor, captions: Sequence[Caption]) -> Score:
    """What the evaluator sees in the images against what their captions asked for."""
    seen = evaluator.look(images)
    device = seen.shape.device

    def column(values: Sequence[int | None]) -> Tensor:
        return torch.tensor([-2 if value is None else value for value in values], device=device)

    shape = seen.shape == column([c.shape for c in captions])
    colour = seen.colour == column([c.colour for c in captions])
    background = seen.background == column([c.background for c in captions])
    # Half a turn of the list: every image against a caption that was not its own.
    turned = [*captions[len(captions) // 2 :], *captions[: len(captions) // 2]]
    by_chance = (
        (seen.shape == column([c.shape for c in turned]))
        & (seen.colour == column([c.colour for c in turned]))
        & (seen.background == column([c.background for c in turned]))
    )
    return Score(
        captions=len(captions),
        right=_share(shape & colour & background),
        shape=_share(shape),
        colour=_share(colour),
        background=_share(background),
        place=_share_named(seen.place, column([c.place for c in captions])),
        size=_share_named(seen.size, column([c.size for c in captions])),
        shuffled=_share(by_chance),
        fit=float(seen.fit.mean()),
    )


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())


def _share_named(seen: Tensor, asked: Tensor) -> float:
    named = asked >= 0
    return _share((seen == asked)[named]) if bool(named.any()) else 1.0
