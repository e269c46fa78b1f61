# mypy: ignore-errors
"""Records what version 1 says, as ``v1.json``. Run at the root of a checkout of b0efb37 with this
folder in it, in an environment made by ``pip install -e '.[dev]'`` (torch 2.13.0):

    pytest perf_tests --benchmark-only --device cpu --benchmark-json cpu-1.json  # also 2 and 3
    pytest perf_tests --benchmark-only --device cpu --quick --benchmark-json base-0.json  # in turns
    python -m perf_tests.tests.frozen.keep_inputs FOLDER  # of these, gzipped, into inputs/
    python -m ci faults --device cpu --json FAULTS.json
    python -m perf_tests.tests.frozen.record_v1 gate compare bad_inputs faults=FAULTS.json

Each section can be recorded alone; gate and bad_inputs take 2 minutes, compare half a minute.
`FORMAT` says what they hold; runs, edits and command lines are in the modules beside this one.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import combinations
from pathlib import Path
from typing import Any

from ci.compare import known_noise
from ci.runs import BadRunError, load_run, run_of

from ci import gate as gating
from perf_tests.harness import baselines
from perf_tests.harness.comparable import NotComparable
from perf_tests.harness.pairs import Noise
from perf_tests.harness.pairs import compare as compare_runs
from perf_tests.harness.runs import Run, case_id
from perf_tests.tests.frozen import HERE, INPUTS, NAMES, PAIRS, STRIPPED, Content, load, pairs
from perf_tests.tests.frozen.bad_inputs import record as bad_inputs
from perf_tests.tests.frozen.catalogue import EDITS
from perf_tests.tests.frozen.edits import edited

COMMIT = "b0efb37"
OUT = HERE / "v1.json"
Entry = dict[str, Any]
FORMAT = {
    "gate": "by input and edit ('' is the input as it is): the exit code; the findings of each "
    "case as sorted [status, metric]; 'lost' has [id, status] of what was not measured. Of edits "
    "there is what differs from the input as it is (null: the case is gone). 'unjudged' stands "
    "where no speed could be judged. An edit that changes nothing in an input is left out.",
    "gate_with_cpu_baseline": "the same of the CPU runs, with inputs/cpu-baseline.json, which "
    "`ci accept` made of them, as their machine's baseline",
    "compare": "'pairs': by set and number of pairs, the exit code and by case and metric the "
    "status. 'calibrated': the same of h200-planted with the noise that was known of it. 'deals': "
    "h200-same dealt anew, by the runs (base, then head) that are base: what is not 'same'. "
    "'edited head', 'edited base' and 'edited head-0' (of one process alone): by set and edit, the "
    "cases that differ from those of all pairs (null: gone). 'refused' is why they are not "
    "comparable, 'crashed' a bug of version 1.",
    "faults": "`ci faults --device cpu`: by fault or control, what became of it, on two cores "
    "that others used as well; 'again' has further runs of what the first could not tell of",
    "bad_inputs": "by command line: exit code and the sentence that says why; 'files' is what "
    "there is in {TMP}",
}


def main(arguments: Sequence[str]) -> int:
    """Record these sections, and keep the others."""
    content = json.loads(OUT.read_text()) if OUT.exists() else {}
    content |= {"commit": COMMIT, "baselines": f"baselines/ of {COMMIT}", "format": FORMAT}
    for argument in arguments:
        name, _, path = argument.partition("=")
        if name == "gate":
            content["gate"] = gate([n for n in NAMES if not n.startswith("h200-quiet/")])
            with cpu_baseline():
                content["gate_with_cpu_baseline"] = gate([n for n in NAMES if n.startswith("cpu-")])
        elif name == "again":
            content["faults"].setdefault("again", []).append(faults(Path(path)))
        else:
            content[name] = faults(Path(path)) if name == "faults" else SECTIONS[name]()
    OUT.write_text(written(content) + "\n", encoding="utf-8")
    return 0


ENTRY = ("exit", "status", "run", "text", "repeat", "folder")


def written(value: Any, depth: int = 0) -> str:
    """JSON with a line for each entry, which has one of these names."""
    if isinstance(value, dict) and not any(name in value for name in ENTRY):
        parts = [f"{quoted(name)}: {written(part, depth + 1)}" for name, part in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [written(part, depth + 1) for part in value]
    else:
        return quoted(value)
    left, right = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(" " * (depth + 1) + part for part in parts)
    return f"{left}\n{lines}\n{' ' * depth}{right}"


def quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def differing(entry: Entry, plain: Entry) -> Entry:
    """The entry without what is as in the plain one."""
    if "cases" not in entry or "cases" not in plain:
        return entry
    now, was = entry["cases"], plain["cases"]
    cases = {name: now.get(name) for name in {**was, **now} if now.get(name) != was.get(name)}
    entry = {**entry, "cases": cases}
    if entry.get("lost") == plain.get("lost"):
        entry.pop("lost", None)
    return entry


# gate


@contextmanager
def cpu_baseline() -> Iterator[None]:
    """The committed baselines, and one of the machine that the CPU runs were recorded on."""
    content = json.loads((INPUTS / "cpu-baseline.json").read_text())
    before = baselines.FOLDER
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "baselines"
        shutil.copytree(before, folder)
        path = baselines.machine_path(baselines.slug_of(content["machine"]), folder)
        path.write_text(json.dumps(content))
        baselines.FOLDER = folder
        try:
            yield
        finally:
            baselines.FOLDER = before


def gate(names: Sequence[str]) -> dict[str, dict[str, Entry]]:
    found: dict[str, dict[str, Entry]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        for name in names:
            content = load(name)
            plain = gated(content, path)
            found[name] = {"": plain}
            for edit in EDITS if name not in STRIPPED else ():
                changed = edited(content, edit)
                if changed is not None:
                    found[name][edit.name] = differing(gated(changed, path), plain)
    return found


def gated(content: Content, path: Path) -> Entry:
    """The answer and the findings of one run."""
    path.write_text(json.dumps(content))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            code = gating.gate(path)
        except BadRunError as error:
            return {"exit": 2, "refused": str(error).replace(str(path), "{RUN}")}
    run = load_run(path)
    standards = gating._standards(run)
    entry: Entry = {
        "exit": code,
        "cases": {
            case_id(case): sorted(
                [f.status, f.metric] for f in gating.judged(run, case, standards).findings
            )
            for case in run.cases.values()
        },
    }
    entry["lost"] = sorted([row.id, row.status] for row in gating._untimed(run, standards))
    if gating._unjudged(run, standards):
        entry["unjudged"] = True
    return entry


# compare


def compare() -> dict[str, Any]:
    found: dict[str, Any] = {"pairs": {}}
    for name, most in PAIRS.items():
        base, head = pairs(name)
        some = {str(n): compared(base[:n], head[:n]) for n in range(1, most + 1)}
        found["pairs"][name] = some
        for side, which in EDITED.items():
            entries = {}
            for edit in EDITS:
                sides = which(base, head, lambda run, edit=edit: edited(run, edit) or run)
                if sides != (base, head):
                    entries[edit.name] = differing(compared(*sides), some[str(most)])
            found.setdefault(f"edited {side}", {})[name] = entries
    base, head = pairs("h200-planted")
    # As `calibrate` knew it by then, from h200-same.
    noise = {"pndm25x4/sd15/seeded-2023/distilled_unet": {"latency_s": 0.083146}}
    found["calibrated"] = {
        "h200-planted": {str(n): compared(base[:n], head[:n], noise=noise) for n in range(2, 6)}
    }
    found["deals"] = {"h200-same": deals()}
    return found


Sides = tuple[list[Content], list[Content]]
EDITED: dict[str, Callable[[list[Content], list[Content], Callable[[Content], Content]], Sides]] = {
    "head": lambda base, head, edit: (base, [edit(run) for run in head]),
    "base": lambda base, head, edit: ([edit(run) for run in base], head),
    "head-0": lambda base, head, edit: (base, [edit(head[0]), *head[1:]]),
}


def deals() -> dict[str, Entry]:
    """Ten runs of one commit dealt in all ways; sides that change places say the inverse."""
    base, head = pairs("h200-same")
    runs = [*base, *head]
    found = {}
    for first in ((0, *four) for four in combinations(range(1, 10), 4)):
        others = [runs[i] for i in range(10) if i not in first]
        entry = compared([runs[i] for i in first], others)
        entry["cases"] = {
            case: told
            for case, statuses in entry["cases"].items()
            if (told := {metric: s for metric, s in statuses.items() if s != "same"})
        }
        found[" ".join(map(str, first))] = entry
    return found


def compared(
    base: Sequence[Content], head: Sequence[Content], *, noise: Noise | None = None
) -> Entry:
    """What `compare` says, with the noise that the committed baselines know unless told."""
    sides = parsed(base, "base"), parsed(head, "head")
    try:
        found = compare_runs(*sides, noise=known_noise(sides[1][0]) if noise is None else noise)
    except NotComparable as error:
        return {"exit": 2, "refused": str(error)}
    except Exception as error:  # a bug of version 1, which answers 2 with a traceback
        return {"exit": 2, "crashed": f"{type(error).__name__}: {error}"}
    cases: dict[str, dict[str, str]] = {}
    for change in found.changes:
        cases.setdefault(change.case, {})[change.metric] = change.status
    return {"exit": found.exit_code, "cases": cases}


def parsed(contents: Sequence[Content], side: str) -> list[Run]:
    return [run_of(content, Path(f"{side}-{n}.json")) for n, content in enumerate(contents)]


# faults


def faults(path: Path) -> dict[str, Any]:
    """What `ci faults` wrote there."""
    content = json.loads(path.read_text())
    names = ("control", "seen_by", "where", "status", "verdict", "also_seen_by", "smallest", "unit")
    return {
        "machine": content["machine"]["name"],
        "seconds": content["seconds"],
        "clean_verdicts": content["clean_verdicts"],
        "false_alarms": content["false_alarms"],
        "rows": {row["name"]: {name: row[name] for name in names} for row in content["rows"]},
    }


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {"compare": compare, "bad_inputs": bad_inputs}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
