"""The statistics against scipy's own tests as the oracle, and against simulation."""

import math
import random

import pytest
from scipy import stats as oracle

from diffusers_perf.judge.stats import mean_interval, ratio_interval, spread

OVER = [2.31, 2.52, 2.44, 2.38, 2.61]
UNDER = [1.52, 1.71, 1.49, 1.66]


def test_ratio_interval_is_welchs_of_the_logs() -> None:
    logs = [[math.log(v) for v in side] for side in (OVER, UNDER)]
    welch = oracle.ttest_ind(*logs, equal_var=False).confidence_interval(0.99)
    seen = ratio_interval(OVER, UNDER)
    assert seen.low == pytest.approx(math.exp(welch.low))
    assert seen.high == pytest.approx(math.exp(welch.high))
    assert seen.low < seen.mid < seen.high


def test_mean_interval_is_the_t_interval_of_the_logs() -> None:
    logs = [math.log(v) for v in OVER]
    low, high = oracle.t.interval(
        0.99, len(logs) - 1, loc=sum(logs) / len(logs), scale=oracle.sem(logs)
    )
    seen = mean_interval(OVER)
    assert seen.low == pytest.approx(math.exp(low))
    assert seen.high == pytest.approx(math.exp(high))


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = random.Random(0)
    held = 0
    for _ in range(2000):
        over = [2.0 * math.exp(draw.gauss(0, 0.1)) for _ in range(5)]
        under = [1.0 * math.exp(draw.gauss(0, 0.02)) for _ in range(5)]
        seen = ratio_interval(over, under, confidence=0.95)
        held += seen.low <= 2.0 <= seen.high
    assert 0.93 < held / 2000 < 0.97


def test_one_round_says_nothing_of_the_noise() -> None:
    assert ratio_interval([2.0], [1.0, 1.1]).high == math.inf
    assert mean_interval([2.0]).low == 0.0


def test_rounds_without_noise_have_a_point_for_an_interval() -> None:
    seen = ratio_interval([2.0, 2.0], [1.0, 1.0])
    assert seen.low == seen.mid == seen.high == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_what_is_no_time_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        ratio_interval([bad, 1.0], [1.0, 1.0])


def test_spread() -> None:
    assert spread([1.0]) == 0.0
    assert spread([1.0, 1.1, 1.2]) == pytest.approx(0.2 / 1.1)
