"""`diffusers-perf results`: the tables of the accepted baselines."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from msgspec import structs

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.metrics import GPU_BUSY
from diffusers_perf.cli import results
from diffusers_perf.cli.result_rows import ResultRow, gain, rows_of, table
from diffusers_perf.cli.results import NOTES, NOTES_END, results_path
from diffusers_perf.records.store import BaselineStore

STORE = BaselineStore(Path(__file__).parents[3] / "baselines")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return declared_in("perf_tests.cases").cases


@pytest.mark.parametrize("path", STORE.machine_paths(), ids=lambda path: path.stem)
def test_committed_results_are_current(path: Path, cases: list[Case]) -> None:
    committed = results_path(path).read_text()
    assert results.results(path.stem, STORE, committed, cases) == committed, (
        "stale: run diffusers-perf results"
    )


def test_results_show_accepted_numbers(cases: list[Case]) -> None:
    text = results.results("nvidia-h200", STORE, "", cases)
    line = next(row for row in text.splitlines() if row.startswith("| tf32+fp16 | "))
    case = STORE.load_machine("nvidia-h200")
    assert case is not None
    measured = case.cases["ddim50/sd15/seeded-2023/tf32+fp16"].measured
    assert f"| {median(measured['gpu_busy_s']):.4f} s |" in line
    fp16 = case.cases["ddim50/sd15/seeded-2023/fp16"]
    assert fp16.roofline_s is not None
    times = median(fp16.measured["latency_s"]) / fp16.roofline_s
    shown = f"| {fp16.roofline_s:.4f} s ({times:.1f}x) |"
    assert any(shown in row for row in text.splitlines())


def test_results_keep_the_notes(cases: list[Case]) -> None:
    before = f"anything\n{NOTES}\nMeasured on a shared host.\n{NOTES_END}\nanything"
    text = results.results("nvidia-h200", STORE, before, cases)
    assert f"{NOTES}\nMeasured on a shared host.\n{NOTES_END}" in text
    assert "anything" not in text


def test_results_compare_cases_that_differ_by_one_optimization(cases: list[Case]) -> None:
    text = results.results("nvidia-h200", STORE, "", cases).split("## What each", 1)[1]
    assert "| `channels_last` | ddim50 | fp16 |" in text
    assert "| `fp16` | ddim50 | reference |" in text


def test_results_lead_from_the_reference_to_the_fastest(cases: list[Case]) -> None:
    """Also where no accepted case has all but one of its optimizations."""
    baseline = STORE.load_machine("nvidia-h200")
    assert baseline is not None
    text = results.results("nvidia-h200", STORE, "", cases).split("## From the reference", 1)[1]
    lines = text.split("(sd15, seeded-2023): lossy", 1)[1].splitlines()[4:]
    rows = [line.strip("| ").split(" | ") for line in lines[: lines.index("")]]
    assert [row[0] for row in rows[:3]] == ["reference", "`fp16`", "`channels_last`"]
    assert rows[-1][0] == "`tiny_vae`, `sparse_deepcache`, `guidance_cutoff`"
    last, above = (
        baseline.cases[f"ddim50/sd15/seeded-2023/{name}+precomputed_prompt"].measured
        for name in ("best_sparse", "best_lossless")
    )
    times = median(last["gpu_speedup"]) / median(above["gpu_speedup"])
    assert rows[-1][3:5] == [f"{median(last['gpu_busy_s']):.4f} s", f"{times:.2f}x"]
    without = [case for case in cases if case.name != "fp16"]
    text = results.results("nvidia-h200", STORE, "", without).split("## From the reference", 1)[1]
    assert "| `fp16`, `channels_last` |" in text


def test_gain_is_of_the_times_where_a_speedup_is_not_known(cases: list[Case]) -> None:
    baseline = STORE.load_machine("nvidia-h200")
    assert baseline is not None
    by_name = {row.name: row for row in rows_of(baseline, cases) if row.workload == "ddim50"}
    reference, fp16 = by_name["reference"], by_name["fp16"]
    known = {**fp16.line.measured, "gpu_busy_s": (0.5,), "gpu_speedup": (3.0,)}
    for measured, expected in (
        (known, 3.0),
        # Accepted before it was kept, or compared with another case.
        ({k: v for k, v in known.items() if k != "gpu_speedup"}, median_of(reference) / 0.5),
        ({k: v for k, v in known.items() if k != "gpu_busy_s"}, None),
    ):
        row = replace(fp16, line=structs.replace(fp16.line, measured=measured))
        assert gain(reference, row, GPU_BUSY) == expected


def median_of(row: ResultRow) -> float:
    return median(row.line.measured["gpu_busy_s"])


def test_results_list_cases_that_are_not_declared(cases: list[Case]) -> None:
    fewer = [case for case in cases if case.name != "tf32"]
    text = results.results("nvidia-h200", STORE, "", fewer)
    assert "| tf32 |" in text.split("## No longer declared", 1)[1]


def test_table_leaves_out_empty_columns() -> None:
    shown = table(["case", "empty", "latency"], [["a", "", "1 s"], ["b", "", ""]])
    assert shown == "| case | latency |\n| --- | --- |\n| a | 1 s |\n| b |  |"


def test_check_names_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("nvidia-h200.json", "published.json"):
        (tmp_path / name).write_bytes((STORE.folder / name).read_bytes())

    class Declared:
        cases = declared_in("perf_tests.cases").cases

    monkeypatch.setattr(results, "find_project", Declared)
    check = Namespace(check=True, baselines=tmp_path)
    write = Namespace(check=False, baselines=tmp_path)
    assert results.main(check) == 1
    assert "stale: RESULTS-nvidia-h200.md; run diffusers-perf results" in capsys.readouterr().err
    assert not results_path(tmp_path / "nvidia-h200.json").exists()
    assert results.main(write) == 0
    assert results.main(check) == 0
