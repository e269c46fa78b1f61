"""The runs of a trial, and what clean ones are accepted as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from msgspec import structs

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.metric import Detector
from diffusers_perf.catalog.metrics import (
    BY_THE_CLOCK,
    LIMITED,
    PEAK_HOST_MEMORY,
    STRICT,
    WARM_UP,
    detector_of,
)
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.limits import accepted_of
from diffusers_perf.measurement.pipelines import Source
from diffusers_perf.messages import faults as messages
from diffusers_perf.records import image_files
from diffusers_perf.records.baselines import MachineBaseline, OperatorBaseline
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.names import image_file
from diffusers_perf.records.operators import OperatorCounts
from diffusers_perf.records.run import Machine
from diffusers_perf.records.store import BaselineStore

LEFT_BY_EARLIER_TRIALS = 1.25
"""All trials share one process, whose peak includes what earlier ones left: clean runs after them
were up to 1.14 times larger. A main job, a process of its own, has the narrower limit."""


@dataclass(frozen=True, kw_only=True)
class CleanRun:
    """One run of a trial: the measurements of its cases, and the verdicts' findings on them."""

    measured: tuple[tuple[Case, Measurement, OperatorCounts | None], ...]
    findings: tuple[Finding, ...] = ()

    def verdicts(self) -> int:
        """How many were given: one for each detector that judged a case."""
        given = 0
        for case, measured, _ in self.measured:
            given += 1  # its image
            if case.image_only:
                continue
            given += 2  # counters, memory kept
            # Latency and the warm-up: two rounds decide nothing of either.
            given += 2 * (len(measured.rounds_s) > 2)
            given += measured.gpu_busy_s is not None
            given += measured.peak_memory_bytes is not None
        return given

    def alarms(self) -> list[Finding]:
        """What would fail a test, the worst first."""
        failing = [f for f in self.findings if not f.status.passes]
        return sorted(failing, key=lambda f: -f.status.severity)

    def alarmed_by_the_clock_alone(self) -> bool:
        """Whether a machine that became slower under way could have done it: asked once more, with
        what is clean timed again."""
        alarms = self.alarms()
        return bool(alarms) and all(detector_of(f.metric) in BY_THE_CLOCK for f in alarms)

    def found_by(self, detector: Detector) -> Finding | None:
        """The worst finding of a detector; of the measuring itself, also what makes a run
        invalid.
        """
        may_be_invalid = detector == WARM_UP.detector
        found = [
            f
            for f in self.findings
            if detector_of(f.metric) == detector
            and (not f.status.passes or (may_be_invalid and f.status == Status.INVALID))
        ]
        return max(
            found,
            # Of several counters, the one that may not rise at all says most.
            key=lambda f: (f.status.severity, f.metric in STRICT),
            default=None,
        )

    def within(self, detector: Detector, baseline: MachineBaseline | None) -> Iterator[str]:
        """What this detector measured, beside its limits."""
        for _, measured, _ in self.measured:
            limits = baseline.cases[measured.key].limits if baseline else {}
            for metric in LIMITED:
                value = None if metric.ratio_of else metric.of(measured)
                if metric.detector == detector and value is not None:
                    limit = limits.get(metric.limit_name)
                    yield messages.within(
                        metric.name,
                        value=metric.shown(value),
                        limit=None if limit is None else metric.shown(limit),
                    )

    def undecided(self, detector: Detector) -> bool:
        """Whether this detector asks for another run."""
        return any(detector_of(f.metric) == detector and f.status.warns for f in self.findings)


@dataclass(kw_only=True)
class Clean:
    """A setting's clean runs so far, and the folder in which their image is accepted."""

    folder: Path
    sides: list[CleanRun] = field(default_factory=list)
    trials: int = 0

    def baseline(self, machine: Machine, *, steps: int) -> MachineBaseline | None:
        """What `accept` makes of these runs; None before the first."""
        if not self.sides:
            return None
        cases = {}
        for index, (case, first, _) in enumerate(self.sides[0].measured):
            accepted = accepted_of(
                # A reference is compared with nothing.
                [
                    (side.measured[index][1], side.measured[0][1] if index else None)
                    for side in self.sides
                ],
                accepted=date.today().isoformat(),
                versions=machine.versions,
                workload=as_judged(case, steps).workload.as_json(),
                device=machine.device,
            )
            limits = dict(accepted.limits)
            if PEAK_HOST_MEMORY.limit_name in limits:
                limits[PEAK_HOST_MEMORY.limit_name] *= LEFT_BY_EARLIER_TRIALS
            # Only the loops beside a trial say whether its core has become slower.
            cases[first.key] = structs.replace(accepted, limits=limits, cpu_loop_s=None)
        return MachineBaseline(machine=machine.name, cases=cases)

    def operators(self, model: str) -> dict[str, OperatorBaseline]:
        """What `structure --write` makes of the first of them."""
        return {
            structure_verdicts.key_of(case, model): OperatorBaseline(
                accepted=date.today().isoformat(),
                reason=messages.CLEAN_RUN,
                versions={},
                counters=seen.accepted(),
            )
            for case, _, seen in (self.sides[0].measured if self.sides else ())
            if seen is not None
        }

    def accept_image(self, reference: Case, source: Source) -> None:
        """Keep the reference's image, as small as accepted images are."""
        saved = image_files.load_thumbnail(image_file(self.folder, reference.id))
        target = BaselineStore(self.folder).image(
            model=source.name, weights=source.weights, workload=reference.workload.name
        )
        image_files.save(saved.images, target, bits=saved.bits)


def as_judged(case: Case, steps: int) -> Case:
    """A reference as a whole generation, of which what is done once is a smaller part."""
    if not case.is_reference:
        return case
    return replace(case, workload=replace(case.workload, steps=steps))
