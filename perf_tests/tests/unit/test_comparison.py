"""What a comparison finds in recorded runs: facts, whose words are in test_messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.metrics import BY_LEAST, BY_NAME
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparable import NotComparable
from diffusers_perf.judge.comparison import Change, Comparison
from diffusers_perf.judge.finding import Finding, texts
from diffusers_perf.judge.messages.commands import Literal
from diffusers_perf.judge.messages.numbers import share, times
from diffusers_perf.judge.pairs import compare
from diffusers_perf.judge.weighing import weigh
from diffusers_perf.records.run import Run
from perf_tests.tests.unit.recorded import (
    Content,
    case,
    drop,
    lost,
    machine,
    measured,
    parsed,
    session,
    side,
)

FP16 = "ddim50-fp16"
Edit = Callable[[Content], object]


def runs(name: str, edits: Sequence[Edit | None]) -> list[Run]:
    """A process for each edit."""
    contents = side(name, count=len(edits))
    for content, edit in zip(contents, edits, strict=True):
        if edit:
            edit(content)
    return parsed(contents, name)


def compared(head: Sequence[Edit | None], base: Sequence[Edit | None] | None = None) -> Comparison:
    return compare(runs("base", base or [None] * len(head)), runs("head", head))


def change(found: Comparison, metric: str, name: str = FP16) -> Change:
    (one,) = [c for c in found.changes if (c.case, c.metric) == (name, metric)]
    return one


def syncs(fixed: int) -> Edit:
    """So many host syncs more, of which 303 were recorded."""

    def edit(content: Content) -> None:
        measured(content, FP16)["counters"]["host_syncs"][0] += fixed

    return edit


def update(**changes: Any) -> Edit:
    return lambda content: measured(content, FP16).update(changes)


def drifted(content: Content) -> None:
    session(content)["reference_drift"]["ddim50"] = {"ratio": 1.13, "significant": True}


def dropped(content: Content) -> None:
    drop(content, FP16)


@pytest.mark.parametrize(
    ("base", "head", "status", "values"),
    [
        # The nearest of both sides.
        ([0, 10, 0], [50, 60, 70], "more work", (313, 353)),
        ([0, 10, 5], [-90, -80, -70], "less work", (303, 233)),
        # Some processes rose and others did not: the farthest.
        ([0, 10, 5], [5, 60, 0], "inconclusive", (303, 363)),
        ([0, 0, 0], [0, 0, 1], "inconclusive", (303, 304)),
    ],
)
def test_counter_in_processes_that_differ(
    base: list[int], head: list[int], status: str, values: tuple[int, int]
) -> None:
    found = change(compared([*map(syncs, head)], [*map(syncs, base)]), "host_syncs")
    assert (found.status, found.base, found.head) == (status, *values)


def test_counters_that_one_process_lacks() -> None:
    def blind(content: Content) -> None:
        del measured(content, FP16)["counters"]["kernels"]

    found = change(compared([blind, None, None]), "counters")
    assert found.status == "inconclusive"
    assert "kernels not counted in 1 of 3 processes of head" in found.what
    assert "base" not in found.what

    def blinder(content: Content) -> None:
        del measured(content, FP16)["counters"]["host_syncs"]

    # Of the first of those that some lack.
    either = change(compared([blind, blinder, blinder]), "counters").what
    assert either == "kernels and 1 other counter not counted in 1 of 3 processes of head"
    both = change(compared([blind, blind, None], [blind, None, None]), "counters")
    assert "1 of 3 processes of base and 2 of 3 processes of head" in both.what


@pytest.mark.parametrize(("count", "more"), [(5, True), (10, False)])
def test_interrupted_case_may_be_measured_in_another_pair(count: int, more: bool) -> None:
    def interrupted(content: Content) -> None:
        dropped(content)
        session(content)["not_timed"].append(lost(FP16, "invalid", "interrupted"))

    found = change(compared([interrupted] * count), "case")
    assert (found.status, found.more_could_tell) == ("invalid", more)
    found = change(compared([dropped] * count), "case")
    assert (found.status, found.more_could_tell) == ("missing", False)


def test_case_that_head_dropped_is_missing_whatever_became_of_others() -> None:
    """An interrupted run is the reason only where it had the case before it."""

    def interrupted_later(content: Content) -> None:
        dropped(content)
        session(content)["expected"] = [n for n in session(content)["expected"] if n != FP16]
        session(content)["not_timed"].append(lost("ddim50-other", "invalid", "interrupted"))

    found = change(compared([interrupted_later] * 3), "case")
    assert (found.status, found.more_could_tell) == ("missing", False)


def test_images_after_one_without_a_tolerance_are_judged() -> None:
    def dark(content: Content) -> None:
        case(content, FP16)["tolerance"] = None
        measured(content, FP16)["counters"]["kept_bytes"] = [9_000, 0]

    assert change(compared([dark] * 3), "image").status == "same"
    assert change(compared([dark] * 3), "kept bytes").status == "more memory"


def test_change_that_is_certain_suggests_no_more_pairs() -> None:
    found = compared([None] * 3)
    assert not any(one.more_could_tell for one in found.changes if not one.status.warns)
    one_sided = compared([update(gpu_busy_s=None)] * 3)
    assert change(one_sided, "GPU busy").status == "inconclusive"
    assert not change(one_sided, "GPU busy").more_could_tell


def test_counters_that_are_the_same_are_one_row() -> None:
    rows = [c for c in compared([None] * 3).changes if c.case == FP16 and c.metric == "counters"]
    assert [row.status for row in rows] == ["same"]
    changed = compared([syncs(50)] * 3)
    assert not [c for c in changed.changes if c.case == FP16 and c.metric == "counters"]


def test_case_that_one_process_lost_says_why() -> None:
    def skipped(content: Content) -> None:
        dropped(content)
        session(content)["not_timed"].append(lost(FP16, "skipped", f"{FP16}: no kernel"))

    def later(content: Content) -> None:
        dropped(content)
        session(content)["not_timed"].append(lost(FP16, "skipped", f"{FP16}: no driver"))

    assert change(compared([skipped, later]), "case").what.endswith(": no kernel")
    found = change(compared([skipped, dropped]), "case")
    assert found.status == "missing"
    assert found.what.endswith(": no kernel")
    # One pair lacks it, and the others are judged.
    partly = change(compared([dropped, None, None]), "latency")
    assert "1 of 3 pairs left out: not measured on both sides" in partly.what
    partly = change(compared([None, None, None], [None, dropped, None]), "latency")
    assert "1 of 3 pairs left out: not measured on both sides" in partly.what


@pytest.mark.parametrize(
    ("moved", "count", "status", "more"),
    [
        (0, 5, "same", False),
        (3, 5, "same", False),
        (4, 5, "invalid", True),
        (9, 10, "invalid", False),
        (1, 3, "same", False),
        (1, 2, "invalid", True),
    ],
)
def test_drift_leaves_two_pairs_or_is_invalid(
    moved: int, count: int, status: str, more: bool
) -> None:
    found = compared([drifted] * moved + [None] * (count - moved))
    drift = change(found, Subject.DRIFT, "ddim50-reference")
    assert (drift.status, drift.more_could_tell) == (status, more)
    assert drift.base == 1.01
    assert drift.head == (1.13 if moved > count / 2 else pytest.approx(1.01, abs=0.07))
    assert ("left out" in drift.what) == bool(moved)


def test_drift_that_one_side_did_not_record() -> None:
    def silent(content: Content) -> None:
        session(content)["reference_drift"] = {}

    found = compared([silent] * 2)
    drift = change(found, Subject.DRIFT, "ddim50-reference")
    assert (drift.base, drift.head) == (1.01, None)
    drift = change(compared([None] * 2, [silent] * 2), Subject.DRIFT, "ddim50-reference")
    assert (drift.base, drift.head) == (None, 1.01)


def test_first_reason_is_reported() -> None:
    def affected(why: str) -> Edit:
        def edit(content: Content) -> None:
            measured(content, FP16)["interference"]["gpu"] = [why, "and more"]

        return edit

    found = change(compared([affected("in head"), None], [affected("in base"), None]), "GPU busy")
    assert "left out: in base" in found.what
    # A busy host disturbs the wall clock alone.
    busy = {"interference": {"host": ["the host waited"]}}
    found_of = compared([update(**busy), None, None])
    assert "left out" in change(found_of, "latency").what
    assert "left out" not in change(found_of, "GPU busy").what
    assert "left out" not in change(found_of, "peak memory").what


def test_leak_is_judged_without_base() -> None:
    def leak(name: str, count: int) -> Edit:
        def edit(content: Content) -> None:
            measured(content, name)["counters"]["kept_bytes"] = [count, 0]

        return edit

    found = change(compared([leak(FP16, 4097)] * 2), "kept bytes")
    assert (found.status, found.base) == ("more memory", None)
    assert not any(c.metric == "kept bytes" for c in compared([leak(FP16, 4096)] * 2).changes)
    # Of a case that is generated for its image alone, nothing else counts.
    image_only = compared([leak("vase25-reference", 4097)] * 2)
    assert {c.metric for c in image_only.changes if c.case == "vase25-reference"} == {"image"}


def test_base_that_measured_nothing() -> None:
    def nothing(content: Content) -> None:
        content["benchmarks"] = []
        session(content)["expected"] = []

    for head in (None, update(image_distance=None)):
        with pytest.raises(NotComparable, match="base measured no case"):
            compared([head] * 2, [nothing] * 2)
    black = {"look": {"finite": True, "mean": 0.0, "std": 0.0}}
    assert compared([update(**black)] * 2, [nothing] * 2).exit_code == 1


def test_machines_name_what_differs() -> None:
    def torch(content: Content) -> None:
        machine(content)["torch"] = "2.12.0"

    assert compared([torch] * 2).machines == "NVIDIA H200: torch 2.11.0+cu130 → 2.12.0"
    assert compared([None] * 2).machines == (
        "NVIDIA H200, both with python 3.12.3, torch 2.11.0+cu130, diffusers 0.42.1, "
        "transformers 5.17.0"
    )


@pytest.mark.parametrize("tolerance", [None, {"psnr_db": 15.0, "ssim": 0.5}])
def test_image_distance_is_limited_by_bases(tolerance: dict[str, float] | None) -> None:
    def far(psnr_db: float | None) -> Edit:
        def edit(content: Content) -> None:
            case(content, FP16)["tolerance"] = tolerance
            distance = psnr_db and {"psnr_db": psnr_db, "ssim": 0.9}
            measured(content, FP16)["image_distance"] = distance or None

        return edit

    def status(head: list[float | None], base: list[float | None]) -> str:
        return change(compared([*map(far, head)], [*map(far, base)]), "image").status

    assert status([36.9, 36.9], [40.0, 40.0]) == "worse image"
    assert status([37.0, 37.0], [40.0, 40.0]) == "same"
    # In every pair.
    assert status([36.9, 37.1], [40.0, 40.0]) == "same"
    # What rounding takes it to.
    assert status([60.0, 60.0], [99.0, 99.0]) == "same"
    assert status([59.9, 59.9], [99.0, 99.0]) == "worse image"
    assert status([20.0, None], [40.0, 40.0]) == "worse image"
    assert status([None, None], [40.0, 40.0]) == ("inconclusive" if tolerance else "same")
    found = change(compared([far(30.0), far(29.0)], [far(41.0), far(40.0)]), "image")
    assert (found.base, found.head) == (40.0, 29.0)


def test_image_of_a_reference_is_limited_by_bases() -> None:
    """A loss of 14 dB that the tolerance of the accepted image allows."""

    def edit(psnr_db: float) -> Edit:
        def edited(content: Content) -> None:
            one = case(content, "ddim50-reference")
            one["tolerance"] = {"psnr_db": 45.0, "ssim": 0.9}
            one["measurement"]["image_distance"] = {"psnr_db": psnr_db, "ssim": 0.99}

        return edited

    def status(head_db: float) -> str:
        found = compared([edit(head_db)] * 5, [edit(59.1)] * 5)
        return change(found, "image", "ddim50-reference").status

    assert status(45.3) == "worse image"
    assert status(57.0) == "same"


def test_time_that_cannot_be_true_is_an_error_in_any_pair() -> None:
    assert change(compared([update(roofline_s=99.0), None]), "roofline").status == "error"


def test_least_that_one_side_did_not_measure_is_not_compared() -> None:
    stage = next(metric for metric in BY_LEAST if metric.wall_clock)
    seen = update(metrics={stage.field: 9.0})
    for head, base in ((seen, None), (None, seen), (None, None)):
        found = compared([head] * 2, [base] * 2)
        assert not any(one.metric == stage.name for one in found.changes)
    found = compared([seen] * 2, [update(metrics={stage.field: 1.0})] * 2)
    assert change(found, stage.name).status == "slower"


# Weighing

LATENCY, MEMORY = BY_NAME["latency"], BY_NAME["peak memory"]


@pytest.mark.parametrize(
    ("metric", "ratio", "status"),
    [
        (LATENCY, 1.031, "slower"),
        (LATENCY, 1.029, "same"),
        (LATENCY, 1.0, "same"),
        (LATENCY, 1 / 1.029, "same"),
        (LATENCY, 1 / 1.031, "faster"),
        (MEMORY, 1.021, "more memory"),
        (MEMORY, 1.019, "same"),
        (MEMORY, 1 / 1.021, "faster"),
    ],
)
def test_threshold_of_a_metric_without_noise(metric: Any, ratio: float, status: str) -> None:
    found = weigh(metric, [ratio] * 3, [1.0] * 3, known=0.0, of=3)
    assert (found.status, found.detectable, found.more_could_tell) == (status, None, False)
    assert found.ratio.mid == pytest.approx(ratio)


def test_interval_that_ends_at_the_threshold_is_within_it() -> None:
    over, under = [1.001, 1.011, 1.021], [1.0, 1.01, 1.02]
    high = weigh(LATENCY, over, under, known=0.0, of=3).ratio.high
    for threshold, status in ((high - 1, "same"), (0.999 * (high - 1), "inconclusive")):
        metric = replace(LATENCY, threshold=threshold)
        assert weigh(metric, over, under, known=0.0, of=3).status == status


def test_certain_change_below_the_threshold_passes() -> None:
    # Significant, since the interval lies above 1, and below the threshold of 3 %.
    over, under = [1.02, 1.0201, 1.0199], [1.0, 1.0001, 0.9999]
    found = weigh(LATENCY, over, under, known=0.0, of=3)
    assert found.ratio.low > 1
    assert found.status == "same"


def test_large_change_within_the_noise_is_inconclusive() -> None:
    over, under = [1.3, 1.0, 1.2, 1.1, 1.25], [1.0, 1.1, 0.9, 1.2, 1.0]
    found = weigh(LATENCY, over, under, known=0.0, of=5)
    assert found.status == "inconclusive"
    assert found.ratio.low < 1 < 1.03 < found.ratio.mid
    assert found.detectable is not None
    assert found.detectable > 0.2


@pytest.mark.parametrize(
    ("pairs", "of", "more"),
    [
        # Fewer than three say too little of the noise to foresee anything.
        (1, 1, True),
        (2, 2, True),
        (2, 9, True),
        # As noisy as this, ten would not resolve it.
        (3, 3, False),
        (5, 5, False),
        (5, 10, False),
        (2, 10, False),
        (1, 10, False),
    ],
)
def test_more_pairs_where_they_could_resolve_it(pairs: int, of: int, more: bool) -> None:
    over, under = [1.3, 0.8, 1.3, 0.8, 1.3][:pairs], [0.8, 1.3, 0.8, 1.3, 0.8][:pairs]
    found = weigh(LATENCY, over, under, known=0.0, of=of)
    assert (found.status, found.more_could_tell) == ("inconclusive", more)
    assert (found.detectable is None) == (pairs == 1)


@pytest.mark.parametrize(("of", "more"), [(3, True), (9, True), (10, False)])
def test_no_more_than_ten_pairs(of: int, more: bool) -> None:
    # Nearly the same: a narrower interval would lie within the threshold.
    over, under = [1.022, 1.0222, 1.0218], [1.0, 1.0002, 1.0002]
    found = weigh(LATENCY, over, under, known=0.0025, of=of)
    assert (found.status, found.more_could_tell) == ("inconclusive", more)
    assert found.ratio.high / found.ratio.mid < 1.03


# Findings


def finding(name: str, **changes: Any) -> Finding:
    parts: dict[str, Any] = {
        "status": Status.LESS_WORK,
        "metric": "python_calls",
        "case": name,
        "what": f"{name}'s calls",
        "command": Literal(text="accept"),
    }
    return Finding(**parts | changes)


def test_findings_that_say_the_same_are_one_message() -> None:
    grouped = [*texts([finding("a"), finding("b"), finding("c", status=Status.SLOWER)])]
    assert [status for status, _ in grouped] == ["slower", "less work"]
    assert grouped[1][1].splitlines() == [
        "less work: python calls in 2 cases",
        "  a: a's calls",
        "  b: b's calls",
        "  next      accept",
    ]


@pytest.mark.parametrize(
    "other",
    [
        finding("b", metric="kernels"),
        finding("b", advice="something else"),
        finding("b", command=Literal(text="other")),
        finding("b", status=Status.SAME),
        # The same case twice, and none at all.
        finding("a"),
        finding(""),
    ],
)
def test_findings_that_differ_are_messages_of_their_own(other: Finding) -> None:
    assert len([*texts([finding("a"), other])]) == 2
    assert len([*texts([other, finding("a")])]) == 2


def test_parts_that_differ_stand_with_each_case() -> None:
    one, other = (finding(n, measured=m, limit="at most 1") for n, m in (("a", "1"), ("b", "2")))
    ((_, text),) = texts([one, other])
    assert text.splitlines()[1:] == [
        "  a: a's calls (1)",
        "  b: b's calls (2)",
        "  limit     at most 1",
        "  next      accept",
    ]


def test_command_has_its_own_line() -> None:
    one = finding("a", advice="look at it")
    assert (one.next, one.command_line) == ("look at it:\naccept", "accept")
    assert one.text().splitlines()[1:] == ["  next      look at it:", "            accept"]
    printed = finding("a", advice="look at it", command=None)
    assert (printed.next, printed.command_line) == ("look at it", "look at it")
    assert finding("a").next == "accept"
    assert finding("", what="x").said == "x"
    assert finding("a", measured="1", limit="2").details == "a: a's calls (1; limit 2)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.021, "2.1 %"),
        (0.0999, "10.0 %"),
        (0.1, "10 %"),
        (0.99, "99 %"),
        (1.0, "2.0x"),
        (2.4, "3.4x"),
        (98.5, "99.5x"),
        (99.0, "over 100x"),
        (1000.0, "over 100x"),
    ],
)
def test_share(value: float, shown: str) -> None:
    assert share(value) == shown


def test_times() -> None:
    assert (times(1.25), times(0.8), times(1.0)) == ("1.25x faster", "1.25x slower", "1.00x faster")
    assert times(0.5, "lower", "higher") == "2.00x higher"


# Which runs are comparable


def test_threads_are_the_machine_on_a_cpu_alone() -> None:
    def on(device: str, threads: int) -> Edit:
        return lambda content: machine(content).update(device=device, threads=threads)

    assert compared([on("cuda", 8)] * 2, [on("cuda", 16)] * 2).exit_code != 1
    with pytest.raises(NotComparable, match="threads"):
        compared([on("cpu", 8)] * 2, [on("cpu", 16)] * 2)
    assert compared([on("cpu", 8)] * 2, [on("cpu", 8)] * 2).exit_code != 1


def test_memory_is_that_of_the_machine() -> None:
    def of(memory_bytes: int | None) -> Edit:
        return lambda content: machine(content).update(memory_bytes=memory_bytes)

    for base, shown in ((2**30, "1,024 MiB"), (None, "None")):
        with pytest.raises(NotComparable, match=rf"\(memory\): {shown} and"):
            compared([of(2**31)] * 2, [of(base)] * 2)


def test_sides_need_equally_many_runs() -> None:
    base, head = runs("base", [None] * 2), runs("head", [None])
    with pytest.raises(NotComparable, match="2 runs of base and 1 run of head"):
        compare(base, head)
    with pytest.raises(NotComparable, match="0 runs of base and 0 runs of head"):
        compare([], [])


def test_options_of_head_repeat_a_case() -> None:
    found = compared([syncs(1)] * 2)
    base, head = runs("base", [None] * 2), runs("head", [syncs(1)] * 2)
    first = structs.replace(head[0].session, options=("--device", "cpu"))
    head = [Run(**vars(head[0]) | {"session": first}), head[1]]
    assert change(found, "host_syncs").command_line.endswith('-k "[ddim50-fp16]"')
    assert change(compare(base, head), "host_syncs").command_line.endswith("--device cpu")
