"""Counting on a trace recorded on an H100 (fp16, two DDIM steps), and on small made-up ones."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness import counters
from perf_tests.harness.counters import Event, NoTrace
from perf_tests.harness.records import Count

RECORDED = Path(__file__).parent / "recorded" / "h100-fp16-2steps.json.gz"


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(gzip.decompress(RECORDED.read_bytes()))["traceEvents"]
    return events


def test_counts_of_a_recorded_trace(lines: list[dict[str, Any]]) -> None:
    seen = counters.count(counters.read(lines))
    # DDIM reads six scalars a step back from the device, less two in all; each is a copy that
    # the host waits for. The picture is one more.
    assert seen["device_to_host_copies"] == 11
    assert seen["host_syncs"] == 15
    assert seen["kernels"] == seen["kernel_launches"] == 3009
    assert seen["graph_launches"] == 0
    assert seen["device_to_host_bytes"] == 512 * 512 * 3 * 2 + 52


def test_markers_are_not_counted_and_split_the_stages(lines: list[dict[str, Any]]) -> None:
    trace = counters.read(lines)
    assert len(trace.gpu_borders_s) == 5  # start, two UNet calls, decoder, end
    assert not any(counters.MARKER in event.name for event in trace.on_gpu)
    text, denoising, decoder = counters.stage_busy(trace)
    assert 0 < text < decoder < denoising
    assert text + denoising + decoder == pytest.approx(counters.busy_s(trace.on_gpu), rel=1e-6)


def test_every_kernel_of_a_recorded_trace_has_a_family(lines: list[dict[str, Any]]) -> None:
    families = counters.by_family(counters.read(lines).on_gpu)
    assert "other" not in families
    assert families["attention: cudnn"][1] == 88
    assert families["convolution"][1] == 167


def test_a_trace_without_gpu_events_says_so(lines: list[dict[str, Any]]) -> None:
    with pytest.raises(NoTrace, match="CUPTI"):
        counters.read([line for line in lines if line["cat"].startswith("cuda_")])


def test_busy_is_the_union_of_intervals() -> None:
    def event(start: float, end: float) -> Event:
        return Event(category="kernel", name="k", start_s=start, end_s=end, correlation=0, bytes=0)

    assert counters.busy_s([event(0, 2), event(1, 3), event(5, 6)]) == pytest.approx(4)
    assert counters.busy_s([event(0, 10), event(1, 2)]) == pytest.approx(10)
    assert counters.busy_s([]) == 0


def test_fixed_and_per_step_costs_separate_exactly() -> None:
    few, many = counters.STEPS
    count = Count.between(210 + 1301 * few, 210 + 1301 * many, steps=counters.STEPS)
    assert count == Count(fixed=210, per_step=1301)
    assert count.total(50) == 210 + 1301 * 50
