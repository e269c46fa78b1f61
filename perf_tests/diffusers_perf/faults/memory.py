"""Memory that is kept, or asked for again and again."""

from __future__ import annotations

import copy
from typing import Any

import torch

from diffusers_perf.faults.injection import Injection, fault
from diffusers_perf.faults.places import COUNTED, COUNTED_HALF, around_denoisers, decoded, in_step
from diffusers_perf.measurement.discovery import denoisers


@fault(detected_by="memory", setting=COUNTED)
def images_kept(injection: Injection) -> None:
    """Every decoded image is kept in a list that is never emptied."""
    kept: list[torch.Tensor] = []

    def keep(sample: torch.Tensor) -> torch.Tensor:
        kept.append(sample)
        return sample

    decoded(injection, keep)


@fault(detected_by="memory", setting=COUNTED_HALF, where="cuda")
def second_copy(injection: Injection) -> None:
    """A second copy of the denoiser's weights stays on the GPU."""

    def then(pipeline: Any) -> None:
        pipeline.denoisers_before = copy.deepcopy(list(denoisers(pipeline).values()))

    injection.then(then)


@fault(detected_by="memory", setting=COUNTED_HALF, where="cuda")
def activations_for_gradients(injection: Injection) -> None:
    """The denoiser runs with gradients, and keeps its activations for a backward pass."""

    def with_gradients(forward: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            made = forward(sample.detach().requires_grad_(), *args, **kwargs)
        if isinstance(made, tuple):
            return (made[0].detach(), *made[1:])
        made.sample = made.sample.detach()
        return made

    around_denoisers(injection, with_gradients)


@fault(detected_by="counter", setting=COUNTED, where="cuda")
def cache_emptied(injection: Injection) -> None:
    """Each step gives the allocator's memory back to the driver, and asks for it again."""
    in_step(injection, lambda pipeline, noise: torch.cuda.empty_cache())


@fault(detected_by="memory", setting=COUNTED, where="cpu")
def host_buffer(injection: Injection) -> None:
    """Each step fills a buffer of 256 MiB in the host's memory."""
    in_step(injection, lambda pipeline, noise: torch.ones(64 * 2**20))
