"""Baseline files: what is written is read back, and each way of being broken is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from msgspec import structs

from diffusers_perf.catalog.metrics import COUNTERS
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.judge.limits import limits_of
from diffusers_perf.records.baselines import (
    CaseBaseline,
    MachineBaseline,
    OperatorBaseline,
    as_written,
)
from diffusers_perf.records.files import laid_out
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import OperatorCount
from diffusers_perf.records.store import BaselineStore
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
    workload={"name": "ddim50", "steps": 50, "base": ["fp16"]},
    counters={"kernels": Count(fixed=300, per_step=1000)},
    measured=NUMBERS,
    limits=limits_of(NUMBERS),
)
KEY = "ddim50/sd15/seeded/fp16"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return BaselineStore(tmp_path).save_machine(MachineBaseline(machine="GPU", cases={KEY: CASE}))


def test_baseline_is_read_back_as_written(saved: Path) -> None:
    loaded = BaselineStore(saved.parent).load_machine("gpu")
    assert loaded is not None
    assert loaded.cases == {KEY: CASE}
    assert not list(saved.parent.glob("*.draft"))


def test_a_conflict_and_both_of_its_sides_are_refused(saved: Path) -> None:
    text = saved.read_text()
    (limits,) = (line for line in text.splitlines(keepends=True) if '"limits":' in line)
    other = limits.replace("102.0", "999.0")
    assert other != limits
    both = text.replace(limits, limits + other)
    conflict = f"<<<<<<< HEAD\n{limits}=======\n{other}>>>>>>> 1b10a79 (Accept)\n"
    for content, said in (
        (text.replace(limits, conflict), "has conflict markers; keep one side"),
        (both, "'limits' is there twice; keep one side"),
    ):
        saved.write_text(content)
        with pytest.raises(Refusal, match=said):
            BaselineStore(saved.parent).load_machine("gpu")


def test_workloads_and_versions_are_written_once(tmp_path: Path) -> None:
    other = structs.replace(CASE, workload={**CASE.workload, "steps": 25})
    cases = {f"{KEY}-{number}": CASE for number in range(3)} | {f"{KEY}-other": other}
    store = BaselineStore(tmp_path)
    text = store.save_machine(MachineBaseline(machine="GPU", cases=cases)).read_text()
    assert text.count('"steps": 50') == text.count('"steps": 25') == 1
    assert text.count('"torch": "2.11.0"') == 1
    loaded = store.load_machine("gpu")
    assert loaded is not None
    assert loaded.cases == cases


def test_change_of_one_case_changes_few_lines(saved: Path) -> None:
    before = saved.read_text().splitlines()
    changed = structs.replace(CASE, limits={**CASE.limits, "gpu_busy_s_max": 9.0})
    cases = {KEY: changed}
    BaselineStore(saved.parent).save_machine(MachineBaseline(machine="GPU", cases=cases))
    after = saved.read_text().splitlines()
    (line,) = [now for was, now in zip(before, after, strict=True) if was != now]
    assert line.strip().startswith('"limits": ')


def test_count_below_zero_of_an_older_file_is_written_as_missing(saved: Path) -> None:
    text = saved.read_text()
    older = text.replace("[300, 1000]", "[-1, 6]")
    saved.write_text(older)
    store = BaselineStore(saved.parent)
    loaded = store.load_machine("gpu")
    assert loaded is not None
    assert loaded.cases[KEY].counters["kernels"] == Count(fixed=0, per_step=6, missing=1)
    # All else stays byte for byte, and so do counts of which nothing is missing.
    assert store.save_machine(loaded).read_text() == older.replace("[-1, 6]", "[0, 6, 1]")
    assert store.load_machine("gpu") == loaded


def test_operator_counts_are_read_back_as_written(tmp_path: Path) -> None:
    uneven = Count(fixed=0, per_step=6, missing=1)
    even = Count(fixed=3, per_step=6)
    case = OperatorBaseline(
        accepted="2026-11-22",
        reason="first counts",
        versions={"torch": "2.11.0"},
        counters={"casts": OperatorCount(total=uneven, where={"a in B": uneven, "c in D": even})},
        python_calls=even,
    )
    store = BaselineStore(tmp_path)
    with store.changing() as changes:
        changes.save_operators({"ddim50/sd15/fp16": case})
    assert store.load_operators() == {"ddim50/sd15/fp16": case}
    text = store.operators_path("ddim50").read_text()
    assert '{"total": [0, 6, 1], "where": {"a in B": [0, 6, 1], "c in D": [3, 6]}}' in text
    assert '"python_calls": [3, 6]' in text


def test_unknown_machine_has_no_baseline(tmp_path: Path) -> None:
    assert BaselineStore(tmp_path).load_machine("gpu") is None


def _set(*path: str, to: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        place = content
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = to

    return change


def _unset(*path: str) -> Any:
    def change(content: dict[str, Any]) -> None:
        place = content
        for name in path[:-1]:
            place = place[name]
        del place[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _set("machine", to="GPU (8 GiB)"),
            "machine is GPU (8 GiB), whose file is called gpu-8",
        ),
        (_set("schema", to=1), "has schema 1; this version reads schema 2"),
        (_set("colour", to=2), "object contains unknown field `colour`"),
        (_set("cases", KEY, "fast", to=1), "object contains unknown field `fast`"),
        (_set("cases", KEY, "workload", to="other"), f"{KEY}: unknown workload 'other'"),
        (_set("cases", KEY, "versions", to="1"), f"{KEY}: unknown versions '1'"),
        (_set("cases", KEY, "measured", "latency_s", to=[-1.0]), "expected `float` > 0.0"),
        (_set("cases", KEY, "measured", "latency_s", to=[]), "expected `array` of length >= 1"),
        (_set("cases", KEY, "measured", "latency_s", to=["1"]), "got `str`"),
        (_set("cases", KEY, "measured", "gpu_busy_s", to=[float("nan")]), "not valid JSON"),
        (_set("cases", KEY, "measured", "speed", to=[1.0]), "measured: unknown 'speed' (known: l"),
        (_set("cases", KEY, "limits", "gpu_speedup_min", to=0), "expected `int` >= 1"),
        (_set("cases", KEY, "counters", "kernels", to=[1.5, 2]), "expected `int`, got `float`"),
        (_set("cases", KEY, "limits", "fast", to=1), "limits: unknown 'fast' (known: latency_s"),
        (_set("cases", KEY, "limits", to={}), "no latency_speedup_min in limits"),
        (
            _unset("cases", KEY, "measured", "gpu_busy_s"),
            "gpu_busy_s_max in limits, but no gpu_busy_s",
        ),
        (_set("cases", KEY, "limits", to=[]), "limits: expected `object`, got `array`"),
        (_set("cases", to=[]), "cases: expected `object`, got `array`"),
        (_set("cases", "ddim50", to={}), "object missing required field"),
    ],
)
def test_broken_file_is_one_sentence(saved: Path, change: Any, sentence: str) -> None:
    content = json.loads(saved.read_text())
    change(content)
    saved.write_text(json.dumps(content))
    with pytest.raises(Refusal) as error:
        BaselineStore(saved.parent).load_machine("gpu")
    assert str(saved) in str(error.value)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_json_that_is_not_an_object_is_one_sentence(saved: Path, text: str) -> None:
    saved.write_text(text)
    with pytest.raises(Refusal, match=r"not valid JSON|expected `object`"):
        BaselineStore(saved.parent).load_machine("gpu")


def test_limits_follow_from_what_was_measured() -> None:
    limits = limits_of(NUMBERS)
    assert limits["gpu_speedup_min"] == pytest.approx(0.97 * 2.88)
    assert limits["gpu_busy_s_max"] == pytest.approx(0.501 * 1.02)
    assert limits["latency_speedup_min"] == pytest.approx(1.9 * 0.9)
    assert "latency_s_max" not in limits
    reference = limits_of({"latency_s": NUMBERS["latency_s"]})
    assert reference["latency_s_max"] == pytest.approx(1.1 * 1.1)
    assert "latency_speedup_min" not in reference
    # Two processes do not show how far latencies differ; the GPU's limit is as tight.
    two = limits_of({name: values[:2] for name, values in NUMBERS.items()})
    assert two["latency_speedup_min"] == pytest.approx(min(NUMBERS["latency_speedup"][:2]) * 0.5)
    assert two["gpu_busy_s_max"] == pytest.approx(median(NUMBERS["gpu_busy_s"][:2]) * 1.02)
    wide = limits_of(NUMBERS | {"gpu_busy_s": (0.5, 0.51, 0.49)})
    assert wide["gpu_busy_s_max"] == pytest.approx(0.5 * (1 + 3 * 0.04))


def test_committed_files_are_sound() -> None:
    store = BaselineStore(Path(__file__).parents[3] / "baselines")
    for path in store.folder.glob("*.json"):
        if path.stem not in ("published", "portable"):
            machine = store.load_machine(path.stem)
            assert machine is not None
            for case in machine.cases.values():
                assert set(case.counters) <= set(COUNTERS)
            # As it would be written, so that accepting changes no other line.
            assert laid_out(as_written(machine.file()), depth=3) == path.read_text(encoding="utf-8")
    assert store.load_operators()
    entries = [line for line in store.history.read_text().splitlines() if line.startswith("- ")]
    assert all(
        re.match(r"- \d{4}-\d\d-\d\d (NVIDIA \S|a CPU |\S.* \(\d+ cores\) )", line)
        for line in entries
    )
    published = store.load_published()
    bounds = {
        **store.load_portable(scale="full", device="cuda"),
        **store.load_portable(scale="small", device="cpu"),
    }
    known = {case.id for case in ours().cases}
    assert published.cases.keys() <= known
    assert bounds.keys() <= known


def test_message_names_a_file_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = BaselineStore(tmp_path / "kept")
    assert store.shown(store.machine_path("gpu")) == "kept/gpu.json"
    elsewhere = BaselineStore(Path("/elsewhere"))
    assert elsewhere.shown(elsewhere.operators_path("w")) == "/elsewhere/operators/w.json"
