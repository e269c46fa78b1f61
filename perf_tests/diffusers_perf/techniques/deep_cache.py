"""DeepCache in the steps of `device_steps`.

The package asks the device for the timestep before each call of the UNet, and searches it in the
schedule. A step that is captured knows neither; its plan knows what is to be made anew.
"""

from __future__ import annotations

from typing import Any

from diffusers_perf.measurement.applied import AppliedCheck, NotApplied
from diffusers_perf.techniques.control_cache import before_each_generation
from diffusers_perf.techniques.device_steps import DeviceSteps, StepKind


class Planned:
    """For the package's helper: follows the plan of a `DeviceSteps`, not the time."""

    def wrap_unet_forward(self) -> None:
        """Ask nothing of the device: `follow` is called with what comes."""
        self._kept: dict[bool, dict[Any, Any]] = {True: {}, False: {}}
        self.rest()

    def follow(self, kind: StepKind) -> None:
        """Make ready for a step of this kind."""
        # Apart, as guided and unguided steps are of different shapes, and so that a step that is
        # captured later finds the tensors of its own kind, and not those of the last run. Emptied,
        # as a compiler looks at what is there and would make the fresh step twice.
        if kind.fresh:
            self._kept[kind.guided] = {}
        self.cached_output = self._kept[kind.guided]
        self.cur_timestep = 0 if kind.fresh else 1

    def rest(self, *_: object) -> None:
        """Between the steps nothing is kept, nor taken from what is."""
        self.cached_output = {}
        self.start_timestep = self.cur_timestep = 0


def keep_blocks(pipeline: Any, *, interval: int, first: int = 0) -> None:
    """Make the UNet's inner blocks anew in each `interval`-th step alone.

    A pipeline with a plan can do so in all of the `first` steps as well. What the helper holds of
    the last step is not there for who calls the UNet's own forward. `ValueError` for first steps
    without a plan, and for a UNet without a mid block, which the package does not know.
    """
    from DeepCache import DeepCacheSDHelper

    if pipeline.unet.mid_block is None:
        raise ValueError("DeepCache wants a mid block, and the distilled UNet has none")
    planned = isinstance(pipeline, DeviceSteps)
    if first and not planned:
        raise ValueError("DeepCache makes first steps whole in a pipeline of device_steps alone")
    bases = (Planned, DeepCacheSDHelper) if planned else (DeepCacheSDHelper,)
    helper: Any = type("Helper", bases, {})(pipe=pipeline)
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    if planned:
        pipeline.plan.fresh_every, pipeline.plan.fresh_first = interval, first
        before = pipeline.plan.before

        def follow(kind: StepKind) -> None:
            before(kind)
            helper.follow(kind)

        pipeline.plan.before = follow
        pipeline.unet.register_forward_hook(helper.rest)
    else:

        def begin() -> None:
            # From an init image, another number of steps begins at another of them.
            helper.start_timestep = None

        before_each_generation(pipeline, begin)

        def from_the_first(*_: object) -> None:
            helper.cur_timestep = helper.start_timestep

        pipeline.unet.register_forward_hook(from_the_first)
    pipeline.deep_cache = helper


def is_cached(interval: int, *, first: int = 0) -> AppliedCheck:
    """DeepCache holds the UNet's blocks, and makes the inner ones anew in the first and each of so
    many steps.
    """

    def check(pipeline: Any) -> None:
        helper = getattr(pipeline, "deep_cache", None)
        blocks = (*pipeline.unet.down_blocks, pipeline.unet.mid_block, *pipeline.unet.up_blocks)
        if helper is None or any("forward" not in vars(block) for block in blocks):
            raise NotApplied("not all of the UNet's blocks are held by DeepCache")
        planned = isinstance(pipeline, DeviceSteps)
        seen = pipeline.plan.fresh_every if planned else helper.params["cache_interval"]
        if seen != interval:
            raise NotApplied(f"the UNet's blocks are made anew every {seen} steps, not {interval}")
        if planned and pipeline.plan.fresh_first != first:
            raise NotApplied(
                f"the first {pipeline.plan.fresh_first} steps are made in full, not {first}"
            )

    return check
