"""Whether a generation keeps its activations for a backward pass that never comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import around_steps, decoders
from diffusers_perf.measurement.flag import flag
from diffusers_perf.messages import applied as messages


@contextmanager
def gradients_off(pipeline: Any) -> Iterator[None]:
    """`NotApplied` as soon as a generation inside gives a scheduler or a decoder what requires a
    gradient: the first step says it, before the activations of all steps fill the memory.

    A pipeline that is guided by gradients lets go of them before it steps.
    """
    # No hook on a module: one that is compiled would be compiled with it, and again without.
    with ExitStack() as watching:
        if hasattr(getattr(pipeline, "scheduler", None), "step"):
            watching.enter_context(
                around_steps(pipeline, lambda step: _refusing(step, messages.OUTPUT))
            )
        for name, module in decoders(pipeline).items():
            decode = _refusing(module.decode, messages.decoded(name))
            watching.enter_context(flag(module, "decode", decode))
        yield


def _refusing(function: Any, what: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        tensors = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        if any(tensor.requires_grad for tensor in tensors):
            raise NotApplied(messages.gradients(what))
        return function(*args, **kwargs)

    return call
