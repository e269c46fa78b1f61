"""Change points: exact distribution, and simulated steps, drifts, outliers and counters.

`full/test_history_rates.py` measures how often they are found, and how often for nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from scipy import stats

from diffusers_perf.history.changes import (
    LEVEL,
    Shape,
    changes,
    count_changes,
    critical,
    differ,
)


def simulated(
    level_of: Callable[[int], float], *, runs: int = 120, noise: float = 0.003, seed: int = 0
) -> list[float]:
    draw = random.Random(seed)
    return [level_of(n) * math.exp(draw.gauss(0, noise)) for n in range(runs)]


@pytest.mark.parametrize(("runs", "after"), [(24, 12), (30, 6), (40, 12), (100, 4), (100, 50)])
def test_critical_value_is_scipys(runs: int, after: int) -> None:
    """scipy's exact p of the groups whose U is the critical one, and of the next U."""
    most = int(critical(LEVEL)[runs, after])

    def p(u: int) -> float:
        # The smallest ranks stand after the cut, and as many places are exchanged as U says.
        late, rest = list(range(after)), u
        for place in reversed(range(after)):
            late[place] += min(rest, runs - after)
            rest -= min(rest, runs - after)
        early = [rank for rank in range(runs) if rank not in late]
        return float(stats.mannwhitneyu(late, early, method="exact").pvalue)

    if most >= 0:
        assert p(most) <= LEVEL
    assert p(most + 1) > LEVEL


def test_steady_history_has_no_change() -> None:
    assert changes(simulated(lambda _: 1.0, runs=365)) == ()


@pytest.mark.parametrize("factor", [1.02, 1 / 1.05])
def test_step_is_found_where_it_is(factor: float) -> None:
    (found,) = changes(simulated(lambda n: factor if n >= 70 else 1.0))
    assert (found.shape, found.at) == (Shape.STEP, 70)
    assert found.seen <= 76
    assert found.after / found.before == pytest.approx(factor, abs=0.004)


def test_two_steps_are_two() -> None:
    found = changes(simulated(lambda n: 1.0 + 0.03 * (n >= 40) + 0.03 * (n >= 80)))
    assert [(change.shape, change.at) for change in found] == [("step", 40), ("step", 80)]


def test_half_a_percent_a_week_is_one_drift() -> None:
    (found,) = changes(simulated(lambda n: 1.005 ** (max(0, n - 60) / 7), runs=160))
    assert found.shape is Shape.DRIFT
    assert 50 <= found.at <= 75
    assert found.last >= 150
    assert found.after / found.before == pytest.approx(1.005 ** (100 / 7), abs=0.015)


def test_single_run_is_an_outlier_and_the_last_one_is_unconfirmed() -> None:
    found = changes(simulated(lambda n: 1.1 if n in (50, 119) else 1.0))
    assert [(change.shape, change.at) for change in found] == [
        ("outlier", 50),
        ("unconfirmed", 119),
    ]


def test_less_than_the_smallest_change_is_not_reported() -> None:
    assert changes(simulated(lambda n: 1.006 if n >= 60 else 1.0, noise=0.001)) == ()


def test_metric_without_noise_changes_where_it_does() -> None:
    (found,) = changes([4096.0] * 40 + [5120.0] * 10)
    assert (found.shape, found.at) == (Shape.STEP, 40)


def test_what_was_found_stays_when_runs_are_added() -> None:
    values = simulated(lambda n: 1.02 if n >= 70 else 1.0, noise=0.008)
    (first,) = [c for c in changes(values[:100]) if c.shape is Shape.STEP]
    (later,) = [c for c in changes(values) if c.shape is Shape.STEP]
    assert (first.at, first.seen) == (later.at, later.seen)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_value_that_is_not_positive_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        changes([1.0, value])


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ([7, 7, 7], []),
        ([7, 7, 8], [("step", 2)]),
        ([7, 7, 8, 8, 6, 6], [("step", 2), ("step", 4)]),
        ([7, 7, 9, 7, 7], [("outlier", 2)]),
        ([0, 0, 3], [("step", 2)]),
        ([], []),
    ],
)
def test_each_difference_of_a_counter_is_a_change(
    counts: list[float], found: list[tuple[str, int]]
) -> None:
    assert [(change.shape, change.at) for change in count_changes(counts)] == found


def test_counter_that_always_moves_has_noise() -> None:
    draw = random.Random(0)
    assert count_changes([draw.randint(995, 1005) for _ in range(100)]) == ()
    moving = [draw.randint(0, 3) + 20 * (n >= 60) for n in range(100)]
    assert [c.at for c in count_changes(moving) if c.shape is Shape.STEP] == [60]


def test_counter_that_moves_around_zero_has_whole_levels() -> None:
    draw = random.Random(0)
    moving = [draw.choice([7, 8]) if n < 50 else draw.choice([0, 1]) for n in range(100)]
    found = [c for c in count_changes(moving) if c.shape is Shape.STEP]
    assert [(c.at, c.before in (7, 7.5, 8), c.after in (0, 0.5, 1)) for c in found] == [
        (50, True, True)
    ]


def test_two_known_groups_differ_with_fewer_runs() -> None:
    values = simulated(lambda n: 1.02 if n >= 40 else 1.0, runs=46)
    assert differ(values[:40], values[40:])
    assert not differ(values[:20], values[20:40])
    assert not differ([], values)
