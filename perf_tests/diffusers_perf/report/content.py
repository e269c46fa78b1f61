"""What a report says, as plain data: made once (`builder`), rendered twice (`page`, `markdown`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.metrics import GPU_SPEEDUP, LATENCY_SPEEDUP
from diffusers_perf.catalog.status import Status
from diffusers_perf.history.words import HistoryLine
from diffusers_perf.judge.stats import Interval
from diffusers_perf.plugin.screen import how_close
from diffusers_perf.records.baselines import PublishedCase
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.missing import Untimed
from diffusers_perf.records.run import CaseFinding, CaseRecord

Mood = Literal["good", "plain", "warning", "bad"]


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that a reader has to know, and what to do about it."""

    status: str
    mood: Mood
    case: str
    sentence: str
    others: tuple[CaseFinding, ...] = ()
    """What else was found on the case, the worst first."""
    next: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The first thing that is read."""

    mood: Mood
    sentence: str
    findings: tuple[Notice, ...]
    """What needs attention, worst first."""
    next: str
    """One command; empty if there is nothing to do."""


@dataclass(frozen=True, kw_only=True)
class CasePart:
    """One case with what follows from its numbers."""

    record: CaseRecord
    mood: Mood
    base: Measurement | None
    """The same case of the run it is compared with."""
    interval: Interval | None
    """99 % interval of the latency, seconds; None from a single round."""
    guide: PublishedCase | None
    """The guide's row."""
    front: bool
    """No other case of the workload is faster, closer and smaller at once."""

    @property
    def measurement(self) -> Measurement:
        return self.record.measurement

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        """The stack's, or ``reference``."""
        return self.measurement.case

    @property
    def status(self) -> Status:
        return self.record.status

    @property
    def against(self) -> str:
        """Name of the case that it is compared with; its own for a reference."""
        return self.record.compared_with.case

    @property
    def psnr_db(self) -> float | None:
        """None where nothing was compared."""
        return self.measurement.image_distance.psnr_db if self.measurement.image_distance else None

    @property
    def farthest_db(self) -> float | None:
        return self.measurement.farthest_db

    @property
    def ssim(self) -> float | None:
        return self.measurement.image_distance.ssim if self.measurement.image_distance else None

    @property
    def to(self) -> str:
        """What it is compared with, where that is not the reference."""
        return "" if self.against in (REFERENCE, self.name) else self.against

    @property
    def label(self) -> str:
        """Its name, and what it is compared with where that is not the reference."""
        return f"{self.name} (vs. {self.to})" if self.to else self.name

    @property
    def speedup(self) -> float | None:
        """By latency, over the case it is compared with."""
        return LATENCY_SPEEDUP.of(self.measurement, self.record.compared_with)

    @property
    def gpu_speedup(self) -> float | None:
        return GPU_SPEEDUP.of(self.measurement, self.record.compared_with)

    @property
    def idle_share(self) -> float | None:
        """Share of the latency during which the GPU is idle; None where that is unknown."""
        return self.measurement.idle_share

    @property
    def bottleneck(self) -> str:
        """``host`` or ``GPU``; empty where it is unknown."""
        return (self.measurement.bottleneck or "").replace("gpu", "GPU")

    @property
    def idle(self) -> str:
        """The GPU's idle share, as a person reads it."""
        return "" if self.idle_share is None else f"{100 * self.idle_share:.0f} % idle"

    @property
    def bottleneck_text(self) -> str:
        """The bottleneck and how far the GPU is idle."""
        return {"host": f"host, GPU {self.idle}", "GPU": f"GPU, {self.idle}"}.get(
            self.bottleneck, ""
        )

    @property
    def over_roofline(self) -> float | None:
        """The latency over its lower bound on this GPU."""
        measured = self.measurement
        return measured.latency_s / measured.roofline_s if measured.roofline_s else None

    @property
    def images_per_s(self) -> float:
        return self.measurement.num_images / self.measurement.latency_s

    @property
    def image(self) -> str:
        """What is on it, or how close it is, in a few words."""
        if not self.measurement.look.finite:
            return "not finite"
        if self.status in (Status.BLACK, Status.UNIFORM):
            return self.status
        if self.psnr_db is None:
            return ""
        return how_close(self.psnr_db, self.ssim, self.measurement.farthest_step_db)

    @property
    def psnr(self) -> str:
        """PSNR, or ``identical``; empty where nothing was compared."""
        return "" if self.psnr_db is None else how_close(self.psnr_db, self.ssim).split(", ")[0]

    @property
    def step(self) -> str:
        """The farthest step of a step-wise workload, or ``identical``; empty elsewhere."""
        step_db = self.measurement.farthest_step_db
        return "" if step_db is None else how_close(step_db, 1.0).split(", ")[0]

    @property
    def farthest(self) -> str:
        """`farthest_db`, or ``identical``; empty where nothing was compared."""
        if self.farthest_db is None or self.farthest_db == self.psnr_db:
            return self.psnr
        return how_close(self.farthest_db, None)


@dataclass(frozen=True, kw_only=True)
class WorkloadPart:
    """One workload's cases, in the order in which they were declared."""

    name: str
    title: str
    """What is generated, in words."""
    prompt: str
    cases: tuple[CasePart, ...]
    claims: tuple[str, ...]

    @property
    def settings(self) -> Mapping[str, str]:
        """What each optimization of its cases does, in a line."""
        return {name: line for case in self.cases for name, line in case.record.stack.items()}

    @property
    def timed(self) -> tuple[CasePart, ...]:
        """Those with a time that is judged."""
        return tuple(case for case in self.cases if not case.record.image_only)

    @property
    def slowest_first(self) -> tuple[CasePart, ...]:
        """Those with a time: the reference, then from the slowest to the fastest."""
        return tuple(sorted(self.timed, key=lambda c: (c.name != REFERENCE, -c.measurement.cost_s)))

    @property
    def compiles(self) -> bool:
        """Something is compiled: then a first image takes more than loading."""
        return any(case.measurement.compile_cache for case in self.cases)

    @property
    def in_batches(self) -> bool:
        """Several images at once: then how many a second is what a server asks."""
        return any(case.measurement.num_images > 1 for case in self.cases)

    @property
    def on_gpu(self) -> bool:
        return any(case.measurement.gpu_busy_s is not None for case in self.timed)

    @property
    def guided(self) -> bool:
        return any(case.guide for case in self.cases)


@dataclass(frozen=True, kw_only=True)
class ChangePart:
    """One metric of a case, base against head."""

    case: str
    metric: str = ""
    status: str = ""
    """A verdict where pairs were judged; empty from single runs."""
    mood: Mood = "plain"
    base: str = ""
    head: str = ""
    ratio: float | None = None
    interval: str = ""
    sentence: str = ""
    next: str = ""
    changed: bool


@dataclass(frozen=True, kw_only=True)
class ComparisonPart:
    """Base against head."""

    mood: Mood
    sentence: str
    """Its outcome."""
    about: str
    """What was compared: commits and runs."""
    changes: tuple[ChangePart, ...] = ()
    """The worst at the top."""
    counters: tuple[tuple[str, str], ...] = ()
    """Case and, in words, the counter that changed."""
    next: str = ""
    """What to do about all of it."""

    @property
    def changed(self) -> tuple[ChangePart, ...]:
        return tuple(change for change in self.changes if change.changed)

    @property
    def inconclusive(self) -> tuple[ChangePart, ...]:
        """What these runs cannot tell."""
        return tuple(change for change in self.changes if change.mood == "warning")

    @property
    def unchanged(self) -> tuple[ChangePart, ...]:
        shown = {*self.changed, *self.inconclusive}
        return tuple(change for change in self.changes if change not in shown)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report says, but for the images."""

    title: str
    summary: Summary
    machine: tuple[tuple[str, str], ...]
    """Name and value: the machine, the versions, the run."""
    workloads: tuple[WorkloadPart, ...]
    comparison: ComparisonPart | None
    lost: tuple[Untimed, ...]
    notes: tuple[str, ...]
    history: tuple[HistoryLine, ...] = ()
    """Of the cases that the history of this machine knows."""

    @property
    def cases(self) -> tuple[CasePart, ...]:
        return tuple(case for workload in self.workloads for case in workload.cases)

    @property
    def on_gpu(self) -> bool:
        return any(workload.on_gpu for workload in self.workloads)


def mood_of(status: str) -> Mood:
    """How a status is shown. An unknown one is shown as bad."""
    if status in (Status.NEW, Status.SKIPPED, ""):
        return "plain"
    known = _known(status)
    if known and known.warns:
        return "warning"
    return "good" if known and known.passes else "bad"


def badness(status: str) -> int:
    """For sorting: the worse, the larger."""
    known = _known(status)
    return known.severity if known else len(Status)


def _known(status: str) -> Status | None:
    return next((known for known in Status if known == status), None)
