"""Schedulers that wait for the device in each step, or follow another schedule."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch

from diffusers_perf.faults.injection import CannotInject, Injection, Setting, fault
from diffusers_perf.faults.places import COUNTED, SEEN, in_step
from diffusers_perf.messages import faults as messages


@fault(
    detected_by="counter",
    setting=Setting(steps=6, changes={"scheduler": "EulerDiscreteScheduler"}),
    source="diffusers #6173, #6708",
)
def sigmas_on_device(injection: Injection) -> None:
    """The scheduler's sigmas are on the GPU, and each step waits to read them."""
    from diffusers import EulerDiscreteScheduler

    set_timesteps = EulerDiscreteScheduler.set_timesteps

    def onto_device(self: Any, *args: Any, **kwargs: Any) -> None:
        set_timesteps(self, *args, **kwargs)
        self.sigmas = self.sigmas.to(self.timesteps.device)

    injection.put(EulerDiscreteScheduler, "set_timesteps", onto_device)


@fault(detected_by="counter", setting=COUNTED)
def item_in_step(injection: Injection) -> None:
    """Each step reads a number back from the GPU to look for NaN."""
    in_step(injection, lambda pipeline, noise: noise.abs().max().item())


@fault(detected_by="counter", setting=COUNTED, source="diffusers' UniPC scheduler")
def tensor_from_list(injection: Injection) -> None:
    """Each step builds a tensor on the GPU from a Python list."""
    in_step(injection, lambda pipeline, noise: torch.tensor([0.5], device=noise.device))


@fault(detected_by="counter", setting=COUNTED)
def preview_in_step(injection: Injection) -> None:
    """Each step copies the latents to the host for an unused preview."""
    in_step(injection, lambda pipeline, noise: noise.cpu())


@fault(detected_by="counter", setting=COUNTED, where="cuda")
def synchronized_step(injection: Injection) -> None:
    """Each step waits for the GPU."""
    in_step(injection, lambda pipeline, noise: torch.cuda.synchronize())


# A schedule matters most in few steps: of the embedded transformer's, an image is at 39 dB after
# two, and at 52 dB after eight.
@fault(detected_by="image", setting=Setting(steps=2, image_only=True))
def scheduler_defaults(injection: Injection) -> None:
    """The scheduler is built without the model's configuration."""

    def then(pipeline: Any) -> None:
        pipeline.scheduler = type(pipeline.scheduler)()

    injection.then(then)


@fault(detected_by="image", setting=SEEN, where="cpu")
def table_in_half_precision(injection: Injection) -> None:
    """The scheduler's table, its alphas or its sigmas, went through half precision."""

    def then(pipeline: Any) -> None:
        scheduler = pipeline.scheduler
        if hasattr(scheduler, "alphas_cumprod"):
            scheduler.alphas_cumprod = _rounded(scheduler.alphas_cumprod)
            return
        if not hasattr(scheduler, "sigmas"):
            raise CannotInject(messages.lacks(scheduler, messages.NO_TABLE))
        set_timesteps = scheduler.set_timesteps

        @wraps(set_timesteps)  # pipelines look at what it takes
        def rounding(*args: Any, **kwargs: Any) -> None:
            set_timesteps(*args, **kwargs)
            scheduler.sigmas = _rounded(scheduler.sigmas)

        scheduler.set_timesteps = rounding

    injection.then(then)


def _rounded(table: torch.Tensor) -> torch.Tensor:
    return table.half().to(table.dtype)


@fault(detected_by="image", setting=SEEN, source="diffusers #6068, #7128", where="cpu")
def last_step_to_one(injection: Injection) -> None:
    """The last step goes to an image without noise, and not to the first of the schedule."""

    def then(pipeline: Any) -> None:
        _with_alphas(pipeline).final_alpha_cumprod = torch.tensor(1.0)

    injection.then(then)


@fault(detected_by="image", setting=SEEN, source="diffusers #6068, #7331", where="cpu")
def steps_offset_lost(injection: Injection) -> None:
    """The schedule lost its offset, and each step is one of a thousand timesteps too early."""

    def then(pipeline: Any) -> None:
        _with_alphas(pipeline).register_to_config(steps_offset=0)

    injection.then(then)


def _with_alphas(pipeline: Any) -> Any:
    """The pipeline's scheduler. `CannotInject` where it has no table of alphas."""
    scheduler = pipeline.scheduler
    if not hasattr(scheduler, "alphas_cumprod"):
        raise CannotInject(messages.lacks(scheduler, messages.NO_ALPHAS))
    return scheduler
