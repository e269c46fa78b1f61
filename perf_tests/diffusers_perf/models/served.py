"""Models that people serve, in full size, on weights that are computed where they are needed.

Speed does not depend on the values of weights, but what an image shows of an error does: each
family sets how strong its layers are, so that every input and every layer counts.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch

from diffusers_perf.catalog.declarations import WeightsKind
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Scale
from diffusers_perf.measurement.dataless import HOST
from diffusers_perf.messages import models as messages
from diffusers_perf.models.architectures import Architecture
from diffusers_perf.models.checkpoint import scheduler_class
from diffusers_perf.models.family import Family
from diffusers_perf.models.flux import FLUX_DEV, FLUX_SCHNELL
from diffusers_perf.models.hashed import fill_uniform
from diffusers_perf.models.sdxl import SDXL
from diffusers_perf.models.seeded import SEED, without_weights

FAMILIES: dict[str, Family] = {"sdxl": SDXL, "flux1-dev": FLUX_DEV, "flux1-schnell": FLUX_SCHNELL}
SLOW = 0.002
"""Radians per unit of a timestep: sinusoids that are faster count less. bfloat16 rounds a timestep
by up to two units, and a guidance of 3.5, which Flux multiplies by a thousand, by four."""
BIAS = 0.1
"""Bound of biases: they move a layer's output, which is at unit scale, by a little."""


class Served:
    """A family in full size; its weights are computed on the device for each pipeline, one by one
    where it is offloaded.
    """

    weights = f"seeded-{SEED}"
    kind: WeightsKind = "seeded"
    scale: Scale = "full"
    variants: frozenset[str] = frozenset()

    def __init__(self, name: str) -> None:
        self.name = name
        self._family = FAMILIES[name]
        self.family = self._family.pipeline

    @property
    def stands_in(self) -> str:
        """What takes the place of something that cannot be shipped; empty if nothing does."""
        return self._family.stands_in

    def load(
        self,
        *,
        scheduler: str | None,
        variants: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device,
        offloaded: bool = False,
    ) -> Any:
        """See `Source.load`."""
        import diffusers

        family = self._family
        kind = scheduler_class(scheduler or family.scheduler)
        return getattr(diffusers, family.pipeline)(
            **self._modules(dtype, device, kept_on=HOST if offloaded else device),
            **family.tokenizers(),
            **family.arguments,
            scheduler=kind.from_config(dict(family.scheduler_config)),
        )

    def without_weights(self) -> ServedWithoutWeights:
        """The same to be counted where its weights would not fit."""
        return ServedWithoutWeights(self.name)

    def _modules(
        self, dtype: torch.dtype, device: torch.device, *, kept_on: torch.device
    ) -> dict[str, torch.nn.Module]:
        if device.type == "cpu":
            raise Refusal(messages.needs_gpu(self.name))
        return {
            place: computed(architecture, place, dtype=dtype, device=device, kept_on=kept_on)
            for place, architecture in self._family.modules.items()
        }


class ServedWithoutWeights(Served):
    """The family's modules without weights."""

    weights = "none"

    def _modules(
        self, dtype: torch.dtype, device: torch.device, *, kept_on: torch.device
    ) -> dict[str, torch.nn.Module]:
        return {
            # PyTorch's own `to`: diffusers' warns about what matters only to weights.
            place: torch.nn.Module.to(without_weights(architecture), dtype=dtype)
            .eval()
            .requires_grad_(False)
            for place, architecture in self._family.modules.items()
        }


def computed(
    architecture: Architecture,
    place: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    kept_on: torch.device,
) -> torch.nn.Module:
    """A module with weights in this dtype, each computed on the device from its path and place, and
    then kept elsewhere before the next.

    `RuntimeError` if the class no longer has the parameters that the checkpoint has.
    """
    module = without_weights(architecture)
    count = sum(parameter.numel() for parameter in module.parameters())
    if count != architecture.parameters:
        raise RuntimeError(
            messages.other_parameters(
                place, architecture.class_name, count, architecture.parameters
            )
        )
    made: dict[int, torch.nn.Parameter] = {}
    for path, layer in module.named_modules():
        for own, parameter in layer.named_parameters(recurse=False):
            if id(parameter) not in made:
                # They require gradients, as those of a loaded checkpoint do.
                weights = torch.empty(parameter.shape, dtype=dtype, device=device)
                _fill(weights, f"{place}.{path}", own, layer, architecture)
                made[id(parameter)] = torch.nn.Parameter(weights.to(kept_on))
            setattr(layer, own, made[id(parameter)])
    return module.to(kept_on).eval()


def _fill(
    weights: torch.Tensor, path: str, own: str, layer: torch.nn.Module, of: Architecture
) -> None:
    """Normalizations pass on what they are given, and layers keep it at unit scale, but for gains.

    `TypeError` for a layer without a rule.
    """
    gain = next((g for end, g in of.gains.items() if path.endswith(end)), of.gain)
    seed = SEED + zlib.crc32(f"{path}.{own}".encode())
    if type(layer).__name__.endswith("Norm"):
        weights.fill_(gain if own == "weight" else 0.0)
    elif own == "bias":
        fill_uniform(weights, seed=seed, bound=BIAS)
    elif isinstance(layer, torch.nn.Embedding):
        fill_uniform(weights, seed=seed, bound=gain * math.sqrt(3))
    elif isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
        fan_in = weights[0].numel()
        fill_uniform(weights, seed=seed, bound=gain * math.sqrt(3 / fan_in))
        if path.endswith(of.slow):
            weights.mul_(_damping(fan_in).to(weights))
    else:
        raise TypeError(messages.no_rule(path, type(layer).__name__))


def _damping(features: int) -> torch.Tensor:
    """How much each of a layer's inputs counts: cosines, then sines, of falling frequencies."""
    half = features // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10_000) / half))
    return (SLOW / frequencies).clamp(max=1.0).repeat(2)
