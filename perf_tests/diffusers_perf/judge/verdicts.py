"""The one rule that decides. Pure: numbers in, verdict out; no files, no torch, no clock."""

from __future__ import annotations

from dataclasses import replace

from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.metrics import LATENCY, detector_of
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import counters, flags, images, measured, measuring
from diffusers_perf.judge.comparable import differing
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.question import Question


def judge(q: Question) -> Verdict:
    """The verdict on one case."""
    if q.image_only:
        return Verdict(findings=tuple(images.judged(q)))
    other_workload = _other_workload(q)
    if other_workload:
        q = replace(q, baseline=None)
    findings = [*images.judged(q)]
    if other_workload:
        findings.append(other_workload)
    if q.baseline:
        findings += measured.accepted(q, q.baseline)
    findings += measured.portable(q)
    if q.baseline:
        findings += counters.accepted(q, q.baseline)
    findings += [*flags.accepted(q), *counters.leak(q), *measuring.judged(q)]
    if q.baseline is None and other_workload is None:
        findings.append(q.finding(Status.NEW, Subject.BASELINE))
    return Verdict(findings=tuple(findings))


def asks_for_drift(verdict: Verdict) -> bool:
    """Whether a latency is too long. Before its case is called slower, the reference is timed once
    more: a machine that changed under way makes a case invalid, not slower.
    """
    return any(
        found.status == Status.SLOWER and detector_of(found.metric) == LATENCY.detector
        for found in verdict.findings
    )


def _other_workload(q: Question) -> Finding | None:
    """The numbers of a baseline that was made of another workload say nothing."""
    name = differing(q.baseline.workload, q.workload) if q.baseline else None
    if q.baseline is None or name is None:
        return None
    was, now = q.baseline.workload.get(name), q.workload.get(name)
    message = messages.other_workload(q, name, was=was, now=now)
    return q.finding(Status.INVALID, Subject.WORKLOAD, message)
