"""The rule for head against base: the statistics against an oracle, and false alarms and power."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from statistics import stdev

import pytest
from msgspec import structs

from diffusers_perf.catalog.metrics import COMPARED
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparison import Change, Comparison
from diffusers_perf.judge.pairs import compare
from diffusers_perf.judge.stats import (
    critical_of_pairs,
    detectable,
    narrowed,
    noise_of,
    pair_noise,
    paired_interval,
)
from diffusers_perf.judge.weighing import weigh
from diffusers_perf.records.run import Run
from perf_tests.tests.unit.recorded import cases, parsed, side, slow

BASE = [2.00, 2.05, 1.98, 2.02, 2.01]
HEAD = [2.11, 2.13, 2.10, 2.12, 2.16]
LATENCY, GPU_BUSY, PEAK_MEMORY = COMPARED[:3]
EAGER = 0.06
"""Noise of the latency of a host-bound case between processes, as recorded."""


def test_interval_is_symmetric_around_the_mean_of_the_logs() -> None:
    # Sides that move together: the pairs are noisier than neighbours are.
    base, head = [2.0, 2.0, 2.0, 2.0], [2.0, 2.02, 2.04, 2.06]
    logs = [math.log(h / b) for h, b in zip(head, base, strict=True)]
    half = critical_of_pairs(4) * stdev(logs) / 2
    seen = paired_interval(head, base)
    assert seen.mid == pytest.approx(math.exp(sum(logs) / 4))
    assert seen.low == pytest.approx(seen.mid * math.exp(-half))
    assert seen.high == pytest.approx(seen.mid * math.exp(half))


def test_narrowed_interval_is_that_of_more_pairs() -> None:
    five = paired_interval(HEAD, BASE)
    half = critical_of_pairs(10) * pair_noise(HEAD, BASE) / math.sqrt(10)
    ten = narrowed(five, pairs=5, to=10)
    ends = (five.mid * math.exp(-half), five.mid * math.exp(half))
    assert (ten.low, ten.mid, ten.high) == pytest.approx((ends[0], five.mid, ends[1]))


def test_lucky_pairs_are_as_noisy_as_their_sides() -> None:
    head = [1.01 * value for value in BASE]
    assert noise_of([h / b for h, b in zip(head, BASE, strict=True)]) == pytest.approx(0, abs=1e-9)
    assert pair_noise(head, BASE) > 0.02
    assert pair_noise(head, BASE, known=0.1) == pytest.approx(math.sqrt(2) * 0.1)


def test_slow_drift_is_not_noise() -> None:
    warming = [2.0 * 1.004**step for step in range(10)]
    assert pair_noise(warming[0::2], warming[1::2]) < 0.01
    assert noise_of(warming) > 0.011


def test_one_pair_has_an_infinite_interval() -> None:
    assert paired_interval([2.0], [1.0]).high == math.inf
    assert detectable(0.01, pairs=1, threshold=0.03) == math.inf
    with pytest.raises(ValueError, match="two pairs"):
        pair_noise([1.0], [1.0])
    with pytest.raises(ValueError, match="positive"):
        paired_interval([math.nan, 1.0], [1.0, 1.0])


def test_calibrated_pairs_are_weighed_by_their_own_quantiles() -> None:
    """However little noise the calibration has shown."""
    half = {
        known: math.log(found.ratio.high / found.ratio.mid)
        for known in (0.0, 1e-9)
        if (found := weigh(LATENCY, HEAD, BASE, known=known, of=5))
    }
    assert half[0.0] / half[1e-9] == pytest.approx(
        critical_of_pairs(5) / critical_of_pairs(5, calibrated=True)
    )
    # Latencies alone, and one pair more keeps its quantiles.
    for metric, over, under in (
        (GPU_BUSY, HEAD, BASE),
        (PEAK_MEMORY, HEAD, BASE),
        (LATENCY, [*HEAD, 2.1], [*BASE, 2.0]),
    ):
        plain, known = (
            weigh(metric, over, under, known=noise, of=len(over)).ratio for noise in (0.0, 1e-9)
        )
        assert plain == known
    # What five call inconclusive says what five detect.
    nothing, little = (
        weigh(LATENCY, [1.0, 1.1, 1.2, 1.1, 1.0], [1.0] * 5, known=known, of=5).detectable
        for known in (0.0, 1e-9)
    )
    assert nothing is not None
    assert little is not None
    assert little < nothing


@pytest.mark.parametrize(("share", "worth"), [(0.99, True), (1.01, False)])
def test_more_pairs_of_calibrated_noise_are_suggested_where_ten_fit(
    share: float, *, worth: bool
) -> None:
    pair = share * math.log1p(LATENCY.threshold) * math.sqrt(10) / critical_of_pairs(10)
    weighed = weigh(LATENCY, [1.0] * 5, [1.0] * 5, known=pair / math.sqrt(2), of=5)
    assert (weighed.status, weighed.more_could_tell) == (Status.INCONCLUSIVE, worth)


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("pairs", [5, 10])
def test_detectable_effect_is_detected_nine_times_in_ten(noise: float, pairs: int) -> None:
    """By simulation, of the rule itself with a known noise."""
    draw, threshold = random.Random(0), LATENCY.threshold
    pair = math.sqrt(2) * noise
    effect = detectable(pair, pairs=pairs, threshold=threshold, calibrated=True)
    found = 0
    for _ in range(1000):
        base = [math.exp(draw.gauss(0, noise)) for _ in range(pairs)]
        head = [(1 + effect) * math.exp(draw.gauss(0, noise)) for _ in range(pairs)]
        weighed = weigh(LATENCY, head, base, known=noise, of=pairs)
        found += weighed.status == Status.SLOWER
    assert 0.87 < found / 1000 < 0.97


def processes(noise: float) -> list[Run]:
    return parsed(side("process", count=24, noise=noise), "run")


def known(runs: list[Run]) -> dict[str, dict[str, float]]:
    """What calibrating on these runs would write."""
    noise: dict[str, dict[str, float]] = {}
    for key, case in runs[0].cases.items():
        for metric in COMPARED if not case.image_only else ():
            values = [metric.of(run.cases[key].measurement) for run in runs]
            measured = [value for value in values if value is not None]
            if measured:
                noise.setdefault(key, {})[metric.field] = noise_of(measured)
    return noise


def pairings(
    runs: list[Run], count: int, *, by: float | None = None, calibrated: bool = True
) -> list[Comparison]:
    """Five processes against five others, drawn often; head's fp16 this many times as slow."""
    draw, noise = random.Random(0), known(runs) if calibrated else None
    compared = []
    slowed = parsed(_slowed(by), "slow") if by else runs
    for _ in range(count):
        drawn = draw.sample(range(len(runs)), 10)
        base, head = [runs[i] for i in drawn[:5]], [slowed[i] for i in drawn[5:]]
        compared.append(compare(base, head, noise=noise))
    return compared


def _slowed(by: float) -> list[dict[str, object]]:
    contents = side("process", count=24)
    for content in contents:
        slow(content, "ddim50-fp16", by=by)
    return contents


def of_fp16(comparison: Comparison, metric: str) -> Change:
    (found,) = [
        change
        for change in comparison.changes
        if change.case == "ddim50-fp16" and change.metric == metric
    ]
    return found


@pytest.mark.parametrize("noise", [0.003, 0.015, EAGER])
def test_same_code_gives_no_false_alarm_in_two_hundred_pairings(noise: float) -> None:
    compared = pairings(processes(noise), 200)
    assert all(comparison.exit_code != 1 for comparison in compared)
    statuses = Counter(
        change.status
        for comparison in compared
        for change in comparison.changes
        if change.metric == "GPU busy"
    )
    assert statuses == {"same": 200 * 4}
    if noise == EAGER:
        # What it cannot see it does not call the same.
        assert all(of_fp16(c, "latency").status == "inconclusive" for c in compared)


def test_five_percent_more_gpu_work_is_always_detected() -> None:
    compared = pairings(processes(0.003), 50, by=1.05)
    found = [of_fp16(comparison, "GPU busy") for comparison in compared]
    assert {change.status for change in found} == {"slower"}
    inside = [c for c in found if c.ratio and c.ratio.low <= 1.05 <= c.ratio.high]
    assert len(inside) >= 49
    assert {comparison.exit_code for comparison in compared} == {1}
    # And nothing else is.
    others = {c.status for one in compared for c in one.changes if c.case != "ddim50-fp16"}
    assert others == {"same"}


def test_next_command_measures_the_same_model() -> None:
    base, head = (parsed(contents, "run") for contents in (side("base"), _slowed(1.05)[:5]))
    options = ("--model", "my model")
    head = [replace(run, session=structs.replace(run.session, options=options)) for run in head]
    found = of_fp16(compare(base, head), "GPU busy")
    assert found.next.endswith("\"[ddim50-fp16]\" --model 'my model'")


def test_more_pairs_are_suggested_where_they_could_settle_it() -> None:
    nearly_enough = pairings(processes(0.012), 20)
    assert all(set(one.worth_more) == set(one.inconclusive) for one in nearly_enough)
    by_far_too_few = pairings(processes(EAGER), 20)
    assert sum(len(one.inconclusive) for one in by_far_too_few) == 20 * 4
    assert sum(len(one.worth_more) for one in by_far_too_few) <= 4
    # An effect that ten could see shows in five, where five do not see it.
    seen = [of_fp16(one, "latency") for one in pairings(processes(EAGER), 20, by=1.14)]
    assert sum(change.status == "inconclusive" for change in seen) > 10
    assert sum(change.more_could_tell or change.status == "slower" for change in seen) >= 18


def test_two_pairs_suggest_more_and_ten_do_not() -> None:
    runs = processes(EAGER)
    for pairs, worth in ((2, 4), (10, 0)):
        comparison = compare(runs[:pairs], runs[pairs : 2 * pairs])
        assert len(comparison.inconclusive) == 4
        assert len(comparison.worth_more) == worth


def test_few_pairs_with_interference_suggest_more() -> None:
    contents = [*side("base", count=10), *side("head", count=10)]
    for content in contents:
        first = cases(content)[0]["measurement"]
        first["interference"]["gpu"] = ["1 other process on the GPU"]
    runs = parsed(contents, "run")
    for pairs, worth in ((2, True), (3, False)):
        comparison = compare(runs[:pairs], runs[10 : 10 + pairs])
        assert comparison.verdicts["ddim50-reference"] == "invalid"
        assert ("ddim50-reference" in comparison.worth_more) == worth


def test_summary_of_inconclusive_cases() -> None:
    (comparison,) = pairings(processes(EAGER), 1)
    assert comparison.exit_code == 2
    assert comparison.verdicts["vase25-reference"] == "same"
    assert comparison.sentence == (
        "inconclusive: 4 of 5 cases inconclusive, 1 the same (5 A/B pairs)"
    )
