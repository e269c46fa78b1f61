"""Migrates version 1's `baselines/` (commit b0efb37) to schema 2, once. No number changes.

    python -m perf_tests.tests.frozen.migrate_baselines

It reads git's history, writes the files of this version, prints old → new, and then checks that
every number, limit, case and image of version 1 is in them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from diffusers_perf.records.baselines import (
    Bound,
    Calibration,
    CaseBaseline,
    Claim,
    MachineBaseline,
    OperatorBaseline,
    PortableFile,
    Published,
    PublishedCase,
)
from diffusers_perf.records.files import decoded, laid_out, write_whole
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import OperatorCount
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.schema1 import workload_of

COMMIT = "b0efb37"
MACHINES = ("nvidia-h100-80gb-hbm3", "nvidia-h200")
MEASURED = ("latency_s", "latency_speedup", "gpu_busy_s", "gpu_speedup", "peak_memory_bytes")
CPU = "a CPU"
"""Where the images of the small models were made; its name was not recorded."""

Json = dict[str, Any]


def main() -> int:
    store = BaselineStore(Path("baselines"))
    for slug in MACHINES:
        store.save_machine(machine(old(f"{slug}.json")))
    store.save_operators(operators(old("structure.json")))
    write_whole(store.folder / "portable.json", laid_out(portable(old("portable.json")), depth=3))
    write_whole(
        store.folder / "published.json", laid_out(published(old("published.json")), depth=2)
    )
    write_whole(store.history, "\n".join(history()) + "\n")
    (store.folder / "structure.json").unlink(missing_ok=True)
    for line in proved(store):
        print(line)
    return 0


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def old(name: str) -> Json:
    """A file of version 1."""
    content: Json = json.loads(git("show", f"{COMMIT}:baselines/{name}"))
    assert content["schema"] == 1
    return content


def machine(content: Json) -> MachineBaseline:
    cases = {
        key: CaseBaseline(
            accepted=line["accepted"],
            measured={name: tuple(line[name]) for name in MEASURED if name in line},
            counters={name: count(pair) for name, pair in line["counters"].items()},
            moving=tuple(line.get("moving", ())),
            limits=line["limits"],
            calibrations={
                mode: decoded(known, Calibration)
                for mode, known in line.get("calibrations", {}).items()
            },
            versions=line["versions"],
            workload=workload_of(line["generates"]),
        )
        for key, line in content["cases"].items()
    }
    return MachineBaseline(machine=content["machine"], cases=cases)


def count(pair: list[int]) -> Count:
    return Count(fixed=pair[0], per_step=pair[1])


def operators(content: Json) -> dict[str, OperatorBaseline]:
    return {
        key: OperatorBaseline(
            accepted=line["accepted"],
            reason=line["reason"],
            versions=line["versions"],
            counters={
                name: OperatorCount(
                    total=count(parts["all"]),
                    where={kind: count(pair) for kind, pair in parts.items() if kind != "all"},
                )
                for name, parts in line["counters"].items()
            },
        )
        for key, line in content["cases"].items()
    }


def portable(content: Json) -> PortableFile:
    kinds = {kind: cases for kind, cases in content.items() if kind not in ("schema", "about")}
    return PortableFile(
        about=content["about"],
        bounds={
            kind: {
                case: {name: decoded(bound, Bound) for name, bound in bounds.items()}
                for case, bounds in cases.items()
            }
            for kind, cases in kinds.items()
        },
    )


def published(content: Json) -> Published:
    return Published(
        **{name: content[name] for name in ("source", "gpu", "note")},
        cases={name: decoded(case, PublishedCase) for name, case in content["cases"].items()},
        claims={name: decoded(claim, Claim) for name, claim in content["claims"].items()},
    )


# The log of acceptances


def history() -> Iterator[str]:
    """Version 1's log, in which every line names its machine."""
    for line in git("show", f"{COMMIT}:baselines/HISTORY.md").splitlines():
        if not line.startswith("- "):
            yield re.sub(r"`python -m ci (\w+)`", r"`\1`", line)
            continue
        date, rest = re.fullmatch(r"- (\S+) (.*)", line).groups()  # type: ignore[union-attr]
        yield f"- {date} {machine_of(line)} {rest}"


def machine_of(line: str) -> str:
    """The machine whose file changed in the commit that first had this line's figures."""
    if ".png`" in line and "sd15" not in line:
        return CPU
    head, _, tail = line.partition(": ")
    # Reasons were reworded later; figures were not.
    figures = re.match(r".*?(?: s|processes|pictures|cases)\b", tail)
    needle = f"{head}: {figures[0] if figures else ''}"
    log = git("log", "--reverse", "-S", needle, "--format=%H", COMMIT, "--", "baselines/HISTORY.md")
    first = log.split()[0]
    changed = git("show", "--format=", "--name-only", first, "--", "baselines").split()
    (slug,) = [slug for slug in MACHINES if f"baselines/{slug}.json" in changed]
    content = json.loads(git("show", f"{first}:baselines/{slug}.json"))
    key, busy = re.search(r"`(\S+/\S+)`", line), re.findall(r"GPU busy ([\d.]+) s", line)
    if key and busy:
        assert f"{min(content['cases'][key[1]]['gpu_busy_s']):.4f}" == busy[-1], line
    return str(content["machine"])


# Proof


def proved(store: BaselineStore) -> Iterator[str]:
    """Old → new, with an `AssertionError` where anything of version 1 is not there."""
    for slug in MACHINES:
        was, now = old(f"{slug}.json"), store.load_machine(slug)
        assert now is not None
        assert now.machine == was["machine"]
        assert now.cases.keys() == was["cases"].keys()
        numbers = limits = 0
        for key, line in was["cases"].items():
            case = to_builtins(now.cases[key])
            flat = {**case, **case.pop("measured")}
            for name, value in line.items():
                if name == "generates":
                    assert workload_of(value) == case["workload"]
                else:
                    assert value == to_lists(flat[name]), (key, name)
                numbers += len(leaves(value))
            limits += len(line["limits"])
        weights = sorted({"/".join(key.split("/")[1:-1]) for key in was["cases"]})
        old_size, new_size = len(json.dumps(was)), store.machine_path(slug).stat().st_size
        yield (
            f"{slug}.json: {len(now.cases)} cases, {limits} limits, {numbers} values, "
            f"weights {', '.join(f'{name} → {name}' for name in weights)}; "
            f"{old_size:,} → {new_size:,} bytes"
        )
    was, counts = old("structure.json"), store.load_operators()
    assert counts.keys() == was["cases"].keys()
    for key, line in was["cases"].items():
        found = counts[key]
        assert [line[n] for n in ("accepted", "reason", "versions")] == [
            found.accepted,
            found.reason,
            dict(found.versions),
        ]
        parts = {
            name: {"all": to_lists(to_builtins(c.total)), **to_lists(to_builtins(c.where))}
            for name, c in found.counters.items()
        }
        assert parts == line["counters"], key
    files = sorted(path.name for path in (store.folder / "operators").iterdir())
    yield f"structure.json: {len(counts)} cases → operators/{', operators/'.join(files)}"
    bounds = old("portable.json")
    for kind, cases in ((k, c) for k, c in bounds.items() if isinstance(c, dict)):
        scale, device = kind.split(" on ")
        loaded = store.load_portable(scale=scale, device=device)
        kept = {case: {n: without_none(b) for n, b in own.items()} for case, own in loaded.items()}
        assert kept == cases
        yield f"portable.json: {len(cases)} cases of {kind}"
    guide, printed = old("published.json"), to_builtins(store.load_published())
    assert {**printed, "schema": 1} == guide
    yield f"published.json: {len(guide['cases'])} cases, {len(guide['claims'])} claims"
    before = git("ls-tree", "--name-only", f"{COMMIT}:baselines/pictures").split()
    there = sorted(path.name for path in (store.folder / "images").iterdir())
    assert there == sorted(before)
    for name in before:
        blob = git("rev-parse", f"{COMMIT}:baselines/pictures/{name}").strip()
        assert git("hash-object", f"baselines/images/{name}").strip() == blob, name
    yield f"pictures/ → images/: {len(before)} images, byte for byte"
    lines = [line for line in store.history.read_text().splitlines() if line.startswith("- ")]
    names = [next((m for m in (*names_of(), CPU) if f" {m} " in line), None) for line in lines]
    assert None not in names
    told = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    yield f"HISTORY.md: {len(lines)} lines: {told}"


def names_of() -> list[str]:
    return [old(f"{slug}.json")["machine"] for slug in MACHINES]


def to_lists(value: Any) -> Any:
    return json.loads(json.dumps(value))


def without_none(bound: Bound) -> Json:
    return {name: value for name, value in to_builtins(bound).items() if value is not None}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


if __name__ == "__main__":
    sys.exit(main())
