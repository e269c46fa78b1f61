"""Memory that is kept, or asked for again and again."""

from __future__ import annotations

import copy
from typing import Any

import torch

from diffusers_perf.faults.places import COUNTED, COUNTED_HALF, around_unet, decoded, in_step
from diffusers_perf.faults.planting import Plant, fault


@fault(seen_by="memory", setting=COUNTED)
def pictures_kept(plant: Plant) -> None:
    """Every decoded picture is kept in a list that nobody empties."""
    kept: list[torch.Tensor] = []

    def keep(sample: torch.Tensor) -> torch.Tensor:
        kept.append(sample)
        return sample

    decoded(plant, keep)


@fault(seen_by="memory", setting=COUNTED_HALF, where="cuda")
def second_copy(plant: Plant) -> None:
    """A second copy of the UNet's weights stays on the GPU."""

    def then(pipeline: Any) -> None:
        pipeline.unet_before = copy.deepcopy(pipeline.unet)

    plant.then(then)


@fault(seen_by="memory", setting=COUNTED_HALF, where="cuda")
def activations_for_gradients(plant: Plant) -> None:
    """The UNet runs with gradients, and keeps its activations for a backward pass."""

    def with_gradients(forward: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            made = forward(sample.detach().requires_grad_(), *args, **kwargs)
        if isinstance(made, tuple):
            return (made[0].detach(), *made[1:])
        made.sample = made.sample.detach()
        return made

    around_unet(plant, with_gradients)


@fault(seen_by="counter", setting=COUNTED, where="cuda")
def cache_emptied(plant: Plant) -> None:
    """Each step gives the allocator's memory back to the driver, and asks for it again."""
    in_step(plant, lambda pipeline, noise: torch.cuda.empty_cache())
