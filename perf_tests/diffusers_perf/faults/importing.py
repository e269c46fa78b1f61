"""Times the import of the libraries in a process of its own: a trial's process did it long ago."""

from __future__ import annotations

import json
import subprocess
import sys

from diffusers_perf.measurement.loading import Load

CODE = """
import json
from dataclasses import asdict

from diffusers_perf.measurement.housekeeping import import_libraries
from diffusers_perf.measurement.loading import since_start

import_libraries()
print(json.dumps(asdict(since_start())))
"""


def timed_import(first: str = "") -> Load:
    """What a fresh process takes for it that runs this Python code first.

    Once more where it read the libraries from the disk. `RuntimeError` where it fails.
    """
    load = _timed(first)
    return _timed(first) if load.is_cold else load


def _timed(first: str) -> Load:
    ended = subprocess.run(
        [sys.executable, "-c", first + CODE], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip().splitlines()[-1])
    return Load(**json.loads(ended.stdout.splitlines()[-1]))
