"""A process without bytecode, which compiles what it imports: its import is judged against none
that had bytecode, and one from bytecode that is slower fails.

pytest -s perf_tests/tests/full/test_bytecode.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffusers_perf.catalog.metrics import IMPORT, IMPORT_IDLE
from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli.gate import judged, standards_of
from diffusers_perf.judge.limits import limits_of
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.run import CaseRecord
from diffusers_perf.records.store import BaselineStore

TEST_FILE = """
from diffusers_perf import Workload, measure
from diffusers_perf import test_generation as test_generation

SERVING = Workload(
    name="serving",
    model="embedded",
    call={"prompt": "a red circle", "height": 64, "width": 64, "guidance_scale": 7.5},
    steps=2,
    scheduler="DDIMScheduler",
)
measure(SERVING, "channels_last")
"""
SLOW = "import time\ntime.sleep(3)\n"
MODULES = 150
IMPORTING = f"""
from importlib import import_module

for number in range({MODULES}):
    import_module(f"served.part_{{number}}")
"""
FUNCTIONS = "\n".join(f"def function_{n}(a, b={n}):\n    return (a + b) * b" for n in range(1000))
"""Of each module: together they take several seconds to compile."""
STARTING = {"import time", "import idle time", "cold import time"}


PREFIX = {n: v for n, v in os.environ.items() if n == "PYTHONPYCACHEPREFIX"}
"""Of this process: the libraries' bytecode stays where the other tests have it."""


def main_job(folder: Path, name: str, *options: str, **variables: str) -> tuple[CaseRecord, str]:
    """The reference and what a run of it prints, with these variables and no others of Python's
    own.
    """
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON")}
    line = [sys.executable, "-m", "pytest", "--device=cpu", "--rounds=2", "-k", "reference"]
    ran = subprocess.run(
        [*line, "--benchmark-only", f"--benchmark-json={name}", *options],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=590,
    )
    assert (folder / name).exists(), ran.stdout + ran.stderr
    (case,) = load_run(folder / name).cases.values()
    return case, ran.stdout


def forget_bytecode(folder: Path) -> None:
    prefix = PREFIX.get("PYTHONPYCACHEPREFIX")
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


def test_import_is_judged_without_bytecode(tmp_path: Path) -> None:
    (tmp_path / "perf_tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\n")
    file = tmp_path / "perf_tests" / "test_serving.py"
    file.write_text(TEST_FILE)
    # The first may compile what no process has imported before.
    for name in ("first.json", "accepted.json"):
        accepted = main_job(tmp_path, name)[0].measurement.metrics
    limits = limits_of({one.field: [accepted[one.field]] for one in (IMPORT, IMPORT_IDLE)})

    none = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(tmp_path / "none")}
    same = main_job(tmp_path, "same.json", **none)[0].measurement
    file.write_text(SLOW + TEST_FILE)
    slow = main_job(tmp_path, "slow.json", **none)[0].measurement
    for seen in (same, slow):
        print({one.field: seen.metrics[one.field] for one in (IMPORT, IMPORT_IDLE)}, limits)
        (note,) = [note for note in seen.notes if "from source" in note]
        assert note.startswith("import time is that of another process, which had bytecode: ")
    for metric in (IMPORT, IMPORT_IDLE):
        assert same.metrics[metric.field] <= limits[metric.limit_name]
    assert slow.metrics[IMPORT_IDLE.field] > limits[IMPORT_IDLE.limit_name]


def test_run_without_bytecode_is_no_slower_import(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\npythonpath = .\n")
    for folder in ("perf_tests", "served"):
        (tmp_path / folder).mkdir()
    (tmp_path / "perf_tests" / "test_serving.py").write_text(IMPORTING + TEST_FILE)
    for number in range(MODULES):
        (tmp_path / "served" / f"part_{number}.py").write_text(FUNCTIONS)

    # The first process after an installation: another one, that has bytecode, is timed.
    case, said = main_job(tmp_path, "first.json", "--rounds=3", **PREFIX)
    assert case.measurement.metrics["import_s"] > 0
    assert "from source" not in said
    quieted(tmp_path / "first.json")
    monkeypatch.chdir(tmp_path)
    assert command.main(["accept", "first.json", "--processes=1", "--reason=x"]) == 0

    forget_bytecode(tmp_path)
    none = {**PREFIX, "PYTHONDONTWRITEBYTECODE": "1"}
    case, said = main_job(tmp_path, "without.json", "--quick", "--rounds=3", **none)
    run = load_run(tmp_path / "without.json")
    assert not {"import_s", "cold_import_s"} & {*case.measurement.metrics}
    verdict = judged(run, case, standards_of(run, BaselineStore(tmp_path / "baselines")))
    assert not STARTING & {finding.metric for finding in verdict.findings}
    assert f"import time not judged: this process compiled {MODULES} modules from source" in said
    assert "PYTHONDONTWRITEBYTECODE" in said
