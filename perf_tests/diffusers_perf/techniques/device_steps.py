"""The denoising loop with nothing of a step left to the host.

A scheduler of diffusers reads scalars back from the device in each step, for which the host waits,
or copies them there. Where its step is one product (`schedules`), the numbers stand in a table on
the device, where each step finds its own, so that a step depends on nothing that the host would
have to know, and can be captured as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffusers_perf.measurement.applied import AppliedCheck, NotApplied
from diffusers_perf.techniques.cuda_graphs import Graphed
from diffusers_perf.techniques.schedules import ROOM

REPLAY_ERROR = 0.2
"""How far a replayed step may end from where a launched one does, as a share of the way. Twice what
bfloat16 rounds away (a hundredth) times what guidance makes of it (ten)."""


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
    fresh_first: int = 0
    """Steps at the beginning that are all fresh."""
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
            fresh = step < self.fresh_first or since % self.fresh_every == 0
            kinds.append(StepKind(guided=step < guided, fresh=fresh))
        return kinds


class DeviceSteps:
    """A pipeline of diffusers with its scheduler's arithmetic in the step.

    It becomes one by `stepped.take_over`, which adds what is each pipeline's own: `__call__` and
    `predict`.
    """

    plan: Plan
    captured: bool
    """Whether steps are CUDA graphs."""
    _buffers: Buffers | None
    _current_timestep: float | None
    """Of the step that comes, which diffusers' caches ask for."""
    components: Mapping[str, Any]

    def loop_begins(self) -> None:
        """Called before the first step; whoever watches puts something in its place."""

    def step_ended(self) -> None:
        """Called after each step, likewise."""

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Mapping[str, Any]
    ) -> torch.Tensor:
        """What the denoiser makes of these. The timestep has the shape (1,)."""
        raise NotImplementedError

    def denoise(
        self,
        latents: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
        table: torch.Tensor,
        *,
        steps: int,
        guidance: float | None,
    ) -> torch.Tensor:
        """The latents after the steps of the table.

        `conditioning` has `encoder_hidden_states` and what else the denoiser is given; with a
        `guidance`, rows for the empty prompts, then for the prompts.
        """
        if self._buffers is None or not self._buffers.fit(latents, conditioning, guidance):
            self._buffers = Buffers(self, latents, conditioning, guidance, rows=len(table))
        buffers = self._buffers
        kinds = self.plan.kinds(steps)
        if guidance is None:
            kinds = [replace(kind, guided=False) for kind in kinds]
        made = [buffers.step(kind) for kind in kinds]
        buffers.fill(latents, conditioning, table)
        self.loop_begins()
        for step, timestep in zip(made, table[0].tolist(), strict=False):
            self._current_timestep = timestep
            step()
            self.step_ended()
        self._current_timestep = None
        return buffers.latents.to(latents.dtype)

    @contextmanager
    def launched(self) -> Iterator[None]:
        """Steps that are launched kernel by kernel, for who watches what the denoiser is given."""
        captured, buffers = self.captured, self._buffers
        self.captured, self._buffers = False, None
        try:
            yield
        finally:
            self.captured, self._buffers = captured, buffers


def is_taken_over(pipeline: Any) -> None:
    """The pipeline is a `DeviceSteps`."""
    if not isinstance(pipeline, DeviceSteps):
        raise NotApplied(f"the pipeline is a {type(pipeline).__name__}, not a DeviceSteps")


def steps_are_graphed(pipeline: Any) -> None:
    """Each kind of denoising step that was made is a CUDA graph, which does what is launched."""
    is_taken_over(pipeline)
    buffers = pipeline._buffers
    made = buffers.steps if buffers else {}
    if not pipeline.captured or not all(isinstance(step, Graphed) for step in made.values()):
        raise NotApplied("the denoising steps are launched kernel by kernel, not as CUDA graphs")
    if pipeline.plan.fresh_every > 1:
        # A step that is launched between would keep other features than those that are replayed.
        return
    for kind in made:
        if (error := buffers.replay_error(kind)) > REPLAY_ERROR:
            raise NotApplied(
                f"a replayed step changes the latents by {error:.0%} otherwise than a launched one"
            )


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


class Buffers:
    """What all steps of a generation read and write, at addresses that stay."""

    def __init__(
        self,
        pipeline: DeviceSteps,
        latents: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
        guidance: float | None,
        *,
        rows: int,
    ) -> None:
        self._pipeline = pipeline
        self._guidance = guidance
        self._dtype = latents.dtype
        # In float32: rounding them in each step is an error that adds up, and costs nothing less.
        self.latents = torch.zeros_like(latents, dtype=torch.float32)
        self.conditioning = {n: torch.zeros_like(t) for n, t in conditioning.items()}
        self._table = torch.zeros(rows, ROOM, device=latents.device)
        self.number = torch.zeros(1, dtype=torch.long, device=latents.device)
        """Of the step that comes next."""
        self.steps: dict[StepKind, Callable[[], None]] = {}
        pipeline.plan.begin(self)

    @property
    def states(self) -> torch.Tensor:
        """Of the prompts, as an encoder made them."""
        return self.conditioning["encoder_hidden_states"]

    @property
    def timesteps(self) -> torch.Tensor:
        """Of each step that there is room for, float32."""
        return self._table[0]

    def fit(
        self,
        latents: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
        guidance: float | None,
    ) -> bool:
        """Whether a generation from these can use them."""
        given = {"latents": latents, **conditioning}
        own = {"latents": self.latents, **self.conditioning}
        alike = own.keys() == given.keys() and all(
            own[name].shape == tensor.shape and own[name].device == tensor.device
            for name, tensor in given.items()
        )
        return alike and self._guidance == guidance

    def fill(
        self,
        latents: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
        table: torch.Tensor,
    ) -> None:
        """Make ready for the first step."""
        self.latents.copy_(latents)
        for name, tensor in conditioning.items():
            self.conditioning[name].copy_(tensor)
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

    def replay_error(self, kind: StepKind) -> float:
        """How far a replay of this step ends from where a launch of it does, as a share of the
        way; the latents and the number of the step stay as they are.

        The larger of the first step's and the last's: a captured timestep is right in one of them.
        """
        done = self.number.clone()
        first, last = torch.zeros_like(done), (done - 1).clamp(min=0)
        try:
            return max(self._replay_error_at(number, kind) for number in (first, last))
        finally:
            self.number.copy_(done)

    def _replay_error_at(self, number: torch.Tensor, kind: StepKind) -> float:
        latents, ends = self.latents.clone(), []
        self._pipeline.plan.before(kind)
        for run in (self.steps[kind], lambda: self._step(guided=kind.guided)):
            self.latents.copy_(latents)
            self.number.copy_(number)
            with torch.no_grad():
                run()
            ends.append(self.latents.clone())
        self.latents.copy_(latents)
        replayed, launched = ends
        way = (launched - latents).norm()
        return float((replayed - launched).norm() / way) if way else 0.0

    def _step(self, *, guided: bool) -> None:
        timestep, a, b, *scale = self._table.index_select(1, self.number).unbind()
        latents = (scale[0] * self.latents if scale else self.latents).to(self._dtype)
        conditioning, guidance = self.conditioning, self._guidance if guided else None
        if guidance is not None:
            latents = torch.cat([latents, latents])
        elif self._guidance is not None:
            conditioning = {n: t.chunk(2)[1] for n, t in conditioning.items()}
        noise = self._pipeline.predict(latents, timestep, conditioning).float()
        if guidance is not None:
            without, given = noise.chunk(2)
            noise = without + guidance * (given - without)
        self.latents.copy_(a * self.latents + b * noise)
        self.number.add_(1)
