"""How often clean runs of the main job fail against an accepted baseline, verdict by verdict."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusers_perf.catalog.metrics import COUNTERS, IMAGE, IMAGE_DISTANCE, LEFT, LIMITED, REPEAT
from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli.gate import judged, standards_of
from diffusers_perf.records.reading import load_runs
from diffusers_perf.records.run import Run
from diffusers_perf.records.store import BaselineStore

ROOT = Path(__file__).parents[3]
ACCEPTED, CLEAN = 3, 3
VERDICTS = 200
"""One per case and metric."""


def processes(folder: Path, *, count: int) -> list[Path]:
    """Files of so many processes of the main job, with the references of the embedded models."""
    paths = [folder / f"{number}.json" for number in range(count)]
    line = [sys.executable, "-m", "pytest", "perf_tests", "--benchmark-only", "--device", "cpu"]
    for path in paths:
        options = ["-k", "reference and not vase25", f"--benchmark-json={path}"]
        subprocess.run([*line, *options], cwd=ROOT, check=True, capture_output=True)
    return paths


def metrics_of(run: Run, store: BaselineStore) -> list[tuple[str, str]]:
    """Cases of a run, each with each metric that is judged by a limit, a count or an image."""
    standards = standards_of(run, store)
    assert standards.baseline is not None
    found = []
    for case in run.cases.values():
        baseline, seen = standards.baseline.cases[case.key], case.measurement
        operators = standards.counted(run, case)
        names = {IMAGE.name, REPEAT.name, IMAGE_DISTANCE.name}
        names |= {
            metric.name
            for metric in LIMITED
            if metric.limit_name in baseline.limits and metric.of(seen, seen) is not None
        }
        counted = {*baseline.counters, *(operators.counters if operators else ())}
        names |= counted.intersection(seen.counters, (*COUNTERS, *LEFT))
        found += [(case.id, name) for name in sorted(names)]
    return found


def alarms_of(runs: Sequence[Run], store: BaselineStore) -> list[str]:
    return [
        finding.sentence
        for run in runs
        for case in run.cases.values()
        for finding in judged(run, case, standards_of(run, store)).findings
        if not finding.status.passes
    ]


def test_clean_runs_give_no_false_alarm(tmp_path: Path) -> None:
    paths = processes(tmp_path, count=ACCEPTED + CLEAN)
    store = BaselineStore(tmp_path / "baselines")
    for folder in ("images", "operators"):
        (store.folder / folder).mkdir(parents=True)
        for file in (ROOT / "baselines" / folder).iterdir():
            (store.folder / folder / file.name).write_bytes(file.read_bytes())
    accepted = [str(path) for path in paths[:ACCEPTED]]
    options = ["--reason", "clean", "--processes", "1", "--baselines", str(store.folder)]
    assert command.main(["accept", *accepted, *options]) == 0
    runs = load_runs(paths[ACCEPTED:])
    verdicts = sum(len(metrics_of(run, store)) for run in runs)
    alarms = alarms_of(runs, store)
    print(f"{verdicts} verdicts on {len(runs)} clean runs, {len(alarms)} false alarms")
    assert verdicts >= VERDICTS
    assert alarms == []
