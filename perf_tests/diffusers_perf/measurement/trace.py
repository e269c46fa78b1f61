"""A generation under torch.profiler, cut at the markers that were put into its stream.

Markers separate what is done once from what is done in each step, exactly: counters are integers,
and the same on every run.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.measurement.discovery import loop_begins
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.messages import measurement as messages

STEADY = slice(4, -1)
"""Its steps that speak for all further ones: PNDM's first four do other arithmetic, and DDIM's last
reads two scalars less."""

LAUNCHES = re.compile(r"^cu(da)?Launch(Cooperative)?Kernel")
SYNCS = re.compile(
    # Giving memory back waits for all that runs; a healthy allocator keeps what it has.
    r"^cuda(Stream|Device|Event)Synchronize|^cu(Stream|Ctx|Event)Synchronize|^cudaFree$"
)
MARKER = "spin_kernel"
"""The kernel behind `torch.cuda._sleep`: launched at the stages' borders, left out of counts."""


class NoTrace(Exception):
    """The profiler gave no GPU events; says why, as far as it is known."""


@dataclass(frozen=True, kw_only=True)
class TraceEvent:
    """One line of a trace, times in seconds."""

    category: str
    name: str
    start_s: float
    end_s: float
    correlation: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What happened between two neighbouring markers."""

    on_gpu: Sequence[TraceEvent]
    on_host: Sequence[TraceEvent]
    allocations: int | None
    """Calls of PyTorch's caching allocator; None where they were not read."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One profiled generation, cut at its markers."""

    before: Segment
    """Encoders: of the prompt, and of an image to begin with."""
    steps: Sequence[Segment]
    """Each turn of the denoising loop: PNDM makes one more than it is asked for."""
    after: Segment
    """The decoder."""

    @property
    def segments(self) -> list[Segment]:
        return [self.before, *self.steps, self.after]

    @property
    def on_gpu(self) -> list[TraceEvent]:
        return [event for segment in self.segments for event in segment.on_gpu]

    @cached_property
    def counts(self) -> list[dict[str, int]]:
        """The counters of each segment."""
        return [count(segment) for segment in self.segments]

    @property
    def is_steady(self) -> bool:
        """Whether further steps would do just what its steady ones did.

        As far as three of them tell: what comes in every fourth step or rarer may not be seen.
        """
        seen = self.counts[1:-1][STEADY]
        return bool(seen) and all(counts == seen[0] for counts in seen)


def count(segment: Segment) -> dict[str, int]:
    """The counters of one segment."""
    host = Counter(event.name for event in segment.on_host)
    copies = [event for event in segment.on_gpu if event.category == "gpu_memcpy"]
    to_host = [event for event in copies if "DtoH" in event.name]
    to_device = [event for event in copies if "HtoD" in event.name]
    allocations = {} if segment.allocations is None else {"allocations": segment.allocations}
    return {
        "kernels": sum(event.category == "kernel" for event in segment.on_gpu),
        "kernel_launches": sum(n for name, n in host.items() if LAUNCHES.match(name)),
        "graph_launches": sum(n for name, n in host.items() if name.startswith("cudaGraphLaunch")),
        "host_syncs": sum(n for name, n in host.items() if SYNCS.match(name)),
        "device_to_host_copies": len(to_host),
        "device_to_host_bytes": sum(event.bytes for event in to_host),
        "host_to_device_copies": len(to_device),
        "host_to_device_bytes": sum(event.bytes for event in to_device),
        **allocations,
    }


def profile(generation: Generation, pipeline: Any, *, steps: int) -> Trace:
    """One generation of this many steps under the profiler."""
    allocated: list[int] = []

    def mark() -> None:
        # Private, and the one kernel whose name no model's kernels have. Untyped in some versions.
        torch.cuda._sleep(1)  # type: ignore[no-untyped-call, unused-ignore]
        statistics = torch.cuda.memory_stats_as_nested_dict()
        allocated.append(statistics["allocation"]["all"]["allocated"])

    def generate() -> None:
        with loop_begins(pipeline, mark):
            mark()
            generation.images(steps=steps, after_step=mark)
            mark()

    return read(_recorded(generate), allocated=allocated)


def kernels_of(call: Callable[[], object]) -> list[str]:
    """Names of the kernels that a call runs on the GPU; none where the profiler cannot say, or
    would stay attached, which times that come later would show.
    """
    if not _detaches():
        return []
    try:
        lines = _recorded(call)
    except NoTrace:
        return []
    return [line["name"] for line in lines if line.get("cat") == "kernel"]


def _detaches() -> bool:
    return (torch.version.cuda or "") >= "12.6"  # before, it crashed beside CUDA graphs (#112507)


def _recorded(call: Callable[[], object]) -> list[dict[str, Any]]:
    """What a call does on the GPU, in Chrome's format. `NoTrace` where it cannot be recorded."""
    # Starting a second one would end the first. Torch exports the question without declaring it.
    if torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
        raise NoTrace(messages.OTHER_PROFILER)
    # Left attached, as it is by default, the profiler makes each later launch of the
    # process longer: a generation that waits for the host by a fifth, on an H200 (pytorch #144455).
    if _detaches():
        os.environ["TEARDOWN_CUPTI"] = "1"
    try:
        # Only the GPU's side and the calls into its runtime: recording every operator of PyTorch
        # costs more than the generation.
        profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        with profiler:
            call()
            torch.cuda.synchronize()
    except RuntimeError as error:
        if "profil" not in str(error).lower() and "kineto" not in str(error).lower():
            raise
        raise NoTrace(f"torch.profiler refuses: {str(error).splitlines()[0]}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        lines: list[dict[str, Any]] = json.loads(path.read_bytes())["traceEvents"]
    # What detaches it got ready while the trace was read, and does so in the next call into CUDA:
    # in the middle of another trace that would lose the rest of its events (kineto #1554).
    torch.cuda.synchronize()
    return lines


def read(lines: Iterable[Mapping[str, Any]], *, allocated: Sequence[int] = ()) -> Trace:
    """A trace in Chrome's format (times in microseconds), cut at its markers.

    They stand before all, before the first step, after each step, and after all; `allocated`
    is what the allocator had counted at each. `NoTrace` if there are too few markers in it:
    nothing of the GPU was recorded.
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
        raise NoTrace(messages.NO_EVENTS)
    own = {marker.correlation for marker in markers}
    on_gpu = _cut(gpu, [marker.start_s for marker in markers], own)
    on_host = _cut(host, [launched[marker.correlation] for marker in markers], own)
    calls: list[int | None] = [None] * len(on_gpu)
    if len(allocated) == len(markers):
        calls = [after - before for before, after in pairwise(allocated)]
    first, *steps, last = (
        Segment(on_gpu=g, on_host=h, allocations=a)
        for g, h, a in zip(on_gpu, on_host, calls, strict=True)
    )
    return Trace(before=first, steps=steps, after=last)


def _event(line: Mapping[str, Any]) -> TraceEvent:
    args = line.get("args", {})
    start = float(line["ts"]) / 1e6
    return TraceEvent(
        category=line["cat"],
        name=line["name"],
        start_s=start,
        end_s=start + float(line.get("dur", 0)) / 1e6,
        correlation=int(args.get("correlation", -1)),
        bytes=int(args.get("bytes", 0)),
    )


def _cut(
    events: Iterable[TraceEvent], borders: Sequence[float], own: set[int]
) -> list[list[TraceEvent]]:
    """The events that begin between each two neighbouring borders, without the markers' own."""
    parts: list[list[TraceEvent]] = [[] for _ in borders[1:]]
    for event in events:
        part = bisect_right(borders, event.start_s) - 1
        if 0 <= part < len(parts) and event.correlation not in own:
            parts[part].append(event)
    return parts
