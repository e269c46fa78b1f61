"""Injects a fault between two clean runs, and judges it by the rules that judge everything else.

What the clean run before it did is accepted for as long, in memory and in a folder of its own, as
`accept` would accept it. The clean run after it is judged in the same way: a verdict on two runs
of the same code, which must find nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from msgspec import structs

from diffusers_perf.catalog.declarations import REFERENCE, Case, Slot
from diffusers_perf.catalog.discovery import Project
from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.metrics import APPLIED_CHECK, LATENCY, LOAD, detector_of
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.status import Status
from diffusers_perf.catalog.workload import FIELDS, Workload
from diffusers_perf.faults.building import injecting
from diffusers_perf.faults.clean import Clean, CleanRun, as_judged
from diffusers_perf.faults.injection import CannotInject, Fault, Injection, Setting
from diffusers_perf.faults.outcomes import FalseAlarm, Outcome, OutcomeStatus, sentence_of
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.measurement.failing import CaseError
from diffusers_perf.measurement.importing import timed_import
from diffusers_perf.measurement.observing import Observing, Unobserved
from diffusers_perf.measurement.pipelines import Source
from diffusers_perf.measurement.timing import Stopwatch
from diffusers_perf.messages import faults as messages
from diffusers_perf.plugin.crash import in_a_line
from diffusers_perf.plugin.judging import Judging
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.operators import OperatorCounts
from diffusers_perf.records.store import BaselineStore

ATTEMPTS = 3
"""A fault that came out inconclusive or invalid is injected again, as a workflow repeats a run."""
CLEAN_RUNS_MAX = 5
"""As many of the latest clean runs of a setting stand for the accepted processes."""
DETECTED_UNOBSERVED = (LATENCY.detector, LOAD.detector, APPLIED_CHECK.detector)
"""Measures that need nothing but the timed rounds: nothing else is observed for them."""


@dataclass(kw_only=True)
class Trials:
    """A session's trials on one bench, judged by baselines of their own."""

    judging: Judging
    project: Project
    """In which a fault's workload is declared."""
    folder: Path
    """For accepted images; empty at the start."""
    workload: str | None = None
    """Name of the one that everything is injected in, in the place of each setting's own."""
    verdicts: int = 0
    """Given so far on clean runs against clean runs, one per detector and case."""
    false_alarms: list[FalseAlarm] = field(default_factory=list)
    _clean: dict[object, Clean] = field(default_factory=dict)
    _observer: Observing = field(default_factory=Observing)

    @property
    def bench(self) -> Bench:
        return self.judging.bench

    def run(self, fault: Fault) -> Outcome:
        """Clean, injected, clean again; whatever goes wrong stands in the row."""
        started = perf_counter()
        try:
            try:
                row = self._run(fault)
            finally:
                self.bench.clear()
        except CannotInject as reason:
            row = Outcome(fault=fault, status=OutcomeStatus.SKIPPED, sentence=str(reason))
        except Exception as error:
            # A fault can break anything in three libraries, and the others have to go on.
            row = Outcome(fault=fault, status=OutcomeStatus.ERROR, sentence=in_a_line(error))
        return replace(row, seconds=perf_counter() - started)

    def _run(self, fault: Fault) -> Outcome:
        cases = self._cases(fault.setting)
        for case in cases:
            lack = self.bench.lacks(case.stack, case.workload)
            if lack is not None:
                raise CannotInject(lack.reason)
        size = fault.sizes[0] if fault.sizes else None
        givens = self._injection(fault, None, size).givens
        # Of cases that are the same, whichever setting they come from, as of a model's stand-in,
        # and of pipelines that are given the same; a function within a fault is that fault's own.
        key = (*cases, fault.setting.rounds, fault.setting.imports, *givens)
        clean = self._clean.get(key)
        if clean is None:
            clean = self._clean[key] = Clean(folder=self.folder / str(len(self._clean)))
            clean.sides.append(self._side(fault, cases, clean, injected=False))
            clean.accept_image(cases[0], self.bench.sources.of(cases[0].workload))
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
        if row.status is OutcomeStatus.DETECTED and len(fault.sizes) > 1:
            row = replace(row, smallest=self._smallest(fault, cases, clean))
        return row

    def _wants_a_clean_run(self, clean: Clean) -> bool:
        """After the first and every second; on a GPU, whose minutes are dear, every fourth."""
        return (
            clean.trials == 1 or clean.trials % (2 if self.bench.device.type == "cpu" else 4) == 0
        )

    def _injected(
        self,
        fault: Fault,
        cases: Sequence[Case],
        clean: Clean,
        size: float | None,
        *,
        attempts: int,
    ) -> Outcome:
        side = self._side(fault, cases, clean, injected=True, size=size)
        if fault.detected_by is None:
            if side.alarmed_by_the_clock_alone():
                clean.sides.append(self._side(fault, cases, clean, injected=False))
                side = self._side(fault, cases, clean, injected=True, size=size)
            alarms = side.alarms()
            shown = alarms or [f for f in side.findings if f.status.warns]
            status = OutcomeStatus.FALSE_ALARM if alarms else OutcomeStatus.NOT_FLAGGED
            if side.alarmed_by_the_clock_alone() and fault.setting.rounds == 1:
                # As of a clean run: what is not timed may share its cores with another process.
                status = OutcomeStatus.UNDECIDED
            return Outcome(
                fault=fault,
                status=status,
                verdict=shown[0].status if shown else Status.SAME,
                sentence=shown[0].said if shown else "",
            )
        for _ in range(attempts - 1):
            if side.found_by(fault.detected_by) or not side.undecided(fault.detected_by):
                break
            side = self._side(fault, cases, clean, injected=True, size=size)
        detected = side.found_by(fault.detected_by)
        others = dict.fromkeys(detector_of(f.metric) for f in side.alarms())
        undecided = [
            f for f in side.findings if detector_of(f.metric) == fault.detected_by and f.what
        ]
        finding = detected or next(iter([*undecided, *side.alarms()]), None)
        return Outcome(
            fault=fault,
            status=OutcomeStatus.DETECTED
            if detected
            else OutcomeStatus.UNDECIDED
            if side.undecided(fault.detected_by)
            else OutcomeStatus.MISSED,
            verdict=finding.status if finding else Status.SAME,
            sentence=sentence_of(finding)
            if finding
            else messages.no_change(
                fault.detected_by, [*side.within(fault.detected_by, self.judging.baseline)]
            ),
            also_detected_by=tuple(m for m in others if m and m != fault.detected_by),
        )

    def _smallest(self, fault: Fault, cases: Sequence[Case], clean: Clean) -> float:
        """By halving, as if what is detected at one size were detected at every larger one."""
        detected, missed = 0, len(fault.sizes)
        while missed - detected > 1:
            middle = (detected + missed) // 2
            row = self._injected(fault, cases, clean, fault.sizes[middle], attempts=1)
            detected, missed = (
                (middle, missed) if row.status is OutcomeStatus.DETECTED else (detected, middle)
            )
        return fault.sizes[detected]

    def _cases(self, setting: Setting) -> list[Case]:
        """The reference, and the case if the setting has another, in the setting's steps."""
        declared = self._workload(setting)
        catalog = self.project.catalog_of(declared)
        decided = _decided(catalog, declared, declared.base)
        # What a workload decides itself, such as its precision, stays.
        own = [
            name
            for name in setting.base_on(self.bench.device.type)
            if decided.isdisjoint(_decided(catalog, declared, (name,)))
        ]
        base = tuple(dict.fromkeys((*declared.base, *own)))
        if "scheduler" in setting.changes and declared.scheduler is None:
            raise CannotInject(messages.own_scheduler(declared.name))
        for change in setting.changes:
            if change not in (*FIELDS, *declared.call):
                raise ValueError(messages.nothing_to_change(declared.name, change))
        steps = self._steps(setting)
        workload = declared.changed(base=base, steps=steps, **setting.changes)
        if declared.prompts and declared.num_images < setting.num_images:
            workload = workload.changed(prompt=workload.prompts[:1] * setting.num_images)
        return [
            replace(catalog.case(workload, name), image_only=setting.image_only)
            for name in dict.fromkeys((REFERENCE, setting.case))
        ]

    def check(self, fault: Fault) -> None:
        """`ValueError` where its setting is none: no workload, case or optimization of that name,
        not one step or round, or a change of a field that the workload lacks.
        """
        setting = fault.setting
        name = self.workload or setting.workload
        declared = {case.workload.name: case.workload for case in self.project.cases}
        if name not in declared:
            here = [known for known, of in declared.items() if self.bench.sources.runs(of)]
            raise ValueError(messages.no_workload(name, here=here, declared=[*declared]))
        if setting.rounds < 1:
            raise ValueError(messages.NO_ROUND)
        with suppress(CannotInject):
            self._cases(setting)

    @property
    def sources(self) -> list[Source]:
        """Of the workloads that faults are injected in."""
        workloads = {case.workload for case in self.project.cases}
        runs = [workload for workload in workloads if self.bench.sources.runs(workload)]
        return list({self.bench.sources.of(workload) for workload in runs})

    def _workload(self, setting: Setting) -> Workload:
        name = self.workload or setting.workload
        for case in self.project.cases:
            of = case.workload
            if of.name == name and self.bench.sources.runs(of):
                return of
        raise CannotInject(messages.not_of_this_model(name))

    def _steps(self, setting: Setting) -> int:
        """The setting's; of a full-size stand-in no more than it has, since each takes long."""
        if self.workload is None or (declared := self._workload(setting)).scale == "small":
            return setting.steps
        return min(setting.steps, declared.steps)

    def _injection(self, fault: Fault, clean: Clean | None, size: float | None) -> Injection:
        step_s = gpu_step_s = 0.0
        if clean is not None and clean.sides and clean.sides[-1].measured:
            steps = self._steps(fault.setting)
            _, measured, _ = clean.sides[-1].measured[-1]
            step_s = measured.latency_s / steps
            gpu_step_s = (measured.gpu_busy_s or 0.0) / steps
        injection = Injection(
            device=self.bench.device.type,
            kind=self.bench.sources.of(self._workload(fault.setting)).kind,
            size=size,
            step_s=step_s,
            gpu_step_s=gpu_step_s,
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
    ) -> CleanRun:
        """Measure and judge the cases with the fault, or with its givens only."""
        injection = self._injection(fault, clean, size)
        if not injected:
            injection.contexts, injection.changes, injection.stopwatch = [], [], None
            injection.imported_first = ""
        tried, judging = self.bench, self.judging
        tried.rounds = fault.setting.rounds
        # Where no latency is judged, one short warm-up is enough.
        tried.quick = fault.setting.rounds == 1
        tried.images_folder = clean.folder
        tried.store = BaselineStore(clean.folder)
        steps = self._workload(fault.setting).steps
        judging.baseline = clean.baseline(tried.machine, steps=steps)
        observed = not injected or fault.detected_by not in DETECTED_UNOBSERVED
        source = tried.sources.of(cases[0].workload)
        judging.operators = clean.operators(source.name) if observed else {}
        judging.portable = {}
        tried.measurements.clear()
        measured: list[tuple[Case, Measurement, OperatorCounts | None]] = []
        findings: list[Finding] = []
        tried.build = injecting(injection)
        tried.stopwatch = injection.stopwatch or Stopwatch()
        imports = fault.setting.imports
        tried.imports = [timed_import(first=injection.imported_first)] if imports else []
        tried.observer = self._observer if observed else Unobserved()
        with ExitStack() as contexts:
            for context in injection.contexts:
                contexts.enter_context(context)
            for case in cases:
                try:
                    seen = self._measured(case)
                    verdict = self._verdict(case, seen, cases, steps)
                except CaseError as error:
                    if error.status is Status.SKIPPED:
                        raise CannotInject(str(error)) from None
                    findings.append(_of_error(error))
                    break
                findings += verdict.findings
                measured.append((case, seen, tried.observer.counted.get(case.id)))
        if not injected and (not measured or len(measured) < len(cases)):
            raise RuntimeError(messages.clean_run_failed(findings[-1].said))
        return CleanRun(measured=tuple(measured), findings=tuple(findings))

    def _verdict(self, case: Case, seen: Measurement, cases: Sequence[Case], steps: int) -> Verdict:
        if not case.is_reference:
            # Its workload must be the reference's: that may be timed again.
            return self.judging.judge(case, seen, self.bench.measurements[cases[0].id], list(cases))
        whole = as_judged(case, steps)
        return self.judging.judge(whole, structs.replace(seen, steps=steps), None, [whole])

    def _measured(self, case: Case) -> Measurement:
        self.bench.observer.counted.pop(case.id, None)
        self.bench.open(case)
        return self.bench.measure(case, self.bench.stopwatch.rounds)

    def _count(self, fault: Fault, after: CleanRun) -> None:
        """Book the verdicts on a clean run."""
        self.verdicts += after.verdicts()
        self.false_alarms += [
            FalseAlarm(after=fault.name, finding=finding) for finding in after.alarms()
        ]


def _decided(catalog: Catalog, workload: Workload, base: tuple[str, ...]) -> set[Slot]:
    """What of a pipeline these optimizations decide. `ValueError` for one that is not declared."""
    stack = catalog.case(workload.changed(base=base), REFERENCE).stack
    return {slot for optimization in stack for slot in optimization.decides}


def _of_error(error: CaseError) -> Finding:
    metric = APPLIED_CHECK.name if error.status == Status.NOT_APPLIED else Subject.ERROR
    return Finding(status=error.status, metric=metric, what=str(error))
