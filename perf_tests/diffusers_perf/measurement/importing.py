"""Times an import in a process of its own, from the disk's cache and from bytecode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from tempfile import TemporaryDirectory

import msgspec

from diffusers_perf.measurement.housekeeping import LIBRARIES
from diffusers_perf.measurement.loading import Load

PARTS = ("torch", *LIBRARIES)
"""After each of them, as far as it is imported, the calibration loop is timed."""
ATTEMPTS = 3
"""The first that finds the disk's cache warm, and bytecode, counts."""
CODE = """
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module

sys.path[:], names, ends = json.load(sys.stdin)

from diffusers_perf.measurement.loading import Importing

importing = Importing()
for name in names:
    # A module of another's making, such as pytest's of a conftest, is known by no name.
    with suppress(Exception):
        import_module(name)
    if name in ends:
        importing.end_part()
importing.end_part()
print(json.dumps(asdict(importing.load())))
"""


def timed_import(names: Iterable[str] = LIBRARIES, *, first: str = "", kept: bool = True) -> Load:
    """What a fresh process takes to import these modules, in this order.

    It runs the Python code `first` before. `kept` says whether it will find bytecode of them; where
    it does not and none is kept, one attempt compiles them into a folder for the next one.
    `RuntimeError` where the process fails.
    """
    asked = json.dumps([sys.path, [*names], PARTS])
    with TemporaryDirectory(prefix="diffusers-perf-bytecode-") as folder:
        for _ in range(ATTEMPTS):
            load = _timed(asked, first, {} if kept else {"PYTHONPYCACHEPREFIX": folder})
            if not load.is_cold and not load.compiled.is_much:
                break
            kept = kept and not load.compiled.is_lost
    return load


def _timed(asked: str, first: str, keeping: dict[str, str]) -> Load:
    """In a process that keeps bytecode in a folder of its own, where `keeping` names one."""
    environment = os.environ | keeping
    if keeping:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    ended = subprocess.run(
        [sys.executable, "-c", first + CODE],
        input=asked,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError((ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1])
    return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Load)
