"""The table of metrics: every row is used, and every part of the library reads it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import get_args

import pytest
from msgspec import structs

from diffusers_perf.catalog import metrics
from diffusers_perf.catalog.metric import Detector, Metric, MetricKind, Subject, Unit
from diffusers_perf.catalog.metrics import (
    BY_LEAST,
    BY_NAME,
    COMPARED,
    COUNTERS,
    LEFT,
    LIMITED,
    METRICS,
    STRICT,
    cells,
    detector_of,
)
from diffusers_perf.judge import verdicts
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.records.measurement import Measurement
from perf_tests.tests.unit.factories import FP16, REFERENCE, baseline_of, question

LIBRARY = Path(verdicts.__file__).parents[1]
TABLE = LIBRARY / "catalog" / "metrics.py"
NAMING = (
    "catalog/metrics.py",
    # Where events are counted.
    "measurement/dispatch.py",
    "measurement/trace.py",
)
"""Files that may name a metric."""


def test_names_and_fields_are_unique() -> None:
    assert len(BY_NAME) == len(METRICS)
    fields = [metric.field for metric in METRICS if metric.field]
    assert len(set(fields)) == len(fields)


def test_every_detector_has_a_metric() -> None:
    assert {metric.detector for metric in METRICS} == set(get_args(Detector))
    assert detector_of("kept bytes") == "memory"
    assert detector_of(Subject.COUNTERS) == detector_of(Subject.OPERATORS) == "counter"
    assert detector_of(Subject.ERROR) is None


def test_unknown_metric_has_no_detector() -> None:
    with pytest.raises(ValueError, match="a counter of tomorrow"):
        detector_of("a counter of tomorrow")


def test_metric_without_a_limit_has_a_rule_of_its_own() -> None:
    source = "".join(path.read_text() for path in LIBRARY.rglob("*.py") if path != TABLE)
    rows = {value: name for name, value in vars(metrics).items() if isinstance(value, Metric)}
    generic = {*LIMITED, *COUNTERS.values(), *LEFT.values()}
    for metric in METRICS:
        if metric not in generic and not metric.portable:
            assert f"{rows[metric]}." in source, metric.name


def test_metric_is_named_in_its_row_alone() -> None:
    """Names and fields that no other text of the library can mean: of several words or units."""
    names = {
        name
        for metric in METRICS
        for name in (metric.name, metric.field, metric.portable, metric.limit_name)
        if " " in name or "_" in name
    }
    found = [
        f"{path.relative_to(LIBRARY)}:{node.lineno}: {node.value}"
        for path in LIBRARY.rglob("*.py")
        if str(path.relative_to(LIBRARY)) not in NAMING
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    # A fault's detector is a word of its own, checked where it is declared.
    detectors = set(get_args(Detector))
    assert [line for line in found if line.rpartition(": ")[2] not in detectors] == []


def test_limited_and_compared_metrics() -> None:
    assert [metric.limit_name for metric in LIMITED] == [
        "latency_s_max",
        "latency_speedup_min",
        "default_call_s_max",
        "gpu_busy_s_max",
        "gpu_speedup_min",
        "peak_memory_bytes_max",
        "peak_host_memory_bytes_max",
        "load_memory_bytes_max",
        *(metric.limit_name for metric in BY_LEAST),
        "image_psnr_db_min",
    ]
    assert [metric.field for metric in BY_LEAST] == [
        "text_stage_s",
        "denoising_stage_s",
        "decoder_stage_s",
        "import_s",
        "cold_import_s",
        "import_idle_s",
        "load_s",
        "cold_load_s",
        "first_image_s",
        "cold_first_image_s",
    ]
    assert {metric.field: metric.threshold for metric in COMPARED} == {
        "latency_s": 0.03,
        "default_call_s": 0.50,
        "gpu_busy_s": 0.015,
        "peak_memory_bytes": 0.02,
        "peak_host_memory_bytes": 0.05,
        "load_memory_bytes": 0.02,
    }
    assert {metric.kind for metric in COMPARED} <= {MetricKind.TIME, MetricKind.MEMORY}
    assert {name: metric.rise for name, metric in COUNTERS.items() if name not in STRICT} == {
        "kernels": 0.01,
        "kernel_launches": 0.01,
        "operators": 0.01,
        "python_calls": 0.01,
    }


def test_ratio_takes_the_reference_of_the_same_run() -> None:
    assert BY_NAME["latency speedup"].of(FP16, REFERENCE) == pytest.approx(2.0)
    assert BY_NAME["GPU busy speedup"].of(FP16, REFERENCE) == pytest.approx(2.5)
    assert BY_NAME["memory ratio"].of(FP16, REFERENCE) == pytest.approx(0.5)
    assert BY_NAME["latency speedup"].of(REFERENCE) is None
    assert BY_NAME["GPU busy"].of(FP16, REFERENCE) == 0.8


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        (Unit.SECONDS, 0.61703, "0.6170 s"),
        (Unit.BYTES, 2636 * 2**20, "2,636 MiB"),
        (Unit.RATIO, 1.25, "1.250x"),
        (Unit.COUNT, 12345, "12,345"),
        (Unit.DECIBEL, 60.04, "60.0 dB"),
    ],
)
def test_units_are_shown(unit: Unit, value: float, shown: str) -> None:
    assert unit.shown(value) == shown


def test_cells_are_in_the_order_of_the_table() -> None:
    assert cells(FP16, REFERENCE) == {
        "latency": "1.000 s",
        "speedup": "2.00x",
        "GPU busy": "0.800 s",
        "GPU speedup": "2.50x",
        "memory": "0 MiB",
    }
    blind = structs.replace(FP16, gpu_busy_s=None, peak_memory_bytes=None)
    assert list(cells(blind, None).values()) == ["1.000 s", "", "", "", ""]
    on_host = structs.replace(blind, metrics={"peak_host_memory_bytes": 512 * 2.0**20})
    assert cells(on_host, None)["memory"] == "512 MiB"


@pytest.mark.parametrize(("metric", "most"), [("peak host memory", 550), ("load memory", 510)])
@pytest.mark.parametrize(("above", "status"), [(0, None), (1, "more memory")])
def test_memory_is_judged_where_it_was_accepted(
    metric: str, most: int, above: int, status: str | None
) -> None:
    def using(mebibytes: int | None) -> Measurement:
        field = f"{metric.replace(' ', '_')}_bytes"
        metrics = {} if mebibytes is None else {field: mebibytes * 2.0**20}
        return structs.replace(FP16, peak_memory_bytes=None, metrics=metrics)

    def found(mebibytes: int | None, *, accepted: int | None) -> list[str]:
        baseline = baseline_of(using(accepted), REFERENCE)
        asked = question(using(mebibytes), baseline=baseline)
        return [f.status for f in judge(asked).findings if f.metric == metric]

    assert found(most + above, accepted=500) == ([status] if status else [])
    assert found(None, accepted=500) == ["inconclusive"]
    assert found(most + above, accepted=None) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of it")
def test_peak_host_memory_is_of_the_rounds_alone() -> None:
    import torch

    from diffusers_perf.measurement.housekeeping import Peaks

    cpu = torch.device("cpu")
    block = bytearray(64 * 2**20)
    before = Peaks(cpu).host()["peak_host_memory_bytes"]
    del block
    peaks = Peaks(cpu)
    assert peaks.host()["peak_host_memory_bytes"] < before - 60 * 2**20
    block = bytearray(96 * 2**20)
    del block
    assert peaks.host()["peak_host_memory_bytes"] > before + 20 * 2**20
