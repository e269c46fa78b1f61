"""Times an import in a process of its own, from the disk's cache."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

from diffusers_perf.measurement.housekeeping import LIBRARIES
from diffusers_perf.measurement.loading import Load

ATTEMPTS = 3
"""The first that finds the disk's cache warm counts."""
CODE = """
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module

sys.path[:], names = json.load(sys.stdin)
for name in names:
    # A module of another's making, such as pytest's of a conftest, is known by no name.
    with suppress(Exception):
        import_module(name)

from diffusers_perf.measurement.loading import since_start

print(json.dumps(asdict(since_start())))
"""


def timed_import(names: Iterable[str] = LIBRARIES, *, first: str = "") -> Load:
    """What a fresh process takes to import these modules, in this order.

    It runs the Python code `first` before. `RuntimeError` where the process fails.
    """
    asked = json.dumps([sys.path, [*names]])
    for _ in range(ATTEMPTS):
        load = _timed(asked, first)
        if not load.is_cold:
            break
    return load


def _timed(asked: str, first: str) -> Load:
    ended = subprocess.run(
        [sys.executable, "-c", first + CODE],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError((ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1])
    return Load(**json.loads(ended.stdout.splitlines()[-1]))
