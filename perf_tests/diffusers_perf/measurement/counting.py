"""Runs a pipeline's code on tensors without data, and sees what it asks for and where."""

from __future__ import annotations

import functools
import gc
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from diffusers_perf.catalog.metrics import DENOISER_SAMPLES
from diffusers_perf.measurement.dataless import stand_in
from diffusers_perf.measurement.discovery import denoisers, is_known, modules
from diffusers_perf.measurement.dispatch import Constructors, Counting
from diffusers_perf.records.operators import Place


@contextmanager
def counted(pipeline: Any) -> Iterator[Counting]:
    """Count what the pipeline asks for while the context is open."""
    counting = Counting()
    with (
        torch.no_grad(),
        _nothing_collected(),
        counting,
        Constructors(counting),
        _placed(pipeline, counting),
    ):
        yield counting


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Garbage waits: looking for it in all that the libraries hold takes a tenth of counting."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def has_data(pipeline: Any) -> bool:
    """Whether its modules were built with weights."""
    own = modules(pipeline).values()
    return not any(parameter.is_meta for module in own for parameter in module.parameters())


@contextmanager
def without_data(pipeline: Any) -> Iterator[None]:
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


@contextmanager
def undone(pipeline: Any) -> Iterator[None]:
    """Whatever is set meanwhile on the pipeline, its components and their modules is not there
    afterwards: hooks in a forward's place, and parameters in another's.
    """
    plain = _plain_state(pipeline)
    try:
        yield
    finally:
        for attributes, before in plain:
            _put_back(attributes, before)


Attributes = dict[str, Any]


def _plain_state(pipeline: Any) -> list[tuple[Attributes, Attributes]]:
    """The attributes of the pipeline, its components, their modules and helpers, and a copy; of
    those that are dictionaries, as a module's hooks are, what they hold as well.

    A scheduler keeps its schedule in them, and a module tables of rotary embeddings.
    """
    found: dict[int, tuple[Attributes, Attributes]] = {}

    def visit(value: Any) -> None:
        if isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            if id(value) in found:
                return
            # No configuration of diffusers, which is a dictionary that refuses to be written to.
            if type(value) in (dict, OrderedDict):
                found[id(value)] = (value, dict(value))
            for item in value.values():
                visit(item)
        elif _keeps_state(value):
            visit(vars(value))

    visit([pipeline, *pipeline.components.values()])
    return list(found.values())


def _keeps_state(value: Any) -> bool:
    if isinstance(value, type | ModuleType | torch.Tensor) or not hasattr(value, "__dict__"):
        return False
    return type(value).__module__.partition(".")[0] not in sys.stdlib_module_names


def _put_back(attributes: Attributes, before: Attributes) -> None:
    """Undo what was set meanwhile, and what was added.

    All of it: a prompt that is kept and what it is kept for, or a buffer and its fill, go together.
    """
    for name in attributes.keys() - before.keys():
        del attributes[name]
    attributes.update(before)


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

    def sampled(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        # They come first, in a tensor or a list of them.
        batches = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor | list)]
        counting.event(DENOISER_SAMPLES.field, "sample", times=len(batches[0]))

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
    hooks = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    if is_known(pipeline):
        hooks += [
            module.register_forward_pre_hook(sampled, with_kwargs=True)
            for module in denoisers(pipeline).values()
        ]
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
