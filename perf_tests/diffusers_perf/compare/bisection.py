"""Finds the candidate that changed a metric of a case, in as few processes as possible.

A counter has no noise: one process says on which side of the change a candidate is. A metric with
noise takes pairs of processes, the good end and the candidate in turn, until the interval of their
ratio lies on one side of the middle between the good and the bad end, with looks after
`LOOKS` pairs. All pairs of a bisection say how large the noise is. Both ends are verified first.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from time import monotonic

from diffusers_perf.catalog.metric import Unit
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare import processes
from diffusers_perf.compare.candidates import Candidate
from diffusers_perf.compare.kept import kept
from diffusers_perf.compare.processes import NoCaseSelected, NothingMeasured
from diffusers_perf.compare.sides import Side
from diffusers_perf.ending import Interruption
from diffusers_perf.history.store import MEASURED, TIME_TO_FIRST_IMAGE, values_of
from diffusers_perf.judge.stats import Interval, pooled_interval
from diffusers_perf.messages import ab
from diffusers_perf.messages import bisect as messages
from diffusers_perf.messages.numbers import percent, plural
from diffusers_perf.records.files import as_json, write_whole
from diffusers_perf.records.quantities import NotNegative, Number, Positive, StrictRecord
from diffusers_perf.records.run import Run

FILE = "bisect.json"
NOISY = frozenset(metric.name for metric in MEASURED)
NOT_BISECTED = TIME_TO_FIRST_IMAGE.name
AGAIN = "-again"
"""Behind the name of a process that repeats one with interference."""
LOOKS = (3, 5, 10)
CONFIDENCE = 0.995
"""Of one look, so that all looks of a step together are wrong in about one of a hundred."""


class OutOfTime(Exception):
    """The budget holds no further process; the text says how to go on."""


class Process(StrictRecord, frozen=True, kw_only=True):
    """One process that measured the case."""

    value: Number
    unit: Unit
    seconds: Positive


class Failure(StrictRecord, frozen=True, kw_only=True):
    """One process that measured nothing of use."""

    reason: str
    is_interference: bool
    seconds: Positive


class StateFile(StrictRecord, frozen=True, kw_only=True):
    """What is kept, so that an interruption loses one process at most."""

    settings: Mapping[str, str]
    finished: Mapping[str, Process]
    """By the name of their run's file, without `AGAIN`."""
    failed: Mapping[str, Failure] = {}
    """By the name of their run's file."""
    ended_s: NotNegative = 0.0
    """Of the processes that are measured anew: the budget's end ended them, or interference did not
    end before the command did."""


class _Disturbed(NothingMeasured):
    """Interference concerned the metric."""


class Answer(StrEnum):
    """On which side of the change a candidate is."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What became of one candidate."""

    candidate: Candidate
    answer: Answer
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """The last good and the first bad candidate, and how they were found."""

    good: Candidate
    bad: Candidate
    between: tuple[Candidate, ...]
    """Candidates between them that could not be measured."""
    steps: tuple[Step, ...]
    processes: int
    seconds: float


@dataclass(kw_only=True)
class Bisection:
    """One bisection in a folder. Call `find`."""

    candidates: Sequence[Candidate]
    case: str
    metric: str
    options: Sequence[str]
    """Of the main job."""
    out: Path
    settings: Mapping[str, str]
    budget_s: float
    lock: int
    interruption: Interruption
    say: Callable[[str], None] = print
    _finished: dict[str, Process] = field(default_factory=dict)
    _failed: dict[str, Failure] = field(default_factory=dict)
    _ended_s: float = 0.0
    _sides: dict[str, Side] = field(default_factory=dict)
    _steps: list[Step] = field(default_factory=list)
    _ratios: dict[str, list[float]] = field(default_factory=dict)
    """By candidate, over the good end, pair by pair; the one under way is the last."""

    def find(self) -> Culprit:
        """`Refusal` where both ends measure alike or cannot be measured; `OutOfTime`."""
        if self.metric == NOT_BISECTED:
            raise Refusal(messages.depends_on_the_cache(self.metric))
        self._open()
        good, bad = self.candidates[0], self.candidates[-1]
        try:
            is_bad = self._verified(good, bad)
        except NothingMeasured as error:
            # The same command measures an end again, for example once its machine is quiet.
            self._failed.clear()
            self._save()
            if isinstance(error, NoCaseSelected):
                raise
            raise Refusal(str(error)) from None
        low, high, skipped = 0, len(self.candidates) - 1, set[int]()
        while untested := [n for n in range(low + 1, high) if n not in skipped]:
            middle = min(untested, key=lambda n: abs(n - (low + high) / 2))
            candidate = self.candidates[middle]
            try:
                bad_here, evidence = is_bad(candidate)
            except Refusal as error:
                skipped.add(middle)
                self._add(candidate, Answer.SKIPPED, str(error).splitlines()[0])
                continue
            self._add(candidate, Answer.BAD if bad_here else Answer.GOOD, evidence)
            low, high = (low, middle) if bad_here else (middle, high)
        return Culprit(
            good=self.candidates[low],
            bad=self.candidates[high],
            between=tuple(self.candidates[low + 1 : high]),
            steps=tuple(self._steps),
            processes=len(self._all),
            seconds=self._spent_s,
        )

    def _verified(self, good: Candidate, bad: Candidate) -> Callable[[Candidate], tuple[bool, str]]:
        """What answers for a candidate; both ends are measured."""
        if self.metric in NOISY:
            return self._verified_pairs(good, bad)
        first, last = self._measured(good, 1), self._measured(bad, 1)
        unit = first.unit
        self._add(good, Answer.GOOD, unit.shown(first.value))
        self._add(bad, Answer.BAD, unit.shown(last.value))
        if first.value == last.value:
            raise Refusal(messages.ends_are_equal(self.case, self.metric, unit.shown(first.value)))

        def is_bad(candidate: Candidate) -> tuple[bool, str]:
            value = self._measured(candidate, 1).value
            return abs(value - last.value) < abs(value - first.value), unit.shown(value)

        return is_bad

    def _verified_pairs(
        self, good: Candidate, bad: Candidate
    ) -> Callable[[Candidate], tuple[bool, str]]:
        whole = self._decided(good, bad, 1.0)
        self._add(good, Answer.GOOD, "1")
        self._add(bad, Answer.BAD, _text(whole))
        if whole.low <= 1 <= whole.high:
            raise Refusal(
                messages.ends_do_not_differ(self.case, self.metric, _text(whole), LOOKS[-1])
            )
        middle = math.sqrt(whole.mid)

        def is_bad(candidate: Candidate) -> tuple[bool, str]:
            ratio = self._decided(good, candidate, middle)
            is_clear = not ratio.low <= middle <= ratio.high
            evidence = _text(ratio) if is_clear else messages.by_its_middle(_text(ratio))
            return (ratio.mid > middle) == (whole.mid > 1), evidence

        return is_bad

    def _decided(self, good: Candidate, candidate: Candidate, middle: float) -> Interval:
        """The ratio of a candidate over good, after as many pairs as say on which side it is."""
        ratio = Interval(low=0, mid=1, high=math.inf)
        for pairs in LOOKS:
            over: list[float] = []
            under: list[float] = []
            for pair in range(1, pairs + 1):
                sides = ((candidate, over), (good, under))
                for side, values in sides if pair % 2 else reversed(sides):
                    beside = "" if side is candidate else f"-beside-{candidate.name}"
                    values.append(self._measured(side, pair, beside=beside).value)
            self._ratios.pop(candidate.name, None)
            self._ratios[candidate.name] = [a / b for a, b in zip(over, under, strict=True)]
            ratio = pooled_interval(list(self._ratios.values()), confidence=CONFIDENCE)
            if not ratio.low <= middle <= ratio.high:
                break
        return ratio

    def _measured(self, candidate: Candidate, number: int, *, beside: str = "") -> Process:
        """A process that is finished already, or a new one, once more after interference.

        `NothingMeasured` where it failed, now or before an interruption.
        """
        name = f"{candidate.name}{beside}-{number}"
        if name in self._finished:
            return self._finished[name]
        is_first = number == 1 and not beside
        try:
            done = self._attempt(candidate, name, is_first=is_first)
        except _Disturbed as error:
            self.say(str(error))
            done = self._attempt(candidate, f"{name}{AGAIN}", is_first=False)
        self._finished[name] = done
        self._save()
        self.say(messages.progress(len(self._all), name, done.unit.shown(done.value)))
        return done

    def _attempt(self, candidate: Candidate, name: str, *, is_first: bool) -> Process:
        """One process. `NothingMeasured`, of which `_Disturbed` is one; `OutOfTime`."""
        if known := self._failed.get(name):
            raise (_Disturbed if known.is_interference else NothingMeasured)(known.reason)
        longest_s = max((process.seconds for process in self._all), default=0.0)
        if self._spent_s + longest_s >= self.budget_s:
            raise OutOfTime(self._out_of_time(longest_s))
        side = self._side(candidate)
        start = monotonic()
        try:
            _, run = processes.measured(
                side,
                self.options,
                path=self.out / f"{name}.json",
                limit_s=self.budget_s - self._spent_s,
                is_first=is_first,
                lock=self.lock,
                interruption=self.interruption,
            )
            value, unit = self._value(run, name)
        except subprocess.TimeoutExpired:
            self._ended_s += _since(start)
            self._save()
            raise OutOfTime(self._out_of_time(longest_s)) from None
        except NothingMeasured as error:
            self._failed[name] = Failure(
                reason=str(error),
                is_interference=isinstance(error, _Disturbed),
                seconds=_since(start),
            )
            self._save()
            raise
        return Process(value=value, unit=unit, seconds=_since(start))

    def _value(self, run: Run, name: str) -> tuple[float, Unit]:
        case = run.by_id.get(self.case)
        if case is None:
            why = run.session.failures.get(self.case, "")
            raise NothingMeasured(messages.not_measured(name, self.case, why))
        values = {name: (value, unit, valid) for name, unit, value, valid in values_of(case)}
        if self.metric not in values:
            raise NothingMeasured(
                messages.no_metric(self.case, self.metric, [n for n in values if n != NOT_BISECTED])
            )
        value, unit, valid = values[self.metric]
        if not valid:
            first = name.removesuffix(AGAIN)
            raise _Disturbed(messages.interference(first, self.metric, twice=name != first))
        return value, unit

    def _side(self, candidate: Candidate) -> Side:
        if candidate.name not in self._sides:
            self._sides[candidate.name] = candidate.prepare()
        return self._sides[candidate.name]

    def _add(self, candidate: Candidate, answer: Answer, evidence: str) -> None:
        self._steps.append(Step(candidate=candidate, answer=answer, evidence=evidence))
        self.say(f"{answer:8}{candidate.label}: {evidence}")

    def _open(self) -> None:
        """Go on from what is in the folder. `Refusal` where something else was bisected there."""
        known = kept(self.out / FILE, StateFile, by="bisect")
        if known is None:
            return
        if known.settings != self.settings:
            if not known.finished:
                # With a misspelled metric or case nothing was measured, so nothing is lost.
                return
            raise Refusal(messages.another_bisection(self.out))
        self._finished, self._failed = dict(known.finished), dict(known.failed)
        self._ended_s = known.ended_s
        for name, failure in known.failed.items():
            # The machine may be quiet now.
            if failure.is_interference and name.removesuffix(AGAIN) not in self._finished:
                self._ended_s += self._failed.pop(name).seconds
        if self._all:
            self.say(ab.finished_before(plural(len(self._all), "process", "processes")))

    def _save(self) -> None:
        state = StateFile(
            settings=self.settings,
            finished=self._finished,
            failed=self._failed,
            ended_s=self._ended_s,
        )
        write_whole(self.out / FILE, as_json(state))

    @property
    def _all(self) -> list[Process | Failure]:
        return [*self._finished.values(), *self._failed.values()]

    @property
    def _spent_s(self) -> float:
        return sum((process.seconds for process in self._all), self._ended_s)

    def _out_of_time(self, longest_s: float) -> str:
        seconds = [process.seconds for process in self._all] or [60.0]
        steps = math.ceil(math.log2(max(len(self.candidates), 2)))
        more = (self._spent_s + 2 * steps * max(fmean(seconds), longest_s)) / 60 + 1
        return messages.out_of_budget(
            self._spent_s, self.budget_s, minutes=more, finished=len(self._all)
        )


def _since(start: float) -> float:
    """Seconds, never 0, of which no record may be."""
    return max(monotonic() - start, 1e-3)


def _text(ratio: Interval) -> str:
    return f"{ratio.mid:.3f}x ({percent(ratio.low)} to {percent(ratio.high)})"
