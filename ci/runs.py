"""Reads what a run of the main job wrote with `--benchmark-json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf_tests.harness.records import SCHEMA, Machine


class BadRunError(Exception):
    """A run that cannot be used; one sentence says which and why."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process of the main job."""

    path: Path
    date: str
    """ISO 8601."""
    machine: Machine
    cases: Mapping[str, Mapping[str, Any]]
    """What stands in `extra_info`, by workload/model/weights/case."""
    not_timed: tuple[str, ...]
    """Cases that failed without a measurement; not those skipped or interrupted."""
    drifted: tuple[str, ...] = ()
    """Workloads whose reference took another time when it was repeated."""


def load_run(path: Path) -> Run:
    """`BadRunError` for what is no run, or one of another schema."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise BadRunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise BadRunError(f"{path}: is no JSON") from None
    try:
        ours = content["perf_tests"]
        if ours["schema"] != SCHEMA:
            raise BadRunError(f"{path}: has schema {ours['schema']}, this suite reads {SCHEMA}")
        cases: dict[str, Mapping[str, Any]] = {}
        for benchmark in content["benchmarks"]:
            info = benchmark["extra_info"]
            key = "/".join(info[name] for name in ("workload", "model", "weights", "case"))
            if key in cases:
                raise BadRunError(f"{path}: {key} is in it twice")
            _check(info, path, key)
            cases[key] = info
        return Run(
            path=path,
            date=content["datetime"][:10],
            machine=Machine(**content["machine_info"]["perf_tests"]),
            cases=cases,
            not_timed=tuple(
                f"{case['workload']}-{case['case']}"
                for case in ours["not_timed"]
                if case["verdict"] not in ("skipped", "invalid")
            ),
            drifted=tuple(
                workload
                for workload, drift in ours["reference_drift"].items()
                if isinstance(drift, dict) and drift["significant"]
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise BadRunError(
            f"{path}: was not written by this suite's main job with --benchmark-json"
        ) from None


NUMBERS = ("latency_s", "latency_speedup", "gpu_busy_s", "gpu_speedup", "peak_memory_bytes")


def _check(info: Mapping[str, Any], path: Path, key: str) -> None:
    """Everything that a baseline is made of is there, and its numbers are positive and finite."""
    for name in NUMBERS:
        value = info[name]
        if value is None and name != "latency_s":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e18:
            raise BadRunError(f"{path}: {key}: {name} is {value!r}, not a positive number")
    for name in ("verdict", "picture_only"):
        info[name]
    for counter in info["counters"].values():
        int(counter["fixed"]), int(counter["per_step"])
