"""What the pipeline's code asks for, counted exactly and without a GPU.

The pipeline's own code runs on tensors without data: torch's `meta` device stands for the GPU, so
that `tensor.device` is true and whatever crosses between host and device is seen crossing. Small
tensors on it (timesteps, sigmas, token ids) keep their values in a twin on the host, so that code
that reads them goes the way it goes on a GPU. Values of the others are unknown and read as zero.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from diffusers_perf.catalog.declarations import Workload
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import (
    UNFUSED,
    Event,
    Observation,
    Operator,
    Place,
    Work,
)

STEPS = (5, 7)
"""Both beyond PNDM's first four steps, which do other arithmetic."""

DEVICE = torch.device("meta")
HOST = torch.device("cpu")

TWIN_ELEMENTS = 4096
"""A tensor up to this size keeps its values: every schedule and prompt, but no activation."""

FAMILIES = {
    "convolution": ("convolution", "_convolution"),
    "matmul": ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot"),
    # Fused attention has no softmax of its own, so one that stands alone is an attention as
    # written: its two products are counted as matmuls.
    "attention: naive": ("_softmax", "_safe_softmax"),
    "normalization": ("native_group_norm", "native_layer_norm", "_fused_rms_norm"),
    "copy and cast": ("_to_copy", "clone", "copy_", "cat", "stack", "constant_pad_nd"),
}
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}
FREE = ("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
"""Operators that launch nothing, beside views."""

UNKNOWN_UNTIL_RUN = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operators whose result the host must wait for: `.item()`, `nonzero`, `equal` …"""


class NotCountable(Exception):
    """Code that cannot be run without data; one sentence says why."""


def observe(pipeline: Any, workload: Workload) -> Observation:
    """Count short generations of this workload by this pipeline, wherever its weights are.

    They are put aside meanwhile and put back untouched. `NotCountable` under torch.autocast, and
    where the code's way depends on data that are not there.
    """
    if torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"):
        raise NotCountable("torch.autocast passes by tensors without data")
    tallies = []
    with _without_data(pipeline), torch.no_grad():
        # Of its own, whose noise is where the weights are now.
        generation = Generation(pipeline, workload)
        for number in (1, *STEPS):
            counting = _Counting()
            with counting, _Constructors(counting), _placed(pipeline, counting):
                generation.images(steps=number)
            tallies.append(counting)
    # What is made in a first generation and kept is no part of the others.
    _, few, many = tallies
    return Observation(
        operators={
            operator: Work(
                *(
                    Count.between(a, b, steps=STEPS)
                    for a, b in zip(few.operators[operator], many.operators[operator], strict=True)
                )
            )
            for operator in {**few.operators, **many.operators}
        },
        events={
            event: Count.between(few.events[event], many.events[event], steps=STEPS)
            for event in {**few.events, **many.events}
        },
    )


def generate(pipeline: Any, generation: Generation, *, steps: int) -> None:
    """A generation of a pipeline that has no data. `NotCountable` where it cannot do without."""
    counting = _Counting()
    with (
        _without_data(pipeline),
        torch.no_grad(),
        counting,
        _Constructors(counting),
        _placed(pipeline, counting),
    ):
        generation.images(steps=steps)


@contextmanager
def _without_data(pipeline: Any) -> Iterator[None]:
    """All parameters and buffers on `DEVICE` for as long as the context is open."""
    held: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    stand_ins: dict[int, torch.Tensor] = {}
    tables: list[dict[str, Any]] = [
        table
        for _, root in _modules(pipeline)
        for module in root.modules()
        for table in (module._parameters, module._buffers)
    ]
    try:
        for table in tables:
            for name, tensor in table.items():
                if tensor is None or tensor.is_meta:
                    continue
                held.append((table, name, tensor))
                if id(tensor) not in stand_ins:
                    stand_ins[id(tensor)] = _stand_in(tensor)
                table[name] = stand_ins[id(tensor)]
        yield
    finally:
        for table, name, tensor in held:
            table[name] = tensor


def _stand_in(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=DEVICE)
    if isinstance(tensor, torch.nn.Parameter):
        # Torch folds a product another way where the weight asks for a gradient.
        return torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return _with_twin(empty, tensor.detach().to(HOST, copy=True))


def _modules(pipeline: Any) -> list[tuple[str, torch.nn.Module]]:
    return [(n, m) for n, m in pipeline.components.items() if isinstance(m, torch.nn.Module)]


@contextmanager
def _placed(pipeline: Any, counting: _Counting) -> Iterator[None]:
    """Tell the mode which module of the pipeline, or method of its scheduler, is running."""
    names = {
        id(module): Place(f"{component}.{name}".rstrip("."), type(module).__name__)
        for component, root in _modules(pipeline)
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


class _Constructors(TorchFunctionMode):
    """Sees calls that are no single operator by the time they are dispatched."""

    FROM_HOST_DATA = (torch.tensor, torch.as_tensor, torch.asarray)

    def __init__(self, counting: _Counting) -> None:
        super().__init__()
        self._counting = counting

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._counting.fused_attention(*args, **kwargs)
        # Torch builds these on the host and copies them over; for meta it would skip the copy.
        if func in self.FROM_HOST_DATA and _is_device(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": HOST}).to(DEVICE)
        if func is torch.Tensor.new_tensor and args[0].is_meta:
            options = {"dtype": args[0].dtype, **kwargs, "device": HOST}
            return torch.tensor(*args[1:], **options).to(kwargs.get("device", DEVICE))
        return func(*args, **kwargs)


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


class _Known(NamedTuple):
    """What is known of an operator on tensors of some shapes, dtypes and layouts."""

    results: Any
    """As `_describe` made it; None where the operator must be run, since it views or writes."""
    counted: bool
    dtype: str
    layout: str
    flops: int
    bytes: int


class _Counting(TorchDispatchMode):
    """Counts what is asked of the device, and answers it without data."""

    # Shared: what an operator makes of given shapes is the same in every generation, and asking
    # torch's Python code for it again takes ten times as long as looking it up.
    _known: ClassVar[dict[Any, _Known]] = {}

    def __init__(self) -> None:
        # Torch's own is untyped in some versions.
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.stack: list[Place] = []
        self.operators: defaultdict[Operator, list[int]] = defaultdict(lambda: [0, 0, 0])
        """Calls, FLOPs, bytes."""
        self.events: Counter[Event] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        on_device = [t for t in tensors if t.is_meta]
        if not on_device and not _is_device(kwargs.get("device")):
            return func(*args, **kwargs)
        name, waits = _traits(func)
        if waits:
            # Indexing is tagged for the sake of masks, whose true places the host must wait for.
            masked = any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])
            if masked or not name.startswith("index"):
                return self._read(func, name, args, kwargs)
        if name == "_to_copy":
            return self._copy(func, args[0], kwargs)
        if name == "copy_":
            return self._copy_into(func, *args, **kwargs)
        if len(on_device) < len(tensors) and any(t.ndim and not t.is_meta for t in tensors):
            if not name.startswith("index"):
                raise NotCountable(f"{name} mixes tensors of the host and of the device")
            self._event("host_to_device_copies", "host tensor as an index")
        return self._operator(func, name, args, kwargs, on_device)

    def _event(self, counter: str, what: str) -> None:
        self.events[Event(counter, what, self.stack[-1])] += 1

    def _read(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        self._event("device_reads", "item" if name == "_local_scalar_dense" else name)
        known = all(_twin(t) is not None for t in _tensors(args))
        if known:
            result = func(*_on_host(args), **kwargs)
            if not isinstance(result, torch.Tensor):
                return result
            return _with_twin(result.to(DEVICE), result)
        if name == "_local_scalar_dense":
            return torch.zeros((), dtype=args[0].dtype).item()
        raise NotCountable(f"what {name} gives depends on data that are not there")

    def _copy(self, func: Any, source: torch.Tensor, kwargs: Any) -> torch.Tensor:
        """`_to_copy`: to another device, dtype or layout."""
        crosses = "device" in kwargs and torch.device(kwargs["device"]).type != source.device.type
        if not crosses:
            result: torch.Tensor = self._operator(func, "_to_copy", (source,), kwargs, [source])
            self._cast(source.dtype, result.dtype)
            return result
        dtype = kwargs.get("dtype") or source.dtype
        if source.is_meta:
            self._event("device_to_host_copies", "tensor")
            twin = _twin(source)
            values = torch.zeros(source.shape, dtype=source.dtype) if twin is None else twin.clone()
            return values.to(dtype)
        self._event("host_to_device_copies", "scalar" if source.ndim == 0 else "tensor")
        self._cast(source.dtype, dtype)
        return _with_twin(func(source, **kwargs), source.to(dtype, copy=True))

    def _copy_into(self, func: Any, target: torch.Tensor, source: torch.Tensor, *rest: Any) -> Any:
        """`copy_`: into a tensor that is already there."""
        if not target.is_meta:
            self._event("device_to_host_copies", "tensor")
            twin = _twin(source)
            return target.zero_() if twin is None else target.copy_(twin)
        if not source.is_meta:
            self._event("host_to_device_copies", "tensor")
            source = _with_twin(source.to(DEVICE), source)
        self._cast(source.dtype, target.dtype)
        return self._operator(func, "copy_", (target, source, *rest), {}, [target, source])

    def _cast(self, was: torch.dtype, now: torch.dtype) -> None:
        if was != now:
            self._event("casts", f"{_name(was)} → {_name(now)}")

    def fused_attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Scaled dot product attention as the one kernel that it is on a GPU.

        Without data torch would take it apart.
        """
        if not query.is_meta:
            return torch.nn.functional.scaled_dot_product_attention(
                query, key, value, *args, **kwargs
            )
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
            _name(query.dtype),
            "-",
            self.stack[-1],
        )
        products = 2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + width)
        self._add(operator, products, sum(map(_bytes, (query, key, value, result))))
        return result

    def _operator(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: Any,
        on_device: Sequence[torch.Tensor],
    ) -> Any:
        key = (func, _freeze(args), _freeze(tuple(kwargs.items())))
        known = self._known.get(key)
        result: Any
        if known is not None and known.results is not None:
            result = _make(known.results)
        else:
            result = func(*args, **kwargs)
        if known is None:
            known = self._known[key] = _learn(func, name, args, kwargs, on_device, result)
        _carry_twins(func, args, kwargs, on_device, result, fresh=known.results is not None)
        if known.counted:
            family = FAMILY_OF.get(name, "elementwise and other")
            operator = Operator(name, family, known.dtype, known.layout, self.stack[-1])
            self._add(operator, known.flops, known.bytes)
            self._layouts(name, args, result)
        return result

    def _add(self, operator: Operator, flops: int, moved: int) -> None:
        sums = self.operators[operator]
        sums[0] += 1
        sums[1] += flops
        sums[2] += moved

    def _layouts(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name in ("clone", "_to_copy", "copy_"):
            source, target = (args[1], args[0]) if name == "copy_" else (args[0], result)
            if _order(source) != _order(target) and 0 not in source.stride():
                self._event("layout_conversions", f"{_layout(source)} → {_layout(target)}")
        elif name == "convolution" and args[0].ndim == 4:
            # Where one of the two lies channels last, cuDNN is given a converted copy of the other.
            lie = (_layout(args[0]), _layout(args[1]))
            if lie in (("contiguous", "channels_last"), ("channels_last", "contiguous")):
                what = "input" if lie[0] == "contiguous" else "weight"
                self._event("layout_conversions", f"contiguous → channels_last, {what}")


@functools.cache
def _traits(func: Any) -> tuple[str, bool]:
    """An operator's name, and whether the host may have to wait for what it gives."""
    return func.overloadpacket.__name__, bool(UNKNOWN_UNTIL_RUN & set(func.tags))


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _twin(tensor: torch.Tensor) -> torch.Tensor | None:
    """The values of a tensor: its own on the host, its twin's on the device."""
    return getattr(tensor, "_twin", None) if tensor.is_meta else tensor


def _with_twin(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    if tensor.numel() <= TWIN_ELEMENTS:
        # On the tensor itself, so that it goes when the tensor goes; no tensor declares it.
        tensor._twin = values  # type: ignore[attr-defined]
    return tensor


def _on_host(value: Any) -> Any:
    """The same arguments with twins in the place of tensors, and the host in the device's."""
    if isinstance(value, torch.Tensor):
        return _twin(value)
    if isinstance(value, list | tuple):
        return type(value)(_on_host(item) for item in value)
    return HOST if value == DEVICE else value


def _carry_twins(
    func: Any,
    args: tuple[Any, ...],
    kwargs: Any,
    on_device: Sequence[torch.Tensor],
    result: Any,
    *,
    fresh: bool,
) -> None:
    """Do the same to the twins, if all are known; a tensor written with unknowns loses its own."""
    unknown = any(_twin(tensor) is None for tensor in on_device)
    if unknown and fresh:
        return
    results = list(_tensors((result,)))
    drawn = torch.Tag.nondeterministic_seeded in func.tags
    if not unknown and not drawn and all(t.numel() <= TWIN_ELEMENTS for t in results):
        try:
            host = func(*_on_host(args), **{n: _on_host(v) for n, v in kwargs.items()})
        except NotImplementedError:
            pass  # the host has no such operator in this dtype: its values are unknown
        else:
            for tensor, values in zip(results, _tensors((host,)), strict=True):
                _with_twin(tensor, values)
            return
    for tensor in results:
        if getattr(tensor, "_twin", None) is not None:
            # Written in place with what nobody knows: its values of before are stale.
            del tensor._twin  # type: ignore[attr-defined]


def _freeze(value: Any) -> Any:
    """All that an operator's result and work depend on, but for values, to look it up by."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.is_meta
    if isinstance(value, list | tuple):
        return tuple([_freeze(item) for item in value])
    return type(value), value


def _describe(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result.shape, result.stride(), result.dtype
    return None if result is None else [_describe(item) for item in result]


def _make(described: Any) -> Any:
    if isinstance(described, tuple):
        shape, stride, dtype = described
        return torch.empty_strided(shape, stride, dtype=dtype, device=DEVICE)
    return None if described is None else tuple([_make(item) for item in described])


def _learn(
    func: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: Any,
    on_device: Sequence[torch.Tensor],
    result: Any,
) -> _Known:
    returns = [r.alias_info for r in func._schema.returns]
    views = any(alias is not None and not alias.is_write for alias in returns)
    fresh = all(alias is None for alias in returns) and result is not None
    tensors = [*on_device, *_tensors((result,))]
    floating = next((t for t in tensors if t.is_floating_point()), tensors[0])
    images = next((t for t in tensors if t.ndim == 4), None)
    formula = flop_registry.get(func.overloadpacket)
    return _Known(
        results=_describe(result) if fresh else None,
        counted=not views and name not in FREE,
        dtype=_name(floating.dtype),
        layout="-" if images is None else _layout(images),
        flops=int(formula(*args, **kwargs, out_val=result)) if formula else 0,
        bytes=sum(map(_bytes, tensors)),
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bytes(tensor: torch.Tensor) -> int:
    """What is read or written of it: an expanded dimension lies in memory once."""
    lying = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(lying) * tensor.element_size()


def _order(tensor: torch.Tensor) -> list[int]:
    """Its dimensions from the outermost in memory to the innermost, without those of size 1."""
    stride = tensor.stride()
    return sorted((i for i, n in enumerate(tensor.shape) if n > 1), key=lambda i: -stride[i])


def _layout(tensor: torch.Tensor) -> str:
    if tensor.is_contiguous():
        return "contiguous"
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return "channels_last"
    return "strided"
