"""What version 1 (commit b0efb37) said of recorded runs, and the runs it said it of.

``v1.json`` holds its answers and `record_v1` made it. Inputs are runs of schema 1 and are called
``h200-1``, ``h200-same/base-0``, ``cpu-1`` or ``cpu-quick/head-1``. In ``h200-1/narrowed`` the
cases that version 1 stripped off were not asked for, and are not missing.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

Content = dict[str, Any]
"""A run's JSON, of schema 1."""

HERE = Path(__file__).parent
INPUTS = HERE / "inputs"
"""Recorded runs of schema 1: version 1's own test data from an H200, and CPU main jobs."""

NARROWED = "narrowed"
STRIPPED = ("h200-1", "h200-2", "h200-3")
SINGLE = (*(f"{name}/{NARROWED}" for name in STRIPPED), "cpu-1", "cpu-2", "cpu-3")
PAIRS = {"h200-same": 5, "h200-planted": 5, "h200-quiet": 5, "cpu-quick": 2}
"""Sets of base and head, and how many pairs each has. h200-quiet is made of recorded runs, as
version 1's own tests do: processes that differ by 0.3 % in latency."""
NAMES = (
    *STRIPPED,
    *SINGLE,
    *(
        f"{s}/{side}-{n}"
        for s, count in PAIRS.items()
        for side in ("base", "head")
        for n in range(count)
    ),
)


def load(name: str) -> Content:
    """The input of this name."""
    name, _, part = name.partition("/")
    path = next(
        path for path in (INPUTS / f"{name}.json", INPUTS / f"{name}.json.gz") if path.exists()
    )
    data = path.read_bytes()
    content: Content = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    if part == NARROWED:
        content["perf_tests"]["narrowed"] = True
    if part in ("", NARROWED):
        return content
    side, number = part.split("-")
    run: Content = content[side][int(number)]
    return run


def pairs(name: str) -> tuple[list[Content], list[Content]]:
    """Base and head of a set, the i-th of each a pair."""
    base, head = (
        [load(f"{name}/{side}-{n}") for n in range(PAIRS[name])] for side in ("base", "head")
    )
    return base, head
