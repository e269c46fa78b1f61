"""All processes of one comparison: base and head in turn, until the verdict is clear."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import join
from statistics import fmean
from time import monotonic

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare import compare, environments, processes
from diffusers_perf.compare.sides import Side
from diffusers_perf.compare.state import Finished, State, changed_packages
from diffusers_perf.ending import Interruption
from diffusers_perf.judge.comparison import Comparison
from diffusers_perf.judge.weighing import PAIRS, PAIRS_MOST, PAIRS_TO_FORESEE
from diffusers_perf.messages import ab as messages
from diffusers_perf.messages.common import seconds_left
from diffusers_perf.messages.numbers import plural
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore

PAIRS_LEAST = 2
"""An interval needs as many."""


class OutOfTime(Exception):
    """The budget holds no further process; the text says how to go on."""


class HeadFails(Exception):
    """Head's first process measured no case; the others would not either."""


class NoTimeCounts(Exception):
    """All times were left out, and more pairs would not change that."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """All processes of one comparison, base and head in turn."""

    sides: dict[str, Side]
    state: State
    typed: tuple[Sequence[str], Sequence[str]]
    """The command, before and behind its --minutes."""
    options: Sequence[str]
    """Of the main job."""
    budget_s: float
    lock: int
    store: BaselineStore
    """With the calibrated noise of this machine."""
    interruption: Interruption

    def judge(self) -> int:
        """Measure what is not finished yet, then compare; returns the exit code.

        `NothingMeasured` where a process gives no run, `Refusal` for too few pairs, and where an
        environment changed meanwhile.
        """
        for side in self.sides.values():
            print(f"{side.name}  {side.text}")
        before = len(self.state.finished)
        self.state.complete = False
        if self.state.finished:
            pairs = len(self.state.pairs())
            print(messages.finished_before(plural(pairs, "pair")))
            self._compared()
        try:
            self._measure(PAIRS)
            # The first five decide, also where more are there: who looks anew after each pair stops
            # whenever chance is kind.
            first = self._compared(most=PAIRS)
            if first.inconclusive:
                cases = first.inconclusive
                print(messages.inconclusive(PAIRS, cases, worth_more=bool(first.worth_more)))
            if first.worth_more:
                self._measure(PAIRS_MOST)
            self.state.complete = True
        except NoTimeCounts:
            print(messages.no_time_counts(len(self.state.pairs())))
            self.state.complete = True
        except HeadFails:
            print(messages.HEAD_FAILS)
            self.state.complete = True
        except OutOfTime as reason:
            print(messages.stopped(reason))
        if len(self.state.pairs()) < PAIRS_LEAST and not self.state.complete:
            made = len(self.state.pairs())
            raise Refusal(messages.too_few_pairs(PAIRS_LEAST, made))
        if len(self.state.finished) > before:
            self._same_environments()
        comparison = self._compared()
        self.state.compared = comparison.pairs
        self.state.save()
        print()
        compare.tell(comparison)
        print(messages.runs_are_in(self.state.path.parent))
        print(messages.as_a_page(self.state.path.parent))
        return comparison.exit_code

    def _same_environments(self) -> None:
        """`Refusal` where one changed while it was measured: its processes are of two versions."""
        for side in self.sides.values():
            where = messages.environment_of(side.name)
            _, packages = environments.probe(side.python, where, side.site)
            if changed := changed_packages(side.packages, packages):
                raise Refusal(messages.changed_meanwhile(side.name, changed))

    def _measure(self, most: int) -> None:
        """Run what is not finished of this many pairs: A B B A A B …

        `HeadFails` and `NoTimeCounts` where the first of them leave nothing to weigh; `OutOfTime`.
        """
        order = [
            (name, pair)
            for pair in range(1, most + 1)
            for name in (self.sides if pair % 2 else reversed(self.sides))
        ]
        for number, (name, pair) in enumerate(order, start=1):
            if self.state.has(name, pair):
                continue
            if number % 2:
                if pair == 2 and self._head_fails():
                    raise HeadFails
                if pair == PAIRS_TO_FORESEE + 1 and self._compared().no_time_counts:
                    raise NoTimeCounts
                self._afford_pair(left=len(order) - number + 1)
            self._run(self.sides[name], pair, left=len(order) - number)
            if pair == 1 and self.state.pairs() == [1] and not self._head_fails():
                # What cannot be compared at all is said now, and not after the last process.
                self._say_what_fails(self._compared())

    def _head_fails(self) -> bool:
        """Whether its first process measured no case."""
        return not load_run(self.state.run("head", 1)).cases

    def _say_what_fails(self, first: Comparison) -> None:
        """Of the first pair, which tells no times: who needs no more can end it here.

        It does not end by itself. A counter that another process counts otherwise is inconclusive,
        and how much slower a case became is asked as well.
        """
        failed = [case for case in first.verdicts if first.failed(case)]
        if failed:
            case, *others = failed
            said = messages.fails_already(case, first.failed(case), others=len(others))
            print(said, flush=True)

    def _compared(self, *, most: int = PAIRS_MOST) -> Comparison:
        numbers = self.state.pairs()[:most]
        more = "" if self.state.complete else self._more
        base, head = ([self.state.run(side, n) for n in numbers] for side in self.sides)
        return compare.load(base, head, self.store, more=more)

    @property
    def _more(self) -> str:
        """The command that measures the pairs that are to follow these."""
        before, behind = self.typed
        return join([*before, "--minutes", f"{self.state.minutes_for_more():.0f}", *behind])

    def _afford_pair(self, *, left: int) -> None:
        """`OutOfTime` where the budget does not hold two more of the processes that are left."""
        if self.state.spent_s + 2 * self.state.longest_s >= self.budget_s:
            raise OutOfTime(
                messages.out_of_budget(
                    self.state.spent_s,
                    self.budget_s,
                    self.state.longest_s,
                    minutes=self.state.minutes_for(left),
                    left=left,
                )
            )

    def _run(self, side: Side, pair: int, *, left: int) -> None:
        """One process. `NothingMeasured`; `OutOfTime` where it took all that was left."""
        path = self.state.run(side.name, pair)
        start = monotonic()
        limit_s = self.budget_s - self.state.spent_s
        try:
            code, run = processes.measured(
                side,
                self.options,
                path=path,
                limit_s=limit_s,
                is_first=not any(entry.side == side.name for entry in self.state.finished),
                lock=self.lock,
                interruption=self.interruption,
            )
        except subprocess.TimeoutExpired:
            raise OutOfTime(
                messages.process_out_of_budget(path.stem, limit_s, self.budget_s)
            ) from None
        seconds = monotonic() - start
        if side.name == "base" and not run.cases:
            # There is nothing to compare head with.
            raise processes.NothingMeasured(messages.all_failed(path.stem, run.session.failures))
        self.state.add(Finished(side=side.name, pair=pair, seconds=seconds))
        mean_s = fmean(entry.seconds for entry in self.state.finished)
        print(
            messages.progress(
                len(self.state.finished),
                len(self.state.finished) + left,
                f"{side.name} {pair}",
                cases=len(run.cases),
                seconds=seconds,
                failed=bool(code),
                left=seconds_left(left * mean_s),
            ),
            flush=True,
        )
