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


def load_run(path: Path) -> Run:
    """`BadRunError` for what is no run, or one of another schema."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise BadRunError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
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
        )
    except (KeyError, TypeError):
        raise BadRunError(
            f"{path}: was not written by this suite's main job with --benchmark-json"
        ) from None
