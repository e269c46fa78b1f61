"""Change points of one metric over time: numbers in, changes out. Pure.

Method: a sequential Mann-Whitney scan (Hawkins and Deng, 2010, "A nonparametric control chart based
on the Mann-Whitney statistic"). After each run, all ways to cut the last `WINDOW` runs since the
last change in two are tested with the exact distribution of the rank sum. The first cut whose
two-sided p is at most `LEVEL`, and whose medians differ by `SMALLEST`, is a change, and the scan
goes on behind it. Ranks make the rate of false changes independent of the noise's size and shape.
What a night found stays: a later run never moves or removes a cut.

The rank test says that the level changed. How it changed is read from the runs around it: where a
ramp fits them better than steps, it is a drift. Single runs far from the others are
outliers. Counters have no noise, and each difference is a change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from itertools import groupby, pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    # Where it is used: every command imports its file, also to show its help.
    Array = npt.NDArray[np.float64]

WINDOW = 100
"""Runs that one cut looks at."""
LEVEL = 1e-6
"""Of one cut, two-sided. `tests/full/test_history_rates.py` measures what follows from it."""
LEVEL_BETWEEN = 1e-4
"""Of a comparison of two groups at a known place, which is made once and not for every cut."""
SMALLEST = 0.01
"""A smaller share is not reported: two cards of one kind differ by as much."""
OUTLYING = 6.0
"""Robust standard deviations from the level beyond which a single run is an outlier."""
LOCAL = 60
"""Runs on each side of a change that tell a step from a drift."""
RAMP_LEAST = 5
"""Runs over which a drift goes on; what takes fewer is a step."""
RAMP_GRID = 40
"""Places where a drift can begin or end."""
SEGMENT_LEAST = 5
"""Runs without which a segment has no level to be far from."""
LEVEL_RUNS = 20
"""Runs that say where a level is, beside a change."""
MOVING = 0.1
"""A counter that differs from the run before in more than this share of runs has noise."""


class Shape(StrEnum):
    """How a metric changed."""

    STEP = "step"
    DRIFT = "drift"
    OUTLIER = "outlier"
    """One run or a few, after which the old level returned."""
    UNCONFIRMED = "unconfirmed"
    """The last runs are far from the level, and too few to tell a step from an outlier."""


@dataclass(frozen=True, kw_only=True)
class ChangePoint:
    """A change between two neighbouring runs."""

    shape: Shape
    at: int
    """Index of the first run after the change; of a drift, where it first shows."""
    last: int
    """Index of the last run that it concerns: of an outlier or a drift its end, of a step `at`."""
    seen: int
    """Index of the run with which it could first be detected."""
    before: float
    after: float
    """Medians beside the change, in the metric's unit."""


def changes(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """All changes of a metric with noise, oldest first. `ValueError` for values not above 0."""
    import numpy as np

    if any(not value > 0 for value in values):
        raise ValueError("a history of a metric with noise needs positive values")
    if not values:
        return ()
    logs = np.log(np.asarray(values, dtype=np.float64))
    found = list(_shaped(logs, list(_cuts(logs))))
    return tuple(sorted((*found, *_outliers(logs, found)), key=lambda change: change.at))


def count_changes(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """All changes of a counter: exact, unless it moves in so many runs that it has noise."""
    moved = [i for i, (was, now) in enumerate(pairwise(values), start=1) if was != now]
    if len(moved) > max(4, MOVING * len(values)):
        # Ranks are what counts, so that a counter may be moved up to where logarithms exist.
        up = 1 - min(0, *values) if min(values) <= 0 else 0
        noisy = changes([value + up for value in values])
        # A median of counts has no more digits; the logarithms' rounding has.
        back = ((c, round(c.before - up, 3), round(c.after - up, 3)) for c in noisy)
        return tuple(replace(c, before=before, after=after) for c, before, after in back)
    found = []
    skip = 0
    for at in moved:
        if at < skip:
            continue
        returns = at + 1 < len(values) and values[at + 1] == values[at - 1]
        skip = at + 2 if returns else at
        found.append(
            ChangePoint(
                shape=Shape.OUTLIER if returns else Shape.STEP,
                at=at,
                last=at,
                seen=at,
                before=values[at - 1],
                after=values[at],
            )
        )
    return tuple(found)


def differ(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two groups of runs, divided at a place that was known before, have two levels."""
    import numpy as np

    if not before or not after:
        return False
    logs = np.log(np.asarray([*before[-WINDOW // 2 :], *after[: WINDOW // 2]], dtype=np.float64))
    second = min(len(after), WINDOW // 2)
    low = _rank_sums(logs[None, :])[0, second - 1]
    most = critical(LEVEL_BETWEEN)[len(logs), second]
    u = low - second * (second + 1) / 2
    moved = abs(_level(logs[-second:]) - _level(logs[:-second])) >= math.log1p(SMALLEST)
    return bool(min(u, second * (len(logs) - second) - u) <= most and moved)


def _cuts(logs: Array) -> Iterator[tuple[int, int]]:
    """Index of the first run behind each change, and of the run that showed it."""
    import numpy as np

    start, length = 0, len(logs)
    while start < length:
        part = logs[start:]
        padded = np.concatenate([np.full(WINDOW - 1, np.inf), part])
        windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)
        sums = _rank_sums(windows)
        after = np.arange(1, WINDOW + 1)
        sizes = np.minimum(np.arange(1, len(part) + 1), WINDOW)[:, None]
        u = sums - after * (after + 1) / 2
        before = sizes - after
        low = np.where(before > 0, np.minimum(u, after * before - u), np.inf)
        most = critical(LEVEL)[sizes[:, 0], 1:]
        for row in np.flatnonzero((low <= most).any(axis=1)):
            window = part[row + 1 - sizes[row, 0] : row + 1]
            best = len(window) - _place(window)
            moved = _level(window[-best:]) - _level(window[:-best])
            if abs(moved) >= math.log1p(SMALLEST):
                yield start + int(row) + 1 - best, start + int(row)
                start += int(row) + 1 - best
                break
        else:
            return


def _place(window: Array) -> int:
    """The cut with the least squared error, after outliers were moved closer. Ranks would prefer
    the middle of the window.
    """
    import numpy as np

    # Of neighbours, which a step hardly widens. Without any noise, nothing is an outlier.
    noise = 1.4826 * float(np.median(np.abs(np.diff(window)))) / math.sqrt(2) or math.inf
    level = _level(window)
    near = np.clip(window, level - OUTLYING * noise, level + OUTLYING * noise)
    first = np.arange(1, len(near))
    second = len(near) - first
    sums = np.cumsum(near)[:-1]
    gains = (sums / first - (near.sum() - sums) / second) ** 2 * first * second
    return int(first[np.argmax(gains)])


def _rank_sums(windows: Array) -> Array:
    """Of each row, the sum of the midranks of its last 1, 2, 3 … values."""
    import numpy as np

    backwards = windows[:, ::-1]
    # In a stable order, ties rank by place: the mean of both directions is the midrank.
    forth = np.argsort(np.argsort(windows, axis=1, kind="stable"), axis=1)
    back = np.argsort(np.argsort(backwards, axis=1, kind="stable"), axis=1)
    ranks = (forth[:, ::-1] + back) / 2 + 1
    return np.asarray(np.cumsum(ranks, axis=1), dtype=np.float64)


@cache
def critical(level: float) -> Array:
    """By the number of runs and how many of them come after a cut, the largest Mann-Whitney U of
    the smaller side that is significant, two-sided; -1 where none is: [`WINDOW` + 1, `WINDOW` + 1].

    The exact distribution without ties, which is conservative with them.
    """
    import numpy as np

    most = np.full((WINDOW + 1, WINDOW + 1), -1.0)
    # In how many ways `after` of `size` runs have each U, up to the middle of its distribution.
    ways = np.zeros((WINDOW + 1, WINDOW * WINDOW // 8 + 1))
    ways[0, 0] = 1
    for size in range(1, WINDOW + 1):
        for after in range(size, 0, -1):
            # The largest run stands after the cut, above all that stand before it; or before it.
            above = size - after
            ways[after, above:] += ways[after - 1, : ways.shape[1] - above]
        inner = np.arange(1, size)
        all_ways = np.array([math.comb(size, after) for after in inner], dtype=np.float64)
        tails = np.cumsum(ways[1:size], axis=1)
        most[size, 1:size] = (2 * tails <= level * all_ways[:, None]).sum(axis=1) - 1
    return most


def _shaped(logs: Array, cuts: Sequence[tuple[int, int]]) -> Iterator[ChangePoint]:
    """The cuts as steps. Neighbouring ones of one direction are a drift where a ramp, which needs
    fewer parameters than a staircase, fits better (by the Bayesian information criterion).
    """
    import numpy as np

    places = [0, *(at for at, _ in cuts), len(logs)]
    levels = [_level(logs[low:high]) for low, high in pairwise(places)]
    rises = [after > before for before, after in pairwise(levels)]
    for _, group in groupby(range(len(cuts)), key=lambda number: rises[number]):
        numbers = list(group)
        first, last = numbers[0], numbers[-1]
        bounds = places[first : last + 3]
        low, high = max(bounds[0], bounds[1] - LOCAL), min(bounds[-1], bounds[-2] + LOCAL)
        inner = [low, *bounds[1:-1], high]
        parts = [_without_outliers(logs[begin:end]) for begin, end in pairwise(inner)]
        stairs = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
        error, begin, end = _ramp(np.concatenate(parts))
        runs = high - low
        if _criterion(error, runs, 4) < _criterion(stairs, runs, 2 * len(numbers) + 1):
            yield ChangePoint(
                shape=Shape.DRIFT,
                at=low + begin + 1,
                last=low + end,
                seen=cuts[first][1],
                before=math.exp(_level(logs[bounds[0] : low + begin + 1][-LEVEL_RUNS:])),
                after=math.exp(_level(logs[low + end : bounds[-1]][:LEVEL_RUNS])),
            )
            continue
        for number in numbers:
            at, seen = cuts[number]
            yield ChangePoint(
                shape=Shape.STEP,
                at=at,
                last=at,
                seen=seen,
                before=math.exp(_level(logs[places[number] : at][-LEVEL_RUNS:])),
                after=math.exp(_level(logs[at : places[number + 2]][:LEVEL_RUNS])),
            )


def _ramp(logs: Array) -> tuple[float, int, int]:
    """The level, a straight line, and another level that fit best: the sum of squared errors, and
    between which indices the line goes; infinite for too few runs.
    """
    import numpy as np

    length = len(logs)
    grid = np.unique(np.linspace(0, length - 1, min(length, RAMP_GRID)).astype(int))
    begins, ends = np.meshgrid(grid, grid, indexing="ij")
    is_ramp = ends - begins >= RAMP_LEAST
    begins, ends = begins[is_ramp][:, None], ends[is_ramp][:, None]
    if not len(begins):
        return math.inf, 0, 0
    line = np.clip((np.arange(length) - begins) / (ends - begins), 0, 1)
    line -= line.mean(axis=1, keepdims=True)
    centred = logs - logs.mean()
    errors = centred @ centred - (line @ centred) ** 2 / (line**2).sum(axis=1)
    best = int(np.argmin(errors))
    return float(errors[best]), int(begins[best, 0]), int(ends[best, 0])


def _criterion(error: float, runs: int, parameters: int) -> float:
    """Bayesian information criterion of a least squares fit; less is better."""
    return runs * math.log(max(error, 1e-18) / runs) + parameters * math.log(runs)


def _without_outliers(logs: Array) -> Array:
    """Values far from the level moved to where outliers begin."""
    import numpy as np

    far = OUTLYING * _noise(logs)
    return np.clip(logs, _level(logs) - far, _level(logs) + far)


def _outliers(logs: Array, found: Sequence[ChangePoint]) -> Iterator[ChangePoint]:
    """Runs far from the level of their segment; at the end of the history they are unconfirmed."""
    import numpy as np

    places = [0, *sorted({place for c in found for place in (c.at, c.last)}), len(logs)]
    drifts = {change.at for change in found if change.shape is Shape.DRIFT}
    for low, high in pairwise(places):
        part = logs[low:high]
        if len(part) < SEGMENT_LEAST or low in drifts:
            continue
        level = _level(part)
        far = np.abs(part - level) > max(OUTLYING * _noise(part), math.log1p(SMALLEST))
        for first, last in _groups(np.flatnonzero(far).tolist()):
            at_end = low + last == len(logs) - 1
            yield ChangePoint(
                shape=Shape.UNCONFIRMED if at_end else Shape.OUTLIER,
                at=low + first,
                last=low + last,
                seen=low + first,
                before=math.exp(level),
                after=math.exp(_level(part[first : last + 1])),
            )


def _noise(logs: Array) -> float:
    """Robust standard deviation."""
    import numpy as np

    return 1.4826 * float(np.median(np.abs(logs - _level(logs))))


def _groups(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each row of consecutive indices."""
    for _, group in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        row = [index for _, index in group]
        yield row[0], row[-1]


def _level(logs: Array) -> float:
    return median(map(float, logs))
