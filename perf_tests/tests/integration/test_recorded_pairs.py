"""What is said of pairs that were really measured, on an H200."""

from __future__ import annotations

from itertools import combinations

import pytest

from diffusers_perf.judge.comparison import Change, Comparison
from diffusers_perf.judge.pairs import compare
from perf_tests.tests.estimators import calibrated_elsewhere
from perf_tests.tests.unit.recorded import five_pairs, parsed

FP16, SLEPT, DOZED = "ddim50-fp16", "ddim50-tf32+fp16", "pndm25x4-distilled_unet"


@pytest.fixture(scope="module")
def injected() -> Comparison:
    base, head = five_pairs("injected")
    # As `calibrate` knew it by then, from ``same``.
    noise = {"pndm25x4/sd15/seeded-2023/distilled_unet": {"latency_s": 0.083146}}
    return compare(parsed(base, "base"), parsed(head, "head"), noise=noise)


def change(comparison: Comparison, name: str, metric: str) -> Change:
    found = [c for c in comparison.changes if (c.case, c.metric) == (name, metric)]
    (one,) = found
    return one


def test_commit_against_itself_gives_no_false_alarm() -> None:
    base, head = five_pairs("same")
    runs = parsed([*base, *head], "run")
    calibrated, statuses = calibrated_elsewhere(), set[str]()
    # Each way once: sides that change places say the inverse.
    for first in ((0, *four) for four in combinations(range(1, 10), 4)):
        others = [i for i in range(10) if i not in first]
        sides = [runs[i] for i in first], [runs[i] for i in others]
        for noise in (None, calibrated):
            statuses |= {c.status for c in compare(*sides, noise=noise).changes}
    assert statuses == {"same", "inconclusive"}


def test_five_per_cent_more_gpu_work_is_slower(injected: Comparison) -> None:
    found = change(injected, FP16, "GPU busy")
    assert found.status == "slower"
    assert found.ratio is not None
    assert found.ratio.low < 1.05 < found.ratio.high
    assert found.ratio.high - found.ratio.low < 0.01
    for other in (SLEPT, DOZED, "ddim50-reference", "pndm25x4-reference"):
        assert change(injected, other, "GPU busy").status == "same"


def test_sleep_of_twice_the_mde_is_slower_and_half_is_inconclusive(
    injected: Comparison,
) -> None:
    assert change(injected, SLEPT, "latency").status == "slower"
    dozed = change(injected, DOZED, "latency")
    assert dozed.status == "inconclusive"
    assert "minimum detectable effect with 5 pairs: 34 %" in dozed.measured
    assert not dozed.more_could_tell
    # The fixture calibrates this case alone.
    calibrated = {c.case for c in injected.changes if c.calibrated}
    assert calibrated == {DOZED}


def test_memory_of_the_injected_kernel_is_more_memory_above_two_per_cent(
    injected: Comparison,
) -> None:
    statuses = {c.case: c.status for c in injected.changes if c.metric == "peak memory"}
    assert statuses == {
        "ddim50-reference": "same",
        "pndm25x4-reference": "same",
        FP16: "more memory",
        SLEPT: "more memory",
        DOZED: "more memory",
    }


def test_one_more_kernel_per_step_is_within_one_per_cent(
    injected: Comparison,
) -> None:
    for metric in ("counters", "image"):
        assert {c.status for c in injected.changes if c.metric == metric} == {"same"}
