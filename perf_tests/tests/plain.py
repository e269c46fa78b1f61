"""What plain pytest-benchmark detects of the faults that users reported, beside the suite.

    python -m perf_tests.tests.plain --minutes 8

Three calls as users make them are timed in five rounds, in a process per fault, and compared with
those of one clean process by ``--benchmark-compare-fail=mean:5%``. The faults are injected by name,
ten clean processes among them. The suite's verdicts on the same faults are those of `faults`. What
was measured is added to `plain.json`, until nothing is missing: delete it to begin anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest
import torch
from msgspec import field

from diffusers_perf import faults
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.compare.bare import bare_bench
from diffusers_perf.faults.building import injecting
from diffusers_perf.faults.injection import Injection
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.records.quantities import Record
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.kinds import KINDS

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("plain.json")
STORAGE = ROOT / "runs" / "plain"
CALLS = {"ddim50": 20, "pndm25x4": 8, "unguided8": 8}
"""Workloads of the embedded model, and their steps here."""
ROUNDS = 5
CLEAN = 10
LIMIT = "mean:5%"
REGRESSED = "Performance has regressed"
FAULT = "PLAIN_FAULT"


class Process(Record, frozen=True, kw_only=True):
    """One process of plain pytest-benchmark."""

    detected: bool
    """`LIMIT` failed it."""
    means: dict[str, float]
    """Of each call, over the clean process's mean."""

    @property
    def largest(self) -> float:
        return max(self.means.values())


class Results(msgspec.Struct, kw_only=True):
    """Content of `RECORDED`."""

    measured: str = ""
    machine: str = ""
    clean: list[Process] = field(default_factory=list)
    plain: dict[str, Process] = field(default_factory=dict)
    suite: dict[str, str] = field(default_factory=dict)
    """By fault or control, what became of it."""
    verdicts: int = 0
    """The suite's, on clean runs."""
    false_alarms: int = 0

    def is_beyond_clean(self, process: Process) -> bool:
        """Whether one of its means is larger than any of a clean process."""
        return process.largest > max((one.largest for one in self.clean), default=0.0)


@pytest.fixture(scope="session")
def injection() -> Iterator[Injection]:
    """What is injected, held for the whole process."""
    injection = Injection(device="cpu", step_s=0.02)
    if name := os.environ.get(FAULT):
        faults.declared()[name].injected(injection)
    with ExitStack() as contexts:
        for context in injection.contexts:
            contexts.enter_context(context)
        yield injection


@pytest.mark.parametrize("workload", CALLS)
def test_call(benchmark: Any, injection: Injection, workload: str) -> None:
    cases = declared_in("perf_tests.cases").cases
    bench = bare_bench(
        device="cpu",
        model=None,
        workloads={case.workload for case in cases},
        store=BaselineStore(ROOT / "baselines"),
    )
    case = next(
        case
        for case in cases
        if case.is_reference
        and case.workload.name == workload
        and bench.sources.runs(case.workload)
    )
    build, source = injecting(injection), bench.sources.of(case.workload)
    with build(case, source, torch.device("cpu")) as pipeline:
        generation = Generation(pipeline, case.workload)

        def call() -> None:
            generation.call(steps=CALLS[workload], output_type=None)()

        benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1e9)
    started, minutes = perf_counter(), parser.parse_args().minutes
    names = list(dict.fromkeys(name for kind in KINDS for name in kind.on_cpu))
    results = load()
    results.measured = date.today().isoformat()
    saved = sorted(STORAGE.rglob("*_clean.json"))
    if not saved or not RECORDED.exists():
        _pytest("--benchmark-save=clean")
        saved = sorted(STORAGE.rglob("*_clean.json"))
    base = saved[-1]
    results.machine = json.loads(base.read_text())["machine_info"]["cpu"]["brand_raw"]
    lacking = [name for name in names if name not in results.plain]
    # A clean process after every other fault: the machine's speed changes with the hours.
    per_clean = max(1, round(len(names) / CLEAN))
    for number, name in enumerate(lacking, 1):
        if perf_counter() - started > 60 * minutes:
            return
        results.plain[name] = _compared(base, name)
        if number % per_clean == 0 and len(results.clean) < CLEAN:
            results.clean.append(_compared(base, ""))
        _keep(results)
    while len(results.clean) < CLEAN:
        if perf_counter() - started > 60 * minutes:
            return
        results.clean.append(_compared(base, ""))
        _keep(results)
    lacking = [name for name in names if name not in results.suite]
    if lacking:
        path = STORAGE / "faults.json"
        left = max(0.0, minutes - (perf_counter() - started) / 60)
        command = ["diffusers-perf", "faults", "--device", "cpu", *lacking, "--json", str(path)]
        subprocess.run([*command, "--minutes", f"{min(left, 60):.1f}"], check=False, cwd=ROOT)
        written = json.loads(path.read_text())
        rows = written["rows"]
        results.verdicts += written["clean_verdicts"]
        results.false_alarms += len(written["false_alarms"])
        results.suite |= {r["name"]: r["status"] for r in rows if r["status"] != "not run"}
        _keep(results)


def load() -> Results:
    """What was recorded so far."""
    if not RECORDED.exists():
        return Results()
    return msgspec.json.decode(RECORDED.read_bytes(), type=Results)


def _keep(results: Results) -> None:
    content = msgspec.json.format(msgspec.json.encode(results), indent=1)
    RECORDED.write_bytes(content + b"\n")


def _compared(base: Path, name: str) -> Process:
    """A process with this fault, or a clean one, against the clean process."""
    path = STORAGE / "run.json"
    path.unlink(missing_ok=True)
    number = base.name.split("_")[0]
    printed = _pytest(
        f"--benchmark-compare={number}",
        f"--benchmark-compare-fail={LIMIT}",
        f"--benchmark-json={path}",
        fault=name,
    )
    was, now = _means(base), _means(path)
    means = {workload: round(now[workload] / was[workload], 3) for workload in CALLS}
    process = Process(detected=REGRESSED in printed, means=means)
    print(name or "clean", process, flush=True)
    return process


def _means(path: Path) -> dict[str, float]:
    """In seconds, by workload."""
    benchmarks = json.loads(path.read_text())["benchmarks"]
    return {one["params"]["workload"]: one["stats"]["mean"] for one in benchmarks}


def _pytest(*options: str, fault: str = "") -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, *options]
    ended = subprocess.run(
        [*command, f"--benchmark-storage=file://{STORAGE}"],
        env={**os.environ, FAULT: fault},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    printed = ended.stdout + ended.stderr
    # It says no more once it has failed a comparison.
    if REGRESSED not in printed and not re.search(rf"\b{len(CALLS)} passed", printed):
        raise RuntimeError(printed[-2000:])
    return printed


if __name__ == "__main__":
    main()
