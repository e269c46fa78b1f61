"""Sums a report up: the sentence that is read first, and what needs attention. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ci.report import figures
from ci.report.content import CasePart, Comparison, Mood, Point, Verdict, badness, mood_of
from ci.report.reading import Lost, Reading

ORDER: tuple[Mood, ...] = ("good", "plain", "warning", "bad")
NAMED_MOST = 3
"""Cases that a sentence names."""


def verdict_of(
    head: Reading,
    cases: Sequence[CasePart],
    *,
    accepted: Collection[str] | None,
    comparison: Comparison | None,
) -> Verdict:
    """The verdict on a run, and on what it changed where it was compared."""
    points = [
        Point(
            status=case.seen.status,
            mood=case.mood,
            case=case.seen.id,
            sentence=case.seen.sentence.removeprefix(f"{case.seen.status}: ")
            or f"{case.seen.id} is {case.seen.status}",
            next=head.again(case.seen.id),
        )
        for case in cases
        if case.mood in ("warning", "bad")
    ]
    points += [
        Point(
            status=lost.status,
            mood=mood_of(lost.status),
            case=lost.id,
            sentence=_about_lost(lost),
            next=head.again(lost.id),
        )
        for lost in head.lost
        if mood_of(lost.status) in ("warning", "bad")
    ]
    points += [
        Point(
            status="missing",
            mood="bad",
            case=name,
            sentence=f"{name} has a baseline and was not run",
            next="bring it back, or take its line out of the baseline",
        )
        for name in _missing(head, accepted or ())
    ]
    points.sort(key=lambda point: -badness(point.status))
    points += [
        Point(
            status="not a number",
            mood="bad",
            case=case.seen.id,
            sentence=f"{case.seen.id}: {problem}",
            next=head.again(case.seen.id),
        )
        for case in cases
        for problem in case.seen.problems
    ]
    mood, sentence, command = _own_words(head, cases, points, accepted)
    if comparison is not None and comparison.mood == "plain":
        command = command if mood == "bad" else comparison.next or command
    elif comparison is not None:
        own = sentence if mood in ("warning", "bad") else ""
        # Of the two, the worse speaks first.
        if ORDER.index(comparison.mood) >= ORDER.index(mood) or not own:
            mood, sentence = comparison.mood, " ".join(filter(None, [comparison.sentence, own]))
            command = next((c.next for c in comparison.changes if c.next), command if own else "")
        else:
            sentence = f"{sentence} {comparison.sentence}"
    return Verdict(mood=mood, sentence=sentence, points=tuple(points), next=command)


def _about_lost(lost: Lost) -> str:
    if not lost.sentence:
        return f"{lost.id} gave no measurement"
    return lost.sentence if lost.id in lost.sentence else f"{lost.id}: {lost.sentence}"


def _missing(head: Reading, accepted: Collection[str]) -> list[str]:
    """Ids of the cases that the baseline knows and a run of everything did not run."""
    weights = {(case.model, case.weights) for case in head.cases}
    known = {case.id for case in head.cases} | {lost.id for lost in head.lost}
    missing = []
    for key in accepted if head.whole else ():
        workload, rest = key.split("/", 1)
        made_with, weights_of, case = rest.rsplit("/", 2)
        if (made_with, weights_of) in weights and f"{workload}-{case}" not in known:
            missing.append(f"{workload}-{case}")
    return sorted(missing)


def _own_words(
    head: Reading,
    cases: Sequence[CasePart],
    points: Sequence[Point],
    accepted: Collection[str] | None,
) -> tuple[Mood, str, str]:
    """The run's own verdict: mood, sentence, next command."""
    machine = head.machine.get("name", "this machine")
    total = len({*(case.seen.id for case in cases), *(point.case for point in points)})
    if not cases:
        why = f" {figures.count(len(head.lost), 'case')} gave no measurement." if head.lost else ""
        command = points[0].next if points else "pytest perf_tests --benchmark-only"
        return "bad", f"Nothing was measured, so nothing is judged.{why}", command
    bad = list(dict.fromkeys(point.case for point in points if point.mood == "bad"))
    doubtful = list(dict.fromkeys(point.case for point in points if point.mood == "warning"))
    new = [case for case in cases if case.seen.status == "new"]
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
    if accepted is None:
        return (
            "plain",
            f"No case fails. There is no baseline for {machine}: speed is shown and not judged, "
            "pictures and loose limits are.",
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
