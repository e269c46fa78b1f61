"""Counts what code asks of the device, and answers it without data."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from diffusers_perf.catalog.metrics import MASKED_ATTENTION
from diffusers_perf.measurement.dataless import (
    DEVICE,
    HOST,
    NotCountable,
    UnknownNumber,
    carry_twins,
    has_values,
    is_device,
    on_host,
    tensors_in,
    twin,
    with_twin,
    without_values,
)
from diffusers_perf.measurement.operator_facts import (
    OperatorFacts,
    dtype_name,
    frozen,
    learn,
    made,
    tensor_bytes,
    traits,
)
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.operators import UNFUSED, Occurrence, Operator, Place

FAMILIES = {
    "convolution": ("convolution", "_convolution"),
    "matmul": (
        *("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot"),
        # Of `fused_mlp`.
        *("linear_gelu", "linear_of_two"),
    ),
    # Fused attention has no softmax of its own, so one that stands alone is an attention as
    # written: its two products are counted as matmuls.
    "attention: naive": ("_softmax", "_safe_softmax"),
    "normalization": ("native_group_norm", "native_layer_norm", "_fused_rms_norm"),
    "copy and cast": ("_to_copy", "clone", "copy_", "cat", "stack", "constant_pad_nd"),
}
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}
MASKS = (torch.bool, torch.uint8)


class Counting(TorchDispatchMode):
    """Counts what is asked of the device, and answers it without data."""

    # Shared: what an operator makes of given shapes is the same in every generation.
    _known: ClassVar[dict[Any, OperatorFacts]] = {}

    def __init__(self) -> None:
        # Torch's own is untyped in some versions.
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.stack: list[Place] = []
        self.operators: defaultdict[Operator, list[int]] = defaultdict(lambda: [0, 0, 0])
        """Calls, FLOPs, bytes."""
        self.occurrences: Counter[Occurrence] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_in(args)
        if kwargs:
            tensors += tensors_in(kwargs.values())
        on_device = [t for t in tensors if t.is_meta]
        if not on_device and not is_device(kwargs.get("device")):
            return func(*args, **kwargs)
        name, waits = traits(func)
        if waits:
            # Indexing is tagged for the sake of masks, whose true places the host must wait for.
            indices = args[1] if name.startswith("index") and len(args) > 1 else ()
            masks = [t for t in tensors_in((indices,)) if t.dtype in MASKS]
            if (
                masks
                and name == "index"
                and all(map(has_values, masks))
                and not has_values(args[0])
            ):
                return self._masked(func, args, kwargs)
            if masks or not name.startswith("index"):
                return self._read(func, name, args, kwargs)
        if name == "_to_copy":
            return self._copy(func, args[0], kwargs)
        if name == "copy_":
            return self._copy_into(func, *args, **kwargs)
        if len(on_device) < len(tensors) and any(t.ndim and not t.is_meta for t in tensors):
            if not name.startswith("index"):
                raise NotCountable(messages.mixed_devices(name))
            self.event("host_to_device_copies", "host tensor as an index")
        return self._operator(func, name, args, kwargs, on_device)

    def event(self, counter: str, what: str, *, times: int = 1) -> None:
        """Count this, where it happens."""
        self.occurrences[Occurrence(counter, what, self.stack[-1])] += times

    def _read(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        self.event("device_reads", "item" if name == "_local_scalar_dense" else name)
        if all(map(has_values, tensors_in(args))):
            result = func(*on_host(args), **kwargs)
            if not isinstance(result, torch.Tensor):
                return result
            return with_twin(result.to(DEVICE), result)
        if name == "_local_scalar_dense":
            return torch.zeros((), dtype=args[0].dtype).item()
        raise NotCountable(messages.result_unknown(name))

    def _masked(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Values that are unknown, at places that a known mask chooses."""
        self.event("device_reads", "index")
        places: list[torch.Tensor | None] = []
        for index in args[1]:
            if index is None or index.dtype not in MASKS:
                places.append(index)
            else:
                places += [place.to(DEVICE) for place in on_host(index).nonzero(as_tuple=True)]
        on_device = [args[0], *tensors_in((places,))]
        return self._operator(func, "index", (args[0], places), kwargs, on_device)

    def _copy(self, func: Any, source: torch.Tensor, kwargs: Any) -> torch.Tensor:
        """`_to_copy`: to another device, dtype or layout."""
        crosses = "device" in kwargs and torch.device(kwargs["device"]).type != source.device.type
        if not crosses:
            result: torch.Tensor = self._operator(func, "_to_copy", (source,), kwargs, [source])
            self._cast(source.dtype, result.dtype)
            return result
        dtype = kwargs.get("dtype") or source.dtype
        if source.is_meta:
            self.event("device_to_host_copies", "tensor")
            known = twin(source)
            if known is None:
                return without_values(torch.zeros(source.shape, dtype=dtype))
            return known.to(dtype, copy=True)
        self.event("host_to_device_copies", "scalar" if source.ndim == 0 else "tensor")
        self._cast(source.dtype, dtype)
        return with_twin(func(source, **kwargs), source.to(dtype, copy=True))

    def _copy_into(self, func: Any, target: torch.Tensor, source: torch.Tensor, *rest: Any) -> Any:
        """`copy_`: into a tensor that is already there."""
        if not target.is_meta:
            self.event("device_to_host_copies", "tensor")
            known = twin(source)
            return without_values(target.zero_()) if known is None else target.copy_(known)
        if not source.is_meta:
            self.event("host_to_device_copies", "tensor")
            source = with_twin(source.to(DEVICE), source)
        self._cast(source.dtype, target.dtype)
        return self._operator(func, "copy_", (target, source, *rest), {}, [target, source])

    def _cast(self, was: torch.dtype, now: torch.dtype) -> None:
        if was != now:
            self.event("casts", f"{dtype_name(was)} → {dtype_name(now)}")

    def fused_attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Scaled dot product attention as the one kernel that it is on a GPU.

        Without data torch would take it apart.
        """
        if not query.is_meta:
            return FUSED_ATTENTION(query, key, value, attn_mask, *args, **kwargs)
        if attn_mask is not None:
            self.event(MASKED_ATTENTION.field, "attn_mask")
        *batch, heads, tokens, width = (*query.shape[:-1], value.shape[-1])
        # The fused kernels hand on tokens before heads, so that joining heads copies nothing.
        result = torch.empty((*batch, tokens, heads, width), dtype=query.dtype, device=DEVICE)
        result = result.transpose(-3, -2)
        cuda = torch.backends.cuda
        fused = (
            cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled() or cuda.cudnn_sdp_enabled()
        )
        operator = Operator(
            "scaled_dot_product_attention",
            "attention: sdpa" if fused else UNFUSED[1],
            dtype_name(query.dtype),
            "-",
            self.stack[-1],
        )
        products = 2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + width)
        self._add(operator, products, sum(map(tensor_bytes, (query, key, value, result))))
        return result

    def _operator(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: Any,
        on_device: Sequence[torch.Tensor],
    ) -> Any:
        key = (func, frozen(args), frozen(tuple(kwargs.items())) if kwargs else None)
        known = self._known.get(key)
        result: Any
        if known is not None and known.results is not None:
            result = made(known.results)
        else:
            result = func(*args, **kwargs)
        if known is None:
            known = self._known[key] = learn(func, name, args, kwargs, on_device, result)
        carry_twins(func, args, kwargs, on_device, result, fresh=known.results is not None)
        if known.counted:
            family = FAMILY_OF.get(name, "elementwise and other")
            operator = Operator(name, family, known.dtype, known.layout, self.stack[-1])
            self._add(operator, known.flops, known.bytes)
            if known.converts:
                self.event("layout_conversions", known.converts)
        return result

    def _add(self, operator: Operator, flops: int, moved: int) -> None:
        sums = self.operators[operator]
        sums[0] += 1
        sums[1] += flops
        sums[2] += moved


# What torch.nn.functional has under its name may be another's, which calls this one.
FUSED_ATTENTION: Any = torch._C._nn.scaled_dot_product_attention


class Constructors(TorchFunctionMode):
    """Sees calls that are not a single operator by the time they are dispatched."""

    FROM_HOST_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
    READS = (torch.Tensor.item, torch.Tensor.__float__, torch.Tensor.__int__)
    DECIDES = (torch.Tensor.__bool__, torch.Tensor.__index__, torch.Tensor.tolist)

    def __init__(self, counting: Counting) -> None:
        super().__init__()
        self._counting = counting

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is FUSED_ATTENTION:
            return self._counting.fused_attention(*args, **kwargs)
        if func in self.READS or func in self.DECIDES:
            return self._read(func, *args, **kwargs)
        if func in self.FROM_HOST_DATA:
            args = (self._numbers(args[0]), *args[1:]) if args else args
            # Torch builds these on the host and copies them over; for meta it would skip the copy.
            if is_device(kwargs.get("device")):
                return func(*args, **{**kwargs, "device": HOST}).to(DEVICE)
        if func is torch.Tensor.new_tensor and args[0].is_meta:
            options = {"dtype": args[0].dtype, **kwargs, "device": HOST}
            return torch.tensor(*args[1:], **options).to(kwargs.get("device", DEVICE))
        return func(*args, **kwargs)

    def _read(self, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """A number that the host asks a tensor for."""
        if tensor.is_meta:
            self._counting.event("device_reads", "item")
        if has_values(tensor):
            return func(twin(tensor), *args, **kwargs)
        if func in self.READS:
            return UnknownNumber()
        raise NotCountable(messages.DATA_UNKNOWN)

    def _numbers(self, data: Any) -> Any:
        """Nested data with a number in the place of each scalar of the device."""
        if isinstance(data, list | tuple):
            return type(data)(self._numbers(item) for item in data)
        if isinstance(data, torch.Tensor) and data.is_meta and data.ndim == 0:
            return self._read(torch.Tensor.item, data)
        return data
