"""Judges what a bench measures by what was accepted, and measures what a verdict needs for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.metrics import PYTHON_CALLS
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.drift import drift_of
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.judge.messages.commands import accept_structure
from diffusers_perf.judge.question import Question
from diffusers_perf.judge.verdicts import asks_for_drift, judge
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.measurement.failing import CaseError
from diffusers_perf.messages import plugin as messages
from diffusers_perf.records.baselines import MachineBaseline, OperatorBaseline, Portable
from diffusers_perf.records.main_job import MainJob
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.run import Drift


@dataclass(kw_only=True)
class Judging:
    """One session's verdicts on the measurements of its bench."""

    bench: Bench
    baseline: MachineBaseline | None = None
    portable: Portable = field(default_factory=dict)
    operators: Mapping[str, OperatorBaseline] = field(default_factory=dict)
    """What the code of a case may ask for, by `Measurement.code_key`."""
    job: MainJob = field(default_factory=MainJob)
    """It runs a case of this session again."""
    drift: dict[str, Drift] = field(default_factory=dict)
    """By workload, of the last time that the reference was repeated."""
    not_timed_again: dict[str, str] = field(default_factory=dict)
    """By workload, why that failed at its end."""
    references_s: dict[str, float] = field(default_factory=dict)
    """By id, how long measuring references took that have no test in this session."""
    _failed: dict[str, str] = field(default_factory=dict)
    """Why cases that have no test in this session would have failed it."""
    _lost: dict[str, CaseError] = field(default_factory=dict)
    """By id, why cases gave no measurement."""

    def reference_of(self, case: Case, cases: Sequence[Case]) -> Measurement | None:
        """What this case is compared with: measured in this session, now if it was not before.

        None for a workload's reference, which is compared with nothing. `CaseError` where it fails,
        without trying again what gave no measurement: that can take minutes.
        """
        if case.is_reference:
            return None
        measured = self.bench.measurements
        against = next(c for c in cases if c.workload == case.workload and c.name == case.against)
        if against.id not in measured:
            if lost := self._lost.get(against.id):
                raise CaseError(lost.status, str(lost))
            own = self.reference_of(against, cases)
            start = monotonic()
            self.bench.open(against)
            seen = self.bench.measure(against, self.bench.stopwatch.rounds)
            # It has no test of its own in this session that would fail.
            verdict = self.judge(against, seen, own, cases)
            if not verdict.passes:
                self._failed[against.id] = verdict.text()
            self.references_s[against.id] = monotonic() - start
        if against.id in self._failed:
            failed = self._failed[against.id]
            raise CaseError(Status.ERROR, messages.reference_fails(failed))
        return measured[against.id]

    def lose(self, case: Case | None, status: Status, why: str) -> None:
        """Keep why the case under way, if there is one, gives those no reference that are compared
        with it.
        """
        if case is None:
            return
        if status is not Status.SKIPPED:
            why = why if case.id in why else f"{case.id}: {why}"
            status, why = Status.ERROR, messages.reference_fails(why)
        self._lost[case.id] = CaseError(status, why)

    def question(
        self, case: Case, measured: Measurement, reference: Measurement | None
    ) -> Question:
        """All that the verdict on a measurement depends on."""
        bench = self.bench
        baseline = self.baseline.cases.get(measured.key) if self.baseline else None
        path = bench.store.machine_path(bench.machine.slug)
        return Question(
            measured=measured,
            reference=reference or measured,
            tolerance=case.tolerance_on(bench.sources.of(case.workload).kind),
            baseline=baseline,
            baseline_name=bench.store.shown(path),
            folder=bench.store.shown(bench.store.folder),
            portable=self.portable.get(case.id, {}),
            card=bench.machine.card,
            versions=bench.machine.versions,
            image_only=case.image_only,
            workload=case.workload.as_json(),
            job=self.job,
        )

    def judge(
        self,
        case: Case,
        measured: Measurement,
        reference: Measurement | None,
        cases: Sequence[Case],
    ) -> Verdict:
        """The verdict on a measurement, and on what its code was counted to ask for."""
        question = self.question(case, measured, reference)
        verdict = judge(question)
        if asks_for_drift(verdict) and reference is not None:
            drift = self.repeat_reference(case, cases)
            if drift is not None and drift.significant:
                verdict = judge(replace(question, drift=drift.ratio))
        return Verdict(findings=(*verdict.findings, *self._structural(case, question)))

    def _structural(self, case: Case, question: Question) -> list[Finding]:
        """Against what was accepted on whatever machine, where this run could be counted."""
        model = self.bench.sources.of(case.workload).name
        key = structure_verdicts.key_of(case, model)
        if self.bench.machine.device == "cuda" or case.image_only or key not in self.operators:
            return []
        if case.id not in self.bench.observer.counted:
            return [structure_verdicts.uncounted(case.id)]
        return structure_verdicts.judge(
            case.id,
            self.bench.observer.counted[case.id],
            self.operators[key],
            steps=case.workload.steps,
            # A build's local part (2.13.0+cpu) changes nothing about the code.
            versions={n: version.split("+")[0] for n, version in question.versions.items()},
            rerun=question.rerun,
            accept=accept_structure(self.job, model),
            file=self.bench.store.shown(self.bench.store.operators_path(case.workload.name)),
            python_calls=question.measured.counters.get(PYTHON_CALLS.field),
        )

    def repeat_reference(self, case: Case, cases: Sequence[Case]) -> Drift | None:
        """Time the workload's reference again; kept under `drift`.

        None where the reference was not timed in this session. `CaseError` as `Bench.measure`.
        """
        reference = next(c for c in cases if c.workload == case.workload and c.name == REFERENCE)
        first = self.bench.measurements.get(reference.id)
        if first is None or reference.image_only:
            return None
        drift = drift_of(self.bench.repeat_rounds(reference), first.rounds_s)
        self.drift[case.workload.name] = drift
        return drift
