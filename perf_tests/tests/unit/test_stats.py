"""The statistics against scipy's own tests as the oracle, and against simulation."""

import math
import random

import numpy as np
import pytest
from scipy import special
from scipy import stats as oracle

from diffusers_perf.judge.stats import (
    critical_of_pairs,
    detectable,
    mean_interval,
    narrowed,
    noise_of,
    pair_noise,
    paired_interval,
    pooled_interval,
    ratio_interval,
    spread,
)

OVER = [2.31, 2.52, 2.44, 2.38, 2.61]
UNDER = [1.52, 1.71, 1.49, 1.66]


def test_ratio_interval_is_welchs_of_the_logs() -> None:
    logs = [[math.log(v) for v in side] for side in (OVER, UNDER)]
    welch = oracle.ttest_ind(*logs, equal_var=False).confidence_interval(0.99)
    seen = ratio_interval(OVER, UNDER)
    assert seen.low == pytest.approx(math.exp(welch.low))
    assert seen.high == pytest.approx(math.exp(welch.high))
    assert seen.low < seen.mid < seen.high


def test_ratio_interval_of_equally_noisy_sides_is_welchs() -> None:
    half = oracle.t.ppf(0.995, 2 * (len(OVER) - 1)) * math.sqrt(2) * oracle.sem(np.log(OVER))
    seen = ratio_interval(OVER, OVER)
    assert (seen.low, seen.high) == pytest.approx((math.exp(-half), math.exp(half)))


@pytest.mark.parametrize("values", [OVER, OVER[:2]])
def test_mean_interval_is_the_t_interval_of_the_logs(values: list[float]) -> None:
    logs = [math.log(v) for v in values]
    low, high = oracle.t.interval(
        0.99, len(logs) - 1, loc=sum(logs) / len(logs), scale=oracle.sem(logs)
    )
    seen = mean_interval(values)
    assert seen.low == pytest.approx(math.exp(low))
    assert seen.high == pytest.approx(math.exp(high))


def test_interval_covers_the_truth_as_often_as_stated() -> None:
    draw = random.Random(0)
    held = 0
    for _ in range(2000):
        over = [2.0 * math.exp(draw.gauss(0, 0.1)) for _ in range(5)]
        under = [1.0 * math.exp(draw.gauss(0, 0.02)) for _ in range(5)]
        seen = ratio_interval(over, under, confidence=0.95)
        held += seen.low <= 2.0 <= seen.high
    assert 0.93 < held / 2000 < 0.97


def test_one_round_has_an_infinite_interval() -> None:
    assert ratio_interval([2.0], [1.0, 1.1]).high == math.inf
    assert mean_interval([2.0]).low == 0.0


def test_rounds_without_noise_have_a_point_interval() -> None:
    seen = ratio_interval([2.0, 2.0], [1.0, 1.0])
    assert seen.low == seen.mid == seen.high == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_non_positive_time_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        ratio_interval([bad, 1.0], [1.0, 1.0])


def test_spread() -> None:
    assert spread([1.0]) == 0.0
    assert spread([1.0, 1.1, 1.2]) == pytest.approx(0.2 / 1.1)
    assert spread([1.0, 1.3]) == pytest.approx(0.3 / 1.15)


def test_noise_is_the_standard_deviation_of_the_logs() -> None:
    assert noise_of(OVER) == pytest.approx(np.std(np.log(OVER), ddof=1))
    with pytest.raises(ValueError, match="one value"):
        noise_of([1.0])


# The noise of pairs is the largest of three estimates: one test makes each of them the largest.

STEADY = [2.0, 2.0, 2.0, 2.0]
RISING = [2.0, 2.02, 2.04, 2.06]
ZIGZAG = [math.exp(0.05 * (number % 2)) for number in range(6)]


def test_pair_noise_is_the_pairs_standard_deviation() -> None:
    logs = np.log(RISING) - np.log(STEADY)
    assert pair_noise(RISING, STEADY) == pytest.approx(np.std(logs, ddof=1))


def test_pair_noise_is_the_neighbours_mean_square_difference() -> None:
    # Sides that move together: the pairs have no noise of their own. Each side has a variance of
    # half of the mean square successive difference (von Neumann), and a pair has both sides'.
    assert pair_noise(ZIGZAG, ZIGZAG) == pytest.approx(0.05)
    logs = [math.log(value) for value in (2.0, 2.1, 1.9, 2.05, 2.0)]
    one_side = np.mean(np.diff(logs) ** 2) / 2
    values = [math.exp(value) for value in logs]
    assert pair_noise(values, values) == pytest.approx(math.sqrt(2 * one_side))
    # Only one of the sides moves.
    assert pair_noise(ZIGZAG, [1.0] * 6) == pytest.approx(
        max(np.std(np.log(ZIGZAG), ddof=1), 0.05 / math.sqrt(2))
    )


def test_pair_noise_of_neighbours_is_unbiased() -> None:
    draw, squares = random.Random(3), []
    for _ in range(4000):
        side = [math.exp(draw.gauss(0, 0.03)) for _ in range(5)]
        squares.append(pair_noise(side, side) ** 2)
    assert np.mean(squares) == pytest.approx(2 * 0.03**2, rel=0.05)


def test_pair_noise_is_never_below_the_known_noise_of_two_sides() -> None:
    assert pair_noise(STEADY, STEADY, known=0.1) == pytest.approx(math.sqrt(2) * 0.1)
    assert pair_noise(ZIGZAG, ZIGZAG, known=0.0353) == pytest.approx(0.05)
    assert pair_noise(ZIGZAG, ZIGZAG, known=0.0355) == pytest.approx(math.sqrt(2) * 0.0355)
    assert pair_noise(STEADY, STEADY) == 0


def test_pair_noise_needs_two_pairs() -> None:
    assert pair_noise([1.0, 1.0], [1.0, 1.0]) == 0
    for over, under in (([1.0], [1.0]), ([1.0, 1.0], [1.0, 1.0, 1.0])):
        with pytest.raises(ValueError, match="two pairs"):
            pair_noise(over, under)


@pytest.mark.parametrize(("together", "level"), [(False, 1 / 400), (True, 1 / 800)])
@pytest.mark.parametrize("pairs", range(3, 21))
def test_paired_interval_is_wrong_of_equal_sides_as_seldom_as_stated(
    pairs: int, level: float, *, together: bool
) -> None:
    """Each end of the interval is wrong once in 400 comparisons, and once in 800 that of calibrated
    cases together. The noise is simulated; the mean does not depend on it, and how often it exceeds
    so much follows.
    """
    draw = np.random.default_rng(pairs)
    over, under = (draw.standard_normal((60_000, pairs)) for _ in range(2))
    jumps = [np.diff(side, axis=1) ** 2 for side in (over, under)]
    neighbours = sum(jump.sum(axis=1) for jump in jumps) / (2 * (pairs - 1))
    noise = np.sqrt(np.maximum((over - under).var(axis=1, ddof=1), neighbours))
    critical = critical_of_pairs(pairs, calibrated=together, together=together)
    assert np.mean(special.ndtr(-critical * noise / math.sqrt(2))) == pytest.approx(level, rel=0.08)


def test_cases_without_a_calibration_have_the_same_quantiles_together() -> None:
    for pairs in range(2, 25):
        assert critical_of_pairs(pairs, together=True) == critical_of_pairs(pairs)


@pytest.mark.parametrize(("together", "level"), [(False, 1 / 400), (True, 1 / 800)])
def test_interval_of_two_pairs_is_wrong_as_seldom_as_stated(
    level: float, *, together: bool
) -> None:
    """By the angle between what both sides changed by: at each, the error is Student's."""
    angles = (np.arange(1000) + 0.5) / 1000 * 2 * np.pi
    larger = np.sqrt((1 + np.maximum(0, -np.sin(2 * angles))) / 2)
    critical = critical_of_pairs(2, calibrated=together, together=together)
    wrong = special.stdtr(2, -critical * larger * math.sqrt(2))
    assert np.mean(wrong) == pytest.approx(level, abs=0.00005)


@pytest.mark.parametrize("pairs", [3, 4, 5])
def test_interval_of_calibrated_noise_is_wrong_once_in_two_hundred_at_most(pairs: int) -> None:
    """Each end: once in 200 where the noise has grown out of sight of its calibration, once in 400
    at most where it is as three processes showed it, by as many draws.
    """
    draw = np.random.default_rng(pairs)
    over, under = (draw.standard_normal((100_000, pairs)) for _ in range(2))
    jumps = [np.diff(side, axis=1) ** 2 for side in (over, under)]
    neighbours = sum(jump.sum(axis=1) for jump in jumps) / (2 * (pairs - 1))
    noise = np.sqrt(np.maximum((over - under).var(axis=1, ddof=1), neighbours))
    known = math.sqrt(2) * draw.standard_normal((100_000, 3)).std(axis=1, ddof=1)
    critical = critical_of_pairs(pairs, calibrated=True) / math.sqrt(2)
    assert np.mean(special.ndtr(-critical * noise)) == pytest.approx(0.005, abs=0.0002)
    assert np.mean(special.ndtr(-critical * np.maximum(noise, known))) < 0.0025


def test_calibration_narrows_the_interval_of_five_pairs_at_most() -> None:
    plain, calibrated = (
        [critical_of_pairs(pairs, calibrated=known) for pairs in range(2, 30)]
        for known in (False, True)
    )
    assert all(now < was for now, was in zip(calibrated[:4], plain[:4], strict=True))
    assert calibrated[4:] == plain[4:]


def test_calibrated_interval_of_two_pairs_is_wrong_once_in_two_hundred_at_most() -> None:
    """By the angle, as above."""
    angles = (np.arange(1000) + 0.5) / 1000 * 2 * np.pi
    larger = np.sqrt((1 + np.maximum(0, -np.sin(2 * angles))) / 2)
    critical = critical_of_pairs(2, calibrated=True)
    wrong = special.stdtr(2, -critical * larger * math.sqrt(2))
    assert np.mean(wrong) == pytest.approx(0.005, abs=0.00005)


@pytest.mark.parametrize("pairs", [2, 3, 5, 10, 100])
def test_paired_interval_is_that_of_pair_noise(pairs: int) -> None:
    draw = random.Random(pairs)
    over, under = ([math.exp(draw.gauss(0, 0.05)) for _ in range(pairs)] for _ in range(2))
    seen = paired_interval(over, under)
    middle = float(np.mean(np.log(over) - np.log(under)))
    half = critical_of_pairs(pairs) * pair_noise(over, under) / math.sqrt(pairs)
    ends = (math.exp(middle - half), math.exp(middle + half))
    assert (seen.low, seen.high) == pytest.approx(ends)
    wider = paired_interval(over, under, known=1.0)
    assert wider.low < seen.low < seen.mid == wider.mid < seen.high < wider.high


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_paired_interval_refuses_non_positive_values(bad: float) -> None:
    for over, under in (([bad, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, bad])):
        with pytest.raises(ValueError, match="positive"):
            paired_interval(over, under)
    with pytest.raises(ValueError, match="positive"):
        mean_interval([1.0, bad])


def test_paired_interval_refuses_unequal_sides() -> None:
    for over, under in (([1.0, 1.1], [1.0]), ([1.0], [1.0, 1.1])):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            paired_interval(over, under)


def test_narrowed_to_the_same_number_changes_nothing() -> None:
    seen = paired_interval(RISING, STEADY)
    same = narrowed(seen, pairs=4, to=4)
    assert (same.low, same.mid, same.high) == pytest.approx((seen.low, seen.mid, seen.high))
    assert narrowed(seen, pairs=4, to=8).high < seen.high


def test_calibrated_interval_is_narrowed_to_that_of_more_pairs() -> None:
    few = paired_interval(RISING, STEADY, calibrated=True)
    assert few.high < paired_interval(RISING, STEADY).high
    error = pair_noise(RISING, STEADY) / math.sqrt(5)
    five = narrowed(few, pairs=4, to=5, calibrated=True)
    high = few.mid * math.exp(critical_of_pairs(5, calibrated=True) * error)
    assert five.high == pytest.approx(high)


@pytest.mark.filterwarnings("error")
def test_detectable_without_noise_is_the_threshold() -> None:
    assert detectable(0.0, pairs=5, threshold=0.03) == 0.03
    assert detectable(0.01, pairs=1, threshold=0.03) == math.inf
    assert math.isfinite(detectable(0.01, pairs=2, threshold=0.03))
    assert detectable(1e4, pairs=5, threshold=0.03) == math.expm1(700)


def test_detectable_grows_with_the_noise_and_shrinks_with_the_pairs() -> None:
    few, many = (detectable(0.05, pairs=pairs, threshold=0.03) for pairs in (5, 10))
    assert 0.03 < many < few
    assert detectable(0.1, pairs=5, threshold=0.03) > few
    # The threshold is exceeded nine times in ten by 1.28 standard errors more.
    tiny = detectable(0.001, pairs=10, threshold=0.03)
    error = 0.001 / math.sqrt(10)
    assert math.log1p(tiny) == pytest.approx(
        math.log1p(0.03) + oracle.norm.ppf(0.9) * error, abs=2e-6
    )


def test_noise_of_two_values_is_known() -> None:
    assert noise_of([1.0, math.e]) == pytest.approx(1 / math.sqrt(2))


def test_mean_interval_takes_values_below_one() -> None:
    seen = mean_interval([0.5, 0.5])
    assert (seen.low, seen.mid, seen.high) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(("pairs", "noise"), [(2, 0.02), (5, 0.05), (10, 0.3), (20, 30.0)])
def test_detectable_is_what_the_rule_detects_nine_times_in_ten(
    pairs: int, noise: float, *, calibrated: bool
) -> None:
    """By numerical integration over the noise that a sample shows, never below the known one."""
    seen = detectable(noise, pairs=pairs, threshold=0.03, calibrated=calibrated)
    effect = math.log1p(seen)
    error = noise / math.sqrt(pairs)
    shown = np.linspace(1e-6, 1 - 1e-6, 200_001)
    # The larger of two estimates: each is below it with the root of that share.
    sizes = np.sqrt(oracle.chi2.ppf(np.sqrt(shown), pairs - 1) / (pairs - 1))
    critical = critical_of_pairs(pairs, calibrated=calibrated)
    least = critical * error * np.maximum(sizes, 1.0)
    found = np.mean(oracle.norm.sf((np.maximum(least, math.log1p(0.03)) - effect) / error))
    assert found == pytest.approx(0.9, abs=0.003)


def test_pooled_interval_has_the_noise_of_an_analysis_of_variance() -> None:
    # One by itself shows no noise.
    groups = [OVER, [2.0], UNDER, [3.1, 3.3]]
    logs = [[math.log(value) for value in group] for group in groups]
    freedom = sum(len(group) - 1 for group in logs)
    mean_square = sum(float(np.var(group)) * len(group) for group in logs) / freedom
    low, high = oracle.t.interval(
        0.99, freedom, loc=np.mean(logs[-1]), scale=math.sqrt(mean_square / len(logs[-1]))
    )
    seen = pooled_interval(groups)
    assert seen.low == pytest.approx(math.exp(low))
    assert seen.high == pytest.approx(math.exp(high))
    assert pooled_interval([OVER]) == mean_interval(OVER)
    assert pooled_interval([[], [1.0]]).high == math.inf
    with pytest.raises(ValueError, match="positive"):
        pooled_interval([[1.0, 0.0]])
