"""One case in the runs of both sides, and which of its pairs count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from diffusers_perf.catalog.metric import Metric, MetricKind
from diffusers_perf.judge import measuring
from diffusers_perf.judge.clock import Clock, Hosts
from diffusers_perf.judge.messages import comparison as messages_of_pairs
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
    """The command that measures more pairs; empty where it is not known, or where `ab` would
    make no more."""
    again: Command | None
    """The command that compares the case anew; None where it is not known."""
    hosts: Hosts

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
    def run_alone(self) -> Command:
        """Runs the case in what is checked out, which need not be head."""
        return Rerun(job=self.head[0].session.main_job)

    @property
    def rerun(self) -> Command:
        """Shows what head does."""
        return self.again or self.run_alone

    @cached_property
    def clock(self) -> Clock:
        sides = [[case.measurement for case in side] for side in (self.in_base, self.in_head)]
        return Clock.of(sides, self.hosts)

    def by_pair(self, metric: Metric) -> tuple[tuple[tuple[float, float] | None, ...], list[str]]:
        """Base's and head's value in each pair in which this metric is valid, else None, and why it
        is not in these.
        """
        pairs: list[tuple[float, float] | None] = []
        reasons: list[str] = []
        for runs in zip(self.base, self.head, strict=True):
            cases = [(run, case) for run in runs if (case := run.by_id.get(self.name))]
            values = [self.clock.of_metric(metric, case.measurement) for _, case in cases]
            known = [value for value in values if value is not None]
            interference = [
                *(reason for run, case in cases for reason in interference_in(run, case, metric)),
                *(
                    messages_of_pairs.slowed_by_host(case.measurement.idle_share or 0.0)
                    for _, case in cases
                    if self.clock.slowed_by_host(metric, case.measurement)
                ),
                *(filter(None, (_other_cpu(runs), self.hosts.other)) if metric.wall_clock else ()),
            ]
            if len(cases) == 2 and interference:
                reasons.append(interference[0])
            elif len(known) < 2:
                reasons.append(NOT_ON_BOTH)
            pairs.append(None if interference or len(known) < 2 else (known[0], known[1]))
        return tuple(pairs), reasons

    @property
    def other_host(self) -> str:
        """Why no wall clock of head can be compared with base's; empty where it can."""
        return self.hosts.other or next(
            (why for runs in zip(self.base, self.head, strict=True) if (why := _other_cpu(runs))),
            "",
        )


def _other_cpu(runs: Sequence[Run]) -> str:
    cpus = list(dict.fromkeys(run.machine.cpu for run in runs if run.machine.cpu))
    return messages_of_pairs.other_cpu(*cpus) if len(cpus) > 1 else ""


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
        *(finding.said for finding in measuring.judged(question_of(case, run))),
        # In either direction: pairs are compared on one machine of one speed.
        *(messages.drift(drift.ratio) for drift in drifts if drift and drift.significant),
    ]


def question_of(case: CaseRecord, run: Run, *, again: Command | None = None) -> Question:
    """What a case of a run shows by itself, without a baseline; `again` as in `PairedCase`."""
    return Question(
        measured=case.measurement,
        reference=case.compared_with,
        tolerance=case.tolerance,
        baseline=None,
        baseline_name="",
        folder="",
        portable={},
        card=run.machine.card,
        versions={},
        image_only=case.image_only,
        workload=case.workload,
        job=run.session.main_job,
        again=again,
    )
