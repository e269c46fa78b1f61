"""ControlNets that run in some steps alone: what they give changes little from step to step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from diffusers_perf.measurement.applied import AppliedCheck, NotApplied
from diffusers_perf.measurement.discovery import anatomy_of, dtype_of, modules
from diffusers_perf.measurement.replay import device_of

FRESH_EVERY = 2
CONTROLNET = "controlnet"
"""What every pipeline of diffusers calls the component."""


class Cached:
    """Calls a function in every so many of its calls, and gives the same in between."""

    def __init__(self, function: Callable[..., Any], *, every: int) -> None:
        self.function = function
        self.every = every
        self.computed = 0
        self.begin()

    def begin(self) -> None:
        """Before a generation: nothing of the last one is kept."""
        self._calls = 0
        self._given: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._calls % self.every == 0:
            self._given = self.function(*args, **kwargs)
            self.computed += 1
        self._calls += 1
        return self._given


def keep_control(pipeline: Any) -> None:
    """Run the ControlNet in every `FRESH_EVERY`-th step alone."""
    module = modules(pipeline)[CONTROLNET]
    cached = module.forward = pipeline.control_cache = Cached(module.forward, every=FRESH_EVERY)
    before_each_generation(pipeline, cached.begin)


def before_each_generation(pipeline: Any, act: Callable[[], None]) -> None:
    """Do this when the pipeline sets its scheduler's timesteps."""
    set_timesteps = pipeline.scheduler.set_timesteps

    # A pipeline looks into its signature.
    @functools.wraps(set_timesteps)
    def begin(*args: Any, **kwargs: Any) -> Any:
        act()
        return set_timesteps(*args, **kwargs)

    pipeline.scheduler.set_timesteps = begin


def is_cached(every: int) -> AppliedCheck:
    """The ControlNet computes once in so many of its calls, compiled or not."""

    def check(pipeline: Any) -> None:
        cached: Cached | None = getattr(pipeline, "control_cache", None)
        if cached is None:
            raise NotApplied("the ControlNet has no cache")
        module = modules(pipeline)[CONTROLNET]
        if hasattr(module.forward, "_torchdynamo_orig_callable"):
            raise NotApplied("the ControlNet is compiled with its cache: put `compile` in front")
        (call,) = (d.call for d in anatomy_of(pipeline).denoisers if d.name == CONTROLNET)
        args, kwargs = call.on(device_of(pipeline), dtype_of(module))
        cached.begin()
        before = cached.computed
        with torch.no_grad():
            for _ in range(every):
                module(*args, **kwargs)
        cached.begin()
        if cached.computed != before + 1:
            raise NotApplied(
                f"the ControlNet computed {cached.computed - before} times in {every} calls, not "
                "once"
            )

    return check
