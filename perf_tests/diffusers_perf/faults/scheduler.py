"""Schedulers that wait for the device in each step, or follow another schedule."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.faults.injection import Injection, Setting, fault
from diffusers_perf.faults.places import COUNTED, in_step


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
