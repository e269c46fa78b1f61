"""What a comparison of head with base found, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diffusers_perf.catalog.metric import MetricKind, Subject
from diffusers_perf.catalog.metrics import COMPARED
from diffusers_perf.catalog.status import Status, exit_code, worst
from diffusers_perf.judge.finding import Finding, texts
from diffusers_perf.judge.messages import comparison as messages
from diffusers_perf.judge.stats import Interval

TIMES = {metric.name for metric in COMPARED if metric.kind is MetricKind.TIME}


@dataclass(frozen=True, kw_only=True)
class Change(Finding):
    """What became of one metric of one case."""

    base: float | None = None
    """Median over the processes, in the metric's unit; a counter's total."""
    head: float | None = None
    ratio: Interval | None = None
    """Head over base, with its 99.5 % interval."""
    noise: float = 0.0
    """Of a pair's log ratio."""
    calibrated: bool = False
    """Whether the noise is at least what a calibration has shown, and few pairs detect more."""
    threshold: float = 0.0
    """The share that a slowdown has to exceed."""
    by_pair: tuple[tuple[float, float] | None, ...] = ()
    """Base's and head's values that were compared, by pair; None where a pair was left out."""
    more_could_tell: bool = False
    """Whether more pairs, up to `PAIRS_MOST`, could settle what is inconclusive or invalid."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that was found, and what follows from it."""

    changes: tuple[Change, ...]
    pairs: int
    machines: str = ""
    """On which machine, and which versions each side ran with."""

    @property
    def verdicts(self) -> dict[str, Status]:
        """By case id, the worst of its statuses. A reference that drifted is a case only where it
        was measured as one.
        """
        cases = dict.fromkeys(
            change.case for change in self.changes if change.metric != Subject.DRIFT
        )
        return {
            case: worst(change.status for change in self.changes if change.case == case)
            for case in cases
        }

    def failed(self, case: str) -> tuple[Status, ...]:
        """All statuses of a case that do not pass, the least severe first."""
        found = {c.status for c in self.changes if c.case == case and not c.status.passes}
        return tuple(sorted(found, key=lambda status: status.severity))

    @property
    def inconclusive(self) -> tuple[str, ...]:
        """Ids of the cases of which something is inconclusive or invalid."""
        return tuple(dict.fromkeys(c.case for c in self.changes if c.status.warns))

    @property
    def worth_more(self) -> tuple[str, ...]:
        """Those of them that more pairs could settle."""
        return tuple(dict.fromkeys(c.case for c in self.changes if c.more_could_tell))

    @property
    def no_time_counts(self) -> bool:
        """Whether all times are invalid, in all cases, and more pairs could not tell more."""
        times = [c for c in self.changes if c.metric in TIMES]
        return bool(times) and all(
            c.status == Status.INVALID and not c.more_could_tell for c in times
        )

    @property
    def exit_code(self) -> int:
        """0 passes, 1 is a regression, 2 could not be judged from these pairs."""
        return exit_code(change.status for change in self.changes)

    @property
    def sentence(self) -> str:
        """The whole in one line."""
        return messages.summary(self.verdicts.values(), self.exit_code, pairs=self.pairs)

    def texts(self) -> Iterator[tuple[Status, str]]:
        """A message for everything that is not the same, the worst first."""
        return texts(change for change in self.changes if change.status != Status.SAME)
