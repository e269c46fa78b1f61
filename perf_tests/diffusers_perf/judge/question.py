"""Everything that a verdict depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from diffusers_perf.catalog.declarations import Tolerance
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Finding, Message
from diffusers_perf.judge.messages.commands import Accept, AcceptImages, Command, Rerun
from diffusers_perf.judge.messages.numbers import other_versions
from diffusers_perf.records.baselines import Bound, CaseBaseline
from diffusers_perf.records.main_job import MainJob
from diffusers_perf.records.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class Question:
    """One case, and everything that it is compared with."""

    measured: Measurement
    reference: Measurement
    """The case it is compared with; the measurement itself for a workload's reference."""
    tolerance: Tolerance | None
    baseline: CaseBaseline | None
    baseline_name: str
    """The file of the machine's baseline, as a message names it."""
    folder: str
    """The folder of all baselines, as a message names it; empty where it is not known."""
    portable: Mapping[str, Bound]
    """By name in `portable.json`."""
    card: str
    """The GPU of this run, as `Machine.card`; empty where it is not known."""
    versions: Mapping[str, str]
    """Of this run: a message says where the baseline was made with others."""
    image_only: bool
    drift: float = 1.0
    """The reference's latency when it was timed again, over its first; 1 where it was not timed
    again or the difference is not significant."""
    workload: Mapping[str, object] = field(default_factory=dict)
    """It must be the baseline's."""
    had_no_accepted_image: bool = False
    """Whether an image is accepted that the run did not have, to compare its own with."""
    job: MainJob = field(default_factory=MainJob)
    """It runs the case again."""
    again: Command | None = None
    """What runs the case again where head need not be what is checked out: `ab`."""

    @property
    def is_reference(self) -> bool:
        return self.measured is self.reference

    @property
    def name(self) -> str:
        return f"{self.measured.workload}-{self.measured.case}"

    @property
    def source(self) -> str:
        """Where the baseline's numbers come from."""
        if self.baseline is None:
            return ""
        source = f"{self.baseline_name}, accepted {self.baseline.accepted}"
        return source + other_versions(self.baseline.versions, self.versions)

    @property
    def rerun(self) -> Command:
        return self.again or Rerun(job=self.job)

    @property
    def accept(self) -> Command:
        return Accept(job=self.job)

    @property
    def accept_images(self) -> Command:
        return AcceptImages(job=self.job)

    def finding(self, status: Status, metric: str, message: Message | None = None) -> Finding:
        """On this case; without a message, all is well."""
        return Finding.of(status, metric, self.name, message or Message())
