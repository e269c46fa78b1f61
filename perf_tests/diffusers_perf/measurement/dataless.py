"""Tensors without data, on torch's `meta` device, which stands for the GPU.

Small ones (timesteps, sigmas, token ids, masks) keep their values in a twin on the host, so that
code that reads them goes the way it goes on a GPU. Values of the others are unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from diffusers_perf.messages import measurement as messages

DEVICE = torch.device("meta")
HOST = torch.device("cpu")

NESTED = (list, tuple)

TWIN_ELEMENTS = 4096
"""A tensor up to this size keeps its values: every schedule and prompt, but no activation."""


class NotCountable(Exception):
    """Code that cannot be run without data; one sentence says why."""


class UnknownNumber(float):
    """A number that was read from data that are not there: 0, which nothing may be decided by."""

    def _refuse(self, *_: object) -> bool:
        raise NotCountable(messages.VALUE_UNKNOWN)

    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _refuse
    __hash__ = float.__hash__

    def _still(self, *_: object) -> UnknownNumber:
        return UnknownNumber()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _still
    __truediv__ = __rtruediv__ = __pow__ = __neg__ = __abs__ = _still


def is_device(device: Any) -> bool:
    """Whether this names the device without data."""
    return device is not None and torch.device(device).type == DEVICE.type


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """All tensors in nested lists and tuples."""
    # Called for each operator: no generator, and no union of types, which take longer.
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, NESTED):
            found += tensors_in(value)
    return found


def twin(tensor: torch.Tensor) -> torch.Tensor | None:
    """The values of a tensor: its own on the host, its twin's on the device."""
    return getattr(tensor, "_twin", None) if tensor.is_meta else tensor


def with_twin(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The tensor, which keeps these values if it is small."""
    if tensor.numel() <= TWIN_ELEMENTS:
        # On the tensor itself, so that it goes when the tensor goes; no tensor declares it.
        tensor._twin = values  # type: ignore[attr-defined]
    return tensor


def without_values(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the host whose values came from data that are not there."""
    # On the tensor itself, as its twin; no tensor declares it.
    tensor._without_values = True  # type: ignore[attr-defined]
    return tensor


def has_values(tensor: torch.Tensor) -> bool:
    """Whether what the tensor holds is known."""
    return twin(tensor) is not None and not getattr(tensor, "_without_values", False)


def on_host(value: Any) -> Any:
    """The same arguments with twins in the place of tensors, and the host in the device's."""
    if isinstance(value, torch.Tensor):
        return twin(value)
    if isinstance(value, list | tuple):
        return type(value)(on_host(item) for item in value)
    return HOST if value == DEVICE else value


def stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """The same without data; of a buffer, small enough, with its values."""
    empty = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=DEVICE)
    if isinstance(tensor, torch.nn.Parameter):
        # Torch folds a product another way where the weight asks for a gradient.
        return torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return with_twin(empty, tensor.detach().to(HOST, copy=True))


def carry_twins(
    func: Any,
    args: tuple[Any, ...],
    kwargs: Any,
    on_device: Sequence[torch.Tensor],
    result: Any,
    *,
    fresh: bool,
) -> None:
    """Do the same to the twins, if all are known; a tensor written with unknowns loses its own."""
    unknown = False
    for tensor in on_device:
        if tensor.is_meta and getattr(tensor, "_twin", None) is None:
            unknown = True
            break
    if unknown and fresh:
        return
    results = tensors_in((result,))
    drawn = torch.Tag.nondeterministic_seeded in func.tags
    if not unknown and not drawn and all(t.numel() <= TWIN_ELEMENTS for t in results):
        try:
            host = func(*on_host(args), **{n: on_host(v) for n, v in kwargs.items()})
        except NotImplementedError:
            pass  # the host has no such operator in this dtype: its values are unknown
        else:
            for tensor, values in zip(results, tensors_in((host,)), strict=True):
                with_twin(tensor, values)
            return
    for tensor in results:
        if getattr(tensor, "_twin", None) is not None:
            # Written in place with what is unknown: its values of before are stale.
            delattr(tensor, "_twin")
