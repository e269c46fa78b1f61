"""One case in the runs of both sides, and which of its pairs count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers_perf.catalog.metric import Metric, MetricKind
from diffusers_perf.judge import measuring
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.messages.commands import Command, Rerun
from diffusers_perf.judge.question import Question
from diffusers_perf.records.run import CaseRecord, Run

NOT_ON_BOTH = "not measured on both sides"


@dataclass(frozen=True, kw_only=True)
class PairedCase:
    """One case in all runs; the i-th of base and of head are a pair."""

    name: str
    """The case's id."""
    base: Sequence[Run]
    head: Sequence[Run]
    more: str
    """The command that measures more pairs; empty where it is not known."""

    @property
    def in_base(self) -> list[CaseRecord]:
        return [case for run in self.base if (case := run.by_id.get(self.name))]

    @property
    def in_head(self) -> list[CaseRecord]:
        return [case for run in self.head if (case := run.by_id.get(self.name))]

    @property
    def pairs(self) -> int:
        """How many were made."""
        return len(self.base)

    @property
    def rerun(self) -> Command:
        return Rerun(options=self.head[0].session.options)

    def valid_pairs(self, metric: Metric) -> tuple[list[tuple[CaseRecord, CaseRecord]], list[str]]:
        """The pairs in which this metric is valid, and why it is not in the others."""
        pairs, reasons = [], []
        for runs in zip(self.base, self.head, strict=True):
            base, head = (run.by_id.get(self.name) for run in runs)
            if base is None or head is None:
                reasons.append(NOT_ON_BOTH)
                continue
            interference = [
                reason
                for run, case in zip(runs, (base, head), strict=True)
                for reason in interference_in(run, case, metric)
            ]
            if interference:
                reasons.append(interference[0])
            else:
                pairs.append((base, head))
        return pairs, reasons


def interference_in(run: Run, case: CaseRecord, metric: Metric) -> list[str]:
    """Why a metric of a case is invalid in this process; empty where it is not."""
    if metric.kind is MetricKind.MEMORY:
        return []
    interference = case.measurement.interference
    if not metric.wall_clock:
        return [*interference.reasons(wall_clock=False)]
    drifts = (
        case.reference_drift,
        run.session.reference_drift.get(case.measurement.workload),
    )
    return [
        *interference.reasons(wall_clock=True),
        *(finding.said for finding in measuring.judged(question_of(case))),
        # In either direction: pairs are compared on one machine of one speed.
        *(messages.drift(drift.ratio) for drift in drifts if drift and drift.significant),
    ]


def question_of(case: CaseRecord) -> Question:
    """What a recorded case shows by itself, without a baseline."""
    return Question(
        measured=case.measurement,
        reference=case.compared_with,
        tolerance=case.tolerance,
        baseline=None,
        baseline_name="",
        portable={},
        versions={},
        image_only=case.image_only,
    )
