"""Many small regressions: what the cases of a workload show together."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from msgspec import structs

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparison import Change, Comparison
from diffusers_perf.judge.finding import Message
from diffusers_perf.judge.messages.commands import Literal
from diffusers_perf.judge.pairs import compare
from diffusers_perf.judge.pooling import with_pooled
from diffusers_perf.judge.stats import Interval, critical_of_pairs
from diffusers_perf.records.run import Run
from perf_tests.tests.unit.recorded import RECORDED, parsed

CASES = 8
NAMES = tuple(f"ddim50-case_{number}" for number in range(CASES))


def processes(
    name: str,
    *,
    noise: float,
    by: Mapping[str, float] | float = 1.0,
    count: int = 5,
    together: float = 0.0,
) -> list[Run]:
    """Processes of one workload's cases, each of which takes this many times as long; `together`
    is the noise that all cases of a process share.
    """
    (run,) = parsed(RECORDED[:1], name)
    model = next(case for case in run.cases.values() if case.id == "ddim50-reference")
    draw, runs = random.Random(name), []
    for _ in range(count):
        shared, cases = draw.gauss(0, together), {}
        for id in NAMES:
            ratio = by if isinstance(by, float) else by.get(id, 1.0)
            seconds = ratio * math.exp(shared + draw.gauss(0, noise))
            name_of = id.removeprefix("ddim50-")
            measured = structs.replace(
                model.measurement, case=name_of, rounds_s=(seconds,) * 5, gpu_busy_s=0.5
            )
            case = structs.replace(model, measurement=measured)
            cases[case.key] = case
        session = structs.replace(run.session, expected=NAMES, reference_drift={})
        runs.append(replace(run, session=session, cases=cases))
    return runs


def latencies(found: Comparison) -> dict[str, str]:
    return {c.case: str(c.status) for c in found.changes if c.metric == "latency"}


def test_small_regression_of_every_case_is_slower() -> None:
    base = processes("base", noise=0.008)
    found = compare(base, processes("head", noise=0.008, by=1.025))
    alone = compare(
        [_only(run, NAMES[0]) for run in base],
        [_only(run, NAMES[0]) for run in processes("head", noise=0.008, by=1.025)],
    )
    assert alone.exit_code == 2
    assert found.exit_code == 1
    assert set(latencies(found).values()) == {"slower"}
    (text,) = [text for status, text in found.texts() if status == "slower"]
    assert "latency in 8 cases" in text
    assert all(name in text for name in NAMES)
    assert "in 8 cases of the workload together" in text


def inconclusive(
    case: str, *ratios: float, noise: float = 0.001, threshold: float = 0.03
) -> Change:
    """A case's latency that took so many times as long in each pair."""
    mid = math.prod(ratios) ** (1 / len(ratios))
    return replace(
        Change.of(Status.INCONCLUSIVE, "latency", case, Message(what="inconclusive")),
        base=1.0,
        head=mid,
        ratio=Interval(low=0.9, mid=mid, high=1.3),
        noise=noise,
        threshold=threshold,
        by_pair=tuple((1.0, ratio) for ratio in ratios),
    )


def slower_together(*changes: Change) -> list[str]:
    """Ids of the cases that are slower with the others of their workload."""
    workloads = {change.case: "ddim50" for change in changes}
    found = with_pooled(changes, workloads, rerun=Literal(text=""))
    return [change.case for change in found if change.status == "slower"]


def test_two_cases_of_three_pairs_are_pooled() -> None:
    a, b = (inconclusive(name, *(1.025,) * 3) for name in "ab")
    assert slower_together(a, b) == ["a", "b"]
    assert slower_together(a) == []
    assert slower_together(*(inconclusive(name, 1.025, 1.025) for name in "ab")) == []
    # Pairs in which each of them is valid.
    partly = replace(b, by_pair=(None, *b.by_pair[1:]))
    assert slower_together(a, partly) == []


def test_half_of_the_threshold_is_allowed_together() -> None:
    assert slower_together(*(inconclusive(name, *(1.0151,) * 3) for name in "ab")) == ["a", "b"]
    assert slower_together(*(inconclusive(name, *(1.0149,) * 3) for name in "ab")) == []
    # Where the GPU sets the pace of some of them, the others' threshold counts.
    for threshold, ratio, together in ((0.02, 1.0101, ["a", "b"]), (0.03, 1.0149, [])):
        cases = (
            inconclusive("a", *(ratio,) * 3, threshold=threshold),
            inconclusive("b", *(ratio,) * 3, threshold=0.02),
        )
        assert slower_together(*cases) == together


def test_case_that_is_not_slower_is_not_called_slower_with_the_others() -> None:
    slower = [inconclusive(name, *(1.06,) * 3) for name in "ab"]
    for ratio in (1.0, 0.99):
        assert slower_together(*slower, inconclusive("c", *(ratio,) * 3)) == ["a", "b"]


def test_case_counts_by_the_square_of_its_noise() -> None:
    """Four times as noisy as the typical case, it counts a sixteenth: 1.0258 together. With a
    quarter it would be 1.0147.
    """
    quiet = [inconclusive(name, *(1.03,) * 3) for name in "ab"]
    assert slower_together(*quiet, inconclusive("c", *(0.9,) * 3, noise=0.004)) == ["a", "b"]
    assert slower_together(*quiet, inconclusive("c", *(0.9,) * 3, noise=0.002)) == []
    # One that is quieter than the typical case counts as that one.
    quieter = inconclusive("c", *(0.98,) * 3, noise=0.0001)
    assert slower_together(*(inconclusive(n, *(1.06,) * 3) for n in "ab"), quieter) == ["a", "b"]


@pytest.mark.parametrize("calibrated", [(), ("a",), ("a", "b")])
def test_cases_together_are_as_noisy_as_independent_ones(calibrated: tuple[str, ...]) -> None:
    """Half of each of two cases, in three pairs that show no noise of their own."""
    errors = critical_of_pairs(3, calibrated=bool(calibrated), together=True) / math.sqrt(3)
    noise = math.log(1.03) / errors / math.sqrt(0.5**2 + 0.5**2)
    for share, found in ((0.99, ["a", "b"]), (1.01, [])):
        changes = (
            replace(
                inconclusive(name, *(1.03,) * 3, noise=share * noise),
                calibrated=name in calibrated,
            )
            for name in "ab"
        )
        assert slower_together(*changes) == found


def test_one_slower_case_does_not_speak_for_the_others() -> None:
    head = processes("head", noise=0.004, by={NAMES[0]: 1.2})
    found = latencies(compare(processes("base", noise=0.004), head))
    assert found.pop(NAMES[0]) == "slower"
    assert set(found.values()) == {"same"}


def test_small_change_of_half_of_the_threshold_passes() -> None:
    found = compare(processes("base", noise=0.001), processes("head", noise=0.001, by=1.012))
    assert (set(latencies(found).values()), found.exit_code) == ({"same"}, 0)


@pytest.mark.parametrize(("noise", "together"), [(0.02, 0.0), (0.02, 0.05), (0.05, 0.1)])
def test_same_code_is_not_slower_together(noise: float, together: float) -> None:
    """By the whole rule; `integration/test_false_alarms.py` compares more often."""
    wrong = 0
    for number in range(15):
        base, head = (
            processes(f"{name}{number}", noise=noise, together=together)
            for name in ("base", "head")
        )
        wrong += compare(base, head).exit_code == 1
    assert wrong == 0


def _only(run: Run, name: str) -> Run:
    cases = {key: case for key, case in run.cases.items() if case.id == name}
    session = structs.replace(run.session, expected=(name,), narrowed=True)
    return replace(run, session=session, cases=cases)
