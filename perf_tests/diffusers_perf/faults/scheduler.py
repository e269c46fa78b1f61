"""Schedulers that wait for the device in each step, or follow another schedule."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.faults.places import COUNTED, SEEN, in_step
from diffusers_perf.faults.planting import Plant, Setting, fault


@fault(
    seen_by="counter",
    setting=Setting(steps=6, changes={"scheduler": "EulerDiscreteScheduler"}),
    source="diffusers #6173, #6708",
)
def sigmas_on_device(plant: Plant) -> None:
    """The scheduler's sigmas are on the GPU, and each step waits to read them."""
    from diffusers import EulerDiscreteScheduler

    set_timesteps = EulerDiscreteScheduler.set_timesteps

    def onto_device(self: Any, *args: Any, **kwargs: Any) -> None:
        set_timesteps(self, *args, **kwargs)
        self.sigmas = self.sigmas.to(self.timesteps.device)

    plant.put(EulerDiscreteScheduler, "set_timesteps", onto_device)


@fault(seen_by="counter", setting=COUNTED)
def item_in_step(plant: Plant) -> None:
    """Each step reads a number back from the GPU to look for NaN."""
    in_step(plant, lambda pipeline, noise: noise.abs().max().item())


@fault(seen_by="counter", setting=COUNTED, source="diffusers' UniPC scheduler")
def tensor_from_list(plant: Plant) -> None:
    """Each step builds a tensor on the GPU from a Python list."""
    in_step(plant, lambda pipeline, noise: torch.tensor([0.5], device=noise.device))


@fault(seen_by="counter", setting=COUNTED)
def preview_in_step(plant: Plant) -> None:
    """Each step copies the latents to the host for a preview that nobody asked for."""
    in_step(plant, lambda pipeline, noise: noise.cpu())


@fault(seen_by="counter", setting=COUNTED, where="cuda")
def synchronized_step(plant: Plant) -> None:
    """Each step waits for the GPU."""
    in_step(plant, lambda pipeline, noise: torch.cuda.synchronize())


@fault(seen_by="picture", setting=SEEN)
def scheduler_defaults(plant: Plant) -> None:
    """The scheduler is built without the model's configuration."""

    def then(pipeline: Any) -> None:
        pipeline.scheduler = type(pipeline.scheduler)()

    plant.then(then)
