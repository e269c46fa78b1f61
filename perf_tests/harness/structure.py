"""What the pipeline's code asks for, counted exactly and without a GPU.

The pipeline's own code runs on tensors without data: torch's `meta` device stands for the GPU, so
that `tensor.device` is true and whatever crosses between host and device is seen crossing. Small
tensors on it (timesteps, sigmas, token ids) keep their values in a twin on the host, so that code
that reads them goes the way it goes on a GPU. Values of the others are unknown and read as zero.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from perf_tests.harness.baselines import FOLDER, BadBaseline
from perf_tests.harness.catalog import Case
from perf_tests.harness.pipelines import Generation
from perf_tests.harness.records import Count
from perf_tests.harness.verdicts import LAUNCH_SHARE, LAUNCHES, NEVER_MORE, Finding, difference

STEPS = (6, 8)
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
HEAVY = ("convolution", "matmul", "attention")
UNFUSED = ("attention: naive", "attention: sdpa, math only")

FREE = ("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
"""Operators that launch nothing, beside views."""

UNKNOWN_UNTIL_RUN = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operators whose result the host must wait for: `.item()`, `nonzero`, `equal` …"""

COUNTERS = (
    "operators",
    "device_reads",
    "casts",
    "layout_conversions",
    "host_to_device_copies",
    "device_to_host_copies",
    "full_precision_operators",
    "unfused_attention",
)
"""What is counted. Full precision: convolutions, products and attention in float32 or wider."""

SCHEMA = 1
FILE = "structure.json"
ALL = "all"
"""The name of a counter's total beside its parts, in the file."""
ACCEPT = 'python -m ci structure --write --reason "..."'

JUDGED = (*NEVER_MORE, *LAUNCHES, "full_precision_operators", "unfused_attention")


class NotCountable(Exception):
    """Code that cannot be run without data; one sentence says why."""


class Place(NamedTuple):
    """Where in the pipeline something happened: the innermost module that was running."""

    path: str
    """``unet.down_blocks.0.resnets.1.norm1``."""
    owner: str
    """Its class: ``GroupNorm``."""


class Operator(NamedTuple):
    """One kind of operator in one place."""

    name: str
    family: str
    dtype: str
    layout: str
    """``contiguous``, ``channels_last`` or ``strided`` of its first 4-D tensor, else ``-``."""
    place: Place


class Event(NamedTuple):
    """One thing that a counter counts in one place."""

    counter: str
    what: str
    """For a cast ``float16 → float32``."""
    place: Place


class Work(NamedTuple):
    """How often an operator is called and what that takes, in a whole generation."""

    calls: Count
    flops: Count
    bytes: Count
    """Read and written, each call on its own."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a generation asks for, each as fixed and per-step counts."""

    operators: Mapping[Operator, Work]
    events: Mapping[Event, Count]

    @property
    def counters(self) -> dict[str, Count]:
        """The counters that a baseline holds, by the names that `verdicts` knows."""
        return {name: added(sites.values()) for name, sites in self.sites().items()}

    def sites(self) -> dict[str, dict[tuple[str, Place], Count]]:
        """By counter, then by what happened and where."""
        found: dict[str, dict[tuple[str, Place], list[Count]]] = {
            name: defaultdict(list) for name in COUNTERS
        }
        for event, count in self.events.items():
            found[event.counter][event.what, event.place].append(count)
        for operator, work in self.operators.items():
            found["operators"][operator.family, operator.place].append(work.calls)
            if operator.family in UNFUSED:
                found["unfused_attention"][operator.family, operator.place].append(work.calls)
            if operator.family.startswith(HEAVY) and operator.dtype in ("float32", "float64"):
                what = f"{operator.family} in {operator.dtype}"
                found["full_precision_operators"][what, operator.place].append(work.calls)
        return {
            name: {site: added(counts) for site, counts in sites.items()}
            for name, sites in found.items()
        }

    def where(self) -> dict[str, dict[str, Count]]:
        """By counter, then ``float16 → float32 in GroupNorm``: what a baseline holds beside it."""
        grouped: dict[str, dict[str, Count]] = {}
        for name, sites in self.sites().items():
            kinds: dict[str, list[Count]] = defaultdict(list)
            for (what, place), count in sites.items():
                kinds[f"{what} in {place.owner}"].append(count)
            grouped[name] = {kind: added(counts) for kind, counts in sorted(kinds.items())}
        return grouped

    def by(self, key: Callable[[Operator], Any]) -> dict[Any, Work]:
        """The operators summed by whatever is asked for, the most calls in a step first."""
        groups: dict[Any, list[Work]] = defaultdict(list)
        for operator, work in self.operators.items():
            groups[key(operator)].append(work)
        summed = {
            name: Work(*(added(parts) for parts in zip(*works, strict=True)))
            for name, works in groups.items()
        }
        order = sorted(summed, key=lambda name: (-summed[name].calls.per_step, str(name)))
        return {name: summed[name] for name in order}

    def total(self) -> Work:
        """All operators together."""
        return Work(*(added(parts) for parts in zip(*self.operators.values(), strict=True)))

    def floor_s(self, *, steps: int, flops_per_s: float, bytes_per_s: float) -> tuple[float, float]:
        """Seconds that no GPU of this matmul rate and bandwidth can go below.

        First for any code that does this arithmetic; then for this code run operator by operator,
        each bound by arithmetic or by memory, which only fusing operators can beat.
        """
        eager = sum(
            max(work.flops.total(steps) / flops_per_s, work.bytes.total(steps) / bytes_per_s)
            for work in self.operators.values()
        )
        return self.total().flops.total(steps) / flops_per_s, eager


def added(counts: Any) -> Count:
    """The sum of counts."""
    counts = tuple(counts)
    return Count(fixed=sum(c.fixed for c in counts), per_step=sum(c.per_step for c in counts))


def observe(pipeline: Any, generation: Generation) -> Observation:
    """Count two short generations of this pipeline, wherever its weights are.

    They are put aside meanwhile and put back untouched. `NotCountable` under torch.autocast, and
    where the code's way depends on data that are not there.
    """
    if torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"):
        raise NotCountable("torch.autocast passes by tensors without data")
    tallies = []
    with _without_data(pipeline), torch.no_grad():
        for number in STEPS:
            counting = _Counting()
            with counting, _Constructors(counting), _placed(pipeline, counting):
                generation.pictures(steps=number)
            tallies.append(counting)
    few, many = tallies
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
    pictures = next((t for t in tensors if t.ndim == 4), None)
    formula = flop_registry.get(func.overloadpacket)
    return _Known(
        results=_describe(result) if fresh else None,
        counted=not views and name not in FREE,
        dtype=_name(floating.dtype),
        layout="-" if pictures is None else _layout(pictures),
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


# Judging


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """One case of `baselines/structure.json`."""

    accepted: str
    """Date, ISO 8601."""
    reason: str
    versions: Mapping[str, str]
    counters: Mapping[str, Count]
    where: Mapping[str, Mapping[str, Count]]
    """As `Observation.where`."""


def load(folder: Path = FOLDER) -> dict[str, Accepted] | None:
    """What was accepted, by `key_of` a case; None if nothing. `BadBaseline` if unreadable."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise BadBaseline(
                f"{path}: has schema {content['schema']!r}, this suite reads {SCHEMA}"
            )
        return {key: _accepted(line) for key, line in content["cases"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadBaseline(f"{path}: cannot be read ({type(error).__name__}: {error})") from None


def _accepted(line: Mapping[str, Any]) -> Accepted:
    counts = {
        name: {what: _count(pair) for what, pair in pairs.items()}
        for name, pairs in line["counters"].items()
    }
    return Accepted(
        accepted=str(line["accepted"]),
        reason=str(line["reason"]),
        versions=dict(line["versions"]),
        counters={name: pairs.pop(ALL) for name, pairs in counts.items()},
        where=counts,
    )


def _count(pair: Any) -> Count:
    fixed, per_step = pair
    if type(fixed) is not int or type(per_step) is not int:
        raise ValueError(f"{pair} is not [fixed, per step] in integers")
    return Count(fixed=fixed, per_step=per_step)


def save(cases: Mapping[str, Accepted], folder: Path = FOLDER) -> None:
    """Write the file, one line a counter, in one step: a reader sees the old or the new one."""
    blocks = []
    for key, case in sorted(cases.items()):
        head = {"accepted": case.accepted, "reason": case.reason, "versions": dict(case.versions)}
        lines = [f"   {json.dumps(n)}: {json.dumps(v)}" for n, v in head.items()]
        counters = [
            f"    {json.dumps(name)}: "
            + json.dumps(
                {
                    what: [count.fixed, count.per_step]
                    for what, count in {ALL: total, **case.where.get(name, {})}.items()
                },
                ensure_ascii=False,
            )
            for name, total in case.counters.items()
        ]
        lines.append('   "counters": {\n' + ",\n".join(counters) + "\n   }")
        blocks.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
    text = f'{{\n "schema": {SCHEMA},\n "cases": {{\n' + ",\n".join(blocks) + "\n }\n}\n"
    folder.mkdir(parents=True, exist_ok=True)
    draft = (folder / FILE).with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / FILE)


def key_of(case: Case, model: str) -> str:
    """What a case's accepted counts are keyed by; weights change nothing about structure."""
    return f"{case.workload.name}/{model}/{case.name}"


def judge(
    name: str,
    now: Observation,
    was: Accepted,
    *,
    steps: int,
    versions: Mapping[str, str],
    again: str,
) -> list[Finding]:
    """What changed against the accepted counts: more is a regression, fewer asks to be accepted.

    `versions` are this run's; `again` is the command that runs the case alone.
    """
    others = [
        f"{package} {was.versions[package]}, this is {version}"
        for package, version in versions.items()
        if was.versions.get(package, version) != version
    ]
    source = f"baselines/{FILE}, accepted {was.accepted}"
    source += f"; made with {' and '.join(others)}" if others else ""
    findings = []
    for counter, count in now.counters.items():
        before = was.counters.get(counter)
        if before is None or counter not in JUDGED:
            continue
        share = LAUNCH_SHARE if counter in LAUNCHES else 1.0
        total, limit = count.total(steps), before.total(steps) * share
        # Per step as well: fewer fixed ones must not pay for one more in each step.
        grown = total > limit or (share == 1.0 and count.per_step > before.per_step)
        if not grown and total * share >= before.total(steps):
            continue
        said = difference(counter, was=before, now=count, steps=steps).removesuffix(")")
        kinds, modules = _changed(counter, now, was, steps=steps, more=grown)
        findings.append(
            Finding(
                status="more work" if grown else "faster",
                metric=counter,
                what=f"{name}: {said}{kinds})",
                measured=f"{total:,}{modules}",
                expected=f"{before.total(steps):,} ({source})",
                limit="" if not grown else "no more" if share == 1.0 else f"at most {int(limit):,}",
                next=again if grown else f"keep it: {ACCEPT}",
            )
        )
    return findings


def _changed(
    counter: str, now: Observation, was: Accepted, *, steps: int, more: bool
) -> tuple[str, str]:
    """What kinds of it changed most and in which classes, then in which modules."""
    before, after = was.where.get(counter, {}), now.where().get(counter, {})
    none = Count(fixed=0, per_step=0)
    change = {
        kind: after.get(kind, none).total(steps) - before.get(kind, none).total(steps)
        for kind in {**before, **after}
    }
    grown = {kind: n for kind, n in change.items() if (n > 0 if more else n < 0)}
    if not grown:
        return "", ""
    what, owners = Counter[str](), dict[str, None]()
    for kind, number in sorted(grown.items(), key=lambda item: -abs(item[1])):
        part, owner = kind.rsplit(" in ", 1)
        what[part] += number
        owners[owner] = None
    if len(what) == 1:
        kinds = f", all {next(iter(what))}"
    else:
        kinds = ", " + _some([f"{part} {number:+,}" for part, number in what.items()])
    kinds += f", in {_some(list(owners))}"
    paths = Counter[str]()
    for (part, place), count in now.sites().get(counter, {}).items():
        if f"{part} in {place.owner}" in grown:
            paths[place.path] += count.total(steps)
    return kinds, f", in {_some([path for path, _ in paths.most_common()])}" if paths else ""


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"
