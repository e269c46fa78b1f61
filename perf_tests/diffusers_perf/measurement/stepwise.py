"""Compares a case with its reference step by step, each step from where the reference stood.

A chaotic sampler makes another image of mere rounding, so that the last image says nothing of an
optimization. Here each call of a case's denoiser gets the inputs of the reference's same call, and
the pipeline goes on with the reference's prediction (teacher forcing): nothing accumulates. What
lies around the denoiser (text encoders, guidance, scheduler) shows in the inputs that the case
would have given to the next call, and the decoder in the image, which is made of the reference's
latents.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace
from torch.utils._pytree import tree_flatten, tree_unflatten

from diffusers_perf.catalog.declarations import Case, WeightsKind
from diffusers_perf.measurement.blocks import (
    RecordedBlock,
    compared_blocks,
    own_calls,
    recorded_blocks,
)
from diffusers_perf.measurement.discovery import denoisers, step_ends
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import (
    IDENTICAL_DB,
    BlockDistance,
    Measurement,
    StepDistances,
)
from diffusers_perf.records.pixels import Images


class CannotFollow(Exception):
    """A case whose steps cannot be compared; one sentence says why."""


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One call of a denoiser, on the host."""

    inputs: Sequence[torch.Tensor]
    prediction: Sequence[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What a reference's denoisers were given and gave, call by call."""

    calls: dict[str, list[RecordedCall]]
    """By component."""
    blocks: Mapping[str, Mapping[str, RecordedBlock]]
    """By component, of the call whose number is `middle`."""
    middle: int
    images: Images


def record(generation: Generation, pipeline: Any) -> Trajectory:
    """One generation of the reference, with what its denoisers were given and gave, and in the
    middle of the steps their blocks.
    """
    middle = generation.turns(generation.workload.steps) // 2
    blocks: dict[str, Mapping[str, RecordedBlock]] = {}
    calls: dict[str, list[RecordedCall]] = defaultdict(list)
    copies = _Copies()

    def call(name: str, module: Any, args: Any, kwargs: Any) -> Any:
        inputs = copies.of(_tensors((args, kwargs)))
        if len(calls[name]) == middle:
            with recorded_blocks(module) as blocks[name]:
                output = module(*args, **kwargs)
        else:
            output = module(*args, **kwargs)
        calls[name].append(RecordedCall(inputs=inputs, prediction=copies.of(_tensors(output))))
        return output

    with _stand_ins(pipeline, call):
        images = generation.images()
    if not calls:
        raise CannotFollow(messages.REPLAYED)
    return Trajectory(calls=dict(calls), blocks=blocks, middle=middle, images=images)


class Followed(NamedTuple):
    """What came of a generation along a reference's trajectory."""

    distances: StepDistances
    images: Images
    """Of the reference's predictions."""
    blocks_unknown: str
    """Why some or all blocks were not compared; empty where all were."""


def follow(
    generation: Generation,
    pipeline: Any,
    trajectory: Trajectory,
    *,
    each: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> Followed:
    """One generation of a case along a reference's trajectory. The blocks that were recorded are
    called once more. `each` is given the predictions of every call and the reference's, in float64
    on their devices. `CannotFollow` where the denoisers are not called as the reference's were.
    """
    run = _Following(trajectory, each)
    with _stand_ins(pipeline, run.call), step_ends(pipeline, run.end_step):
        images = generation.images()
    for name, wanted in trajectory.calls.items():
        if run.made[name] != len(wanted):
            raise CannotFollow(messages.other_calls(name, run.made[name], len(wanted)))
    return Followed(run.distances(), images, "; ".join(run.blocks_unknown))


class Steps:
    """Compares the cases of step-wise workloads with the reference that ran before them."""

    def __init__(self) -> None:
        self._trajectories: dict[str, Trajectory] = {}

    def compare(
        self,
        case: Case,
        measured: Measurement,
        generation: Generation,
        pipeline: Any,
        *,
        kind: WeightsKind,
    ) -> tuple[Measurement, Images | None]:
        """The measurement with the distances of its steps, and the images that come of the
        reference's predictions; of a reference its own. None, with a note, where it cannot be
        compared.
        """
        name = case.workload.name
        try:
            if case.is_reference:
                # Of the workload before, what is large: its cases are through, all but always.
                for other, kept in self._trajectories.items():
                    self._trajectories[other] = changed(kept, blocks={})
                trajectory = self._trajectories[name] = record(generation, pipeline)
                return measured, trajectory.images
            if name not in self._trajectories:
                raise CannotFollow(messages.NOT_RECORDED)
            trajectory = self._trajectories[name]
            if not case.alike:
                # What is kept from step to step, a call of a block by itself would disturb.
                trajectory = changed(trajectory, blocks={})
            followed = follow(generation, pipeline, trajectory)
        except CannotFollow as error:
            said = messages.not_comparable(case.id, error)
            return replace(measured, notes=(*measured.notes, said)), None
        unknown = followed.blocks_unknown if case.alike else messages.UNEVEN_STEPS
        if not followed.distances.blocks:
            unknown = unknown or messages.NO_BLOCK_RECORDED
        steps = replace(
            followed.distances, blocks_unknown=unknown, alike_blocks=kind != "checkpoint"
        )
        return replace(measured, step_distances=steps), followed.images


@dataclass
class _Following:
    trajectory: Trajectory
    each: Callable[[torch.Tensor, torch.Tensor], None] | None = None
    made: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    steps: list[list[tuple[float, float]]] = field(default_factory=lambda: [[]])
    """By step, of each call: inputs, prediction."""
    blocks: dict[str, BlockDistance] = field(default_factory=dict)
    blocks_unknown: list[str] = field(default_factory=list)

    def call(self, name: str, module: Any, args: Any, kwargs: Any) -> Any:
        number = self.made[name]
        self.made[name] += 1
        recorded = self.trajectory.calls.get(name, [])
        if number >= len(recorded):
            return module(*args, **kwargs)
        then = recorded[number]
        own = _tensors((args, kwargs))
        inputs = [_shaped_as(a, b) for a, b in zip(then.inputs, own, strict=False)]
        inputs_db = min(map(signal_to_noise_db, own, inputs), default=IDENTICAL_DB)
        if [t.shape for t in own] == [t.shape for t in inputs] and len(own) == len(then.inputs):
            args, kwargs = _replaced((args, kwargs), inputs)
        else:
            inputs_db = -IDENTICAL_DB
        output = self._called(name, module, args, kwargs, number)
        given = _tensors(output)
        own_prediction, wanted = _joined(given), _joined(then.prediction)
        if self.each:
            self.each(own_prediction, wanted)
        if [t.shape for t in given] != [t.shape for t in then.prediction]:
            self.steps[-1].append((inputs_db, -IDENTICAL_DB))
            return output
        self.steps[-1].append((inputs_db, signal_to_noise_db(own_prediction, wanted)))
        return _replaced(output, then.prediction)

    def _called(self, name: str, module: Any, args: Any, kwargs: Any, number: int) -> Any:
        """The denoiser's output; where its reference's blocks were recorded, with theirs."""
        wanted = self.trajectory.blocks.get(name, {})
        if number != self.trajectory.middle or not wanted:
            return module(*args, **kwargs)
        with own_calls(module, wanted) as calls:
            output = module(*args, **kwargs)
        far, unknown = compared_blocks(module, wanted, calls)
        self.blocks |= {f"{name}.{block}": distance for block, distance in far.items()}
        self.blocks_unknown += unknown
        return output

    def end_step(self) -> None:
        self.steps.append([])

    def distances(self) -> StepDistances:
        steps = [step for step in self.steps if step]
        return StepDistances(
            inputs_db=tuple(min(call[0] for call in step) for step in steps),
            predictions_db=tuple(min(call[1] for call in step) for step in steps),
            blocks=self.blocks,
        )


def signal_to_noise_db(seen: torch.Tensor, wanted: torch.Tensor) -> float:
    """How far numbers are from those wanted, in dB of their own energy; `IDENTICAL_DB` at most, and
    its negative where shapes differ or a number is not finite.
    """
    if seen.shape != wanted.shape:
        return -IDENTICAL_DB
    # Where the numbers seen are: of a served model's calls, a host would take longer than the GPU
    # takes for the calls.
    own, other = (t.detach().to(seen.device, torch.float64) for t in (seen, wanted))
    noise, signal = float((own - other).square().sum()), float(other.square().sum())
    if not (math.isfinite(noise) and math.isfinite(signal)):
        return -IDENTICAL_DB
    if noise == 0:
        return IDENTICAL_DB
    ratio = 10 * math.log10(signal / noise) if signal else -IDENTICAL_DB
    return max(-IDENTICAL_DB, min(IDENTICAL_DB, ratio))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def _shaped_as(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """In the other's shape, where they differ by dimensions of one element alone: a timestep may be
    a number or one of a batch.
    """
    sides = ([size for size in shape if size != 1] for shape in (tensor.shape, other.shape))
    return tensor.reshape(other.shape) if operator.eq(*sides) else tensor


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.detach().to(torch.float64).flatten() for t in tensors])


def _replaced(tree: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """The tree with these tensors in place of its own, on their devices and in their dtypes."""
    leaves, spec = tree_flatten(tree)
    others = iter(tensors)
    return tree_unflatten(
        [
            next(others).to(leaf.device, leaf.dtype, copy=True)
            if isinstance(leaf, torch.Tensor)
            else leaf
            for leaf in leaves
        ],
        spec,
    )


class _Copies:
    """Copies on the host; a single one of an input that stays the same in each step."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [self._copy(tensor) for tensor in tensors]

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_inference():
            # It has no version that says whether it was written to.
            return tensor.detach().to("cpu", copy=True)
        key = (id(tensor), tensor._version)
        if key not in self._known:
            # The tensor is held as well: its id must not become another's.
            self._known[key] = tensor, tensor.detach().to("cpu", copy=True)
        return self._known[key][1]


class _StandIn:
    """Takes a module's place in a pipeline: its calls go elsewhere, all else to the module."""

    _module: Any
    _call: Callable[[Any, Any], Any]

    def __init__(self, module: Any, call: Callable[[Any, Any], Any]) -> None:
        vars(self).update(_module=module, _call=call)

    # Pipelines ask whether a component is a module, or which.
    __class__ = property(lambda self: type(self._module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    # Model offload takes its hooks off each component after a call, and puts new ones on.
    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)


@contextmanager
def _stand_ins(pipeline: Any, call: Callable[[str, Any, Any, Any], Any]) -> Iterator[None]:
    """Have the pipeline's denoisers called by this: name, module, args, kwargs.

    A pipeline that replays its steps launches them meanwhile.
    """
    own = denoisers(pipeline)
    attributes = vars(pipeline)
    for name in own:
        if name not in attributes:
            raise CannotFollow(messages.kept_elsewhere(type(pipeline).__name__, name))
    launched = getattr(pipeline, "launched", nullcontext)
    try:
        for name, module in own.items():

            def stand_in(args: Any, kwargs: Any, name: str = name, module: Any = module) -> Any:
                return call(name, module, args, kwargs)

            # Not by setattr: a pipeline writes into its configuration what is set.
            attributes[name] = _StandIn(module, stand_in)
        with launched():
            yield
    finally:
        attributes.update(own)
