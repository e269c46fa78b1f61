"""What the GPU did in a generation, extrapolated from a short one: counters and times."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from diffusers_perf.measurement.generation import Generation, turns_of_steps
from diffusers_perf.measurement.trace import STEADY, Trace, TraceEvent, profile
from diffusers_perf.records.measurement import Count, KernelFamily

STEPS = 8
"""Of the short generation: as few as leave three steady ones, since what is profiled costs time."""
STAGES = ("text encoder", "denoising", "decoder")

# First match wins: a fused kernel is called after all that was fused into it.
# Names as cuDNN, cuBLAS, CUTLASS, PyTorch and Triton give them.
FAMILIES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (family, re.compile(pattern, re.IGNORECASE))
    for family, pattern in (
        ("matmul", r"^triton_tem.*mm"),
        ("fused (triton)", r"^triton_"),
        ("copy and cast", r"^mem(cpy|set)|copy_kernel|nchwto|nhwcto|transpose|CatArray"),
        ("attention: cudnn", r"cudnn.*(sdpa|flash|fort_native)|sdpa"),
        ("attention: xformers", r"xformers"),
        ("attention: flash", r"flash_(fwd|attn)|pytorch_flash|FlashAttn"),
        ("attention: memory-efficient", r"fmha|AttentionKernel|mem_eff"),
        ("convolution", r"conv|fprop|implicit|wgrad|dgrad|winograd"),
        ("matmul", r"gemm|nvjet|cublas|splitK|cutlass"),
        ("normalization", r"norm|RowwiseMoments|ComputeFusedParams|rms"),
        ("softmax", r"softmax"),
        ("elementwise", r"elementwise|vectorized|unrolled|reduce|upsample|arange|fill|index"),
    )
)


HOST_COPY = re.compile(r"Memcpy (HtoD|DtoH|HtoH)")
"""A copy to or from the host's memory, by the profiler's names."""
PAGEABLE = "Pageable"


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """What was counted in a whole generation of the workload's steps."""

    counters: Mapping[str, Count]
    gpu_busy_s: float
    host_copies_s: float
    """As in `Measurement`."""
    stages_s: Mapping[str, float]
    families: Mapping[str, KernelFamily]
    """Seconds on the GPU and number of kernels."""


def observe(
    generation: Generation, pipeline: Any, *, steps: int, alike: bool = True
) -> TraceSummary:
    """Profile a short generation and extrapolate to this many steps.

    All steps are profiled where they differ or are not `alike`: a cache that is refreshed in every
    third one has no step that speaks for the others. `NoTrace` where the profiler cannot see the
    GPU.
    """
    asked = min(generation.asking_for(STEPS), steps) if alike else steps
    trace = profile(generation, pipeline, steps=asked)
    if asked < steps and not trace.is_steady:
        asked = steps
        trace = profile(generation, pipeline, steps=asked)
    return extrapolate(trace, traced=generation.turns(asked), steps=generation.turns(steps))


def extrapolate(trace: Trace, *, traced: int, steps: int) -> TraceSummary:
    """Fixed and per-step costs of a trace of `traced` steps, as of this many steps.

    What is copied once and grows with the schedule, as its timesteps do, is as long as the trace's.
    """
    further = steps - traced
    steady = trace.steps[STEADY] or trace.steps
    turns = trace.counts[1 : 1 + turns_of_steps(len(trace.steps), traced)]
    per_step = turns[STEADY] or turns
    counters = {}
    for name in per_step[0]:
        # Where steps differ, what each of them does at least: all of them are in the trace.
        each = min(counts[name] for counts in per_step)
        total = sum(counts[name] for counts in trace.counts)
        counters[name] = Count(fixed=total - traced * each, per_step=each)

    stages = _stages_s(trace, further, busy_s)
    with_copies_s = sum(_stages_s(trace, further, occupied_s).values())
    families = {}
    whole, steps_s = by_family(trace.on_gpu), by_family(e for part in steady for e in part.on_gpu)
    for family, (seconds, number) in sorted(whole.items()):
        more_s, more = steps_s.get(family, (0.0, 0))
        share = further / len(steady)
        families[family] = KernelFamily(
            gpu_s=seconds + share * more_s, kernels=round(number + share * more)
        )
    return TraceSummary(
        counters=counters,
        gpu_busy_s=sum(stages.values()),
        host_copies_s=max(0.0, with_copies_s - sum(stages.values())),
        stages_s=stages,
        families=families,
    )


def _stages_s(
    trace: Trace, further: int, seconds_of: Callable[[Sequence[TraceEvent]], float]
) -> dict[str, float]:
    """Seconds of each stage, with so many further steps."""
    steps = [seconds_of(segment.on_gpu) for segment in trace.steps]
    denoising_s = sum(steps) + further * fmean(steps[STEADY] or steps)
    around = seconds_of(trace.before.on_gpu), seconds_of(trace.after.on_gpu)
    return dict(zip(STAGES, (around[0], denoising_s, around[1]), strict=True))


def busy_s(events: Iterable[TraceEvent]) -> float:
    """Length of the union of the events' intervals, in seconds: overlaps count once.

    Without copies to or from the host's memory: they take as long as the host makes them. Of
    pageable memory it carries a large one piece by piece (an image's takes 33 µs on an H100's free
    host); of pinned memory, where an offloaded layer's weights are, the same bytes took 2.04 to
    2.08 s in three processes on one H200, and all kernels but copies and casts 0.667 s in each.
    """
    return _union_s(event for event in events if not HOST_COPY.match(event.name))


def occupied_s(events: Iterable[TraceEvent]) -> float:
    """The same with copies of pinned memory, which go on without the host."""
    return _union_s(event for event in events if PAGEABLE not in event.name)


def _union_s(events: Iterable[TraceEvent]) -> float:
    total, reached = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e.start_s):
        total += max(0.0, event.end_s - max(event.start_s, reached))
        reached = max(reached, event.end_s)
    return total


@cache
def family_of(name: str) -> str:
    """The family of a kernel or copy, by its name."""
    return next((family for family, pattern in FAMILIES if pattern.search(name)), "other")


def by_family(events: Iterable[TraceEvent]) -> dict[str, tuple[float, int]]:
    """Seconds and number of GPU events by family, with the copies that `busy_s` leaves out."""
    split: dict[str, tuple[float, int]] = {}
    for event in events:
        family = family_of(event.name)
        seconds, number = split.get(family, (0.0, 0))
        split[family] = (seconds + event.end_s - event.start_s, number + 1)
    return split


def compile_cache() -> tuple[int, int]:
    """Compiled graphs that this process took from the cache on disk, and that it had to make."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return 0, 0
    taken, made = dynamo.counters["inductor"], dynamo.counters["aot_autograd"]
    return (
        taken["fxgraph_cache_hit"] + made["autograd_cache_hit"],
        taken["fxgraph_cache_miss"] + taken["fxgraph_cache_bypass"],
    )


def compiled_graphs() -> tuple[int, int]:
    """Graphs that torch.compile has made in this process, and breaks it met in them."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return 0, 0
    counters = dynamo.counters
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
