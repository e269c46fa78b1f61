"""Counting on a trace recorded on an H100 (fp16, two DDIM steps), and on small made-up ones."""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.metrics import HOST_SYNCS, PYTHON_CALLS
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.counters import count_status
from diffusers_perf.judge.messages.numbers import difference
from diffusers_perf.measurement import counters
from diffusers_perf.measurement import trace as tracing
from diffusers_perf.measurement.observing import with_gpu_times
from diffusers_perf.measurement.trace import NoTrace, Segment, Trace, TraceEvent
from diffusers_perf.records.measurement import Count, KernelFamily
from diffusers_perf.records.operators import added
from perf_tests.tests.unit.factories import FP16

RECORDED = Path(__file__).parent / "recorded" / "h100-fp16-2steps.json.gz"


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(gzip.decompress(RECORDED.read_bytes()))["traceEvents"]
    return events


def totals(trace: Trace) -> dict[str, int]:
    counted = [tracing.count(segment) for segment in trace.segments]
    return {name: sum(counts[name] for counts in counted) for name in counted[0]}


def test_counts_of_a_recorded_trace(lines: list[dict[str, Any]]) -> None:
    seen = totals(tracing.read(lines))
    # DDIM reads six scalars a step back from the device, less two in all; each is a copy that
    # the host waits for. The image is one more.
    assert seen["device_to_host_copies"] == 11
    assert seen["host_syncs"] == 15
    assert seen["kernels"] == seen["kernel_launches"] == 3009
    assert seen["graph_launches"] == 0
    assert seen["device_to_host_bytes"] == 512 * 512 * 3 * 2 + 52


def test_markers_are_not_counted_and_split_the_stages(lines: list[dict[str, Any]]) -> None:
    trace = tracing.read(lines)
    assert len(trace.steps) == 2
    assert not any(tracing.MARKER in event.name for event in trace.on_gpu)
    text, decoder = counters.busy_s(trace.before.on_gpu), counters.busy_s(trace.after.on_gpu)
    denoising = sum(counters.busy_s(step.on_gpu) for step in trace.steps)
    assert 0 < text < decoder < denoising
    assert text + denoising + decoder == pytest.approx(counters.busy_s(trace.on_gpu), rel=1e-6)


def test_trace_of_all_steps_is_kept_unscaled(lines: list[dict[str, Any]]) -> None:
    trace = tracing.read(lines)
    seen = counters.extrapolate(trace, traced=2, steps=2)
    assert {name: count.total(2) for name, count in seen.counters.items()} == totals(trace)
    assert seen.gpu_busy_s == pytest.approx(counters.busy_s(trace.on_gpu), rel=1e-6)
    families = {name: (seen.gpu_s, seen.kernels) for name, seen in seen.families.items()}
    assert families == counters.by_family(trace.on_gpu)


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        # Called after what was fused into them.
        ("triton_poi_fused_add_convolution_div_5", "fused (triton)"),
        ("triton_red_fused_native_group_norm_3", "fused (triton)"),
        ("triton_poi_fused_clone_transpose_view_2", "fused (triton)"),
        ("triton_tem_fused_addmm_7", "matmul"),
    ],
)
def test_compiled_kernels_have_their_own_family(kernel: str, family: str) -> None:
    assert counters.family_of(kernel) == family


def test_every_kernel_of_a_recorded_trace_has_a_family(lines: list[dict[str, Any]]) -> None:
    families = counters.by_family(tracing.read(lines).on_gpu)
    assert "other" not in families
    assert families["attention: cudnn"][1] == 88
    assert families["convolution"][1] == 167


def test_trace_without_gpu_events_says_so(lines: list[dict[str, Any]]) -> None:
    with pytest.raises(NoTrace, match="CUPTI"):
        tracing.read([line for line in lines if line["cat"].startswith("cuda_")])


def test_another_profiler_is_left_alone() -> None:
    generation: Any = SimpleNamespace(asking_for=int, turns=int)
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as other,
        pytest.raises(NoTrace, match="another profiler of PyTorch is at work in this process"),
    ):
        counters.observe(generation, None, steps=50)
    assert other.profiler is not None


@pytest.mark.parametrize(("cuda", "printed"), [("13.0", "1"), ("12.6", "1"), ("12.4", None)])
def test_profiler_detaches_before_another_begins(
    monkeypatch: pytest.MonkeyPatch, cuda: str, printed: str | None
) -> None:
    happened: list[str | None] = []

    class Profiler:
        def __init__(self, **_: object) -> None:
            happened.append(os.environ.get("TEARDOWN_CUPTI"))

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...
        def export_chrome_trace(self, path: str) -> None:
            Path(path).write_bytes(gzip.decompress(RECORDED.read_bytes()))
            happened.append("exported")

    # Set first, so that what the suite sets is taken back after the test.
    monkeypatch.setenv("TEARDOWN_CUPTI", "")
    monkeypatch.delenv("TEARDOWN_CUPTI")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: happened.append("synchronized"))
    monkeypatch.setattr(
        torch.cuda,
        "memory_stats_as_nested_dict",
        lambda: {"allocation": {"all": {"allocated": 0}}},
    )
    pipeline: Any = SimpleNamespace(loop_begins=None)
    generation: Any = SimpleNamespace(images=lambda **_: None)
    assert len(tracing.profile(generation, pipeline, steps=2).steps) == 2
    assert happened == [printed, "synchronized", "exported", "synchronized"]


def test_kernels_of_a_call_are_named(
    monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]
) -> None:
    class Profiler:
        def __init__(self, **_: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...
        def export_chrome_trace(self, path: str) -> None:
            Path(path).write_text(json.dumps({"traceEvents": lines}))

    calls: list[str] = []
    monkeypatch.setenv("TEARDOWN_CUPTI", "")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert tracing.kernels_of(lambda: calls.append("beside another profiler")) == []
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    names = tracing.kernels_of(lambda: calls.append("profiled"))
    assert len(names) == sum(line["cat"] == "kernel" for line in lines)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert tracing.kernels_of(lambda: calls.append("would stay attached")) == []
    assert calls == ["profiled"]


def test_busy_is_the_union_of_intervals() -> None:
    def event(start: float, end: float) -> TraceEvent:
        return TraceEvent(
            category="kernel", name="k", start_s=start, end_s=end, correlation=0, bytes=0
        )

    assert counters.busy_s([event(0, 2), event(1, 3), event(5, 6)]) == pytest.approx(4)
    assert counters.busy_s([event(0, 10), event(1, 2)]) == pytest.approx(10)
    assert counters.busy_s([]) == 0


def test_copies_of_host_memory_are_not_gpu_time(lines: list[dict[str, Any]]) -> None:
    def summary(trace: list[dict[str, Any]]) -> counters.TraceSummary:
        return counters.extrapolate(tracing.read(trace), traced=2, steps=50)

    was = summary(lines)
    copies = [line["name"] for line in lines if line.get("cat") == "gpu_memcpy"]
    assert {kind.split(" (")[0] for kind in copies} == {"Memcpy HtoD", "Memcpy DtoH", "Memcpy DtoD"}
    for kind in sorted({name for name in copies if "Memcpy DtoD" not in name}):
        slower = [dict(line) for line in lines]
        for line in slower:
            # Longer than the gap after it, as where another process has the CPU or its memory.
            line["dur"] = line.get("dur", 0) + 4_000 * (line.get("name") == kind)
        now = summary(slower)
        assert now.gpu_busy_s == was.gpu_busy_s, kind
        assert now.stages_s == was.stages_s
        assert now.families["copy and cast"].gpu_s > was.families["copy and cast"].gpu_s
        # The host carries what is pageable; the GPU copies what is pinned, and is not idle.
        grown = (now.host_copies_s - was.host_copies_s) > 1e-4
        assert grown == ("Pinned" in kind), kind
    slower = [dict(line) for line in lines]
    within = next(line for line in slower if "Memcpy DtoD" in line.get("name", ""))
    within["dur"] += 4_000
    assert summary(slower).gpu_busy_s > was.gpu_busy_s


def made_up(*kernels_a_step: int) -> Trace:
    """Ten kernels of a second to encode, then as many a step as said, then twenty to decode."""

    def segment(kernels: int) -> Segment:
        events = [
            TraceEvent(
                category="kernel", name="gemm", start_s=i, end_s=i + 1, correlation=0, bytes=0
            )
            for i in range(kernels)
        ]
        return Segment(on_gpu=events, on_host=[], allocations=3 * kernels)

    return Trace(before=segment(10), steps=[segment(n) for n in kernels_a_step], after=segment(20))


def test_fixed_and_per_step_costs_separate_exactly() -> None:
    # PNDM: other arithmetic in the first four steps, one turn of the loop more than asked for.
    trace = made_up(7, 9, 9, 9, *[11] * 6, 8)
    assert trace.is_steady
    seen = counters.extrapolate(trace, traced=10, steps=25)
    # 138 in the trace, of which ten times 11 belong to the steps that were asked for.
    assert seen.counters["kernels"] == Count(fixed=28, per_step=11)
    assert seen.counters["kernels"].total(25) == 10 + 7 + 27 + 11 * 21 + 8 + 20
    assert seen.counters["allocations"] == Count(fixed=3 * 28, per_step=33)
    assert seen.gpu_busy_s == pytest.approx(seen.counters["kernels"].total(25))
    assert seen.families == {"matmul": KernelFamily(gpu_s=303, kernels=303)}
    assert seen.stages_s == pytest.approx({"text encoder": 10, "denoising": 273, "decoder": 20})


def test_a_refiner_does_not_say_what_a_step_does() -> None:
    trace = made_up(*[11] * 7, 9, 5, 5)
    seen = counters.extrapolate(trace, traced=8, steps=8)
    assert seen.counters["kernels"] == Count(fixed=30 + 10 - 2, per_step=11)


@pytest.mark.parametrize("period", [2, 3])
def test_differing_steps_have_no_per_step_cost(period: int) -> None:
    """Whichever of the steps it is in which a cache is refreshed."""
    for phase in range(period):
        steps = [11 if step % period == phase else 2 for step in range(counters.STEPS)]
        assert not made_up(*steps).is_steady
    assert not made_up(11, 11).is_steady


def test_all_steps_are_profiled_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def profile(_generation: object, _pipeline: object, *, steps: int) -> Trace:
        asked.append(steps)
        return made_up(*([11, 2, 2] * 20)[:steps])

    monkeypatch.setattr(counters, "profile", profile)
    generation: Any = SimpleNamespace(asking_for=int, turns=int)
    seen = counters.observe(generation, None, steps=50)
    assert asked == [counters.STEPS, 50]
    assert seen.counters["kernels"].total(50) == 30 + 17 * 11 + 33 * 2
    # No step does less than what is printed of each, and so nothing less than nothing is done once.
    assert seen.counters["kernels"].per_step == 2


@pytest.mark.parametrize(
    ("capped_mhz", "asked", "busy_s"), [([], counters.STEPS, 30 + 50 * 2), ([1600], 50, 30 + 230)]
)
def test_all_steps_are_profiled_at_the_power_limit(
    monkeypatch: pytest.MonkeyPatch, capped_mhz: list[int], asked: int, busy_s: float
) -> None:
    """Each step may take another time there: the first twenty take 2 s here, all others more."""
    profiled = []

    def profile(_generation: object, _pipeline: object, *, steps: int) -> Trace:
        profiled.append(steps)
        trace = made_up(*[1] * steps)
        lasting = [replace(step, on_gpu=lengthened(step, 2)) for step in trace.steps[:20]]
        lasting += [replace(step, on_gpu=lengthened(step, 19 / 3)) for step in trace.steps[20:]]
        return replace(trace, steps=lasting)

    monkeypatch.setattr(counters, "profile", profile)
    generation: Any = SimpleNamespace(asking_for=int, turns=int)
    case: Any = SimpleNamespace(alike=True, workload=SimpleNamespace(steps=50))
    watch: Any = SimpleNamespace(capped_clocks_mhz=capped_mhz)
    seen = with_gpu_times(FP16, case, generation, None, watch)
    assert profiled == [asked]
    assert seen.gpu_busy_s == pytest.approx(busy_s)
    assert seen.counters["kernels"] == Count(fixed=30, per_step=1)


def lengthened(segment: Segment, times: float) -> list[TraceEvent]:
    return [
        replace(event, end_s=event.start_s + times * (event.end_s - event.start_s))
        for event in segment.on_gpu
    ]


# No count is below zero

steps_that_differ = st.lists(st.integers(0, 40), min_size=1, max_size=60)


@given(kernels=steps_that_differ, further=st.integers(0, 60))
def test_no_count_of_a_trace_is_below_zero(kernels: list[int], further: int) -> None:
    trace = made_up(*kernels)
    traced = len(kernels)
    seen = counters.extrapolate(trace, traced=traced, steps=traced + further)
    assert all(is_well_formed(count) for count in seen.counters.values())
    if not further:
        assert seen.counters["kernels"].total(traced) == 30 + sum(kernels)


def is_well_formed(count: Count) -> bool:
    return min(count.fixed, count.per_step, count.missing) >= 0 and 0 in (
        count.fixed,
        count.missing,
    )


def test_last_step_that_does_less_is_stated_without_a_count_below_zero() -> None:
    def segment(reads: int) -> Segment:
        copy = TraceEvent(
            category="gpu_memcpy", name="DtoH", start_s=0, end_s=1, correlation=0, bytes=4
        )
        return Segment(on_gpu=[copy] * reads, on_host=[], allocations=None)

    # DDIM reads six scalars a step, and four in the last one; the image is one copy more.
    trace = Trace(before=segment(0), steps=[*[segment(6)] * 7, segment(4)], after=segment(1))
    seen = counters.extrapolate(trace, traced=8, steps=50)
    assert seen.counters["device_to_host_copies"] == Count(fixed=0, per_step=6, missing=1)
    assert seen.counters["device_to_host_copies"].total(50) == 49 * 6 + 4 + 1


signed = st.tuples(st.integers(-400, 400), st.integers(0, 9))
"""Fixed and per step, as records of two parts have them."""


def verdict_on_two_parts(
    metric: Metric, *, was: tuple[int, int], now: tuple[int, int], steps: int
) -> Status:
    """The rule of the versions whose counts had two parts, the fixed one also below zero."""
    before, after = (fixed + per_step * steps for fixed, per_step in (was, now))
    each = now[1] > was[1] and not metric.rise
    if after > before * (1 + metric.rise) or each:
        return Status.MORE_WORK
    return Status.LESS_WORK if after * (1 + metric.rise) < before else Status.SAME


@given(
    metric=st.sampled_from([HOST_SYNCS, PYTHON_CALLS]),
    was=signed,
    now=signed,
    steps=st.integers(1, 60),
)
@example(metric=HOST_SYNCS, was=(60, 6), now=(-1, 7), steps=50)
@example(metric=HOST_SYNCS, was=(3, 6), now=(-1, 7), steps=50)
def test_verdict_is_the_one_on_two_parts(
    metric: Metric, was: tuple[int, int], now: tuple[int, int], steps: int
) -> None:
    before, after = (msgspec.convert(parts, Count) for parts in (was, now))
    assert before.total(steps) == was[0] + was[1] * steps
    status = count_status(metric, was=before, now=after, steps=steps)
    assert status == verdict_on_two_parts(metric, was=was, now=now, steps=steps)


@given(parts=st.tuples(st.integers(-400, 400), st.integers(0, 9), st.integers(0, 400)))
def test_count_is_the_same_from_json(parts: tuple[int, int, int]) -> None:
    count = msgspec.convert(parts, Count)
    assert is_well_formed(count)
    assert count.once == parts[0] - parts[2]
    assert msgspec.json.decode(msgspec.json.encode(count), type=Count) == count


@given(counts=st.lists(signed, max_size=5), steps=st.integers(1, 60))
def test_sum_of_counts_has_the_sum_of_their_totals(
    counts: list[tuple[int, int]], steps: int
) -> None:
    whole = added(msgspec.convert(count, Count) for count in counts)
    assert is_well_formed(whole)
    assert whole.total(steps) == sum(fixed + per_step * steps for fixed, per_step in counts)


def test_missing_part_is_not_below_zero() -> None:
    with pytest.raises(msgspec.ValidationError, match="`int` >= 0"):
        msgspec.convert([0, 6, -1], Count)


def test_difference_of_counts_says_what_each_step_does_more() -> None:
    was, now = Count(fixed=3, per_step=6), Count(fixed=-1, per_step=7)
    words = difference("host_syncs", was=was, now=now, steps=50)
    assert words == "host syncs 303 → 349 (+1 in each of 50 steps and -4 fixed)"


def test_no_accepted_count_is_below_zero() -> None:
    folder = Path(__file__).parents[3] / "baselines"
    cases = [
        case
        for path in [*folder.glob("nvidia-*.json"), *folder.glob("operators/*.json")]
        for case in json.loads(path.read_text())["cases"].values()
    ]
    counts = [count for case in cases for count in raw_counts(case["counters"])]
    counts += [case["python_calls"] for case in cases if "python_calls" in case]
    assert len(counts) > 1000
    assert min(min(count) for count in counts) >= 0
    assert all(len(count) == 2 or (count[0] == 0 < count[2]) for count in counts)


def raw_counts(counters: Any) -> Iterator[list[int]]:
    """What a file has, before it is read as a `Count`."""
    if isinstance(counters, list):
        yield counters
    else:
        for part in counters.values():
            yield from raw_counts(part)
