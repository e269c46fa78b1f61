"""What each stage trains.

`flow` trains the transformer and both text encoders together to predict the velocity from an image
to noise, a tenth of the captions empty. `guidance` then teaches the transformer to predict in one
pass what classifier-free guidance makes of two, at the scale that it is given: as FLUX.1-dev was
distilled.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from perf_tests.training import workshop
from perf_tests.training.captions import held_out_captions, training_triples
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.flux import architecture, folder, scores, words
from perf_tests.training.flux.compute import Compute
from perf_tests.training.scores import Score, score
from perf_tests.training.shapes import Painter
from perf_tests.training.stages import Pool, encode
from perf_tests.training.training import Budget, Log, Training, TrainingFailedError
from perf_tests.training.vocabulary import token_table

MAX_GUIDANCE = 4.0
"""The transformer learns every scale from 1, which leaves the prediction as it is, to this one."""
FLOW_SHARE = 0.65
"""Of the training time: what `guidance` distils is only as good as what `flow` learned."""
AFTER_TRAINING_S = 25.0
"""Kept for saving and judging the model before a deadline."""
CHECK_STEPS = 20
MAX_CHECK_DIFFERENCE = 0.10
"""Between the losses of a check, relative to the one in float32; other batches make about 2 %."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of everything in one run of the recipe."""

    flow: Budget
    guidance: Budget
    pool: int
    """Encoded images from which the transformer is trained."""
    probe_prompts: int
    score_prompts: int
    steps: tuple[int, ...]
    """Of the images that are judged; the model must obey at the first two numbers."""
    guidances: tuple[float, ...]
    """From which the one that the model card recommends is picked."""


FULL = Plan(
    flow=Budget(steps=60_000, limit_s=300, batch=512, peak_rate=1.5e-3, average=0.999),
    guidance=Budget(steps=20_000, limit_s=160, batch=512, peak_rate=5e-4, average=0.998),
    pool=300_000,
    probe_prompts=256,
    score_prompts=512,
    steps=(28, 8, 4),
    guidances=(1.0, 1.5, 2.0, 2.5, 3.0, 3.5),
)

SMOKE = Plan(
    flow=Budget(steps=3, limit_s=60, batch=4, peak_rate=1e-3),
    guidance=Budget(steps=2, limit_s=60, batch=4, peak_rate=1e-3),
    pool=8,
    probe_prompts=2,
    score_prompts=2,
    steps=(2, 1),
    guidances=(3.5,),
)
"""A few steps of everything, to see that the recipe runs; its images are noise."""


@dataclass(frozen=True, kw_only=True)
class Workshop(workshop.Workshop):
    """The folder of this recipe, and the size of everything in it."""

    COMMAND = "python -m perf_tests.training.flux"

    plan: Plan
    compute: Compute
    deadline_s: float | None = None
    """When the command must have ended, on the clock of `time.perf_counter`."""

    def budget(self, stage: str) -> Budget:
        """The stage's budget, shortened to its share of the time before the deadline."""
        budget: Budget = getattr(self.plan, stage)
        if self.deadline_s is None:
            return budget
        left_s = self.deadline_s - time.perf_counter() - AFTER_TRAINING_S
        # A stage that goes on from a checkpoint counts what it trained before.
        trained_s = self.trained_s(stage)
        share = FLOW_SHARE if stage == "flow" else 1.0
        return replace(budget, limit_s=max(1.0, share * (left_s + trained_s)))

    def trained_s(self, stage: str) -> float:
        """How long an interrupted stage has trained, in seconds."""
        path = self.checkpoint(stage)
        if not path.is_file():
            return 0.0
        return float(torch.load(path, map_location="cpu", weights_only=True)["elapsed_s"])

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
        # Half of the levels as often as the sampler visits them, evenly; the other half more
        # often in the middle, where the image is decided. All shifted like its schedule.
        middle = torch.randn(size, device=self.device).sigmoid()
        even = torch.rand(size, device=self.device)
        share = torch.where(torch.rand_like(even) < 0.5, middle, even)
        level = self.shift * share / (1 + (self.shift - 1) * share)
        mixed = level[:, None, None]
        return (1 - mixed) * latents + mixed * noise, noise - latents, level, caption

    def ids(self, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids for both encoders."""
        return self.clip_table[caption], self.t5_table[caption]

    def empty(self, size: int) -> tuple[Tensor, Tensor]:
        """Token ids of so many empty captions: the last row of both tables."""
        return self.ids(torch.full((size,), -1, device=self.device))

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
        )[0].float()
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


def random_guidance(level: Tensor) -> Tensor:
    """A scale for each level, evenly from 1 to the largest."""
    return 1 + (MAX_GUIDANCE - 1) * torch.rand_like(level)


def _flow_training(
    shop: Workshop, flow: Flow, stage: str, budget: Budget
) -> tuple[Training, Text, Any]:
    """The training of the transformer and both text encoders from their start, and these."""
    torch.manual_seed(shop.seed)
    transformer = architecture.transformer().to(shop.device)
    text = Text(
        clip=architecture.clip_encoder().to(shop.device),
        t5=architecture.t5_encoder(words.t5_tokenizer()).to(shop.device),
    )
    shop.compute.prepare(transformer)

    def loss() -> Tensor:
        noisy, wanted, level, caption = flow.batch(budget.batch)
        level, guidance = half_rounded(level, random_guidance(level))
        with shop.compute.autocast(shop.device):
            states = text(flow.ids(caption))
            predicted = flow.velocity(transformer, noisy, level, guidance, states)
        return functional.mse_loss(predicted, wanted)

    modules = [transformer, text.clip, text.t5]
    return shop.training(stage, modules, loss, budget), text, transformer


@cache
def check_compute(shop: Workshop) -> list[Training]:
    """Train a few steps in float32 without a graph, and as the run will; both trainings.

    The result is kept for the life of the process, and with it the memory of the first graph.
    `TrainingFailedError` where the losses differ by more than batches do.
    """
    if shop.compute is Compute.FLOAT32:
        return []
    flow, trainings, losses = flow_of(shop), [], []
    budget = replace(shop.plan.flow, steps=CHECK_STEPS, limit_s=120)
    for compute, capture in ((Compute.FLOAT32, False), (shop.compute, shop.capture)):
        quiet = replace(shop, compute=compute, capture=capture, log=Log(quiet=True))
        training = _flow_training(quiet, flow, "check", budget)[0]
        outcome = training.run(probes=0)
        shop.log(f"check: {compute}: loss {outcome.loss:.4f} in {outcome.seconds} s")
        trainings.append(training)
        losses.append(outcome.loss)
    plain, chosen = losses
    if not abs(chosen - plain) <= MAX_CHECK_DIFFERENCE * plain:
        raise TrainingFailedError(
            f"check: the loss after {CHECK_STEPS} steps is {chosen:.4f} with {shop.compute} and "
            f"{plain:.4f} in float32; run the same command with --compute {Compute.FLOAT32}"
        )
    return trainings


def train_flow(shop: Workshop) -> dict[str, Any]:
    """Stage `flow`: the transformer and both text encoders learn the velocity."""
    flow = flow_of(shop)
    check_compute(shop)
    training, text, transformer = _flow_training(shop, flow, "flow", shop.budget("flow"))
    outcome = training.run(lambda: _prompted(shop, text, transformer, guidance=1.0))
    shop.save("flow", "transformer", transformer)
    shop.save("flow", "text_encoder", text.clip)
    shop.save("flow", "text_encoder_2", text.t5)
    for scale in (2.0, 3.5):
        line = _prompted(shop, text, transformer, guidance=1.0, classifier_free=scale)
        shop.log(f"flow: with classifier-free guidance {scale}: {line}")
    # What there is if the time ends before the next stage does.
    folder.save_model(shop.out / "flow_model", pipeline(shop, text, transformer))
    return asdict(outcome)


def train_guidance(shop: Workshop) -> dict[str, Any]:
    """Stage `guidance`: one pass learns what two passes and classifier-free guidance predict."""
    flow, budget = flow_of(shop), shop.budget("guidance")
    teacher, text = shop.transformer("flow"), shop.text()
    transformer = copy.deepcopy(teacher).requires_grad_(True)
    for module in (teacher, transformer):
        shop.compute.prepare(module)
    torch.manual_seed(shop.seed)
    with torch.no_grad(), shop.compute.autocast(shop.device):
        unprompted = text(flow.empty(budget.batch))

    def loss() -> Tensor:
        noisy, _, level, caption = flow.batch(budget.batch)
        scale = random_guidance(level)
        with shop.compute.autocast(shop.device):
            with torch.no_grad():
                states = text(flow.ids(caption))
                asked = flow.velocity(teacher, noisy, level, scale, states)
                free = flow.velocity(teacher, noisy, level, scale, unprompted)
                wanted = free + scale[:, None, None] * (asked - free)
            level, scale = half_rounded(level, scale)
            predicted = flow.velocity(transformer, noisy, level, scale, states)
        return functional.mse_loss(predicted, wanted)

    training = shop.training("guidance", [transformer], loss, budget)
    outcome = training.run(
        lambda: _prompted(shop, text, transformer, guidance=shop.plan.guidances[-1]), probes=3
    )
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


def judge(
    shop: Workshop, made: Any, *, steps: int, guidance: float, classifier_free: float = 1.0
) -> Score:
    """How a pipeline obeys the captions that choices are made by; not those of the final scores."""
    captions = held_out_captions(shop.plan.probe_prompts, seed=1)
    images = scores.generate(
        made,
        [caption.text for caption in captions],
        seed=1,
        steps=steps,
        guidance=guidance,
        classifier_free=classifier_free,
    )
    return score(Evaluator(Painter(shop.device)), images, captions)


def _prompted(
    shop: Workshop, text: Text, transformer: Any, *, guidance: float, classifier_free: float = 1.0
) -> str:
    """How a transformer in training obeys held-out captions: a line for the log."""
    result = judge(
        shop,
        pipeline(shop, text, transformer),
        steps=shop.plan.steps[0],
        guidance=guidance,
        classifier_free=classifier_free,
    )
    return f"{result.captions} held-out captions at guidance {guidance}: {result.line()}"
