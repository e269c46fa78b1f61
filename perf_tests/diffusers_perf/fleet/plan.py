"""Cuts lists of cases into shards, so that a number of GPUs is done early."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from diffusers_perf.records.quantities import NotNegative, PositiveInteger, StrictRecord
from diffusers_perf.records.run import Run

CASE_S = 60.0
START_S = 20.0
"""Of a case, and of a process beside its cases, where nothing is recorded."""
SHARD_MOST_S = 900.0
"""A longer shard is cut where it has several cases: an interruption loses no more than this."""
STEPS = 64
"""Lengths of a shard that a plan tries."""


class ListedCase(StrictRecord, frozen=True, kw_only=True):
    """A case that is to be measured."""

    id: str
    against: tuple[str, ...]
    """Ids of the references that a process must have measured for it, the nearest first."""


class PlannedShard(StrictRecord, frozen=True, kw_only=True):
    """Neighbouring cases of one list, for one process."""

    group: str
    """Name of the list."""
    index: PositiveInteger
    """From 1, of the list's shards."""
    count: PositiveInteger
    first: PositiveInteger
    last: PositiveInteger
    """Places of its first and its last case in the list, from 1."""
    seconds: NotNegative
    """What it is expected to take."""

    @property
    def text(self) -> str:
        """As a message names it."""
        return " ".join(part for part in (self.group, f"{self.index}/{self.count}") if part)


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How long cases and processes took."""

    cases: Mapping[str, float]
    """By id."""
    start_s: float = START_S
    unknown_s: float = CASE_S
    """Of a case where nothing is recorded."""

    @classmethod
    def recorded_in(cls, runs: Iterable[Run]) -> Durations:
        """Of these runs, the last one that has a case."""
        cases: dict[str, float] = {}
        starts = [START_S]
        for run in runs:
            cases |= run.session.durations_s
            known = [one.start_s for one in run.session.placements if one.start_s is not None]
            starts = known or starts
        return cls(cases=cases, start_s=median(starts))

    def times(self, factor: float) -> Durations:
        """Of so many processes in a row."""
        return Durations(
            cases={id: factor * seconds for id, seconds in self.cases.items()},
            start_s=factor * self.start_s,
            unknown_s=factor * self.unknown_s,
        )

    def of(self, id: str) -> float:
        """What this case takes: as it was recorded, or as most did."""
        return self.cases.get(id, self._typical_s)

    @cached_property
    def _typical_s(self) -> float:
        return median(self.cases.values()) if self.cases else self.unknown_s

    def shard_s(self, cases: Iterable[ListedCase]) -> float:
        """What a process of these cases takes, with the references that it measures for them."""
        measured = {id for case in cases for id in (case.id, *case.against)}
        return self.start_s + sum(map(self.of, measured))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The shards of all lists, the longest first."""

    shards: tuple[PlannedShard, ...]
    finish_s: float
    """When the last of them is done."""
    alone_s: float
    """What one GPU would take, with a process for each list."""
    gpus: int

    @property
    def efficiency(self) -> float:
        """How much of the GPUs' time would also be spent by one GPU alone; 1 is ideal."""
        return self.alone_s / (self.gpus * self.finish_s)


def plan(groups: Mapping[str, Sequence[ListedCase]], durations: Durations, *, gpus: int) -> Plan:
    """The cut that finishes first on so many GPUs; of several the one with the fewest shards.

    Every list has a case, and a list's shards are its cases in their order.
    """
    alone = [durations.shard_s(cases) for cases in groups.values()]
    least = max(durations.shard_s([case]) for cases in groups.values() for case in cases)
    most = max(least, min(max(alone), SHARD_MOST_S))
    best: list[PlannedShard] = []
    best_key = (float("inf"), 0)
    for step in range(STEPS + 1):
        length = least * (most / least) ** (step / STEPS)
        shards = [
            shard
            for group, cases in groups.items()
            for shard in _shards(group, cases, durations, length)
        ]
        key = (finish_s([shard.seconds for shard in shards], gpus), len(shards))
        if key < best_key:
            best, best_key = shards, key
    return Plan(
        shards=tuple(sorted(best, key=lambda shard: -shard.seconds)),
        finish_s=best_key[0],
        alone_s=sum(alone),
        gpus=gpus,
    )


def finish_s(seconds: Iterable[float], gpus: int) -> float:
    """When all are done, if the longest one left goes to the GPU that is free first."""
    free = [0.0] * gpus
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def _shards(
    group: str, cases: Sequence[ListedCase], durations: Durations, most_s: float
) -> list[PlannedShard]:
    bounds = _even(cases, durations, most_s)
    return [
        PlannedShard(
            group=group,
            index=index,
            count=len(bounds),
            first=first + 1,
            last=last,
            seconds=durations.shard_s(cases[first:last]),
        )
        for index, (first, last) in enumerate(bounds, start=1)
    ]


def _even(
    cases: Sequence[ListedCase], durations: Durations, most_s: float
) -> list[tuple[int, int]]:
    """As many parts as `_cut` needs, the longest of them as short as that number allows."""
    best = _cut(cases, durations, most_s)
    low, high = 0.0, most_s
    for _ in range(16):
        middle = (low + high) / 2
        tried = _cut(cases, durations, middle)
        if len(tried) > len(best):
            low = middle
        else:
            best, high = tried, middle
    return best


def _cut(cases: Sequence[ListedCase], durations: Durations, most_s: float) -> list[tuple[int, int]]:
    """The fewest parts that take no longer, but for single cases that do."""
    bounds: list[tuple[int, int]] = []
    first, measured, seconds = 0, set[str](), durations.start_s
    for place, case in enumerate(cases):
        needed = (case.id, *case.against)
        more = sum([durations.of(id) for id in needed if id not in measured])
        if place > first and seconds + more > most_s:
            bounds.append((first, place))
            first, measured, seconds = place, set(), durations.start_s
            more = sum(map(durations.of, needed))
        measured.update(needed)
        seconds += more
    return [*bounds, (first, len(cases))]
