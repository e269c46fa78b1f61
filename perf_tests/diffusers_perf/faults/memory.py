"""Memory that is kept, or asked for again and again."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffusers_perf.faults.injection import CannotInject, Injection, fault
from diffusers_perf.faults.places import (
    COUNTED,
    COUNTED_HALF,
    around_call,
    around_decode,
    around_denoisers,
    decoded,
    encoded,
    in_step,
)
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.generation import images_in
from diffusers_perf.messages import faults as messages


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


@fault(detected_by="memory", setting=COUNTED, source="ComfyUI #12541")
def arrays_kept(injection: Injection) -> None:
    """Each generation leaves its images and 5 MB more on the host, as NumPy arrays."""
    kept: list[Any] = []

    def keep(call: Any, pipeline: Any, arguments: dict[str, Any]) -> Any:
        made = call(**arguments)
        if not _lacks_data(made):
            kept.append((np.array(images_in(made)), np.ones(1_250_000, np.float32)))
        return made

    around_call(injection, keep)


@fault(detected_by="memory", setting=COUNTED, source="sdnext #1384")
def pil_images_kept(injection: Injection) -> None:
    """Each generation's images are kept as PIL images, in memory that Python does not see."""
    kept: list[Any] = []

    def keep(call: Any, pipeline: Any, arguments: dict[str, Any]) -> Any:
        made = call(**arguments)
        if not _lacks_data(made):
            kept.extend(Image.fromarray((255 * one).astype(np.uint8)) for one in images_in(made))
        return made

    around_call(injection, keep)


@fault(detected_by="memory", setting=COUNTED)
def embeddings_cached(injection: Injection) -> None:
    """The embeddings of each prompt are kept, in a cache without a bound."""
    kept: dict[str, Any] = {}

    def cached(encode: Any, *args: Any, **kwargs: Any) -> Any:
        key = repr((args, kwargs))
        if key not in kept:
            made = encode(*args, **kwargs)
            if any(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in made):
                return made
            kept[key] = made
        return kept[key]

    encoded(injection, cached)


@fault(detected_by="applied check", setting=COUNTED, source="LTX-2 #170")
def no_grad_lost(injection: Injection) -> None:
    """The pipeline's call lost its no_grad: the activations of all steps stay alive."""

    def then(pipeline: Any) -> None:
        if not hasattr(type(pipeline).__call__, "__wrapped__"):
            raise CannotInject(messages.lacks(pipeline, messages.WITHOUT_NO_GRAD))

    def with_gradients(call: Any, pipeline: Any, arguments: dict[str, Any]) -> Any:
        return call.func.__wrapped__(pipeline, **arguments)

    def without(decode: Any, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return decode(latents.detach(), *args, **kwargs)

    injection.then(then)
    around_call(injection, with_gradients)
    around_decode(injection, without)


def _lacks_data(made: Any) -> bool:
    """Whether the images are of a generation that is only counted."""
    return isinstance(getattr(made, "images", None), torch.Tensor) and made.images.is_meta
