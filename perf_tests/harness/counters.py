"""What the GPU did in a generation, read from torch.profiler's trace of two short ones.

Two step counts separate what is done once from what is done in each step, exactly: counters are
integers, and the same on every run.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perf_tests.harness.build import flag
from perf_tests.harness.pipelines import Generation
from perf_tests.harness.records import Count

STEPS = (5, 10)
"""Both beyond PNDM's first four steps, which do other arithmetic."""

STAGES = ("text encoder", "denoising", "decoder")

# First match wins. Names as cuDNN, cuBLAS, CUTLASS, PyTorch and Triton give them.
FAMILIES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (family, re.compile(pattern, re.IGNORECASE))
    for family, pattern in (
        ("copy and cast", r"^mem(cpy|set)|copy_kernel|nchwto|nhwcto|transpose|CatArray"),
        ("attention: cudnn", r"cudnn.*(sdpa|flash|fort_native)|sdpa"),
        ("attention: xformers", r"xformers"),
        ("attention: flash", r"flash_(fwd|attn)|pytorch_flash|FlashAttn"),
        ("attention: memory-efficient", r"fmha|AttentionKernel|mem_eff"),
        ("convolution", r"conv|fprop|implicit|wgrad|dgrad|winograd"),
        ("matmul", r"gemm|nvjet|cublas|splitK|cutlass"),
        ("normalization", r"norm|RowwiseMoments|ComputeFusedParams|rms"),
        ("softmax", r"softmax"),
        ("fused (triton)", r"triton"),
        ("elementwise", r"elementwise|vectorized|unrolled|reduce|upsample|arange|fill|index"),
    )
)

LAUNCHES = re.compile(r"^cu(da)?Launch(Cooperative)?Kernel")
SYNCS = re.compile(r"^cuda(Stream|Device|Event)Synchronize|^cu(Stream|Ctx|Event)Synchronize")
MARKER = "spin_kernel"
"""The kernel behind `torch.cuda._sleep`: launched at the stages' borders, left out of counts."""


class NoTrace(Exception):
    """The profiler gave no GPU events; says why, as far as it is known."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a trace, times in seconds."""

    category: str
    name: str
    start_s: float
    end_s: float
    correlation: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One profiled generation: its events between the first and the last marker."""

    on_gpu: Sequence[Event]
    on_host: Sequence[Event]
    gpu_borders_s: Sequence[float]
    """Markers on the GPU: before all, before each UNet call, before the decoder, after all."""
    host_borders_s: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What was counted in a whole generation of the workload's steps."""

    counters: Mapping[str, Count]
    gpu_busy_s: float
    stages_s: Mapping[str, float]
    families: Mapping[str, tuple[float, int]]
    """Seconds on the GPU and number of kernels."""


def observe(generation: Generation, pipeline: Any, *, steps: int) -> Observation:
    """Profile two short generations and extrapolate to this many steps.

    `NoTrace` where the profiler cannot see the GPU.
    """
    short, long = (profile(generation, pipeline, steps=count) for count in STEPS)
    return extrapolate(short, long, steps=steps)


def extrapolate(short: Trace, long: Trace, *, steps: int) -> Observation:
    """Fixed and per-step costs from traces of `STEPS[0]` and `STEPS[1]` steps."""
    counts = {
        name: Count.between(few, many, steps=STEPS)
        for (name, few), many in zip(count(short).items(), count(long).values(), strict=True)
    }
    busy = [stage_busy(trace) for trace in (short, long)]
    stages = {
        stage: _extend(few, many, steps)
        for stage, few, many in zip(STAGES, busy[0], busy[1], strict=True)
    }
    families = {}
    split = [by_family(trace.on_gpu) for trace in (short, long)]
    for family in sorted(split[0] | split[1]):
        (few_s, few), (many_s, many) = (part.get(family, (0.0, 0)) for part in split)
        families[family] = (_extend(few_s, many_s, steps), round(_extend(few, many, steps)))
    return Observation(
        counters=counts, gpu_busy_s=sum(stages.values()), stages_s=stages, families=families
    )


def _extend(few: float, many: float, steps: int) -> float:
    per_step = (many - few) / (STEPS[1] - STEPS[0])
    return few + per_step * (steps - STEPS[0])


def count(trace: Trace) -> dict[str, int]:
    """The counters of one trace."""
    host = Counter(event.name for event in trace.on_host)
    copies = [event for event in trace.on_gpu if event.category == "gpu_memcpy"]
    to_host = [event for event in copies if "DtoH" in event.name]
    to_device = [event for event in copies if "HtoD" in event.name]
    return {
        "kernels": sum(event.category == "kernel" for event in trace.on_gpu),
        "kernel_launches": sum(n for name, n in host.items() if LAUNCHES.match(name)),
        "graph_launches": sum(n for name, n in host.items() if name.startswith("cudaGraphLaunch")),
        "host_syncs": sum(n for name, n in host.items() if SYNCS.match(name)),
        "device_to_host_copies": len(to_host),
        "device_to_host_bytes": sum(event.bytes for event in to_host),
        "host_to_device_copies": len(to_device),
        "host_to_device_bytes": sum(event.bytes for event in to_device),
    }


def busy_s(events: Iterable[Event]) -> float:
    """Length of the union of the events' intervals, in seconds: overlaps count once."""
    total, reached = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e.start_s):
        total += max(0.0, event.end_s - max(event.start_s, reached))
        reached = max(reached, event.end_s)
    return total


def stage_busy(trace: Trace) -> tuple[float, float, float]:
    """GPU busy seconds before the first UNet call, until the decoder, and after."""
    _, first, *_, decoder, _ = trace.gpu_borders_s
    parts: tuple[list[Event], list[Event], list[Event]] = ([], [], [])
    for event in trace.on_gpu:
        parts[0 if event.start_s < first else 1 if event.start_s < decoder else 2].append(event)
    return busy_s(parts[0]), busy_s(parts[1]), busy_s(parts[2])


def family_of(name: str) -> str:
    """The family of a kernel or copy, by its name."""
    return next((family for family, pattern in FAMILIES if pattern.search(name)), "other")


def by_family(events: Iterable[Event]) -> dict[str, tuple[float, int]]:
    """Seconds and number of GPU events by family."""
    split: dict[str, tuple[float, int]] = {}
    for event in events:
        family = family_of(event.name)
        seconds, number = split.get(family, (0.0, 0))
        split[family] = (seconds + event.end_s - event.start_s, number + 1)
    return split


def profile(generation: Generation, pipeline: Any, *, steps: int) -> Trace:
    """One generation of this many steps under the profiler."""
    # Only the GPU's side and the calls into its runtime: recording every operator of PyTorch
    # costs more than the generation.
    try:
        profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        with profiler, _marked(pipeline) as mark:
            mark()
            generation.pictures(steps=steps)
            mark()
            torch.cuda.synchronize()
    except RuntimeError as error:
        if "profil" not in str(error).lower() and "kineto" not in str(error).lower():
            raise
        raise NoTrace(f"torch.profiler refuses: {str(error).splitlines()[0]}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return read(json.loads(path.read_bytes())["traceEvents"])


@contextmanager
def _marked(pipeline: Any) -> Iterator[Any]:
    """Launch a marker ahead of each UNet call and of the decoder."""

    def mark(*_: object) -> None:
        # Untyped, private, and the one kernel whose name no model's kernels have.
        torch.cuda._sleep(1)  # type: ignore[no-untyped-call, unused-ignore]

    decode = pipeline.vae.decode

    def marked_decode(*args: Any, **kwargs: Any) -> Any:
        mark()
        return decode(*args, **kwargs)

    hook = pipeline.unet.register_forward_pre_hook(mark)
    try:
        with flag(pipeline.vae, "decode", marked_decode):
            yield mark
    finally:
        hook.remove()


def read(lines: Iterable[Mapping[str, Any]]) -> Trace:
    """A trace in Chrome's format (times in microseconds), cut at its first and last marker.

    `NoTrace` if there are too few markers in it: nothing of the GPU was recorded.
    """
    gpu, host = [], []
    for line in lines:
        category = line.get("cat", "")
        if category in ("kernel", "gpu_memcpy", "gpu_memset"):
            gpu.append(_event(line))
        elif category in ("cuda_runtime", "cuda_driver"):
            host.append(_event(line))
    markers = sorted((e for e in gpu if MARKER in e.name), key=lambda e: e.start_s)
    launched = {e.correlation: e.start_s for e in host}
    if len(markers) < 4 or any(m.correlation not in launched for m in markers):
        raise NoTrace(
            "torch.profiler recorded no GPU events: CUPTI is missing, or another profiler holds it"
        )
    own = {marker.correlation for marker in markers}
    gpu_borders = [marker.start_s for marker in markers]
    host_borders = [launched[marker.correlation] for marker in markers]
    return Trace(
        on_gpu=_between(gpu, gpu_borders, own),
        on_host=_between(host, host_borders, own),
        gpu_borders_s=gpu_borders,
        host_borders_s=host_borders,
    )


def _event(line: Mapping[str, Any]) -> Event:
    args = line.get("args", {})
    start = float(line["ts"]) / 1e6
    return Event(
        category=line["cat"],
        name=line["name"],
        start_s=start,
        end_s=start + float(line.get("dur", 0)) / 1e6,
        correlation=int(args.get("correlation", -1)),
        bytes=int(args.get("bytes", 0)),
    )


def _between(events: Iterable[Event], borders: Sequence[float], own: set[int]) -> list[Event]:
    first, last = borders[0], borders[-1]
    return [e for e in events if first <= e.start_s < last and e.correlation not in own]


def compiled_graphs() -> tuple[int, int]:
    """Graphs that torch.compile has made in this process, and breaks it met in them."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return 0, 0
    counters = dynamo.counters
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
