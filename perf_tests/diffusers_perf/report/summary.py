"""The summary of a report: the sentence that is read first, and what needs attention. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.messages.commands import Rerun
from diffusers_perf.messages.numbers import plural
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
NAMED_MOST = 3
"""Cases that a sentence names."""


def summary_of(
    head: Run,
    cases: Sequence[CasePart],
    *,
    lost: Sequence[Untimed],
    known: bool,
    comparison: ComparisonPart | None,
) -> Summary:
    """The verdict on a run, and on what it changed where it was compared.

    `lost` are the cases without a time; `known` says whether its machine has a baseline.
    """
    findings = [
        Notice(
            status=case.status,
            mood=case.mood,
            case=case.id,
            sentence=case.record.sentence.removeprefix(f"{case.status}: ")
            or f"{case.id} is {case.status}",
            next=Rerun(options=head.session.options).of(case.id),
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
            next=Rerun(options=head.session.options).of(case.id),
        )
        for case in lost
        if mood_of(case.status) in ("warning", "bad")
    ]
    findings.sort(key=lambda finding: -badness(finding.status))
    mood, sentence, command = _own_words(head, cases, findings, lost=lost, known=known)
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
        return f"{lost.id} has no measurement"
    return lost.sentence if lost.id in lost.sentence else f"{lost.id}: {lost.sentence}"


def _own_words(
    head: Run,
    cases: Sequence[CasePart],
    findings: Sequence[Notice],
    *,
    lost: Sequence[Untimed],
    known: bool,
) -> tuple[Mood, str, str]:
    """The run's own verdict: mood, sentence, next command."""
    machine = head.machine.name
    total = len({*(case.id for case in cases), *(finding.case for finding in findings)})
    if not cases:
        command = findings[0].next if findings else "pytest perf_tests --benchmark-only"
        return "bad", "No case was measured.", command
    bad = list(dict.fromkeys(one.case for one in findings if one.mood == "bad"))
    doubtful = list(dict.fromkeys(one.case for one in findings if one.mood == "warning"))
    new = [case for case in cases if case.status == Status.NEW]
    accept = 'diffusers-perf accept RUN1.json RUN2.json RUN3.json --reason "..."'
    if bad:
        one = next(finding for finding in findings if finding.mood == "bad")
        if len(bad) == 1:
            what = f"{one.sentence.rstrip('.')}."
        else:
            status = {finding.case: finding.status for finding in reversed(findings)}
            what = _listed([f"{case} ({status[case]})" for case in bad])
        fail = "fails" if len(bad) == 1 else "fail"
        return "bad", f"{len(bad)} of {plural(total, 'case')} {fail}: {what}", one.next
    if doubtful:
        return (
            "warning",
            f"No case fails. {len(doubtful)} of {plural(total, 'case')} could not be "
            f"judged: {_listed(doubtful)}",
            findings[0].next,
        )
    if not known:
        return (
            "plain",
            f"No case fails. {machine} has no baseline yet, so only images and portable limits "
            "were judged, not speed.",
            accept,
        )
    if new:
        return (
            "plain",
            f"No case fails. {len(new)} of {plural(total, 'case')} "
            f"{'is' if len(new) == 1 else 'are'} not in the baseline of {machine} yet.",
            accept,
        )
    all_pass = "The case passes" if len(cases) == 1 else f"All {len(cases)} cases pass"
    return "good", f"{all_pass} against the baseline of {machine}.", ""


def _listed(names: Sequence[str]) -> str:
    """The first of them, and how many more there are; a sentence's end."""
    more = len(names) - NAMED_MOST
    return ", ".join(names[:NAMED_MOST]) + (f" and {more} more." if more > 0 else ".")
