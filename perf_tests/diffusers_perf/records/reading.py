"""Reads what a run of the main job wrote with `--benchmark-json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from diffusers_perf.catalog.status import Status
from diffusers_perf.records import shape
from diffusers_perf.records.records import SCHEMA, Machine
from diffusers_perf.records.runs import Case, Run, Shard, Untimed, case_id, key_of
from diffusers_perf.records.shape import (
    ANYTHING,
    FLAG,
    NUMBER,
    POSITIVE,
    TEXT,
    WHOLE,
    Each,
    Optional,
    Some,
    one_of,
)

__all__ = ["BadRunError", "Run", "distinct", "load_run", "load_runs", "read", "run_of"]


class BadRunError(Exception):
    """A run that cannot be used; one sentence says which and why."""


def load_run(path: Path) -> Run:
    """`BadRunError` for what is no run, or one of another schema."""
    return run_of(read(path), path)


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs that are each a process of its own. `BadRunError` as `load_run`, and for one that is
    given twice or copied.
    """
    runs = [load_run(path) for path in distinct(paths)]
    for one, other in combinations(runs, 2):
        if one.cases and one.cases == other.cases:
            raise BadRunError(
                f"{other.path} is a copy of {one.path}: each run is a process of its own"
            )
    return runs


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
        shape.check(ours, SESSION, "perf_tests")
        cases: dict[str, Case] = {}
        for benchmark in content["benchmarks"]:
            info = benchmark["extra_info"]
            key = key_of(info)
            if key in cases:
                raise BadRunError(f"{path}: {key} is in it twice")
            shape.check(info, CASE, key)
            for where, half in ((key, info), (f"{key}: reference", info["reference"])):
                # Older runs timed no loop.
                if half and "cpu_loops_s" in half["validity"]:
                    loops = half["validity"]["cpu_loops_s"]
                    shape.check(loops, [POSITIVE], f"{where}: validity: cpu_loops_s")
            # What is not finite may have any numbers beside it.
            if info["image"]["finite"]:
                shape.check(info["image"], IMAGE, f"{key}: the image")
            cases[key] = info
        shard = ours["shard"]
        return Run(
            path=path,
            date=datetime.fromisoformat(content["datetime"]).date().isoformat(),
            commit=content.get("commit_info", {}).get("id"),
            machine=_machine(content["machine_info"]["perf_tests"]),
            cases=cases,
            untimed=tuple(
                Untimed(
                    id=case_id(case),
                    status=Status(case["verdict"]),
                    sentence=case["sentence"],
                    by_choice=case["by_choice"],
                )
                for case in ours["not_timed"]
            ),
            drift=ours["reference_drift"],
            measuring=ours["measuring"],
            scale=ours["scale"],
            quick=ours["quick"],
            options=tuple(ours["options"]),
            expected=tuple(ours["expected"]),
            narrowed=ours["narrowed"],
            not_asked=tuple(ours["not_asked"]),
            shard=Shard(**{**shard, "cases": tuple(shard["cases"])}) if shard else None,
        )
    except shape.BadShape as error:
        raise BadRunError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise BadRunError(
            f"{path}: was not written by this suite's main job with --benchmark-json"
        ) from None


def _machine(content: Any) -> Machine:
    shape.check(content, MACHINE, "machine_info")
    # JSON has no tuples, and two runs' machines are held to each other.
    capability = content["compute_capability"]
    return Machine(**{**content, "compute_capability": capability and tuple(capability)})


MACHINE = {
    **dict.fromkeys(("device", "name", "python", "torch", "diffusers", "transformers"), TEXT),
    **dict.fromkeys(("driver", "cuda"), Optional(TEXT)),
    "compute_capability": Optional([WHOLE]),
    "memory_bytes": Optional(WHOLE),
    "threads": WHOLE,
}
DRIFT = {"ratio": POSITIVE, "significant": FLAG}
STATUS = one_of(tuple(Status))

SESSION = {
    **dict.fromkeys(("measuring", "scale"), TEXT),
    **dict.fromkeys(("quick", "narrowed"), FLAG),
    "options": [TEXT],
    "expected": [TEXT],
    "not_asked": [TEXT],
    "shard": Optional({"index": WHOLE, "of": WHOLE, "cases": [TEXT]}),
    "reference_drift": Each(DRIFT),
    "not_timed": [
        {"case": TEXT, "workload": TEXT, "verdict": STATUS, "sentence": TEXT, "by_choice": FLAG}
    ],
}
IMAGE = {
    **dict.fromkeys(("mean", "std", "repeat_psnr_db"), NUMBER),
    **dict.fromkeys(("psnr_db", "ssim"), Optional(NUMBER)),
}
VALIDITY = {"gpu_interference": [TEXT], "host_interference": [TEXT]}
CASE = {
    **dict.fromkeys(("workload", "model", "weights", "case"), TEXT),
    **dict.fromkeys(("steps", "num_images", "parameters"), WHOLE),
    **dict.fromkeys(("against", "roofline_by"), Optional(TEXT)),
    "latency_s": POSITIVE,
    "latency_rounds_s": Some(POSITIVE),
    **dict.fromkeys(
        ("latency_speedup", "gpu_busy_s", "gpu_speedup", "peak_memory_bytes", "roofline_s"),
        Optional(POSITIVE),
    ),
    "reference": Optional(
        {
            "latency_rounds_s": Some(POSITIVE),
            "gpu_busy_s": Optional(POSITIVE),
            "peak_memory_bytes": Optional(POSITIVE),
            "validity": VALIDITY,
        }
    ),
    "reference_drift": Optional(DRIFT),
    "image": {"finite": FLAG, "ignored": [TEXT], **dict.fromkeys(IMAGE, ANYTHING)},
    "tolerance": Optional({"psnr_db": NUMBER, "ssim": NUMBER}),
    "counters": Each({"fixed": WHOLE, "per_step": WHOLE}),
    "families": Each({"gpu_s": NUMBER, "kernels": WHOLE}),
    "generates": Each(ANYTHING),
    "validity": VALIDITY,
    "notes": [TEXT],
    "verdict": STATUS,
    "image_only": FLAG,
}
