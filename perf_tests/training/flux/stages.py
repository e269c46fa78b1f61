"""What each stage trains.

`flow` trains the transformer and both text encoders together to predict the velocity from an image
to noise, a tenth of the captions empty. `guidance` then teaches the transformer to predict in one
pass what classifier-free guidance makes of two, at the scale that it is given: as FLUX.1-dev was
distilled.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from perf_tests.training import workshop
from perf_tests.training.captions import held_out_captions, training_triples
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.flux import architecture, scores, words
from perf_tests.training.scores import score
from perf_tests.training.shapes import Painter
from perf_tests.training.stages import Pool, encode
from perf_tests.training.training import Budget
from perf_tests.training.vocabulary import token_table

MAX_GUIDANCE = 6.0
"""The transformer learns every scale from 1, which leaves the prediction as it is, to this one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of everything in one run of the recipe."""

    flow: Budget
    guidance: Budget
    pool: int
    """Encoded images from which the transformer is trained."""
    probe_prompts: int
    score_prompts: int
    scored: tuple[tuple[int, float], ...]
    """Steps and guidance of the images that are judged; the first two are what the model must
    obey at."""

    def within(self, minutes: float) -> Plan:
        """The same plan with its stages' limits scaled to `minutes` together."""
        scale = 60 * minutes / (self.flow.limit_s + self.guidance.limit_s)
        return replace(
            self,
            flow=replace(self.flow, limit_s=scale * self.flow.limit_s),
            guidance=replace(self.guidance, limit_s=scale * self.guidance.limit_s),
        )


FULL = Plan(
    flow=Budget(steps=26_000, limit_s=400, batch=1024, peak_rate=1e-3, average=0.999),
    guidance=Budget(steps=5000, limit_s=110, batch=1024, peak_rate=3e-4, average=0.998),
    pool=300_000,
    probe_prompts=256,
    score_prompts=512,
    scored=((28, 3.5), (8, 3.5), (4, 3.5), (28, 1.0), (28, 2.0), (28, 6.0)),
)

SMOKE = Plan(
    flow=Budget(steps=3, limit_s=60, batch=4, peak_rate=1e-3),
    guidance=Budget(steps=2, limit_s=60, batch=4, peak_rate=1e-3),
    pool=8,
    probe_prompts=2,
    score_prompts=2,
    scored=((2, 3.5), (1, 3.5)),
)
"""A few steps of everything, to see that the recipe runs; its images are noise."""


@dataclass(frozen=True, kw_only=True)
class Workshop(workshop.Workshop):
    """The folder of this recipe, and the size of everything in it."""

    COMMAND = "python -m perf_tests.training.flux"

    plan: Plan

    def vae(self) -> Any:
        """The first model's autoencoder with the scale and the shift of this recipe's latents."""
        data = self.report("data")
        vae = architecture.vae().to(self.device).eval().requires_grad_(False)
        vae.register_to_config(
            scaling_factor=data["scaling_factor"], shift_factor=data["shift_factor"]
        )
        return vae

    def text(self) -> Text:
        """The trained text encoders."""
        return Text(
            clip=self.trained("flow", "text_encoder", architecture.clip_encoder()),
            t5=self.trained(
                "flow", "text_encoder_2", architecture.t5_encoder(words.t5_tokenizer())
            ),
        )

    def transformer(self, stage: str) -> Any:
        """The transformer as `stage` left it."""
        return self.trained(stage, "transformer", architecture.transformer())


@dataclass(frozen=True, kw_only=True)
class Text:
    """The two text encoders, and the token ids of every caption for both."""

    clip: Any
    t5: Any

    def __call__(self, ids: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """States for each token (batch, 20, 128) and pooled ones (batch, 128)."""
        clip_ids, t5_ids = ids
        return self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output


class Flow:
    """Noisy images with their captions, and how to ask a transformer for their velocity."""

    def __init__(self, shop: Workshop) -> None:
        self.device = shop.device
        self.shift = architecture.level_shift()
        self.clip_table = token_table(architecture.clip_tokenizer()).to(shop.device)
        self.t5_table = words.token_table(words.t5_tokenizer()).to(shop.device)
        self.text_ids = torch.zeros(words.MAX_TOKENS, 3, device=shop.device)
        side = torch.arange(architecture.TOKEN_SIDE, device=shop.device, dtype=torch.float32)
        row, column = torch.meshgrid(side, side, indexing="ij")
        self.image_ids = torch.stack((torch.zeros_like(row), row, column), dim=-1).reshape(-1, 3)
        vae = shop.vae()
        torch.manual_seed(shop.seed)
        pool = Pool.fill(Painter(shop.device), vae, shop.plan.pool)
        centred = pool.latents - vae.config.shift_factor * vae.config.scaling_factor
        self.pool = replace(pool, latents=scores.pack(centred))

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents and their velocity (both packed), noise levels (b,), caption numbers."""
        latents, caption = self.pool.batch(size)
        noise = torch.randn_like(latents)
        # As often as the sampler visits a level: evenly, then shifted like its schedule.
        even = torch.rand(size, device=self.device)
        level = self.shift * even / (1 + (self.shift - 1) * even)
        mixed = level[:, None, None]
        return (1 - mixed) * latents + mixed * noise, noise - latents, level, caption

    def ids(self, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids for both encoders."""
        return self.clip_table[caption], self.t5_table[caption]

    def empty(self, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids of as many empty captions."""
        return self.ids(torch.full_like(caption, self.clip_table.shape[0] - 1))

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        level: Tensor,
        guidance: Tensor,
        states: tuple[Tensor, Tensor],
    ) -> Tensor:
        """What the transformer predicts, packed."""
        predicted: Tensor = transformer(
            hidden_states=noisy,
            timestep=level,
            guidance=guidance,
            encoder_hidden_states=states[0],
            pooled_projections=states[1],
            txt_ids=self.text_ids,
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
        return predicted


@cache
def flow_of(shop: Workshop) -> Flow:
    """The training data, made once for all stages of a process."""
    flow = Flow(shop)
    shop.log(f"{shop.plan.pool} images drawn and encoded")
    return flow


def half_rounded(level: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor]:
    """Both as a pipeline in bfloat16 would pass them, for about half of the batch.

    bfloat16 has eight bits: the level 0.9632 arrives as 0.964 and the guidance 3500 (in
    thousandths) as 3504. A transformer that never saw this would draw another image for it.
    """
    rounded = torch.rand_like(level) < 0.5
    coarse_level = ((1000 * level).bfloat16() / 1000 * 1000).float() / 1000
    coarse_guidance = (guidance.bfloat16() * 1000).float() / 1000
    return torch.where(rounded, coarse_level, level), torch.where(
        rounded, coarse_guidance, guidance
    )


def measure_latents(shop: Workshop) -> dict[str, Any]:
    """Stage `data`: the shift and the scale that bring the latents to mean 0 and deviation 1."""
    torch.manual_seed(shop.seed)
    vae = architecture.vae().to(shop.device).eval()
    triples, painter = training_triples(shop.device), Painter(shop.device)
    choice = torch.randint(triples.shape[0], (256,), device=shop.device)
    with torch.no_grad():
        latents = encode(vae, painter.draw(painter.scene(triples[choice])))
    return {
        "scaling_factor": round(1 / float(latents.std()), 4),
        "shift_factor": round(float(latents.mean()), 4),
    }


def train_flow(shop: Workshop) -> dict[str, Any]:
    """Stage `flow`: the transformer and both text encoders learn the velocity."""
    flow, budget = flow_of(shop), shop.plan.flow
    torch.manual_seed(shop.seed)
    transformer = architecture.transformer().to(shop.device)
    text = Text(
        clip=architecture.clip_encoder().to(shop.device),
        t5=architecture.t5_encoder(words.t5_tokenizer()).to(shop.device),
    )

    def loss() -> Tensor:
        noisy, wanted, level, caption = flow.batch(budget.batch)
        level, guidance = half_rounded(level, torch.ones_like(level))
        states = text(flow.ids(caption))
        return functional.mse_loss(
            flow.velocity(transformer, noisy, level, guidance, states), wanted
        )

    modules = [transformer, text.clip, text.t5]
    training = shop.training("flow", modules, loss, budget)
    # Without guidance: the scale it is asked with has not been learned yet.
    outcome = training.run(lambda: _prompted(shop, text, transformer, 1.0))
    shop.save("flow", "transformer", transformer)
    shop.save("flow", "text_encoder", text.clip)
    shop.save("flow", "text_encoder_2", text.t5)
    return asdict(outcome)


def train_guidance(shop: Workshop) -> dict[str, Any]:
    """Stage `guidance`: one pass learns what two passes and classifier-free guidance predict."""
    flow, budget = flow_of(shop), shop.plan.guidance
    teacher, text = shop.transformer("flow"), shop.text()
    transformer = copy.deepcopy(teacher).requires_grad_(True)
    torch.manual_seed(shop.seed)

    def loss() -> Tensor:
        noisy, _, level, caption = flow.batch(budget.batch)
        scale = 1 + (MAX_GUIDANCE - 1) * torch.rand_like(level)
        with torch.no_grad():
            states = text(flow.ids(caption))
            one = torch.ones_like(level)
            asked = flow.velocity(teacher, noisy, level, one, states)
            free = flow.velocity(teacher, noisy, level, one, text(flow.empty(caption)))
            wanted = free + scale[:, None, None] * (asked - free)
        level, scale = half_rounded(level, scale)
        return functional.mse_loss(flow.velocity(transformer, noisy, level, scale, states), wanted)

    training = shop.training("guidance", [transformer], loss, budget)
    outcome = training.run(lambda: _prompted(shop, text, transformer, scores.GUIDANCE), probes=2)
    shop.save("guidance", "transformer", transformer)
    return asdict(outcome)


def pipeline(shop: Workshop, text: Text, transformer: Any) -> Any:
    """A pipeline around modules in training."""
    return scores.pipeline_of(
        vae=shop.vae(),
        text_encoder=text.clip,
        tokenizer=architecture.clip_tokenizer(),
        text_encoder_2=text.t5,
        tokenizer_2=words.t5_tokenizer(),
        transformer=transformer,
    )


def _prompted(shop: Workshop, text: Text, transformer: Any, guidance: float) -> str:
    """How a transformer in training obeys held-out captions: a line for the log."""
    captions = held_out_captions(shop.plan.probe_prompts, seed=1)
    images = scores.generate(
        pipeline(shop, text, transformer),
        [caption.text for caption in captions],
        seed=1,
        steps=shop.plan.scored[0][0],
        guidance=guidance,
    )
    result = score(Evaluator(Painter(shop.device)), images, captions)
    return f"{len(captions)} held-out captions at guidance {guidance}: {result.line()}"
