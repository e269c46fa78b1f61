"""Reads what a run of the main job wrote with `--benchmark-json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perf_tests.harness.records import SCHEMA, Machine
from perf_tests.harness.runs import (
    Case,
    Run,
    Shard,
    Untimed,
    key_of,
    measurement,
    promise_of,
    reference_of,
)

__all__ = ["BadRunError", "Run", "distinct", "load_run", "read", "run_of"]


class BadRunError(Exception):
    """A run that cannot be used; one sentence says which and why."""


def load_run(path: Path) -> Run:
    """`BadRunError` for what is no run, or one of another schema."""
    return run_of(read(path), path)


def distinct(paths: Sequence[Path]) -> Sequence[Path]:
    """The paths, each of a process of its own. `BadRunError` for one given twice."""
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise BadRunError(f"{path} is given twice: each run is a process of its own")
        seen.add(path.resolve())
    return paths


def read(path: Path) -> Any:
    """The JSON in a file. `BadRunError` if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise BadRunError(f"{path}: is no JSON") from None


def run_of(content: Any, path: Path) -> Run:
    """The run that a JSON describes; `path` names it in messages. `BadRunError` as `load_run`."""
    try:
        ours = content["perf_tests"]
        if ours["schema"] != SCHEMA:
            raise BadRunError(f"{path}: has schema {ours['schema']}, this suite reads {SCHEMA}")
        cases: dict[str, Case] = {}
        for benchmark in content["benchmarks"]:
            info = benchmark["extra_info"]
            key = key_of(info)
            if key in cases:
                raise BadRunError(f"{path}: {key} is in it twice")
            _check(info, path, key)
            if "measuring" in ours:
                _judgeable(info)
            cases[key] = info
        return Run(
            path=path,
            date=content["datetime"][:10],
            commit=content.get("commit_info", {}).get("id"),
            machine=_machine(content["machine_info"]["perf_tests"]),
            cases=cases,
            untimed=tuple(
                Untimed(
                    id=f"{case['workload']}-{case['case']}",
                    status=case["verdict"],
                    sentence=case["sentence"],
                    by_choice=case.get("by_choice", False),
                )
                for case in ours["not_timed"]
            ),
            drift={
                workload: {
                    "ratio": float(drift["ratio"]),
                    "significant": bool(drift["significant"]),
                }
                for workload, drift in ours["reference_drift"].items()
            },
            measuring=ours.get("measuring"),
            scale=ours.get("scale"),
            expected=tuple(ours.get("expected", ())),
            narrowed=ours.get("narrowed", False),
            shard=_shard(ours.get("shard")),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise BadRunError(
            f"{path}: was not written by this suite's main job with --benchmark-json"
        ) from None


def _machine(content: Mapping[str, Any]) -> Machine:
    # JSON has no tuples, and two runs' machines are held to each other.
    capability = content["compute_capability"]
    return Machine(**{**content, "compute_capability": capability and tuple(capability)})


def _shard(content: Mapping[str, Any] | None) -> Shard | None:
    if content is None:
        return None
    return Shard(index=content["index"], of=content["of"], cases=tuple(content["cases"]))


POSITIVE = ("latency_s", "latency_speedup", "gpu_busy_s", "gpu_speedup", "peak_memory_bytes")
PICTURE = ("mean", "std", "psnr_db", "ssim", "repeat_psnr_db")


def _check(info: Case, path: Path, key: str) -> None:
    """What judging and accepting read is there, and its numbers are such as can be measured."""
    for name, value in _positive(info):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e18:
            raise BadRunError(f"{path}: {key}: {name} is {value!r}, not a positive number")
    for name in ("verdict", "picture_only"):
        info[name]
    for counter in info["counters"].values():
        int(counter["fixed"]), int(counter["per_step"])
    picture = info.get("picture") or {}
    # What is not finite may have any numbers beside it.
    for name in PICTURE if picture.get("finite") else ():
        value = picture[name]
        if value is not None and not -1e18 < value < 1e18:
            raise BadRunError(f"{path}: {key}: the picture's {name} is {value!r}, not a number")


def _judgeable(info: Case) -> None:
    """Whatever a judge will read; older runs, which can only be accepted, have not all of it."""
    reference_of(info, measurement(info)), promise_of(info), dict(info["generates"])


def _positive(info: Case) -> Iterator[tuple[str, Any]]:
    for name in POSITIVE:
        if info[name] is not None or name == "latency_s":
            yield name, info[name]
    for value in info.get("latency_rounds_s", ()):
        yield "latency_rounds_s", value
    reference = info.get("reference") or {}
    for value in reference.get("latency_rounds_s", ()):
        yield "the reference's latency_rounds_s", value
    for name in ("gpu_busy_s", "peak_memory_bytes"):
        if reference.get(name) is not None:
            yield f"the reference's {name}", reference[name]
