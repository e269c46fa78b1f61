"""What this version answers, in the form in which version 1's answers were recorded."""

from __future__ import annotations

import atexit
import gzip
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import gate
from diffusers_perf.compare.compare import known_noise
from diffusers_perf.judge.comparable import NotComparable
from diffusers_perf.judge.pairs import compare
from diffusers_perf.records.reading import load_run, run_of
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.frozen import INPUTS, Content
from perf_tests.tests.schema1 import CannotUpgrade, upgraded

Entry = dict[str, Any]
COUNTED_SINCE = ("masked_attention", "denoiser_samples")
"""Counters that version 1 had not: its runs lack them, and must not be judged by them."""


def _baselines() -> Path:
    """The accepted counts without those that version 1 did not judge, its H200's baseline, whose
    guide suite was accepted anew since, and all else as it is.
    """
    folder = Path(tempfile.mkdtemp(prefix="baselines-"))
    atexit.register(shutil.rmtree, folder)
    shutil.copytree("baselines", folder, dirs_exist_ok=True)
    accepted = gzip.decompress((INPUTS / "h200-baseline.json.gz").read_bytes())
    (folder / "nvidia-h200.json").write_bytes(accepted)
    for path in folder.glob("operators/*.json"):
        content = json.loads(path.read_text())
        for case in content["cases"].values():
            # On a CPU version 1 judged them by nothing.
            case.pop("python_calls", None)
            for name in COUNTED_SINCE:
                case["counters"].pop(name, None)
        path.write_text(json.dumps(content))
    return folder


STORE = BaselineStore(_baselines())


def gated(content: Content, path: Path) -> Entry:
    """The answer to one run and the findings on each of its cases."""
    try:
        path.write_text(json.dumps(upgraded(content)))
        code = gate.gate(path, STORE)
    except (Refusal, CannotUpgrade) as error:
        return {"exit": 2, "refused": str(error)}
    run = load_run(path)
    standards = gate.standards_of(run, STORE)
    return {
        "exit": code,
        "cases": {
            case.id: [[str(f.status), f.metric] for f in gate.judged(run, case, standards).findings]
            for case in run.cases.values()
        },
        "lost": sorted([row.id, str(row.status)] for row in gate._untimed(run, standards)),
    }


def compared(base: Sequence[Content], head: Sequence[Content]) -> Entry:
    """The answer to pairs of runs: the status of each metric of each case."""
    try:
        sides = [
            [run_of(upgraded(content), Path(f"{side}-{n}.json")) for n, content in enumerate(runs)]
            for side, runs in (("base", base), ("head", head))
        ]
        found = compare(*sides, noise=known_noise(sides[1][0], STORE))
    except (Refusal, CannotUpgrade, NotComparable) as error:
        return {"exit": 2, "refused": str(error)}
    cases: dict[str, dict[str, str]] = {}
    for change in found.changes:
        cases.setdefault(change.case, {})[change.metric] = str(change.status)
    return {"exit": found.exit_code, "cases": cases}
