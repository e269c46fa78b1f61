"""A run that compiles modules from source is judged against no import from bytecode."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli.gate import judged, standards_of
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore

MODULES = 150
TEST_FILE = f"""
from importlib import import_module

from diffusers_perf import Workload, measure
from diffusers_perf import test_generation as test_generation

for number in range({MODULES}):
    import_module(f"served.part_{{number}}")

SERVING = Workload(
    name="serving",
    model="embedded",
    call={{"prompt": "a red circle", "height": 64, "width": 64, "guidance_scale": 7.5}},
    steps=2,
    scheduler="DDIMScheduler",
)
measure(SERVING, "channels_last")
"""
FUNCTIONS = "\n".join(f"def function_{n}(a, b={n}):\n    return (a + b) * b" for n in range(1000))
"""Of each module: together they take several seconds to compile."""
STARTING = {"import time", "import idle time", "cold import time"}


def main_job(folder: Path, name: str, *options: str, **variables: str) -> str:
    """What a run of the reference prints."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON")}
    line = [sys.executable, "-m", "pytest", "--device=cpu", "--rounds=3", "-k", "reference"]
    ran = subprocess.run(
        [*line, "--benchmark-only", f"--benchmark-json={name}", *options],
        cwd=folder,
        # The libraries' bytecode stays where the other tests have it.
        env={**environment, **_prefix(), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (folder / name).exists(), ran.stdout + ran.stderr
    return ran.stdout


def _prefix() -> dict[str, str]:
    return {n: v for n, v in os.environ.items() if n == "PYTHONPYCACHEPREFIX"}


def forget_bytecode(folder: Path) -> None:
    prefix = _prefix().get("PYTHONPYCACHEPREFIX")
    served = folder / "served"
    there = Path(prefix, *served.parts[1:]) if prefix else served / "__pycache__"
    assert any(there.glob("*.pyc"))
    shutil.rmtree(there)


def quieted(path: Path) -> None:
    """As on a machine that nothing disturbed, so that the run can be accepted."""
    content: dict[str, Any] = json.loads(path.read_text())
    (benchmark,) = content["benchmarks"]
    measured = benchmark["extra_info"]["diffusers_perf"]["measurement"]
    measured |= {"interference": {}, "rounds_s": measured["rounds_s"][-1:] * 3}
    path.write_text(json.dumps(content))


def test_run_without_bytecode_is_no_slower_import(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\npythonpath = .\n")
    for folder in ("perf_tests", "served"):
        (tmp_path / folder).mkdir()
    (tmp_path / "perf_tests" / "test_serving.py").write_text(TEST_FILE)
    for number in range(MODULES):
        (tmp_path / "served" / f"part_{number}.py").write_text(FUNCTIONS)

    # The first process after an installation: another one, that has bytecode, is timed.
    said = main_job(tmp_path, "first.json")
    (case,) = load_run(tmp_path / "first.json").cases.values()
    assert case.measurement.metrics["import_s"] > 0
    assert "from source" not in said
    quieted(tmp_path / "first.json")
    monkeypatch.chdir(tmp_path)
    assert command.main(["accept", "first.json", "--processes=1", "--reason=x"]) == 0

    forget_bytecode(tmp_path)
    said = main_job(tmp_path, "without.json", "--quick", PYTHONDONTWRITEBYTECODE="1")
    run = load_run(tmp_path / "without.json")
    (case,) = run.cases.values()
    assert not {"import_s", "cold_import_s"} & {*case.measurement.metrics}
    verdict = judged(run, case, standards_of(run, BaselineStore(tmp_path / "baselines")))
    assert not STARTING & {finding.metric for finding in verdict.findings}
    assert f"import time not judged: this process compiled {MODULES} modules from source" in said
    assert "PYTHONDONTWRITEBYTECODE" in said
