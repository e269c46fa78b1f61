"""Compares a denoiser's blocks with the reference's one by one, each on what the reference's block
was given.

In a whole call, one block's fault is as small as what all blocks round. Here nothing accumulates,
and an output is compared in its mean over the tokens, in which roundings cancel and what is
off in the same way at each token remains.

A block is a module whose class is called a transformer block. Of one call of a denoiser their
inputs wait on the host, of full-size FLUX 57 times 4,608 tokens in bfloat16, about 1.6 GB for each
image of a batch, and never more than `KEPT_BYTES`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import (
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_map_only,
    tree_map_with_path,
)

from diffusers_perf.measurement.flag import flag
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import IDENTICAL_DB, BlockDistance

KEPT_BYTES = 8 * 2**30
"""Of inputs, in one call of a denoiser. Videos are longer: 40 blocks that each take 75,600 tokens
of 5,120 channels would be 31 GB."""


@dataclass(frozen=True, kw_only=True)
class RecordedBlock:
    """What a block was given, and what of its output is compared; on the host."""

    kind: str
    """Its class and the shapes of its output: other shapes may take other kernels."""
    inputs: Mapping[str, torch.Tensor] | None
    """By their places in the arguments; None where there was no room for them."""
    output: Output


@dataclass(frozen=True, kw_only=True)
class Output:
    """Of a block, each tensor's mean over its tokens, and their energy at a token."""

    means: Sequence[torch.Tensor]
    energy: float

    @classmethod
    def of(cls, tree: Any) -> Output:
        # What else a block passes on, such as a mask of integers, it does not compute.
        tensors = [t.detach() for t in _tensors(tree) if t.is_floating_point()]
        return cls(
            means=[_mean(t).cpu() for t in tensors],
            energy=sum(
                float(torch.linalg.vector_norm(t, dtype=torch.float64)) ** 2 / _tokens(t)
                for t in tensors
            ),
        )

    def distance_db(self, wanted: Output) -> float:
        """How far the means are from those wanted; within `IDENTICAL_DB` and its negative, which
        stands for other shapes and for numbers that are not finite.
        """
        if [m.shape for m in self.means] != [m.shape for m in wanted.means]:
            return -IDENTICAL_DB
        pairs = zip(self.means, wanted.means, strict=True)
        noise = sum(float((own - other).square().sum()) for own, other in pairs)
        if not math.isfinite(noise):
            return -IDENTICAL_DB
        if noise == 0:
            return IDENTICAL_DB
        ratio = 10 * math.log10(wanted.energy / noise) if wanted.energy else -IDENTICAL_DB
        return max(-IDENTICAL_DB, min(IDENTICAL_DB, ratio))


@contextmanager
def recorded_blocks(module: torch.nn.Module) -> Iterator[dict[str, RecordedBlock]]:
    """What each block was given and gave in a call of this denoiser, once the call has ended;
    inputs of the first blocks alone, as many as are within `KEPT_BYTES`.
    """
    inputs: dict[str, dict[str, torch.Tensor] | None] = {}
    found: dict[str, RecordedBlock] = {}
    kept = 0

    def begins(name: str, call: Any) -> None:
        nonlocal kept
        given = _placed(call)
        kept += sum(t.nbytes for _, t in given)
        fits = kept <= KEPT_BYTES
        copies = {place: t.detach().to("cpu", copy=True) for place, t in given if fits}
        inputs[name] = copies if fits else None

    def ended(name: str, block: torch.nn.Module, output: Any) -> None:
        if name not in inputs:
            return
        shapes = ("x".join(map(str, t.shape)) for t in _tensors(output))
        found[name] = RecordedBlock(
            kind=" ".join((type(block).__name__, *shapes)),
            inputs=inputs.pop(name),
            output=Output.of(output),
        )

    with ExitStack() as watched:
        for name, block in module.named_modules():
            if "TransformerBlock" in type(block).__name__:
                watched.enter_context(
                    _watched(block, partial(begins, name), partial(ended, name, block))
                )
        yield found


@contextmanager
def own_calls(
    module: torch.nn.Module, recorded: Mapping[str, RecordedBlock]
) -> Iterator[dict[str, Call]]:
    """How a case's denoiser calls the blocks that were recorded of its reference's."""
    found: dict[str, Call] = {}

    def begins(name: str, call: Any) -> None:
        found[name] = Call(
            # Device and dtype remain, and no memory is held.
            arguments=tree_map_only(torch.Tensor, lambda t: t.new_empty(0), call),
            shapes={place: t.shape for place, t in _placed(call)},
        )

    with ExitStack() as watched:
        for name, block in module.named_modules():
            if name in recorded:
                watched.enter_context(_watched(block, partial(begins, name), lambda _: None))
        yield found


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of a block's call, with empty tensors."""

    arguments: Any
    shapes: Mapping[str, torch.Size]
    """Of the tensors, by their places."""

    def given(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """The arguments with these tensors, on the devices and in the dtypes of its own."""

        def put(path: Any, leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            return inputs[keystr(path)].to(leaf.device, leaf.dtype, copy=True)

        return tree_map_with_path(put, self.arguments)


def compared_blocks(
    module: torch.nn.Module, recorded: Mapping[str, RecordedBlock], calls: Mapping[str, Call]
) -> tuple[dict[str, BlockDistance], list[str]]:
    """How far each block's output is from the reference's on the same inputs, and why some are not
    compared.
    """
    far: dict[str, BlockDistance] = {}
    left_out: Counter[str] = Counter()
    for name, then in recorded.items():
        if name not in calls:
            left_out[messages.BLOCK_NOT_CALLED] += 1
            continue
        if not math.isfinite(then.output.energy):
            left_out[messages.NOT_FINITE] += 1
            continue
        call = calls[name]
        if then.inputs is None:
            left_out[messages.TOO_LARGE] += 1
            continue
        if call.shapes != {place: t.shape for place, t in then.inputs.items()}:
            left_out[messages.OTHER_ARGUMENTS] += 1
            continue
        args, kwargs = call.given(then.inputs)
        try:
            output = Output.of(module.get_submodule(name)(*args, **kwargs))
        except Exception as error:
            # Only the call around it may work: what else it needs, an optimization knows.
            left_out[messages.block_failed(type(error).__name__, error)] += 1
            continue
        far[name] = BlockDistance(kind=then.kind, db=output.distance_db(then.output))
    return far, [
        messages.blocks_left_out(number, len(recorded), reason)
        for reason, number in left_out.items()
    ]


@contextmanager
def _watched(
    block: torch.nn.Module, begins: Callable[[Any], None], ended: Callable[[Any], None]
) -> Iterator[None]:
    """Call these with the arguments, args and kwargs, and with the output of a block's calls."""
    compiled: Any = block._compiled_call_impl
    if compiled is not None:
        # What is compiled has its hooks within.
        def call(*args: Any, **kwargs: Any) -> Any:
            begins((args, kwargs))
            output = compiled(*args, **kwargs)
            ended(output)
            return output

        with flag(block, "_compiled_call_impl", call):
            yield
        return
    before = block.register_forward_pre_hook(
        lambda _, args, kwargs: begins((args, kwargs)), with_kwargs=True
    )
    after = block.register_forward_hook(lambda _, args, output: ended(output))
    try:
        yield
    finally:
        before.remove()
        after.remove()


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def _placed(tree: Any) -> list[tuple[str, torch.Tensor]]:
    leaves, _ = tree_flatten_with_path(tree)
    return [(keystr(path), leaf) for path, leaf in leaves if isinstance(leaf, torch.Tensor)]


def _mean(tensor: torch.Tensor) -> torch.Tensor:
    """Over the tokens: (batch, tokens, channels). In float64."""
    if tensor.ndim == 3:
        return tensor.mean(dim=1, dtype=torch.float64)
    return tensor.to(torch.float64)


def _tokens(tensor: torch.Tensor) -> int:
    return tensor.shape[1] if tensor.ndim == 3 else 1
