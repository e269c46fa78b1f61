"""The status of a case: what each means for pytest, for the exit code, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

REGRESSION = 1
CANNOT_JUDGE = 2
"""Exit codes of a command, beside 0 where all holds."""


class Status(StrEnum):
    """From best to worst. The status of a case is its worst finding's."""

    SKIPPED = "skipped"
    """It cannot run on this machine."""
    SAME = "same"
    FASTER = "faster"
    LESS_WORK = "less work"
    """A counter fell."""
    NEW = "new"
    """No baseline has it."""
    INCONCLUSIVE = "inconclusive"
    """The noise is larger than the difference."""
    INVALID = "invalid"
    """Interference, or broken measuring."""
    SLOWER = "slower"
    MORE_MEMORY = "more memory"
    MORE_WORK = "more work"
    """A counter rose."""
    WORSE_IMAGE = "worse image"
    UNIFORM = "uniform"
    BLACK = "black"
    NOT_FINITE = "not finite"
    MISSING = "missing"
    """It was requested and did not run."""
    NOT_APPLIED = "not applied"
    """An applied check failed."""
    ERROR = "error"

    @property
    def severity(self) -> int:
        """The higher, the worse."""
        return _ORDER[self]

    @property
    def passes(self) -> bool:
        """Whether the test of a case with this status passes, perhaps with a warning."""
        return self.severity < Status.SLOWER.severity

    @property
    def warns(self) -> bool:
        """Whether the case could not be judged."""
        return self in (Status.INCONCLUSIVE, Status.INVALID)

    @property
    def improves(self) -> bool:
        """Whether the case got better, so that its baseline is out of date."""
        return self in (Status.FASTER, Status.LESS_WORK)

    @property
    def shows_nothing(self) -> bool:
        """Whether there is an image, and nothing can be seen on it."""
        return self in (Status.UNIFORM, Status.BLACK, Status.NOT_FINITE)

    @property
    def exit_code(self) -> int:
        """0 passes, 1 is a regression, 2 could not be judged."""
        return CANNOT_JUDGE if self.warns else 0 if self.passes else REGRESSION


_ORDER = {status: place for place, status in enumerate(Status)}


def worst(statuses: Iterable[Status]) -> Status:
    """The most severe; `Status.SAME` of none."""
    return max(statuses, key=lambda status: status.severity, default=Status.SAME)


def exit_code(statuses: Iterable[Status]) -> int:
    """A command's exit code: 1 for a regression, 2 if a case could not be judged, else 0."""
    codes = {status.exit_code for status in statuses}
    return REGRESSION if REGRESSION in codes else max(codes, default=0)
