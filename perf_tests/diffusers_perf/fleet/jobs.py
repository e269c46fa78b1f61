"""What an executor is given and what it gives back: nothing else is known of where a job runs."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

OUT = "{out}"
"""In a job's command, the folder into which it writes what is to come back."""
LOG = "log"
"""Name of the file with all that a job's process printed."""

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""Exit codes of a process that another one ended: the system, where memory is short."""

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process that has one GPU, or a machine's CPU, for itself."""

    name: str
    """Of its folder, and in messages."""
    command: tuple[str, ...]
    """What Python is given; it runs in the repository's root."""
    kind: str
    """Of GPU, as `Executor.places` names it."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job runs."""

    host: str
    gpu_uuid: str | None
    """None on a CPU."""
    node: str
    """The executor's name for the machine or GPU, which can be lost as a whole."""

    @property
    def text(self) -> str:
        """As a message names it."""
        return f"{self.host} {self.gpu_uuid}" if self.gpu_uuid else self.host


@dataclass(frozen=True, kw_only=True)
class Started:
    job: Job
    place: Place


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The job's process ended, well or not."""

    job: Job
    place: Place
    code: int
    """Its exit code; negative for the signal that ended it."""
    seconds: float
    files: Mapping[str, bytes]
    """By path below `OUT`, what it wrote, and its `LOG`."""

    @property
    def was_killed(self) -> bool:
        return self.code in KILLED


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The job can be repeated: what ran it is gone."""

    job: Job
    place: Place | None
    """None where it was lost before it began."""
    reason: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    """As of a finished one, where they are not lost as well."""


Event = Started | Finished | Lost


class Executor(Protocol):
    """Runs jobs, each alone on its GPU."""

    device: Device
    places: Mapping[str, int]
    """By kind of GPU, how many jobs run at once. `Refusal` where there is none."""

    def start(self, job: Job, *, elsewhere: Place | None = None) -> None:
        """Run it as soon as a GPU is free, jobs in their order; if another is there than this
        one, on that.
        """

    def next(self) -> Event:
        """What happens next; called while a job is to end."""

    def close(self) -> None:
        """End every job at once. No process is left."""
