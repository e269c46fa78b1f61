"""What became of faults, controls and clean runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from diffusers_perf.catalog.metric import Detector
from diffusers_perf.catalog.metrics import BY_THE_CLOCK, IMAGE_DISTANCE, detector_of
from diffusers_perf.catalog.status import REGRESSION, Status
from diffusers_perf.faults.injection import Fault
from diffusers_perf.judge.finding import Finding

UNDECIDED = 3
"""The exit code if the machine was too busy or the time too short."""


class OutcomeStatus(StrEnum):
    """What became of a fault or a control."""

    DETECTED = "detected"
    MISSED = "missed"
    NOT_FLAGGED = "not flagged"
    """A control that every rule let pass."""
    FALSE_ALARM = "false alarm"
    """A control that a rule took for a regression."""
    UNDECIDED = "undecided"
    """The machine was too busy to tell."""
    ERROR = "error"
    SKIPPED = "skipped"
    """This machine or model lacks what it is about."""
    NOT_RUN = "not run"
    """No time was left."""

    @property
    def as_wanted(self) -> bool:
        """Whether the suite did what it must."""
        return self in (OutcomeStatus.DETECTED, OutcomeStatus.NOT_FLAGGED)

    @property
    def is_skipped(self) -> bool:
        return self is OutcomeStatus.SKIPPED

    @property
    def holds(self) -> bool:
        """Whether the suite failed in nothing."""
        return self.as_wanted or self.is_skipped

    @property
    def asks_again(self) -> bool:
        """Whether another run may tell."""
        return self in (OutcomeStatus.UNDECIDED, OutcomeStatus.NOT_RUN)

    @property
    def exit_code(self) -> int:
        return UNDECIDED if self.asks_again else 0 if self.holds else REGRESSION


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one fault or control."""

    fault: Fault
    status: OutcomeStatus
    verdict: Status | None = None
    """Of the finding that detected it, or flagged it; None where nothing was judged."""
    sentence: str = ""
    also_detected_by: tuple[Detector, ...] = ()
    smallest: float | None = None
    """The smallest size that was detected."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FalseAlarm:
    """What a clean run was called against clean runs."""

    after: str
    """The fault before it."""
    finding: Finding

    @property
    def by_the_clock(self) -> bool:
        """Whether a machine that became slower under way gives it too."""
        return detector_of(self.finding.metric) in BY_THE_CLOCK

    @property
    def exit_code(self) -> int:
        return UNDECIDED if self.by_the_clock else REGRESSION

    @property
    def text(self) -> str:
        return f"after {self.after}: {self.finding.sentence}"


def sentence_of(finding: Finding) -> str:
    """What an outcome says of its finding."""
    # How far off an image is stands beside what is wrong with it, and is what a person asks.
    return (
        f"{finding.said} ({finding.measured})"
        if finding.metric == IMAGE_DISTANCE.name
        else finding.said
    )
