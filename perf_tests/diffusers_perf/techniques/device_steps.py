"""The denoising loop of DDIM with nothing of a step left to the host.

diffusers' scheduler reads six scalars back from the device in each step, and the host waits for
each. DDIM without noise is linear: the next latents are ``a * latents + b * noise``, with two
numbers a step that follow from the schedule alone. Here they stand in a table on the device, where
each step finds its own, so that a step depends on nothing that the host would have to know, and can
be captured as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from diffusers_perf.measurement.applied import AppliedCheck, NotApplied
from diffusers_perf.techniques.cuda_graphs import Graphed

ROOM = 128
"""Steps that a table has room for: every number of them is replayed by the same capture."""


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """What one step does; each kind is captured on its own."""

    guided: bool
    """With the empty prompt beside the prompt, as one batch of twice the size."""
    fresh: bool
    """Anything that is kept from step to step is made anew."""


@dataclass(kw_only=True)
class Plan:
    """Which kinds of steps a generation takes."""

    guided_share: float = 1.0
    """Of the steps, from the first, that are guided."""
    fresh_every: int = 1
    begin: Callable[[Buffers], None] = lambda buffers: None
    """Called when a generation's prompt and schedule stand in its buffers."""
    before: Callable[[StepKind], None] = lambda kind: None
    """Called with the kind of the step that comes; when it is captured, not when replayed."""

    def kinds(self, steps: int) -> list[StepKind]:
        """The kind of each step."""
        guided = round(steps * self.guided_share)
        kinds = []
        for step in range(steps):
            # What is kept from guided steps has another shape than the unguided ones'.
            since = step if step < guided else step - guided
            kinds.append(StepKind(guided=step < guided, fresh=since % self.fresh_every == 0))
        return kinds


class DeviceSteps:
    """Stable Diffusion's pipeline for DDIM, its scheduler's arithmetic in the step.

    A pipeline of diffusers becomes one by `take_over`. It takes as much of a call as this suite
    makes.
    """

    plan: Plan
    captured: bool
    """Whether steps are CUDA graphs."""
    _buffers: Buffers | None
    # What it has from diffusers.
    unet: Any
    vae: Any
    scheduler: Any
    image_processor: Any
    encode_prompt: Any
    text_encoder: Any
    vae_scale_factor: int

    def loop_begins(self) -> None:
        """Called before the first step; whoever watches puts something in its place."""

    def step_ended(self) -> None:
        """Called after each step, likewise."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        num_inference_steps: int,
        guidance_scale: float,
        generator: torch.Generator,
        output_type: str = "pil",
    ) -> Any:
        """Images of the prompts, as `StableDiffusionPipeline` makes them."""
        from diffusers.utils import torch_utils

        prompts = [prompt] if isinstance(prompt, str) else prompt
        # Not the pipeline's own word on its device, for which it walks through every module.
        device = next(self.text_encoder.parameters()).device
        embedded, empty = self.encode_prompt(prompts, device, 1, True)
        factor = self.vae_scale_factor
        shape = (len(prompts), self.unet.config.in_channels, height // factor, width // factor)
        latents = torch_utils.randn_tensor(
            shape, generator=generator, device=device, dtype=embedded.dtype
        )
        states = torch.cat([empty, embedded])
        if self._buffers is None or not self._buffers.fit(latents, states, guidance_scale):
            self._buffers = Buffers(self, latents, states, guidance_scale)
        buffers = self._buffers
        steps = [buffers.step(kind) for kind in self.plan.kinds(num_inference_steps)]
        buffers.fill(latents, states, table(self.scheduler, num_inference_steps))
        self.loop_begins()
        for step in steps:
            step()
            self.step_ended()
        scaled = buffers.latents.to(latents.dtype) / self.vae.config.scaling_factor
        decoded = self.vae.decode(scaled, return_dict=False)[0]
        images = self.image_processor.postprocess(decoded, output_type=output_type)
        return SimpleNamespace(images=images)


def why_not(pipeline: Any) -> str | None:
    """Why this pipeline cannot be taken over; None if it can."""
    if type(pipeline).__name__ != "StableDiffusionPipeline":
        return f"it is a {type(pipeline).__name__}, not a StableDiffusionPipeline"
    scheduler = pipeline.scheduler
    if type(scheduler).__name__ != "DDIMScheduler":
        return f"its scheduler is a {type(scheduler).__name__}, not a DDIMScheduler"
    config = scheduler.config
    if config.prediction_type != "epsilon":
        return f"its model predicts {config.prediction_type}, not epsilon"
    if config.clip_sample or config.thresholding or config.rescale_betas_zero_snr:
        return "its scheduler clips or rescales, and a step is not one product"
    return None


def take_over(pipeline: Any) -> None:
    """Make this pipeline a `DeviceSteps`. `ValueError` where `why_not` says why not."""
    if reason := why_not(pipeline):
        raise ValueError(reason)
    pipeline.__class__ = type("DeviceSteps", (DeviceSteps, type(pipeline)), {})
    pipeline.plan = Plan()
    pipeline.captured = False
    pipeline._buffers = None


def is_taken_over(pipeline: Any) -> None:
    """The pipeline is a `DeviceSteps`."""
    if not isinstance(pipeline, DeviceSteps):
        raise NotApplied(f"the pipeline is a {type(pipeline).__name__}, not a DeviceSteps")


def steps_are_graphed(pipeline: Any) -> None:
    """Each kind of denoising step that was made is a CUDA graph."""
    is_taken_over(pipeline)
    made = pipeline._buffers.steps.values() if pipeline._buffers else ()
    if not pipeline.captured or not all(isinstance(step, Graphed) for step in made):
        raise NotApplied("the denoising steps are launched kernel by kernel, not as CUDA graphs")


def guides(share: float) -> AppliedCheck:
    """The pipeline's plan guides this share of the steps, and what it made is not all guided."""

    def check(pipeline: Any) -> None:
        is_taken_over(pipeline)
        seen = pipeline.plan.guided_share
        if seen != share:
            raise NotApplied(f"the plan guides {seen:.0%} of the steps, not {share:.0%}")
        made = pipeline._buffers.steps if pipeline._buffers else ()
        if made and all(kind.guided for kind in made):
            raise NotApplied("every step that was made is guided")

    return check


def table(scheduler: Any, steps: int) -> torch.Tensor:
    """Rows ``timestep``, ``a`` and ``b``, a column each step; shape (3, `ROOM`), float32 on the
    host. `ValueError` for more steps than it has room for.

    From DDIM (Song et al., 2020, equation 12) with no noise of its own: with ``alpha`` the
    schedule's cumulative product, ``next = a * latents + b * noise``, where ``a`` is
    ``sqrt(alpha_next / alpha)`` and ``b`` is ``sqrt(1 - alpha_next) - a * sqrt(1 - alpha)``.
    """
    if steps > ROOM:
        raise ValueError(f"{steps} steps are more than the {ROOM} that there is room for")
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    following = timesteps - scheduler.config.num_train_timesteps // steps
    alphas = scheduler.alphas_cumprod.double()
    alpha = alphas[timesteps]
    after = torch.where(
        following >= 0, alphas[following.clamp(min=0)], scheduler.final_alpha_cumprod.double()
    )
    a = (after / alpha).sqrt()
    b = (1 - after).sqrt() - a * (1 - alpha).sqrt()
    rows = torch.zeros(3, ROOM)
    rows[:, :steps] = torch.stack([timesteps.double(), a, b])
    return rows


class Buffers:
    """What all steps of a generation read and write, at addresses that stay."""

    def __init__(
        self, pipeline: DeviceSteps, latents: torch.Tensor, states: torch.Tensor, guidance: float
    ) -> None:
        self._pipeline = pipeline
        self._guidance = guidance
        # In float32: rounding them in each step is an error that adds up, and costs nothing less.
        self.latents = torch.zeros_like(latents, dtype=torch.float32)
        self.states = torch.zeros_like(states)
        self._table = torch.zeros(3, ROOM, device=latents.device)
        self.number = torch.zeros(1, dtype=torch.long, device=latents.device)
        """Of the step that comes next."""
        self.steps: dict[StepKind, Callable[[], None]] = {}
        pipeline.plan.begin(self)

    @property
    def timesteps(self) -> torch.Tensor:
        """Of each step that there is room for, float32."""
        return self._table[0]

    def fit(self, latents: torch.Tensor, states: torch.Tensor, guidance: float) -> bool:
        """Whether a generation from these can use them."""
        own, given = (self.latents, self.states), (latents, states)
        alike = all(
            a.shape == b.shape and a.device == b.device for a, b in zip(own, given, strict=True)
        )
        return alike and self._guidance == guidance

    def fill(self, latents: torch.Tensor, states: torch.Tensor, table: torch.Tensor) -> None:
        """Make ready for the first step."""
        self.latents.copy_(latents)
        self.states.copy_(states)
        self._table.copy_(table)
        self.number.zero_()
        self._pipeline.plan.begin(self)

    def step(self, kind: StepKind) -> Callable[[], None]:
        """A step of this kind; where steps are captured, it is once this returns."""
        if kind not in self.steps:

            def step() -> None:
                self._pipeline.plan.before(kind)
                self._step(guided=kind.guided)

            captured = self._pipeline.captured
            self.steps[kind] = graphed = Graphed(step) if captured else step
            if captured:
                # On numbers that are not filled in yet; each run before it counts a step.
                self.number.zero_()
                graphed()
        return self.steps[kind]

    def _step(self, *, guided: bool) -> None:
        timestep, a, b = self._table.index_select(1, self.number).unbind()
        latents = self.latents.to(self.states.dtype)
        noise = self._pipeline.unet(
            torch.cat([latents, latents]) if guided else latents,
            timestep,
            encoder_hidden_states=self.states if guided else self.states.chunk(2)[1],
            return_dict=False,
        )[0].float()
        if guided:
            without, given = noise.chunk(2)
            noise = without + self._guidance * (given - without)
        self.latents.copy_(a * self.latents + b * noise)
        self.number.add_(1)
