"""How often a change is found, and how often for nothing, at the noise of recorded runs; and how
long a year of nights takes to read.

    pytest -s perf_tests/tests/full/test_history_rates.py

prints the table that the documents quote.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time

import pytest
from msgspec.structs import replace

from diffusers_perf.history import store
from diffusers_perf.history.changes import Shape, changes
from diffusers_perf.history.trends import trends
from diffusers_perf.report import history as page
from perf_tests.tests import blocks
from perf_tests.tests.unit.recorded import five_pairs, parsed

CASES = 60
"""Of the suite that the rates are scaled to."""
HISTORIES = 40
PAGE_MOST_BYTES = 5_000_000
RUNS = 1000


def residuals() -> Iterator[tuple[str, list[float]]]:
    """By case and metric, the logs of ten recorded processes of one commit around their mean."""
    runs = parsed([run for side in five_pairs("same") for run in side], "run")
    for case in runs[0].by_id:
        for metric in ("latency_s", "gpu_busy_s"):
            logs = [math.log(getattr(run.by_id[case].measurement, metric)) for run in runs]
            mean = sum(logs) / len(logs)
            yield f"{case} {metric}", [value - mean for value in logs]


NOISES = dict(residuals())


def history(name: str, *, seed: int, runs: int, step: float = 1.0, at: int = 0) -> list[float]:
    """Drawn from the recorded residuals, a fifth of their spread apart from each other."""
    draw, noise = random.Random(f"{name}-{seed}"), NOISES[name]
    blur = math.sqrt(sum(value * value for value in noise) / (len(noise) - 1)) / 5
    logs = (draw.choice(noise) + draw.gauss(0, blur) for _ in range(runs))
    return [math.exp(value) * (step if n >= at else 1.0) for n, value in enumerate(logs)]


def settled(values: list[float]) -> list[int]:
    """The run with which each change was found."""
    return [c.seen for c in changes(values) if c.shape in (Shape.STEP, Shape.DRIFT)]


def test_suite_has_at_most_one_false_change_in_a_thousand_nights() -> None:
    false = sum(
        len(settled(history(name, seed=seed, runs=RUNS)))
        for name in NOISES
        for seed in range(HISTORIES)
    )
    series = len(NOISES) * HISTORIES
    per_suite = false / series * 2 * CASES
    print(f"\n{false} false changes in {series:,} histories of {RUNS:,} runs: {per_suite:.2f} per")
    print(f"1,000 nights of {CASES} cases, latency and GPU busy together")
    assert per_suite <= 1


@pytest.mark.parametrize("metric", ["gpu_busy_s", "latency_s"])
@pytest.mark.parametrize("step", [1.02, 1.05])
def test_how_soon_a_step_is_found(metric: str, step: float) -> None:
    delays = []
    names = [name for name in NOISES if name.endswith(metric)]
    for name in names:
        for seed in range(10):
            seen = settled(history(name, seed=seed, runs=160, step=step, at=60))
            delays.append(min((s - 59 for s in seen if s >= 60), default=math.inf))
    found = {within: sum(d <= within for d in delays) / len(delays) for within in (5, 10, 30, 100)}
    print(f"\n{metric} {100 * (step - 1):.0f} %:", {k: f"{v:.0%}" for k, v in found.items()})
    if metric == "gpu_busy_s":
        assert found[10] == 1


def test_year_of_nights_is_read_in_two_seconds(tmp_path: Path) -> None:
    (run,) = parsed([five_pairs("same")[0][0]], "run")
    rows = store.rows_of(run)
    per_case = [row for row in rows if row.case == rows[0].case]
    count = CASES * len(per_case)
    few = [
        replace(row, case=f"ddim50-case{n}", rows=count) for n in range(CASES) for row in per_case
    ]
    draw = random.Random(0)
    for night in range(365):
        time = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=night)
        noisy = [
            replace(row, run=f"{night:016x}", time=time, value=row.value * moved)
            for row in few
            for moved in [1.0 if row.unit == "count" else math.exp(draw.gauss(0, 0.003))]
        ]
        (tmp_path / "m").mkdir(exist_ok=True)
        store.write(noisy, tmp_path / "m" / f"{night:03d}{store.SUFFIX}")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.gz"))
    start, used = perf_counter(), process_time()
    year = store.load(tmp_path)
    read_s, cpu_s = perf_counter() - start, process_time() - used
    found = trends(year)
    judged_s = perf_counter() - start - read_s
    print(f"\n{len(year):,} rows, {size / 1e6:.1f} MB: read in {read_s:.2f} s")
    print(f"of which {cpu_s:.2f} s of a CPU; {len(found)} trends, judged in {judged_s:.2f} s")
    page_bytes = len(page.render(found, {}, source="a year"))
    print(f"page of {page_bytes / 1e6:.1f} MB after {perf_counter() - start:.1f} s")
    if find_spec("duckdb"):
        used = process_time()
        query = f"SELECT value FROM '{tmp_path}/*/*{store.SUFFIX}' WHERE metric = 'GPU busy'"
        import_module("duckdb").sql(query).fetchall()
        print(f"one metric read by DuckDB in {process_time() - used:.2f} s of a CPU")
    assert read_s < 2
    assert page_bytes < PAGE_MOST_BYTES


def test_duckdb_and_pandas_read_a_store_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pandas")
    runs = parsed(five_pairs("same")[0], "run")
    for run in runs:
        store.add(run, tmp_path / "runs" / "history")
    monkeypatch.chdir(tmp_path)
    (query,) = [text for name, text in blocks.of("sql") if name == "ci/README.md"]
    found = duckdb.sql(query).fetchall()
    own = [(c.id, c.measurement.gpu_busy_s) for run in runs for c in run.cases.values()]
    assert sorted((case, value) for case, _, value in found) == sorted(own)
    exec(blocks.example("ci/README.md", "import pandas"), {})
    assert len(capsys.readouterr().out.splitlines()) >= len(runs)
