"""Sums a report up: the sentence that is read first, and what needs attention. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.messages import bring_back, rerun
from diffusers_perf.records.missing import Untimed
from diffusers_perf.records.run import Run
from diffusers_perf.report import figures
from diffusers_perf.report.content import (
    CasePart,
    ComparisonPart,
    Mood,
    Point,
    Verdict,
    badness,
    mood_of,
)

ORDER: tuple[Mood, ...] = ("good", "plain", "warning", "bad")
NAMED_MOST = 3
"""Cases that a sentence names."""


def verdict_of(
    head: Run,
    cases: Sequence[CasePart],
    *,
    lost: Sequence[Untimed],
    known: bool,
    comparison: ComparisonPart | None,
) -> Verdict:
    """The verdict on a run, and on what it changed where it was compared.

    `lost` are the cases without a time; `known` says whether its machine has a baseline.
    """
    points = [
        Point(
            status=case.status,
            mood=case.mood,
            case=case.id,
            sentence=case.record.sentence.removeprefix(f"{case.status}: ")
            or f"{case.id} is {case.status}",
            next=rerun(case.id, head.session.options),
        )
        for case in cases
        if case.mood in ("warning", "bad")
    ]
    points += [
        Point(
            status=case.status,
            mood=mood_of(case.status),
            case=case.id,
            sentence=_about_lost(case),
            next=bring_back(head.session.options)
            if case.status == Status.MISSING
            else rerun(case.id, head.session.options),
        )
        for case in lost
        if mood_of(case.status) in ("warning", "bad")
    ]
    points.sort(key=lambda point: -badness(point.status))
    mood, sentence, command = _own_words(head, cases, points, lost=lost, known=known)
    if comparison is not None and comparison.mood == "plain":
        command = command if mood == "bad" else comparison.next or command
    elif comparison is not None:
        worse = {change.case for change in comparison.changes if change.mood == mood}
        known_worse = {point.case for point in points if point.mood == mood} <= worse
        own = "" if known_worse or mood not in ("warning", "bad") else sentence
        # Of the two, the worse speaks first.
        if ORDER.index(comparison.mood) >= ORDER.index(mood) or not own:
            mood, sentence = comparison.mood, " ".join(filter(None, [comparison.sentence, own]))
            command = next((c.next for c in comparison.changes if c.next), command if own else "")
        else:
            sentence = f"{sentence} {comparison.sentence}"
    return Verdict(mood=mood, sentence=sentence, points=tuple(points), next=command)


def _about_lost(lost: Untimed) -> str:
    if not lost.sentence:
        return f"{lost.id} gave no measurement"
    return lost.sentence if lost.id in lost.sentence else f"{lost.id}: {lost.sentence}"


def _own_words(
    head: Run,
    cases: Sequence[CasePart],
    points: Sequence[Point],
    *,
    lost: Sequence[Untimed],
    known: bool,
) -> tuple[Mood, str, str]:
    """The run's own verdict: mood, sentence, next command."""
    machine = head.machine.name
    total = len({*(case.id for case in cases), *(point.case for point in points)})
    if not cases:
        why = f" {figures.count(len(lost), 'case')} gave no measurement." if lost else ""
        command = points[0].next if points else "pytest perf_tests --benchmark-only"
        return "bad", f"Nothing was measured, so nothing is judged.{why}", command
    bad = list(dict.fromkeys(point.case for point in points if point.mood == "bad"))
    doubtful = list(dict.fromkeys(point.case for point in points if point.mood == "warning"))
    new = [case for case in cases if case.status == Status.NEW]
    accept = 'python -m ci accept RUN1.json RUN2.json RUN3.json --reason "..."'
    if bad:
        one = next(point for point in points if point.mood == "bad")
        if len(bad) == 1:
            what = f"{one.sentence.rstrip('.')}."
        else:
            status = {point.case: point.status for point in reversed(points)}
            named = [f"{case} ({status[case]})" for case in bad[:NAMED_MOST]]
            more = len(bad) - len(named)
            what = ", ".join(named) + (f" and {more} more." if more else ".")
        fail = "fails" if len(bad) == 1 else "fail"
        return "bad", f"{len(bad)} of {figures.count(total, 'case')} {fail}: {what}", one.next
    if doubtful:
        return (
            "warning",
            f"No case fails, and {len(doubtful)} of {figures.count(total, 'case')} could not be "
            f"judged: {', '.join(doubtful[:3])}" + (", …" if len(doubtful) > 3 else "."),
            points[0].next,
        )
    if not known:
        return (
            "plain",
            f"No case fails. There is no baseline for {machine}: speed is shown and not judged, "
            "images and loose limits are.",
            accept,
        )
    if new:
        return (
            "plain",
            f"No case fails. {len(new)} of {figures.count(total, 'case')} "
            f"{'has' if len(new) == 1 else 'have'} no baseline on {machine} yet.",
            accept,
        )
    all_of = "The one case holds" if len(cases) == 1 else f"All {len(cases)} cases hold"
    return "good", f"{all_of} to the baseline of {machine}.", ""
