"""Compares what this version says with what version 1 said (``v1.json``).

    python -m perf_tests.tests.frozen.compare_with_v1            # recorded runs, edits, pairs
    python -m perf_tests.tests.frozen.compare_with_v1 --every 20 # each twentieth edit
    python -m perf_tests.tests.frozen.compare_with_v1 --faults FAULTS.json

Exit code 0 if every verdict is the same, after the renaming of `STATUSES` and `METRICS` and but for
what `with_narrower_intervals`, `with_finer_threshold`, `with_farther_images` and `with_errors`
name; else 1, with each difference on a line. FAULTS.json comes from `diffusers-perf faults --json`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from diffusers_perf.catalog.status import Status, exit_code
from perf_tests.tests.frozen import HERE, PAIRS, STRIPPED, Content, load, pairs
from perf_tests.tests.frozen.catalogue import EDITS
from perf_tests.tests.frozen.current import compared, gated
from perf_tests.tests.frozen.edits import edited

Entry = dict[str, Any]

STATUSES = {"unclear": "inconclusive", "flat": "uniform", "worse picture": "worse image"}
"""Words of version 1 and what they are called now. A counter that fell was `faster`."""
METRICS = {
    "picture": "image",
    "the distance of its picture": "image distance",
    "closeness": "image distance",
    "proof": "applied check",
}
IMAGE_WITHOUT_DISTANCE = "the distance of its picture"
"""To version 1 a metric of its own in a comparison, where all findings on an image are one now."""
FARTHER = ("PSNR a little lower", "reference: PSNR a little lower")
"""Edits of head that take its image farther from the reference's than base's, within a tolerance.
Version 1 let them pass; this version is stricter."""
FINER = ("GPU busy x1.01", "reference: GPU busy x1.01", "GPU busy x1.03")
"""Edits of GPU busy time near its threshold, which was 2 % and is 1.5 %: 1 % more is inconclusive
where the noise reaches it, and 3 % more is slower."""
NOT_COMPUTED = ("seed ignored", "reference: seed ignored")
"""Edits of what changes no image: without its seed an image was not computed, which is an error
now, as its time says nothing."""
TIMES = ("latency", "GPU busy")
MEASURED = ("latency", "GPU busy", "memory")
"""Words in the names of metrics that are not counters."""
SIDES: dict[str, Callable[[list[Content], list[Content], Callable[[Content], Content]], Any]] = {
    "head": lambda base, head, edit: (base, [edit(run) for run in head]),
    "base": lambda base, head, edit: ([edit(run) for run in base], head),
    "head-0": lambda base, head, edit: (base, [edit(head[0]), *head[1:]]),
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth edit only")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="compare these rows only")
    args = parser.parse_args(arguments)
    frozen = json.loads((HERE / "v1.json").read_text())
    if args.faults:
        differences = list(of_faults(frozen["faults"], json.loads(args.faults.read_text())))
        number = len(frozen["faults"]["rows"])
    else:
        answers = [*of_gate(frozen["gate"], args.every), *of_compare(frozen["compare"], args.every)]
        number = len(answers)
        differences = [line for lines in answers for line in lines]
    for line in differences:
        print(line)
    print(f"{number} answers of version 1 compared, {len(differences)} differences")
    return bool(differences)


def now_called(status: str, metric: str) -> str:
    """The name of a status of version 1 on this metric."""
    if status == "faster" and not any(word in metric for word in MEASURED):
        return "less work"
    return STATUSES.get(status, status)


def metric_now(metric: str) -> str:
    """Its name in this version; version 1 counted lost counters in it: ``casts (2 counters)``."""
    return "counters" if metric.endswith(" counters)") else METRICS.get(metric, metric)


def of_gate(frozen: dict[str, dict[str, Entry]], every: int) -> Iterator[list[str]]:
    """Differences of each answer to one run."""
    edits = [edit for number, edit in enumerate(EDITS) if number % every == 0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        for name, entries in frozen.items():
            content = load(name)
            plain = quietly(gated, content, path)
            yield [*differences(f"gate {name}", entries[""], plain, whole=True)]
            for edit in edits if name not in STRIPPED else []:
                if edit.name not in entries:
                    continue
                changed = edited(content, edit)
                assert changed is not None, f"{name}: {edit.name} changes nothing here"
                was = {**entries[edit.name]}
                if "cases" in was:
                    was["cases"] = {**entries[""]["cases"], **was["cases"]}
                now = quietly(gated, changed, path)
                was = with_errors(was) if edit.name in NOT_COMPUTED else was
                yield [*differences(f"gate {name}, {edit.name}", was, now)]


def of_compare(frozen: dict[str, Any], every: int) -> Iterator[list[str]]:
    """Differences of each answer to pairs of runs."""
    for name, answers in frozen["pairs"].items():
        base, head = pairs(name)
        for number, entry in answers.items():
            count = int(number)
            now = quietly(compared, base[:count], head[:count])
            entry = with_narrower_intervals(entry, now, changed=name == "h200-planted")
            yield [*differences(f"compare {name}, {number} pairs", entry, now)]
    edits = {edit.name: edit for number, edit in enumerate(EDITS) if number % every == 0}
    for side, which in SIDES.items():
        for name, entries in frozen[f"edited {side}"].items():
            base, head = pairs(name)
            plain = frozen["pairs"][name][str(PAIRS[name])]
            for edit_name, entry in entries.items():
                if edit_name not in edits:
                    continue
                edit = edits[edit_name]
                sides = which(base, head, lambda run, edit=edit: edited(run, edit) or run)  # type: ignore[misc]
                was = {**entry}
                if "cases" in was and "cases" in plain:
                    was["cases"] = {**plain["cases"], **was["cases"]}
                    was["cases"] = {name: with_one_image(c) for name, c in was["cases"].items()}
                now = quietly(compared, *sides)
                was = with_narrower_intervals(was, now, changed="latency" in edit_name)
                if edit_name in FINER:
                    was = with_finer_threshold(was, now, more="x1.03" in edit_name)
                if side == "head" and edit_name in FARTHER:
                    was = with_farther_images(was, now)
                if side != "base" and edit_name in NOT_COMPUTED:
                    was = with_errors(was)
                yield [*differences(f"compare {name}, {side} {edit_name}", was, now)]


def with_one_image(case: Entry | None) -> Entry | None:
    """Version 1's findings on a case, with the image that had no distance among the others."""
    if case is None or IMAGE_WITHOUT_DISTANCE not in case:
        return case
    rest = {metric: status for metric, status in case.items() if metric != IMAGE_WITHOUT_DISTANCE}
    if rest.get("picture", "same") == "same":
        rest["picture"] = case[IMAGE_WITHOUT_DISTANCE]
    return rest


def with_narrower_intervals(was: Entry, now: Entry, *, changed: bool) -> Entry:
    """Version 1's answer, where an interval of pairs is narrower now, as it is of their least round
    and by exact quantiles. What was inconclusive of a time is the same, or what was changed in it.
    """
    right = {"same", "slower", "faster"} if changed else {"same"}
    return _with_statuses_of(
        was, now, lambda metric, was, now: was == "unclear" and metric in TIMES and now in right
    )


def with_finer_threshold(was: Entry, now: Entry, *, more: bool) -> Entry:
    """Version 1's answer, had the threshold of GPU busy time been this version's. `more`: with more
    work than that.
    """
    before, after = ("unclear", "slower") if more else ("same", "inconclusive")
    return _with_statuses_of(
        was,
        now,
        lambda metric, was, now: metric == "GPU busy" and (was, now) == (before, after),
    )


def _with_statuses_of(was: Entry, now: Entry, right: Callable[[str, str, Any], bool]) -> Entry:
    """Version 1's answer, with this version's status where that is right: metric, was, now."""
    cases = {}
    for name, case in was.get("cases", {}).items():
        seen = now.get("cases", {}).get(name) or {}
        cases[name] = case and {
            metric: seen[metric] if right(metric, status, seen.get(metric)) else status
            for metric, status in case.items()
        }
    if "cases" not in was or cases == was["cases"]:
        return was
    statuses = [
        Status(now_called(s, m)) for case in cases.values() for m, s in (case or {}).items()
    ]
    return was | {"cases": cases, "exit": exit_code(statuses)}


def with_errors(was: Entry) -> Entry:
    """Version 1's answer, with an error where an image did not depend on its seed."""

    def renamed(case: Any) -> Any:
        if isinstance(case, dict):
            return {m: "error" if s == "worse picture" else s for m, s in case.items()}
        return case and [["error" if s == "worse picture" else s, m] for s, m in case]

    if "cases" not in was:
        return was
    return was | {"cases": {name: renamed(case) for name, case in was["cases"].items()}}


def with_farther_images(was: Entry, now: Entry) -> Entry:
    """Version 1's answer, had it limited each image by base's as this version does."""
    farther = {
        name: {**(was["cases"].get(name) or {}), "picture": "worse picture"}
        for name, case in now.get("cases", {}).items()
        if case.get("image") == "worse image"
    }
    return was | {"exit": 1, "cases": was["cases"] | farther} if farther else was


def differences(what: str, was: Entry, now: Entry, *, whole: bool = False) -> Iterator[str]:
    """What this version answers otherwise, each in a line."""
    if "crashed" in was:
        # A bug of version 1. An answer with an exit code is right, whichever it is.
        if "crashed" in now:
            yield f"{what}: still crashes: {now['crashed']}"
        return
    if was["exit"] != now["exit"]:
        yield f"{what}: exit code {was['exit']} → {now['exit']} ({now.get('refused', '')})"
    if ("refused" in was) != ("refused" in now):
        yield f"{what}: refused: {was.get('refused')} → {now.get('refused')}"
    there = {name: case for name, case in was.get("cases", {}).items() if case is not None}
    for name in {**there, **now.get("cases", {})}:
        before, after = counted(there.get(name)), counted(now.get("cases", {}).get(name), new=True)
        if before != after:
            gone, come = before - after, after - before
            yield f"{what}: {name}: {dict(gone)} → {dict(come)}"
    if whole and was.get("lost", []) != now.get("lost", []):
        yield f"{what}: lost: {was.get('lost')} → {now.get('lost')}"


def counted(findings: Any, *, new: bool = False) -> Counter[tuple[str, str]]:
    """Findings that are not `same`, by status and metric, in this version's words."""
    items = findings.items() if isinstance(findings, dict) else [(m, s) for s, m in findings or []]
    pairs = [(str(s), str(m)) for m, s in items]
    if not new:
        pairs = [(now_called(s, m), metric_now(m)) for s, m in pairs]
    return Counter(pair for pair in pairs if pair[0] != "same")


def of_faults(frozen: Entry, now: Entry) -> Iterator[str]:
    """Rows that were detected and are not, or were not flagged and are."""
    good = {"caught": "detected", "quiet": "not flagged"}
    rows = {row["name"]: row for row in now["rows"]}
    for name, row in frozen["rows"].items():
        if name not in rows:
            yield f"{name}: not in the catalog any more"
        elif row["status"] in good and rows[name]["status"] != good[row["status"]]:
            yield f"{name}: {row['status']} → {rows[name]['status']}"


def quietly(answer: Callable[..., Entry], *arguments: Any) -> Entry:
    """The answer, without what is printed on the way."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return answer(*arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
