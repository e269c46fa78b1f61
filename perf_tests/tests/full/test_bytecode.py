"""Without any bytecode, as fast an import as was accepted with it holds, and a slower one fails.

pytest -s perf_tests/tests/full/test_bytecode.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from diffusers_perf.catalog.metrics import IMPORT, IMPORT_IDLE
from diffusers_perf.judge.limits import limits_of
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.reading import load_run

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


def measured(folder: Path, name: str, **variables: str) -> Measurement:
    """The reference, in a run with these variables and no others of Python's own."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON")}
    line = [sys.executable, "-m", "pytest", "--device=cpu", "--rounds=2", "-k", "reference"]
    subprocess.run(
        [*line, "--benchmark-only", f"--benchmark-json={name}"],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", **variables},
        check=True,
        capture_output=True,
        timeout=590,
    )
    (case,) = load_run(folder / name).cases.values()
    return case.measurement


def test_import_is_judged_without_bytecode(tmp_path: Path) -> None:
    (tmp_path / "perf_tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = perf_tests\n")
    file = tmp_path / "perf_tests" / "test_serving.py"
    file.write_text(TEST_FILE)
    # The first may compile what no process has imported before.
    for name in ("first.json", "accepted.json"):
        accepted = measured(tmp_path, name).metrics
    limits = limits_of({one.field: [accepted[one.field]] for one in (IMPORT, IMPORT_IDLE)})

    none = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(tmp_path / "none")}
    same = measured(tmp_path, "same.json", **none)
    file.write_text(SLOW + TEST_FILE)
    slow = measured(tmp_path, "slow.json", **none)
    for seen in (same, slow):
        print({one.field: seen.metrics[one.field] for one in (IMPORT, IMPORT_IDLE)}, limits)
        (note,) = [note for note in seen.notes if "from source" in note]
        assert note.startswith("import time is that of another process, which had bytecode: ")
    for metric in (IMPORT, IMPORT_IDLE):
        assert same.metrics[metric.field] <= limits[metric.limit_name]
    assert slow.metrics[IMPORT_IDLE.field] > limits[IMPORT_IDLE.limit_name]
