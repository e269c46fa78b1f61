"""The report as a comment on a pull request: the verdict, what changed, the rest folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from diffusers_perf.catalog.metrics import COLUMNS, cells
from diffusers_perf.history.words import HistoryLine
from diffusers_perf.messages import report as messages
from diffusers_perf.messages.numbers import percent, plural
from diffusers_perf.report import figures
from diffusers_perf.report.content import CasePart, ChangePart, ComparisonPart, Report, WorkloadPart
from diffusers_perf.report.escape import code, name, text

MOST_CHARACTERS = 65_000
"""GitHub takes 65,536 for one comment."""
LEAST_CHARACTERS = 2_000
"""Less than this holds no report."""
MARKS = {"good": "✅", "plain": "ℹ️", "warning": "⚠️", "bad": "❌"}
LEAD_MOST = 1_000
"""Characters of the verdict's sentence and of the next command."""
SHORT = 120
"""Characters of a name or a version."""
FINDINGS_MOST = 20
ROWS_MOST = 60
"""Of one table. The HTML report has all of them."""
HEAD = (
    "case",
    *COLUMNS,
    "guide",
    "image",
    "status",
)
MORE = f"{messages.REST}\n"


def render(report: Report, *, most: int = MOST_CHARACTERS) -> str:
    """The comment, in at most this many characters (`LEAST_CHARACTERS` or more).

    Nothing from a run is read as markup. What does not fit is left out, the verdict never.
    """
    lead = _lead(report, most // 2)
    closing = f"**Next:** {_step(report.summary.next)}\n" if report.summary.next else ""
    room = most - len(lead) - len(MORE) - 2
    if len(closing) > room // 2:
        closing = ""
    room -= len(closing) + 1
    left_out = False

    def fitting(parts: Iterable[str]) -> Iterator[str]:
        nonlocal room, left_out
        for part in parts:
            if len(part) < room:
                room -= len(part) + 1
                yield part
            else:
                left_out = True

    parts = [lead, *fitting([_about(report), *_unfolded(report)]), closing]
    parts += fitting(_folded(report))
    return "\n".join(filter(None, [*parts, MORE if left_out else ""]))


def _step(step: str) -> str:
    words, command = figures.words_and_command(step)
    return " ".join(filter(None, [text(words, LEAD_MOST), code(command, LEAD_MOST)]))


def _lead(report: Report, most: int) -> str:
    """The verdict. Escaping makes several characters of one, so it is cut before and measured."""
    summary = report.summary
    for characters in (LEAD_MOST, LEAD_MOST // 4):
        lead = f"## {MARKS[summary.mood]} {text(summary.sentence, characters)}\n"
        if len(lead) <= most:
            return lead
    return f"## {MARKS[summary.mood]} {text(summary.sentence, LEAD_MOST // 20)}\n"


def _unfolded(report: Report) -> Iterator[str]:
    """What changed, or else what needs attention."""
    if report.comparison is None:
        if report.summary.findings:
            yield _findings(report)
        return
    if report.comparison.mood == "plain":
        yield f"{text(report.comparison.sentence)}\n"
    yield _compared(report.comparison)


def _about(report: Report) -> str:
    facts = dict(report.machine)
    device = facts.get("GPU") or facts.get("CPU") or ""
    parts = [f"**{text(device, SHORT)}**"]
    parts += [
        f"{fact} {text(facts[fact], SHORT)}"
        for fact in ("driver", "torch", "diffusers", "model")
        if fact in facts
    ]
    if "commit" in facts:
        parts.append(f"commit {code(facts['commit'], SHORT)}")
    return " · ".join(parts) + "\n"


def _compared(comparison: ComparisonPart) -> str:
    lines = []
    if comparison.changed:
        lines += [*_changes(comparison.changed), "", *_what_to_do(comparison.changed)]
    elif comparison.changes:
        lines.append(messages.NO_CHANGE)
    if comparison.counters:
        shown = comparison.counters[:FINDINGS_MOST]
        lines += ["", messages.COUNTERS, ""]
        lines += [f"- {name(case, SHORT)} {text(words, LEAD_MOST)}" for case, words in shown]
        lines += _more(len(comparison.counters), FINDINGS_MOST, "counter")
    return "\n".join([*lines, ""])


def _what_to_do(changes: Sequence[ChangePart]) -> Iterator[str]:
    """What changed in each case, in sentences, and the next command."""
    cases = dict.fromkeys(change.case for change in changes if change.sentence and change.status)
    for case in list(cases)[:FINDINGS_MOST]:
        own = [change for change in changes if change.case == case]
        lines = [name(case, SHORT)]
        lines += [text(change.sentence.removeprefix(f"{case}: "), LEAD_MOST) for change in own]
        lines += [f"next: {_step(change.next)}" for change in own if change.next][:1]
        yield "- " + "<br>".join(lines)


def _changes(changes: Sequence[ChangePart]) -> Iterator[str]:
    yield from _heading("status", "case", "metric", "base", "head", "change")
    for change in changes[:ROWS_MOST]:
        moved = percent(change.ratio) + (f" ({change.interval})" if change.interval else "")
        cells = (
            f"{MARKS[change.mood]} {text(change.status or 'not judged')}",
            name(change.case, SHORT),
            text(change.metric.replace("_", " ")),
            text(change.base),
            text(change.head),
            text(moved),
        )
        yield "| " + " | ".join(cells) + " |"
    yield from _more(len(changes), ROWS_MOST, "row")


def _heading(*columns: str) -> Iterator[str]:
    """Of a table with three columns of text, and numbers behind them."""
    yield f"| {' | '.join(columns)} |"
    yield "|---|---|---|" + "--:|" * (len(columns) - 3)


def _more(number: int, most: int, what: str) -> list[str]:
    return [f"\n{messages.more(number - most, what)}"] if number > most else []


def _findings(report: Report) -> str:
    findings = report.summary.findings
    lines = []
    for finding in findings[:FINDINGS_MOST]:
        others = "".join(
            f"<br>{text(other.sentence.replace(f'{finding.case}: ', '', 1), LEAD_MOST)}"
            for other in finding.others[:FINDINGS_MOST]
        )
        following = f"<br>next: {_step(finding.next)}" if finding.next else ""
        lines.append(
            f"- {MARKS[finding.mood]} **{text(finding.status)}** "
            f"{text(finding.sentence, LEAD_MOST)}{others}{following}"
        )
    return "\n".join([*lines, *_more(len(findings), FINDINGS_MOST, "finding"), ""])


def _folded(report: Report) -> Iterator[str]:
    comparison = report.comparison
    if comparison and report.summary.findings:
        yield _fold(messages.FINDINGS, _findings(report))
    if comparison and comparison.inconclusive:
        rows = plural(len(comparison.inconclusive), "inconclusive row")
        lines = [*_changes(comparison.inconclusive), "", *_what_to_do(comparison.inconclusive)]
        yield _fold(rows, "\n".join(lines))
    for workload in report.workloads:
        title = f"{text(workload.name, SHORT)}: {text(workload.title, SHORT)}"
        yield _fold(title, "\n".join(_table(workload)))
    if report.history:
        yield _fold("History", "\n".join(_history(report.history)))
    if comparison and comparison.unchanged:
        rows = plural(len(comparison.unchanged), "unchanged row")
        yield _fold(rows, "\n".join(_changes(comparison.unchanged)))
    if report.lost:
        lines = [
            f"- {name(lost.id, SHORT)} {text(lost.status)}: {text(lost.sentence, LEAD_MOST)}"
            for lost in report.lost[:ROWS_MOST]
        ]
        yield _fold(messages.LOST, "\n".join(lines))
    machine = "\n".join(f"- {fact}: {text(value, SHORT)}" for fact, value in report.machine)
    notes = "\n".join(f"- {text(note, LEAD_MOST)}" for note in report.notes[:FINDINGS_MOST])
    yield _fold(messages.MACHINE, f"{machine}\n\n{notes}")


def _history(lines: Sequence[HistoryLine]) -> Iterator[str]:
    yield from _heading("case", "metric", "newest runs", "level", "this run")
    for line in lines[:ROWS_MOST]:
        cells = (text(line.metric), line.sparkline, line.level, line.now)
        yield "| " + " | ".join((name(line.case, SHORT), *cells)) + " |"
    yield from _more(len(lines), ROWS_MOST, "case")


def _fold(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content.strip()}\n\n</details>\n"


def _table(workload: WorkloadPart) -> Iterator[str]:
    yield "| " + " | ".join(HEAD) + " |"
    yield "|---" + "|--:" * (len(HEAD) - 2) + "|---|"
    for case in workload.cases[:ROWS_MOST]:
        yield "| " + " | ".join((name(case.label, SHORT), *map(text, _cells(case)))) + " |"
    yield from _more(len(workload.cases), ROWS_MOST, "case")


def _cells(case: CasePart) -> tuple[str, ...]:
    seen = case.measurement
    if case.record.image_only:
        return (*("" for _ in COLUMNS), "", case.image, case.status)
    return (
        *cells(seen, case.record.compared_with).values(),
        figures.multiple(case.guide.speedup if case.guide else None),
        case.image,
        case.status,
    )
