"""Injects a fault between two clean runs, and judges it by the rules that judge everything else.

What the clean run before it did is accepted for as long, in memory and in a folder of its own, as
`ci accept` would accept it. The clean run after it is judged in the same way: a verdict on two runs
of the same code, which must find nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from msgspec import structs

from diffusers_perf.catalog.declarations import REFERENCE, Case, Workload
from diffusers_perf.catalog.discovery import Project
from diffusers_perf.catalog.metric import Detector
from diffusers_perf.catalog.metrics import STRICT, detector_of
from diffusers_perf.catalog.status import Status
from diffusers_perf.faults.injection import CannotInject, Fault, Injection, Setting
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.judge.limits import accepted_of
from diffusers_perf.measurement import bench, pipelines, timing
from diffusers_perf.measurement.bench import Bench, CaseError
from diffusers_perf.measurement.build import flag
from diffusers_perf.measurement.observing import Observing
from diffusers_perf.records import image_files, pixels
from diffusers_perf.records.baselines import MachineBaseline, OperatorBaseline
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.names import image_file
from diffusers_perf.records.operators import Observation
from diffusers_perf.records.store import BaselineStore

ATTEMPTS = 3
"""A fault that came out inconclusive or invalid is injected again, as a workflow repeats a run."""
CLEAN_RUNS_MAX = 5
"""As many of the latest clean runs of a setting stand for the accepted processes."""
SEEN_UNOBSERVED: tuple[Detector, ...] = ("latency", "image", "applied check")
"""Measures that need nothing but the timed rounds: nothing else is observed for them."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One run of a trial: the measurements of its cases, and the verdicts' findings on them."""

    measured: tuple[tuple[Case, Measurement, Observation | None], ...]
    findings: tuple[Finding, ...] = ()

    def alarms(self) -> list[Finding]:
        """What would fail a test, the worst first."""
        failing = [f for f in self.findings if not f.status.passes]
        return sorted(failing, key=lambda f: -f.status.severity)

    def alarmed_by_the_clock_alone(self) -> bool:
        """Whether a machine that became slower under way could have done it: asked once more, with
        what is clean timed again."""
        alarms = self.alarms()
        return bool(alarms) and all(detector_of(f.metric) == "latency" for f in alarms)

    def saw(self, measure: Detector) -> Finding | None:
        """What this measure found; of the measuring itself, also what makes a run invalid."""
        may_be_invalid = measure == "measuring"
        found = [
            f
            for f in self.findings
            if detector_of(f.metric) == measure
            and (not f.status.passes or (may_be_invalid and f.status == Status.INVALID))
        ]
        return max(
            found,
            # Of several counters, the one that may not rise at all says most.
            key=lambda f: (f.status.severity, f.metric in STRICT),
            default=None,
        )

    def undecided(self, measure: Detector) -> bool:
        """Whether this measure asks for another run."""
        return any(detector_of(f.metric) == measure and f.status.warns for f in self.findings)


@dataclass(kw_only=True)
class Clean:
    """A setting's clean runs so far, and the folder in which their image is accepted."""

    folder: Path
    sides: list[Side] = field(default_factory=list)
    trials: int = 0


@dataclass(frozen=True, kw_only=True)
class Row:
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
        return detector_of(self.finding.metric) == "latency"

    @property
    def text(self) -> str:
        return f"after {self.after}: {self.finding.sentence}"


@dataclass(kw_only=True)
class Trials:
    """A session's trials on one bench, whose baselines they replace by their own."""

    bench: Bench
    project: Project
    """In which a fault's workload is declared."""
    folder: Path
    """For accepted images; empty at the start."""
    verdicts: int = 0
    """Given so far on clean runs against clean runs, one a measure and case."""
    false_alarms: list[FalseAlarm] = field(default_factory=list)
    _clean: dict[str, Clean] = field(default_factory=dict)

    def run(self, fault: Fault) -> Row:
        """Clean, injected, clean again; whatever goes wrong stands in the row."""
        started = perf_counter()
        try:
            try:
                row = self._run(fault)
            finally:
                self.bench.clear()
        except CannotInject as reason:
            row = Row(fault=fault, status="skipped", sentence=str(reason))
        except Exception as error:
            # A fault can break anything in three libraries, and the others have to go on.
            text = (str(error).strip().splitlines() or [""])[0]
            row = Row(fault=fault, status="error", sentence=f"{type(error).__name__}: {text}")
        return replace(row, seconds=perf_counter() - started)

    def _run(self, fault: Fault) -> Row:
        cases = self._cases(fault.setting)
        for case in cases:
            lack = self.bench.lacks(case.stack)
            if lack is not None:
                raise CannotInject(lack.reason)
        size = fault.sizes[0] if fault.sizes else None
        has_givens = bool(self._injection(fault, None, size).givens)
        key = fault.name if has_givens else fault.setting.key
        clean = self._clean.get(key)
        if clean is None:
            clean = self._clean[key] = Clean(folder=self.folder / str(len(self._clean)))
            clean.sides.append(self._side(fault, cases, clean, injected=False))
            _accept_images(clean, cases, self.bench)
            # A side collects garbage often: let it pass by what the libraries hold for good.
            gc.collect()
            gc.freeze()
        row = self._injected(fault, cases, clean, size, attempts=ATTEMPTS)
        clean.trials += 1
        if self._wants_a_clean_run(clean):
            after = self._side(fault, cases, clean, injected=False)
            if after.alarmed_by_the_clock_alone():
                clean.sides.append(after)
                after = self._side(fault, cases, clean, injected=False)
            self._count(fault, after)
            clean.sides = [*clean.sides, after][-CLEAN_RUNS_MAX:]
        if row.status == "detected" and len(fault.sizes) > 1:
            row = replace(row, smallest=self._smallest(fault, cases, clean))
        return row

    def _wants_a_clean_run(self, clean: Clean) -> bool:
        """After each fault; on a GPU, whose minutes are dear, after the first and every fourth."""
        return self.bench.device.type == "cpu" or clean.trials == 1 or clean.trials % 4 == 0

    def _injected(
        self,
        fault: Fault,
        cases: Sequence[Case],
        clean: Clean,
        size: float | None,
        *,
        attempts: int,
    ) -> Row:
        side = self._side(fault, cases, clean, injected=True, size=size)
        if fault.detected_by is None:
            if side.alarmed_by_the_clock_alone():
                clean.sides.append(self._side(fault, cases, clean, injected=False))
                side = self._side(fault, cases, clean, injected=True, size=size)
            alarms = side.alarms()
            shown = alarms or [f for f in side.findings if f.status.warns]
            return Row(
                fault=fault,
                status="false alarm" if alarms else "not flagged",
                verdict=shown[0].status if shown else Status.SAME,
                sentence=shown[0].said if shown else "",
            )
        for _ in range(attempts - 1):
            if side.saw(fault.detected_by) or not side.undecided(fault.detected_by):
                break
            side = self._side(fault, cases, clean, injected=True, size=size)
        seen = side.saw(fault.detected_by)
        others = dict.fromkeys(detector_of(f.metric) for f in side.alarms())
        undecided = [
            f for f in side.findings if detector_of(f.metric) == fault.detected_by and f.what
        ]
        finding = seen or next(iter([*undecided, *side.alarms()]), None)
        return Row(
            fault=fault,
            status="detected"
            if seen
            else "undecided"
            if side.undecided(fault.detected_by)
            else "missed",
            verdict=finding.status if finding else Status.SAME,
            sentence=_sentence(finding) if finding else f"{fault.detected_by} shows no change",
            also_detected_by=tuple(m for m in others if m != fault.detected_by),
        )

    def _smallest(self, fault: Fault, cases: Sequence[Case], clean: Clean) -> float:
        """By halving, as if what is detected at one size were detected at every larger one."""
        detected, missed = 0, len(fault.sizes)
        while missed - detected > 1:
            middle = (detected + missed) // 2
            row = self._injected(fault, cases, clean, fault.sizes[middle], attempts=1)
            detected, missed = (middle, missed) if row.status == "detected" else (detected, middle)
        return fault.sizes[detected]

    def _cases(self, setting: Setting) -> list[Case]:
        """The reference, and the case if the setting has another, in the setting's steps."""
        declared = self._workload(setting)
        catalog = self.project.catalog_of(declared)
        own = setting.base_on(self.bench.device.type)
        base = tuple(dict.fromkeys((*declared.base, *own)))
        for change in setting.changes:
            if change not in ("seed", "scheduler", *declared.call):
                raise ValueError(f"{declared.name} has no {change!r} to change")
        workload = declared.changed(base=base, steps=setting.steps, **setting.changes)
        return [
            replace(catalog.case(workload, name), image_only=setting.image_only)
            for name in dict.fromkeys((REFERENCE, setting.case))
        ]

    def check(self, fault: Fault) -> None:
        """`ValueError` where its setting is none: no workload, case or optimization of that name,
        not one step or round, or a change of a field that the workload lacks.
        """
        setting = fault.setting
        if setting.workload not in {case.workload.name for case in self.project.cases}:
            raise ValueError(f"no workload is called {setting.workload!r}")
        if setting.rounds < 1:
            raise ValueError("it takes one round or more")
        with suppress(CannotInject):
            self._cases(setting)

    def _workload(self, setting: Setting) -> Workload:
        for case in self.project.cases:
            of = case.workload
            if of.scale == self.bench.source.scale and of.name == setting.workload:
                return of
        raise CannotInject(f"no workload of this model is called {setting.workload}")

    def _injection(self, fault: Fault, clean: Clean | None, size: float | None) -> Injection:
        step_s = gpu_step_s = 0.0
        if clean is not None and clean.sides and clean.sides[-1].measured:
            steps = fault.setting.steps
            _, measured, _ = clean.sides[-1].measured[-1]
            step_s = measured.latency_s / steps
            gpu_step_s = (measured.gpu_busy_s or 0.0) / steps
        injection = Injection(
            device=self.bench.device.type, size=size, step_s=step_s, gpu_step_s=gpu_step_s
        )
        return fault.injected(injection)

    def _side(
        self,
        fault: Fault,
        cases: Sequence[Case],
        clean: Clean,
        *,
        injected: bool,
        size: float | None = None,
    ) -> Side:
        """Detector and judge the cases with the fault, or with no more than its givens."""
        injection = self._injection(fault, clean, size)
        if not injected:
            injection.contexts, injection.changes = [], []
        tried = self.bench
        tried.rounds = fault.setting.rounds
        # Where no latency is judged, one short warm-up is enough.
        tried.quick = fault.setting.rounds == 1
        tried.images_folder = clean.folder
        tried.store = BaselineStore(clean.folder)
        steps = self._workload(fault.setting).steps
        tried.baseline = self._baseline(clean, steps)
        observed = not injected or fault.detected_by not in SEEN_UNOBSERVED
        tried.operators = self._operators(clean) if observed else {}
        tried.portable = {}
        tried.measurements.clear()
        measured: list[tuple[Case, Measurement, Observation | None]] = []
        findings: list[Finding] = []
        with ExitStack() as contexts:
            contexts.enter_context(flag(bench, "built", building(injection)))
            if not observed:
                contexts.enter_context(
                    flag(Observing, "observe", lambda _, measured, *__, **___: measured)
                )
            for context in injection.contexts:
                contexts.enter_context(context)
            for case in cases:
                try:
                    seen = self._measured(case)
                    verdict = self._verdict(case, seen, cases, steps)
                except CaseError as error:
                    findings.append(_of_error(error))
                    break
                findings += verdict.findings
                measured.append((case, seen, tried.observing.counted.get(case.id)))
        if not injected and (not measured or len(measured) < len(cases)):
            raise RuntimeError(f"the clean run failed: {findings[-1].said}")
        return Side(measured=tuple(measured), findings=tuple(findings))

    def _verdict(self, case: Case, seen: Measurement, cases: Sequence[Case], steps: int) -> Verdict:
        if not case.is_reference:
            # Its workload must be the reference's: that may be timed again.
            return self.bench.judge(case, seen, self.bench.measurements[cases[0].id], list(cases))
        whole = _as_judged(case, steps)
        return self.bench.judge(whole, structs.replace(seen, steps=steps), None, [whole])

    def _measured(self, case: Case) -> Measurement:
        self.bench.observing.counted.pop(case.id, None)
        self.bench.open(case)
        return self.bench.measure(case, timing.time_rounds)

    def _baseline(self, clean: Clean, steps: int) -> MachineBaseline | None:
        """What `ci accept` makes of runs, from the clean runs so far; None before the first."""
        if not clean.sides:
            return None
        cases, machine = {}, self.bench.machine
        for index, (case, first, _) in enumerate(clean.sides[0].measured):
            cases[first.key] = accepted_of(
                # A reference is compared with nothing.
                [
                    (side.measured[index][1], side.measured[0][1] if index else None)
                    for side in clean.sides
                ],
                accepted=date.today().isoformat(),
                versions=machine.versions,
                workload=_as_judged(case, steps).workload.as_json(),
                device=machine.device,
            )
        return MachineBaseline(machine=machine.name, cases=cases)

    def _operators(self, clean: Clean) -> dict[str, OperatorBaseline]:
        if not clean.sides:
            return {}
        return {
            structure_verdicts.key_of(case, self.bench.source.name): OperatorBaseline(
                accepted=date.today().isoformat(),
                reason="the clean run before",
                versions={},
                counters=seen.accepted(),
            )
            for case, _, seen in clean.sides[0].measured
            if seen is not None
        }

    def _count(self, fault: Fault, after: Side) -> None:
        """Book the verdicts on a clean run: one for each measure that judged it."""
        for case, measured, _ in after.measured:
            self.verdicts += 1  # its image
            if case.image_only:
                continue
            self.verdicts += 2  # counters, memory kept
            # Latency and the warm-up: two rounds decide nothing of either.
            self.verdicts += 2 * (len(measured.rounds_s) > 2)
            self.verdicts += measured.gpu_busy_s is not None
            self.verdicts += measured.peak_memory_bytes is not None
        self.false_alarms += [
            FalseAlarm(after=fault.name, finding=finding) for finding in after.alarms()
        ]


def _as_judged(case: Case, steps: int) -> Case:
    """A reference as a whole generation, of which what is done once is a smaller part."""
    if not case.is_reference:
        return case
    return replace(case, workload=replace(case.workload, steps=steps))


def _accept_images(clean: Clean, cases: Sequence[Case], on: Bench) -> None:
    """Keep the reference's image of the clean run, as small as accepted images are."""
    reference = cases[0]
    saved = image_files.load(image_file(clean.folder, reference.id))
    target = BaselineStore(clean.folder).image(
        model=on.source.name,
        weights=on.source.weights,
        workload=reference.workload.name,
    )
    image_files.save(pixels.thumbnail(saved), target)


def building(injection: Injection) -> Any:
    """`pipelines.built`, injecting in every pipeline once its optimizations are applied."""

    @contextmanager
    def built(case: Case, source: pipelines.Source, device: torch.device) -> Iterator[Any]:
        with pipelines.built(case, source, device) as pipeline:
            injection.into(pipeline, case.name)
            try:
                yield pipeline
            finally:
                # Before the inner context collects: what is held here stays, with all that it has
                # on a GPU, until after the next pipeline is built.
                del pipeline

    return built


def _sentence(finding: Finding) -> str:
    # How far off an image is stands beside what is wrong with it, and is what a person asks.
    return (
        f"{finding.said} ({finding.measured})"
        if finding.metric == "image distance"
        else finding.said
    )


def _of_error(error: CaseError) -> Finding:
    metric = "applied check" if error.status == Status.NOT_APPLIED else "error"
    return Finding(status=error.status, metric=metric, what=str(error))
