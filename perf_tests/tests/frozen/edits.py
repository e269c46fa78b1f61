"""Named edits of a run's JSON (schema 1): what a fault, a broken machine or a person may change.

Each is of one case, of its workload's reference, or of the run. What follows from the edited
numbers (medians, speedups, the reference's copy in other cases) is put in order again.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Content = dict[str, Any]
Target = Literal["case", "reference", "run"]
Change = Callable[[Content, Content], object]
"""Takes the run and the `extra_info` of the case (of the reference), and edits them in place."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edit and what it is applied to."""

    name: str
    to: Target
    change: Change


def edited(content: Content, edit: Edit) -> Content | None:
    """A copy of the run with this edit; None where the edit changes nothing in it."""
    copy = deepcopy(content)
    info = reference(copy) if edit.to == "reference" else case(copy)
    edit.change(copy, info)
    if copy == content:
        return None
    _settle(copy, info["workload"])
    return copy


def case(content: Content) -> Content:
    """The case that is edited: fp16 if it is there, else the first that is timed and judged."""
    judged = [i for i in infos(content) if i["against"] and not i["picture_only"]]
    return next((i for i in judged if i["case"] == "fp16"), judged[0])


def reference(content: Content) -> Content:
    """The reference of the case that is edited."""
    target = case(content)
    named = (target["workload"], target["against"])
    return next(i for i in infos(content) if (i["workload"], i["case"]) == named)


def infos(content: Content) -> list[Content]:
    return [benchmark["extra_info"] for benchmark in content["benchmarks"]]


def _id(info: Content) -> str:
    return f"{info['workload']}-{info['case']}"


def _settle(content: Content, workload: str) -> None:
    cases = {i["case"]: i for i in infos(content) if i["workload"] == workload}
    for info in cases.values():
        info["latency_s"] = median(info["latency_rounds_s"])
        info["pictures_per_s"] = info["images"] / info["latency_s"]
        other = cases.get(info["against"])
        if other is None or not info["reference"]:
            continue
        for field in ("latency_rounds_s", "gpu_busy_s", "peak_memory_bytes"):
            info["reference"][field] = other[field]
        info["reference"]["validity"] = deepcopy(other["validity"])
        info["latency_speedup"] = median(other["latency_rounds_s"]) / info["latency_s"]
        if info["gpu_busy_s"] and other["gpu_busy_s"]:
            info["gpu_speedup"] = other["gpu_busy_s"] / info["gpu_busy_s"]


# Kinds of changes


def both(*changes: Change) -> Change:
    def change(run: Content, info: Content) -> None:
        for one in changes:
            one(run, info)

    return change


def latency(by: float) -> Change:
    def change(_: Content, info: Content) -> None:
        info["latency_rounds_s"] = [by * seconds for seconds in info["latency_rounds_s"]]

    return change


def scaled(field: str, by: float) -> Change:
    """A number that may be unknown, times this; bytes stay whole."""

    def change(_: Content, info: Content) -> None:
        before = info[field]
        if before is not None:
            info[field] = type(before)(before * by)

    return change


def counted(name: str, *, fixed: int = 0, per_step: int = 0) -> Change:
    """So many more of a counter, where it is counted."""

    def change(_: Content, info: Content) -> None:
        count = info["counters"].get(name)
        if count is not None:
            _count(info, name, count["fixed"] + fixed, count["per_step"] + per_step)

    return change


def count_scaled(name: str, by: float) -> Change:
    """A counter times this, where it is counted."""

    def change(_: Content, info: Content) -> None:
        count = info["counters"].get(name)
        if count is not None:
            _count(info, name, round(count["fixed"] * by), round(count["per_step"] * by))

    return change


def _count(info: Content, name: str, fixed: int, per_step: int) -> None:
    total = fixed + per_step * info["steps"]
    info["counters"][name] = {"fixed": fixed, "per_step": per_step, "total": total}


def put(**values: Any) -> Change:
    """Fields of the case."""
    return lambda _, info: info.update(deepcopy(values))


def picture(**values: Any) -> Change:
    return lambda _, info: info["picture"].update(deepcopy(values))


def validity(**values: Any) -> Change:
    return lambda _, info: info["validity"].update(deepcopy(values))


def session(**values: Any) -> Change:
    """Fields that stand once in a run."""
    return lambda run, _: run["perf_tests"].update(deepcopy(values))


def machine(**values: Any) -> Change:
    return lambda run, _: run["machine_info"]["perf_tests"].update(deepcopy(values))


def generates(name: str, value: Any) -> Change:
    """Another workload under the same name, in all its cases."""

    def change(run: Content, info: Content) -> None:
        for other in infos(run):
            if other["workload"] == info["workload"]:
                other["generates"][name] = value

    return change


def drift(ratio: float, *, significant: bool, own: bool = False) -> Change:
    """The reference took this much of its first time when it was repeated; `own` is what the case
    knew of it when it was judged."""

    def change(run: Content, info: Content) -> None:
        found = {"ratio": ratio, "significant": significant}
        if own:
            info["reference_drift"] = found
        else:
            info["reference_drift"] = None
            run["perf_tests"]["reference_drift"][info["workload"]] = found

    return change


def loops(case: float, reference: float) -> Change:
    """CPU seconds of the loop beside the case's rounds and its reference's."""

    def change(run: Content, info: Content) -> None:
        for other in infos(run):
            if _id(other) == f"{info['workload']}-{info['against']}":
                other["validity"]["cpu_loops_s"] = [reference] * 6
        info["validity"]["cpu_loops_s"] = [case] * 6

    return change


def rounds(*shares: float) -> Change:
    """Rounds that are these shares of the median."""

    def change(_: Content, info: Content) -> None:
        info["latency_rounds_s"] = [info["latency_s"] * share for share in shares]

    return change


def first_round(by: float) -> Change:
    def change(_: Content, info: Content) -> None:
        middle = info["latency_s"]
        info["latency_rounds_s"] = [by * middle, middle, middle, middle, middle]

    return change


def shorter_than_busy(_: Content, info: Content) -> None:
    """Rounds that ended before the GPU did."""
    if info["gpu_busy_s"] is not None:
        info["latency_rounds_s"] = [0.5 * info["gpu_busy_s"]] * len(info["latency_rounds_s"])


def gone(*, expected: bool = False, not_asked: bool = False, narrowed: bool = False) -> Change:
    """Not measured: still to run, left out by name, or as if it were never declared."""

    def change(run: Content, info: Content) -> None:
        ours = run["perf_tests"]
        run["benchmarks"] = [b for b in run["benchmarks"] if b["extra_info"] is not info]
        if not expected:
            ours["expected"] = [name for name in ours["expected"] if name != _id(info)]
        if not_asked:
            ours["not_asked"].append(_id(info))
        ours["narrowed"] = ours["narrowed"] or narrowed

    return change


def lost(status: str, *, by_choice: bool = False) -> Change:
    """Not measured, and on record with this status."""

    def change(run: Content, info: Content) -> None:
        gone(expected=True)(run, info)
        said = {"case": info["case"], "workload": info["workload"], "verdict": status}
        run["perf_tests"]["not_timed"].append(
            said | {"sentence": "no kernel image is available", "by_choice": by_choice}
        )

    return change


def renamed(run: Content, info: Content) -> None:
    """A case that nobody knows yet, beside the others."""
    benchmark = next(b for b in run["benchmarks"] if b["extra_info"] is info)
    more = deepcopy(benchmark)
    more["extra_info"]["case"] += "+newer"
    run["benchmarks"].append(more)
    run["perf_tests"]["expected"].append(_id(more["extra_info"]))


def other_weights(run: Content, _: Content) -> None:
    for info in infos(run):
        info["weights"] = "seeded-7"


def one_shard(run: Content, info: Content) -> None:
    """The first of two shards, which was not given the case."""
    dealt = list(run["perf_tests"]["expected"])
    gone()(run, info)
    run["perf_tests"]["shard"] = {"index": 1, "of": 2, "cases": dealt}
