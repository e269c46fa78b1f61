"""What an operator gives and takes on tensors of some shapes, dtypes and layouts: looked up once,
since asking torch's Python code for it again takes ten times as long.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry

from diffusers_perf.measurement.dataless import DEVICE, NESTED, tensors_in

FREE = ("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
"""Operators that launch nothing, beside views."""
UNKNOWN_UNTIL_RUN = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operators whose result the host must wait for: `.item()`, `nonzero`, `equal` …"""


class OperatorFacts(NamedTuple):
    """What is known of an operator on tensors of some shapes, dtypes and layouts."""

    results: Any
    """As `_described` made it; None where the operator must be run, since it views or writes."""
    counted: bool
    dtype: str
    layout: str
    flops: int
    bytes: int
    converts: str | None
    """Which memory layout it makes of which, if it does: ``contiguous → channels_last``."""


@functools.cache
def traits(func: Any) -> tuple[str, bool]:
    """An operator's name, and whether the host may have to wait for what it gives."""
    return func.overloadpacket.__name__, bool(UNKNOWN_UNTIL_RUN & set(func.tags))


def frozen(value: Any) -> Any:
    """All that an operator's result and work depend on, but for values, to look it up by."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.is_meta
    if isinstance(value, NESTED):
        return tuple([frozen(item) for item in value])
    return type(value), value


def _described(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result.shape, result.stride(), result.dtype
    return None if result is None else [_described(item) for item in result]


def made(described: Any) -> Any:
    if isinstance(described, tuple):
        shape, stride, dtype = described
        return torch.empty_strided(shape, stride, dtype=dtype, device=DEVICE)
    return None if described is None else tuple([made(item) for item in described])


def learn(
    func: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: Any,
    on_device: Sequence[torch.Tensor],
    result: Any,
) -> OperatorFacts:
    returns = [r.alias_info for r in func._schema.returns]
    views = any(alias is not None and not alias.is_write for alias in returns)
    fresh = all(alias is None for alias in returns) and result is not None
    tensors = [*on_device, *tensors_in((result,))]
    floating = next((t for t in tensors if t.is_floating_point()), tensors[0])
    images = next((t for t in tensors if t.ndim == 4), None)
    formula = flop_registry.get(func.overloadpacket)
    return OperatorFacts(
        results=_described(result) if fresh else None,
        counted=not views and name not in FREE,
        dtype=dtype_name(floating.dtype),
        layout="-" if images is None else layout(images),
        flops=int(formula(*args, **kwargs, out_val=result)) if formula else 0,
        bytes=sum(map(tensor_bytes, tensors)),
        converts=_conversion(name, args, result),
    )


def _conversion(name: str, args: tuple[Any, ...], result: Any) -> str | None:
    if name in ("clone", "_to_copy", "copy_"):
        source, target = (args[1], args[0]) if name == "copy_" else (args[0], result)
        if memory_order(source) != memory_order(target) and 0 not in source.stride():
            return f"{layout(source)} → {layout(target)}"
    elif name == "convolution" and args[0].ndim == 4:
        # Where one of the two lies channels last, cuDNN is given a converted copy of the other.
        lie = (layout(args[0]), layout(args[1]))
        if lie in (("contiguous", "channels_last"), ("channels_last", "contiguous")):
            what = "input" if lie[0] == "contiguous" else "weight"
            return f"contiguous → channels_last, {what}"
    return None


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def tensor_bytes(tensor: torch.Tensor) -> int:
    """What is read or written of it: an expanded dimension lies in memory once."""
    lying = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(lying) * tensor.element_size()


def memory_order(tensor: torch.Tensor) -> list[int]:
    """Its dimensions from the outermost in memory to the innermost, without those of size 1."""
    stride = tensor.stride()
    return sorted((i for i, n in enumerate(tensor.shape) if n > 1), key=lambda i: -stride[i])


def layout(tensor: torch.Tensor) -> str:
    if tensor.is_contiguous():
        return "contiguous"
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return "channels_last"
    return "strided"
