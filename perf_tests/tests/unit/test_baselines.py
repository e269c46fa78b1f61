"""Baseline files: what is written is read back, and each way of being broken is said."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from diffusers_perf.catalog.metrics import COUNTERS
from diffusers_perf.judge.limits import limits_of
from diffusers_perf.records import baselines
from diffusers_perf.records.baselines import BadBaseline, CaseBaseline, MachineBaseline
from diffusers_perf.records.measurement import Count
from perf_tests.tests.unit.catalogs import ours

NUMBERS: dict[str, Any] = {
    "latency_s": (1.0, 1.1, 1.05),
    "latency_speedup": (2.0, 1.9, 1.95),
    "gpu_busy_s": (0.5, 0.501, 0.502),
    "gpu_speedup": (2.9, 2.88, 2.91),
    "peak_memory_bytes": (100, 100, 100),
}
CASE = CaseBaseline(
    accepted="2026-11-22",
    versions={"torch": "2.11.0"},
    generates={"name": "ddim50", "steps": 50, "base": ["fp16"]},
    counters={"kernels": Count(fixed=300, per_step=1000)},
    measured=NUMBERS,
    limits=limits_of(NUMBERS),
)
KEY = "ddim50/sd15/seeded/fp16"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "gpu.json"
    baselines.save_machine(MachineBaseline(path=path, machine="GPU", cases={KEY: CASE}))
    return path


def test_what_is_written_is_read_back(saved: Path) -> None:
    loaded = baselines.load_machine("gpu", saved.parent)
    assert loaded is not None
    assert loaded.cases == {KEY: CASE}
    assert not list(saved.parent.glob("*.draft"))


def test_one_line_a_case(saved: Path) -> None:
    assert sum(KEY in line for line in saved.read_text().splitlines()) == 1
    assert max(len(line) for line in saved.read_text().splitlines()) < 1_500


def test_a_machine_nobody_accepted_has_none(tmp_path: Path) -> None:
    assert baselines.load_machine("gpu", tmp_path) is None


def _set(*path: str, to: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        place = content
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _set("machine", to="GPU (8 GiB)"),
            "machine is GPU (8 GiB), whose file would be called gpu-8",
        ),
        (_set("schema", to=2), "has schema 2, this suite reads 1"),
        (_set("colour", to=2), "unknown key 'colour'; known are cases, machine, schema"),
        (_set("cases", KEY, "fast", to=1), f"{KEY}: unknown key 'fast'"),
        (_set("cases", KEY, "generates", to=50), f"{KEY}: generates is 50, not an object"),
        (_set("cases", KEY, "latency_s", to=[-1.0]), "latency_s is -1.0, not a positive number"),
        (_set("cases", KEY, "latency_s", to=["1"]), "latency_s is '1', not a positive number"),
        (_set("cases", KEY, "gpu_busy_s", to=[float("nan")]), "NaN is no number that anything"),
        (_set("cases", KEY, "limits", "gpu_speedup_min", to=0), "is 0, not a positive number"),
        (_set("cases", KEY, "counters", "kernels", to=[1.5, 2]), "not [fixed, per step]"),
        (_set("cases", KEY, "limits", "fast", to=1), "limits: unknown key 'fast'; known are gpu"),
        (_set("cases", KEY, "limits", to={}), "limits have no 'latency_speedup_min'"),
        (_set("cases", KEY, "limits", to=[]), "limits is [], not an object"),
        (_set("cases", to=[]), "cases is [], not an object"),
    ],
)
def test_a_broken_file_is_said_in_a_sentence(saved: Path, change: Any, sentence: str) -> None:
    content = json.loads(saved.read_text())
    change(content)
    saved.write_text(json.dumps(content))
    with pytest.raises(BadBaseline) as error:
        baselines.load_machine("gpu", saved.parent)
    assert str(saved) in str(error.value)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_json_object_is_said(saved: Path, text: str) -> None:
    saved.write_text(text)
    with pytest.raises(BadBaseline, match="is no JSON"):
        baselines.load_machine("gpu", saved.parent)


def test_limits_follow_from_what_was_measured() -> None:
    limits = limits_of(NUMBERS)
    assert limits["gpu_speedup_min"] == pytest.approx(0.97 * 2.88)
    assert limits["gpu_busy_s_max"] == pytest.approx(0.501 * 1.02)
    assert limits["latency_speedup_min"] == pytest.approx(1.9 * 0.9)
    assert "latency_s_max" not in limits
    reference = limits_of({"latency_s": NUMBERS["latency_s"]})
    assert reference["latency_s_max"] == pytest.approx(1.1 * 1.1)
    assert "latency_speedup_min" not in reference
    # Of two processes nobody knows how they differ by the clock; the GPU's time is held as tightly.
    two = limits_of({name: values[:2] for name, values in NUMBERS.items()})
    assert two["latency_speedup_min"] == pytest.approx(min(NUMBERS["latency_speedup"][:2]) * 0.5)
    assert two["gpu_busy_s_max"] == pytest.approx(median(NUMBERS["gpu_busy_s"][:2]) * 1.02)
    wide = limits_of(NUMBERS | {"gpu_busy_s": (0.5, 0.51, 0.49)})
    assert wide["gpu_busy_s_max"] == pytest.approx(0.5 * (1 + 3 * 0.04))


def test_the_committed_files_are_sound() -> None:
    for path in baselines.FOLDER.glob("*.json"):
        if path.stem not in ("published", "portable", "structure"):
            machine = baselines.load_machine(path.stem)
            assert machine is not None
            for case in machine.cases.values():
                assert set(case.counters) <= set(COUNTERS)
    published = baselines.load_published()
    bounds = {
        **baselines.load_portable(scale="full", device="cuda"),
        **baselines.load_portable(scale="small", device="cpu"),
    }
    known = {case.id for case in ours().cases}
    assert published.cases.keys() <= known
    assert bounds.keys() <= known
