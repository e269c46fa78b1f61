"""What the pipeline's code asks for, counted exactly and without a GPU.

The pipeline's own code runs on tensors without data: torch's `meta` device stands for the GPU, so
that `tensor.device` is true and whatever crosses between host and device is seen crossing.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch

from diffusers_perf.catalog.declarations import Workload
from diffusers_perf.measurement.dataless import NotCountable, stand_in
from diffusers_perf.measurement.discovery import modules
from diffusers_perf.measurement.dispatch import Constructors, Counting
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import (
    Occurrence,
    Operator,
    OperatorCost,
    OperatorCounts,
    Place,
)

__all__ = ["NotCountable", "generate", "observe"]

FEW, MANY = 5, 8
"""Turns of the denoising loop in two generations: both beyond PNDM's first four, which do other
arithmetic."""
STEADY = slice(4, -1)
"""Turns of the longer one that speak for all further ones: the last of a schedule may do less."""

Tally = Counter[Occurrence | tuple[Operator, int]]
"""How often each event happens; of each operator its calls, FLOPs and bytes, numbered."""


def observe(pipeline: Any, workload: Workload) -> OperatorCounts:
    """Count short generations of this workload by this pipeline, wherever its weights are.

    They are put aside meanwhile and put back untouched. Where steps differ, all of the workload's
    are counted. `NotCountable` under torch.autocast, and where the code's way depends on data that
    are not there.
    """
    if torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"):
        raise NotCountable("torch.autocast passes by tensors without data")
    generation = Generation(pipeline, workload)
    asked = [generation.asking_for(turns) for turns in (1, FEW, MANY)]
    with _without_data(pipeline):
        # What is made in a first generation and kept is not part of the others.
        _, few, many = (_run(pipeline, generation, steps) for steps in asked)
        if many.continues(few):
            return _counts_of(many.whole, lambda key: many.since(few, key))
        every = _run(pipeline, generation, workload.steps)
        return _counts_of(every.whole, every.at_least)


def generate(pipeline: Any, generation: Generation, *, steps: int) -> None:
    """A generation of a pipeline that has no data. `NotCountable` where it cannot do without."""
    with _without_data(pipeline), _counted(pipeline):
        generation.images(steps=steps)


@dataclass(kw_only=True)
class _Counted:
    """What was counted in one generation."""

    asked: int
    is_linear: bool
    """Whether each further step that is asked for is one more turn of the loop."""
    whole: Tally = field(default_factory=Counter)
    so_far: list[Tally] = field(default_factory=list)
    """At the end of each turn."""

    @property
    def steps(self) -> int:
        # PNDM's one turn more is not a step of its own.
        return self.asked if self.is_linear else len(self.so_far)

    @functools.cached_property
    def turns(self) -> list[Tally]:
        """What each turn asked for; the first with all that was before it."""
        return [_more(after, before) for before, after in pairwise([Counter(), *self.so_far])]

    def continues(self, few: _Counted) -> bool:
        """Whether it asks for as much more than a shorter one as its steady turns say."""
        first, *others = map(_of_any_schedule, self.turns[STEADY])
        further = self.steps - few.steps
        return all(turn == first for turn in others) and _of_any_schedule(
            _more(self.whole, few.whole)
        ) == {key: further * number for key, number in first.items()}

    def since(self, few: _Counted, key: Any) -> Count:
        """Fixed and per step, on the line through a shorter one."""
        return Count.between(few.whole[key], self.whole[key], steps=(few.steps, self.steps))

    def at_least(self, key: Any) -> Count:
        """What each turn asks for at least, and all else as fixed: exact for so many steps."""
        each = min((turn[key] for turn in self.turns[1:]), default=0)
        return Count(fixed=self.whole[key] - self.steps * each, per_step=each)


def _more(whole: Tally, part: Tally) -> Tally:
    more = Counter(whole)
    more.subtract(part)
    return Counter({key: number for key, number in more.items() if number})


def _of_any_schedule(tally: Tally) -> Tally:
    """Without bytes: a schedule that is searched is as long as it has steps."""
    return Counter(
        {key: n for key, n in tally.items() if isinstance(key, Occurrence) or key[1] < 2}
    )


def _run(pipeline: Any, generation: Generation, steps: int) -> _Counted:
    run = _Counted(asked=steps, is_linear=generation.anatomy.is_linear)
    with _counted(pipeline) as counting:
        generation.images(steps=steps, after_step=lambda: run.so_far.append(_tally(counting)))
    run.whole = _tally(counting)
    return run


def _tally(counting: Counting) -> Tally:
    tally: Tally = Counter(counting.occurrences)
    for operator, sums in counting.operators.items():
        for number, total in enumerate(sums):
            tally[operator, number] = total
    return tally


def _counts_of(tally: Tally, count: Callable[[Any], Count]) -> OperatorCounts:
    operators = dict.fromkeys(key[0] for key in tally if not isinstance(key, Occurrence))
    return OperatorCounts(
        operators={
            o: OperatorCost(*(count((o, number)) for number in range(3))) for o in operators
        },
        occurrences={key: count(key) for key in tally if isinstance(key, Occurrence)},
    )


@contextmanager
def _counted(pipeline: Any) -> Iterator[Counting]:
    """Count what the pipeline asks for while the context is open."""
    counting = Counting()
    with torch.no_grad(), counting, Constructors(counting), _placed(pipeline, counting):
        yield counting


@contextmanager
def _without_data(pipeline: Any) -> Iterator[None]:
    """All parameters and buffers without data for as long as the context is open."""
    held: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    stand_ins: dict[int, torch.Tensor] = {}
    tables: list[dict[str, Any]] = [
        table
        for root in modules(pipeline).values()
        for module in root.modules()
        for table in (module._parameters, module._buffers)
    ]
    plain = _plain_state(pipeline)
    try:
        for table in tables:
            for name, tensor in table.items():
                if tensor is None or tensor.is_meta:
                    continue
                held.append((table, name, tensor))
                if id(tensor) not in stand_ins:
                    stand_ins[id(tensor)] = stand_in(tensor)
                table[name] = stand_ins[id(tensor)]
        yield
    finally:
        for table, name, tensor in held:
            table[name] = tensor
        for attributes, before in plain:
            _put_back(attributes, before)
        for root in modules(pipeline).values():
            # Where the generation was broken off, a cache would give the next one what has no data.
            if getattr(root, "is_cache_enabled", False):
                root._reset_stateful_cache()


Attributes = dict[str, Any]


def _plain_state(pipeline: Any) -> list[tuple[Attributes, Attributes]]:
    """The attributes of the pipeline, its components, their modules and helpers, and a copy.

    A scheduler keeps its schedule in them, and a module tables of rotary embeddings.
    """
    found: dict[int, tuple[Attributes, Attributes]] = {}

    def visit(value: Any) -> None:
        if isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)
        elif _keeps_state(value) and id(vars(value)) not in found:
            found[id(vars(value))] = (vars(value), dict(vars(value)))
            visit(vars(value))

    visit([pipeline, *pipeline.components.values()])
    return list(found.values())


def _keeps_state(value: Any) -> bool:
    if isinstance(value, type | ModuleType | torch.Tensor) or not hasattr(value, "__dict__"):
        return False
    return type(value).__module__.partition(".")[0] not in sys.stdlib_module_names


def _put_back(attributes: Attributes, before: Attributes) -> None:
    """Restore the attributes that have no data now."""
    for name, value in list(attributes.items()):
        if value is before.get(name) or not _lacks_data(value):
            continue
        if name in before:
            attributes[name] = before[name]
        else:
            del attributes[name]


def _lacks_data(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_lacks_data, value))
    return isinstance(value, torch.Tensor) and value.is_meta


@contextmanager
def _placed(pipeline: Any, counting: Counting) -> Iterator[None]:
    """Tell the mode which module of the pipeline, or method of its scheduler, is running."""
    names = {
        id(module): Place(f"{component}.{name}".rstrip("."), type(module).__name__)
        for component, root in modules(pipeline).items()
        for name, module in root.named_modules()
    }
    stack = counting.stack
    stack.append(Place("pipeline", type(pipeline).__name__))

    def enter(module: torch.nn.Module, args: object) -> None:
        own = type(module).__name__
        stack.append(names.get(id(module)) or Place(f"{stack[-1].path}.{own}", own))

    def leave(module: torch.nn.Module, args: object, output: object) -> None:
        stack.pop()

    def wrapped(name: str, method: Any) -> Any:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            stack.append(Place(f"scheduler.{name}", f"{type(scheduler).__name__}.{name}"))
            try:
                return method(*args, **kwargs)
            finally:
                stack.pop()

        return call

    scheduler = pipeline.scheduler
    own = [n for n in ("set_timesteps", "scale_model_input", "step") if hasattr(scheduler, n)]
    before = {name: vars(scheduler)[name] for name in own if name in vars(scheduler)}
    hooks = (
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    for name in own:
        setattr(scheduler, name, wrapped(name, getattr(scheduler, name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name in own:
            delattr(scheduler, name)
        vars(scheduler).update(before)
