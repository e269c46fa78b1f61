"""What became of faults, controls and clean runs."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers_perf.catalog.metrics import LATENCY, detector_of
from diffusers_perf.faults.injection import Fault
from diffusers_perf.judge.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one fault or control."""

    fault: Fault
    status: str
    """``detected`` or ``missed``; for a control ``not flagged`` or ``false alarm``; ``undecided``
    where the machine was too busy to tell; ``error``, ``skipped``, ``not run``."""
    verdict: str = ""
    sentence: str = ""
    also_detected_by: tuple[str, ...] = ()
    smallest: float | None = None
    """The smallest size that was detected."""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return self.status in ("detected", "not flagged", "skipped")

    @property
    def undecided(self) -> bool:
        return self.status in ("undecided", "not run")


@dataclass(frozen=True, kw_only=True)
class FalseAlarm:
    """What a clean run was called against clean runs."""

    after: str
    """The fault before it."""
    finding: Finding

    @property
    def by_the_clock(self) -> bool:
        """Whether a machine that became slower under way gives it too."""
        return detector_of(self.finding.metric) == LATENCY.detector

    @property
    def text(self) -> str:
        return f"after {self.after}: {self.finding.sentence}"
