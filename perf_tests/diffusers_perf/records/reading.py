"""Reads runs. Whatever is wrong with one is one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.messages import common
from diffusers_perf.messages import records as messages
from diffusers_perf.records.files import BadContent, decoded, read_bytes, real
from diffusers_perf.records.run import KEY, SCHEMA, CaseRecord, Run, RunFile

KEY_OF_VERSION_1 = "perf_tests"
NAMED_MOST = 300
"""Characters of a key that a message names."""


def load_run(path: Path) -> Run:
    """`Refusal` for what is not a run of the main job, and for one of an unknown schema."""
    return run_of(read(path), path)


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs that are each a process of its own. `Refusal` as `load_run`, and for one that is
    given twice or copied.
    """
    runs = [load_run(path) for path in distinct(paths)]
    for one, other in combinations(runs, 2):
        if one.cases and one.cases == other.cases:
            raise Refusal(messages.copied(other.path, one.path))
    return runs


def distinct(paths: Sequence[Path]) -> Sequence[Path]:
    """The paths, each of a process of its own. `Refusal` for one given twice."""
    seen = set()
    for path in paths:
        if real(path) in seen:
            raise Refusal(messages.given_twice(path))
        seen.add(real(path))
    return paths


def read(path: Path) -> Any:
    """The JSON in a file. `Refusal` where there is none."""
    try:
        data = read_bytes(path)
    except IsADirectoryError:
        # As `ab` names head's; any of another folder.
        heads = path / "head-*.json"
        runs = heads if any(path.glob(heads.name)) else path / "*.json"
        raise Refusal(messages.is_a_folder(path, runs)) from None
    except OSError as error:
        raise Refusal(common.cannot_read(path, error.strerror)) from None
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        raise Refusal(messages.not_json(path)) from None


def run_of(content: Any, path: Path) -> Run:
    """The run that a JSON describes; `path` names it in messages. `Refusal` as `load_run`."""
    ours = content.get(KEY, content.get(KEY_OF_VERSION_1)) if isinstance(content, dict) else None
    if not isinstance(ours, dict) or "schema" not in ours:
        raise Refusal(messages.not_a_run(path))
    if ours["schema"] != SCHEMA:
        raise Refusal(messages.other_schema(path, ours["schema"], SCHEMA))
    try:
        file = decoded(content, RunFile)
    except BadContent as error:
        raise Refusal(f"{path}: {_by_name(str(error), content)}") from None
    cases: dict[str, CaseRecord] = {}
    for benchmark in file.benchmarks:
        case = benchmark.extra_info.diffusers_perf
        if case is None:
            continue
        if case.key in cases:
            raise Refusal(messages.case_twice(path, case.key))
        cases[case.key] = case
    return Run(
        path=path,
        datetime=file.datetime,
        commit=file.commit_info,
        machine=file.machine_info.diffusers_perf,
        session=file.diffusers_perf,
        cases=cases,
    )


def _by_name(phrase: str, content: Any) -> str:
    """Where a benchmark is counted, name its case."""
    found = re.match(rf"benchmarks\[(\d+)\]\.extra_info\.{KEY}\.?", phrase)
    if not found:
        return phrase
    try:
        seen = content["benchmarks"][int(found[1])]["extra_info"][KEY]["measurement"]
        names = [seen[name] for name in ("workload", "model", "weights", "case")]
        key = "/".join(names)
        if key.isprintable() and len(key) <= NAMED_MOST:
            return f"{key}: {phrase[found.end() :].removeprefix(': ')}"
    except (LookupError, TypeError):
        pass
    return phrase
