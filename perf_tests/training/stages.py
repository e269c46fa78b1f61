"""What each stage trains.

A stage reads what earlier stages left in FOLDER/work, trains, leaves there its own weights in
float32, and returns its report. The command writes that to `done.json`, last of all: a stage
without it runs again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from perf_tests.training import architecture, scores, workshop
from perf_tests.training.captions import (
    held_out_captions,
    held_out_triples,
    numbers_for,
    training_triples,
)
from perf_tests.training.evaluator import Evaluator
from perf_tests.training.shapes import Painter
from perf_tests.training.training import Budget
from perf_tests.training.vocabulary import corpus, token_table, train_tokenizer

KL_WEIGHT = 1e-4
"""Against squared error, both a mean over their elements: keeps the latents smooth."""
LATENT_NOISE = 0.05
"""Noise added to the latents that the tiny autoencoder learns to decode, in units of their
standard deviation: those of a UNet are never quite those of an encoder."""
STEP_EXPONENT = 0.6
"""Of a uniform number that becomes the timestep's share of the schedule: below one, since what the
image shows, and where, is decided while there is still much noise."""
FEATURE_WEIGHT = 1.0
OUTPUT_WEIGHT = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of everything in one run of the recipe."""

    vae: Budget
    teacher: Budget
    student: Budget
    tiny_vae: Budget
    pool: int
    """Encoded images from which the UNets are trained."""
    probe_prompts: int
    score_prompts: int
    distance_prompts: int
    inference_steps: int


FULL = Plan(
    vae=Budget(steps=4000, limit_s=75, batch=64, peak_rate=1e-3),
    teacher=Budget(steps=10_500, limit_s=270, batch=512, peak_rate=1e-3),
    student=Budget(steps=4000, limit_s=90, batch=512, peak_rate=7e-4),
    tiny_vae=Budget(steps=4500, limit_s=75, batch=64, peak_rate=1e-3),
    pool=150_000,
    probe_prompts=128,
    score_prompts=512,
    distance_prompts=24,
    inference_steps=50,
)

_FEW = Budget(steps=3, limit_s=60, batch=4, peak_rate=1e-3)
SMOKE = Plan(
    vae=_FEW,
    teacher=_FEW,
    student=_FEW,
    tiny_vae=_FEW,
    pool=8,
    probe_prompts=2,
    score_prompts=2,
    distance_prompts=2,
    inference_steps=2,
)
"""A few steps of everything, to see that the recipe runs; its images are noise."""


@dataclass(frozen=True, kw_only=True)
class Workshop(workshop.Workshop):
    """The folder of this recipe, and the size of everything in it."""

    COMMAND = "python -m perf_tests.training"

    plan: Plan

    def tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        self.report("tokenizer")
        return CLIPTokenizer.from_pretrained(self.work / "tokenizer" / "tokenizer")

    def token_table(self) -> Tensor:
        """Token ids of every caption, on the device: see `vocabulary.token_table`."""
        self.report("tokenizer")
        table: Tensor = torch.load(self.work / "tokenizer" / "table.pt", weights_only=True)
        return table.to(self.device)

    def vae(self) -> Any:
        vae = self.trained("vae", "vae", architecture.vae())
        vae.register_to_config(scaling_factor=self.report("vae")["scaling_factor"])
        return vae

    def teacher(self) -> tuple[Any, Any]:
        """The trained UNet and text encoder."""
        text = architecture.text_encoder(self.tokenizer())
        return (
            self.trained("teacher", "unet", architecture.teacher_unet()),
            self.trained("teacher", "text_encoder", text),
        )

    def student(self) -> Any:
        return self.trained("student", "distilled_unet", architecture.student_unet())

    def tiny_vae(self) -> Any:
        return self.trained("tiny_vae", "tiny_vae", architecture.tiny_vae())


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Encoded images and what they show: the UNets' training data, on the device."""

    latents: Tensor
    """(n, 4, 8, 8), scaled to a standard deviation of 1."""
    caption: Tensor
    """Caption numbers, int64 (n, 8): eight true captions of each image."""

    @classmethod
    def fill(cls, painter: Painter, vae: Any, size: int) -> Pool:
        """Draw and encode `size` images of the training combinations."""
        triples = training_triples(painter.device)
        latents, captions = [], []
        for start in range(0, size, 2048):
            n = min(2048, size - start)
            choice = torch.randint(triples.shape[0], (n,), device=painter.device)
            scene = painter.scene(triples[choice])
            with torch.no_grad():
                latents.append(encode(vae, painter.draw(scene)) * vae.config.scaling_factor)
            captions.append(torch.stack([numbers_for(scene) for _ in range(8)], dim=1))
        return cls(latents=torch.cat(latents), caption=torch.cat(captions))

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Random latents (size, 4, 8, 8) and a caption number for each."""
        device = self.latents.device
        row = torch.randint(self.latents.shape[0], (size,), device=device)
        column = torch.randint(self.caption.shape[1], (size,), device=device)
        return self.latents[row], self.caption[row, column]


class Diffusion:
    """Noise added to the pool's latents, with its captions: one batch a call."""

    def __init__(self, shop: Workshop, vae: Any, batch: int) -> None:
        schedule = architecture.scheduler()
        kept = schedule.alphas_cumprod.to(shop.device)
        self.signal, self.noise = kept.sqrt(), (1 - kept).sqrt()
        self.table = shop.token_table()
        self.pool = Pool.fill(Painter(shop.device), vae, shop.plan.pool)
        self.batch_size = batch

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents and the noise in them (both (b, 4, 8, 8)), timesteps, token ids."""
        latents, caption = self.pool.batch(self.batch_size)
        noise = torch.randn_like(latents)
        share = torch.rand(self.batch_size, device=latents.device) ** STEP_EXPONENT
        step = (share * self.signal.shape[0]).long().clamp(max=self.signal.shape[0] - 1)
        signal, strength = self.signal[step], self.noise[step]
        noisy = signal[:, None, None, None] * latents + strength[:, None, None, None] * noise
        return noisy, noise, step, self.table[caption]


def encode(vae: Any, images: Tensor) -> Tensor:
    """A sample of the autoencoder's posterior, (batch, 4, 8, 8), not scaled."""
    posterior = vae.encode(images).latent_dist
    sample: Tensor = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
    return sample


def image_error(made: Tensor, wanted: Tensor) -> Tensor:
    """Squared plus a little absolute error: the latter keeps edges sharp."""
    return functional.mse_loss(made, wanted) + 0.1 * functional.l1_loss(made, wanted)


def train_vocabulary(shop: Workshop) -> dict[str, Any]:
    """Stage `tokenizer`: the merges, and with them the token ids of every caption."""
    tokenizer = train_tokenizer(corpus())
    tokenizer.save_pretrained(shop.work / "tokenizer" / "tokenizer")
    torch.save(token_table(tokenizer), shop.work / "tokenizer" / "table.pt")
    return {"entries": len(tokenizer)}


def train_vae(shop: Workshop) -> dict[str, Any]:
    """Stage `vae`: the autoencoder learns to redraw images from 256 numbers."""
    torch.manual_seed(shop.seed)
    model = architecture.vae().to(shop.device)
    painter, triples = Painter(shop.device), training_triples(shop.device)
    budget = shop.plan.vae

    def loss() -> Tensor:
        choice = torch.randint(triples.shape[0], (budget.batch,), device=shop.device)
        images = painter.draw(painter.scene(triples[choice]))
        posterior = model.encode(images).latent_dist
        latents = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
        made = model.decode(latents).sample
        kl: Tensor = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return image_error(made, images) + KL_WEIGHT * kl

    training = shop.training("vae", [model], loss, budget)
    outcome = training.run(lambda: _redrawn(shop, painter, model, model)[0], probes=2)
    model.eval()
    with torch.no_grad():
        choice = torch.randint(triples.shape[0], (256,), device=shop.device)
        latents = encode(model, painter.draw(painter.scene(triples[choice])))
    scaling_factor = round(1 / float(latents.std()), 5)
    _, quality = _redrawn(shop, painter, model, model)
    shop.save("vae", "vae", model)
    return {**asdict(outcome), "scaling_factor": scaling_factor, **quality}


def train_teacher(shop: Workshop) -> dict[str, Any]:
    """Stage `teacher`: the UNet and the text encoder learn together to predict the noise."""
    torch.manual_seed(shop.seed)
    vae, tokenizer = shop.vae(), shop.tokenizer()
    unet = architecture.teacher_unet().to(shop.device)
    text = architecture.text_encoder(tokenizer).to(shop.device)
    budget = shop.plan.teacher
    diffusion = Diffusion(shop, vae, budget.batch)
    shop.log(f"teacher: {shop.plan.pool} images drawn and encoded")

    def loss() -> Tensor:
        noisy, noise, step, ids = diffusion.batch()
        predicted: Tensor = unet(noisy, step, text(ids)[0]).sample
        return functional.mse_loss(predicted, noise)

    training = shop.training("teacher", [unet, text], loss, budget)
    outcome = training.run(lambda: _prompted(shop, vae, text, tokenizer, unet))
    shop.save("teacher", "unet", unet)
    shop.save("teacher", "text_encoder", text)
    return asdict(outcome)


def inherit(student: nn.Module, teacher: nn.Module) -> None:
    """Start the student from the teacher's layers, as BK-SDM does.

    Kept are the first layer of each down block, and the first and third of each up block: the
    third is the one that takes the skip connection of the level below.
    """
    weights = teacher.state_dict()
    for name, weight in student.state_dict().items():
        parts = name.split(".")
        if parts[0] == "up_blocks" and parts[2] in ("resnets", "attentions") and parts[3] == "1":
            parts[3] = "2"
        weight.copy_(weights[".".join(parts)])


@contextmanager
def _features(unet: Any) -> Iterator[list[Tensor]]:
    """The outputs of every down and up block in the forward pass made inside the context."""
    features: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        features.append(output[0] if isinstance(output, tuple) else output)

    blocks = [*unet.down_blocks, *unet.up_blocks]
    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def train_student(shop: Workshop) -> dict[str, Any]:
    """Stage `student`: the smaller UNet is distilled from the teacher, outputs and features."""
    vae, tokenizer = shop.vae(), shop.tokenizer()
    teacher, text = shop.teacher()
    student = architecture.student_unet().to(shop.device)
    inherit(student, teacher)
    torch.manual_seed(shop.seed)
    budget = shop.plan.student
    diffusion = Diffusion(shop, vae, budget.batch)

    def loss() -> Tensor:
        noisy, noise, step, ids = diffusion.batch()
        with torch.no_grad(), _features(teacher) as teacher_features:
            hidden = text(ids)[0]
            wanted = teacher(noisy, step, hidden).sample
        with _features(student) as student_features:
            made = student(noisy, step, hidden).sample
        # Relative to the teacher's variance, so that no block outweighs the others by its scale.
        apart = [
            functional.mse_loss(mine, other) / (other.var() + 1e-6)
            for mine, other in zip(student_features, teacher_features, strict=True)
        ]
        return (
            functional.mse_loss(made, noise)
            + OUTPUT_WEIGHT * functional.mse_loss(made, wanted)
            + FEATURE_WEIGHT * torch.stack(apart).mean()
        )

    training = shop.training("student", [student], loss, budget)
    outcome = training.run(lambda: _prompted(shop, vae, text, tokenizer, student), probes=2)
    shop.save("student", "distilled_unet", student)
    return asdict(outcome)


def train_tiny_vae(shop: Workshop) -> dict[str, Any]:
    """Stage `tiny_vae`: a small autoencoder learns the latents and the decoder of the large one.

    A pipeline divides latents by the decoder's `scaling_factor`, which is 1 here: the tiny
    decoder takes the latents as the UNet makes them, and its encoder makes those.
    """
    vae = shop.vae()
    torch.manual_seed(shop.seed)
    model = architecture.tiny_vae().to(shop.device)
    painter, triples = Painter(shop.device), training_triples(shop.device)
    budget, scaling_factor = shop.plan.tiny_vae, vae.config.scaling_factor

    def loss() -> Tensor:
        choice = torch.randint(triples.shape[0], (budget.batch,), device=shop.device)
        images = painter.draw(painter.scene(triples[choice]))
        with torch.no_grad():
            mean = vae.encode(images).latent_dist.mean * scaling_factor
            latents = mean + LATENT_NOISE * torch.randn_like(mean)
            wanted = vae.decode(latents / scaling_factor).sample
        encoded = functional.mse_loss(model.encode(images).latents, mean)
        return image_error(model.decode(latents).sample, wanted) + 0.1 * encoded

    training = shop.training("tiny_vae", [model], loss, budget)
    outcome = training.run(lambda: _redrawn(shop, painter, vae, model)[0], probes=2)
    _, quality = _redrawn(shop, painter, vae, model)
    shop.save("tiny_vae", "tiny_vae", model)
    return {**asdict(outcome), **quality}


def _redrawn(
    shop: Workshop, painter: Painter, encoder: Any, decoder: Any
) -> tuple[str, dict[str, float]]:
    """How well held-out images survive encoding and decoding: a line, and the numbers."""
    triples = held_out_triples(shop.device)
    choice = torch.randint(triples.shape[0], (shop.plan.probe_prompts,), device=shop.device)
    scene = painter.scene(triples[choice])
    images = painter.draw(scene)
    with torch.no_grad():
        latents = encoder.encode(images).latent_dist.mean
        if decoder is not encoder:
            latents = latents * encoder.config.scaling_factor
        made = decoder.decode(latents).sample.clamp(-1, 1)
    error = float(((made - images) / 2).square().mean())
    psnr_db = -10 * float(torch.log10(torch.tensor(max(error, 1e-10))))
    seen = Evaluator(painter).look((made + 1) / 2)
    right = (
        (seen.shape == scene.shape)
        & (seen.colour == scene.colour)
        & (seen.background == scene.background)
    )
    quality = {
        "redrawn_psnr_db": round(psnr_db, 2),
        "redrawn_right": round(float(right.float().mean()), 4),
    }
    line = f"redrawn {psnr_db:.1f} dB, {quality['redrawn_right']:.1%} still read right"
    return line, quality


def _prompted(shop: Workshop, vae: Any, text: Any, tokenizer: Any, unet: Any) -> str:
    """How a UNet in training obeys held-out captions: a line for the log."""
    captions = held_out_captions(shop.plan.probe_prompts, seed=1)
    pipeline = scores.pipeline_of(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet)
    images = scores.generate(
        pipeline, [c.text for c in captions], seed=1, steps=min(25, shop.plan.inference_steps)
    )
    score = scores.score(Evaluator(Painter(shop.device)), images, captions)
    return f"{len(captions)} held-out captions: {score.line()}"
