"""The summary of a report: the sentence that is read first, and what needs attention. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.messages.commands import Accept, Command, Rerun, RunAgain
from diffusers_perf.judge.messages.run import RESTORE
from diffusers_perf.messages import report as messages
from diffusers_perf.records.main_job import MainJob
from diffusers_perf.records.missing import Untimed
from diffusers_perf.records.run import Run
from diffusers_perf.report.content import (
    CasePart,
    ComparisonPart,
    Mood,
    Notice,
    Summary,
    badness,
    mood_of,
)

ORDER: tuple[Mood, ...] = ("good", "plain", "warning", "bad")


def summary_of(
    head: Run,
    cases: Sequence[CasePart],
    *,
    lost: Sequence[Untimed],
    known: bool,
    since: Collection[str],
    comparison: ComparisonPart | None,
    again: Command | None,
) -> Summary:
    """The verdict on a run, and on what it changed where it was compared; `again` compares single
    cases anew, where that is known.

    `lost` are the cases without a time; `known` says whether its machine has a baseline; `since`
    are the ids of the cases that were accepted after it.
    """
    rerun = again or Rerun(job=head.session.main_job)
    findings = [
        Notice(
            status=case.status,
            mood=case.mood,
            case=case.id,
            sentence=case.record.sentence.removeprefix(f"{case.status}: ")
            or messages.status_of(case.id, case.status),
            others=tuple(
                one for one in case.record.others if mood_of(one.status) in ("warning", "bad")
            ),
            next=rerun.of(case.id),
        )
        for case in cases
        if case.mood in ("warning", "bad")
    ]
    findings += [
        Notice(
            status=case.status,
            mood=mood_of(case.status),
            case=case.id,
            sentence=_about_lost(case),
            next=_next_of_lost(case, head.session.main_job, rerun),
        )
        for case in lost
        if mood_of(case.status) in ("warning", "bad")
    ]
    findings.sort(key=lambda finding: -badness(finding.status))
    mood, sentence, command = _own_words(head, cases, findings, known=known, since=since)
    if comparison is not None and comparison.mood == "plain":
        command = command if mood == "bad" else comparison.next or command
    elif comparison is not None:
        worse = {change.case for change in comparison.changes if change.mood == mood}
        known_worse = {finding.case for finding in findings if finding.mood == mood} <= worse
        own = "" if known_worse or mood not in ("warning", "bad") else sentence
        # Of the two, the worse speaks first.
        if ORDER.index(comparison.mood) >= ORDER.index(mood) or not own:
            mood, sentence = comparison.mood, " ".join(filter(None, [comparison.sentence, own]))
            command = next((c.next for c in comparison.changes if c.next), command if own else "")
        else:
            sentence = f"{sentence} {comparison.sentence}"
    return Summary(mood=mood, sentence=sentence, findings=tuple(findings), next=command)


def _about_lost(lost: Untimed) -> str:
    if not lost.sentence:
        return messages.not_measured(lost.id)
    return lost.sentence if lost.id in lost.sentence else f"{lost.id}: {lost.sentence}"


def _next_of_lost(lost: Untimed, job: MainJob, rerun: Command) -> str:
    if lost.status == Status.MISSING:
        # It may no longer be declared, and a rerun would select nothing.
        return f"{RESTORE}: {Accept(job=job).of(lost.id)}"
    return rerun.of(lost.id)


def _own_words(
    head: Run,
    cases: Sequence[CasePart],
    findings: Sequence[Notice],
    *,
    known: bool,
    since: Collection[str],
) -> tuple[Mood, str, str]:
    """The run's own verdict: mood, sentence, next command."""
    machine = head.machine.name
    total = len({*(case.id for case in cases), *(finding.case for finding in findings)})
    if not cases:
        command = findings[0].next if findings else RunAgain(job=head.session.main_job).of()
        return "bad", messages.NO_CASE, command
    bad = list(dict.fromkeys(one.case for one in findings if one.mood == "bad"))
    doubtful = list(dict.fromkeys(one.case for one in findings if one.mood == "warning"))
    new = [case for case in cases if case.status == Status.NEW and case.id not in since]
    accept = Accept(job=head.session.main_job).of()
    if bad:
        one = next(finding for finding in findings if finding.mood == "bad")
        status = {finding.case: finding.status for finding in reversed(findings)}
        named = [f"{case} ({status[case]})" for case in bad]
        sentence = messages.fail(named, total) if bad[1:] else messages.fails(total, one.sentence)
        return "bad", sentence, one.next
    if doubtful:
        return "warning", messages.not_judged(doubtful, total), findings[0].next
    if not known:
        return "plain", messages.no_baseline(machine), accept
    if new:
        return "plain", messages.new(len(new), total, machine), accept
    if since:
        command = RunAgain(job=head.session.main_job).of()
        return "plain", messages.accepted_since(len(since), total), command
    return "good", messages.passes(len(cases), machine), ""
