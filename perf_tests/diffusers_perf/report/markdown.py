"""The same report as a comment on a pull request: the verdict, what changed, the rest folded."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from diffusers_perf.plugin.screen import HEAD
from diffusers_perf.report import figures
from diffusers_perf.report.content import CasePart, ChangePart, ComparisonPart, Report, WorkloadPart

MOST_CHARACTERS = 65_536
"""What GitHub takes for one comment."""
MARKS = {"good": "✅", "plain": "ℹ️", "warning": "⚠️", "bad": "❌"}
LEAD_MOST = 1_000
"""Letters of the verdict's sentence and of the next command; no name is that long."""
RESERVED = 500
"""Characters for line ends and the last line."""
POINTS_MOST = 20
ROWS_MOST = 60
"""Of one table; a page has room for all of them."""


def render(report: Report) -> str:
    """The comment, shorter than `MOST_CHARACTERS`. Nothing from a run's JSON is read as markup."""
    verdict = report.verdict
    lead = f"## {MARKS[verdict.mood]} {_text(verdict.sentence[:LEAD_MOST])}\n\n{_about(report)}\n"
    closing = f"**Next:** {_code(verdict.next[:LEAD_MOST])}\n" if verdict.next else ""
    length = len(lead) + len(closing) + RESERVED
    parts, left_out = [lead], False
    for part in (*_told(report), closing, *_folded(report)):
        if part == closing:
            parts.append(part)
        elif length + len(part) < MOST_CHARACTERS:
            parts.append(part)
            length += len(part) + 1
        else:
            left_out = True
    if left_out:
        parts.append("There is more in the page (`--html`).\n")
    return "\n".join(part for part in parts if part)


def _told(report: Report) -> Iterator[str]:
    """What is not folded: what changed, or else what needs attention."""
    if report.comparison is None:
        if report.verdict.points:
            yield _points(report)
        return
    if report.comparison.mood == "plain":
        yield f"{_text(report.comparison.sentence)}\n"
    yield _compared(report.comparison)


def _about(report: Report) -> str:
    shown = ("GPU", "CPU", "driver", "torch", "diffusers", "model", "commit")
    return " · ".join(
        _text((f"{n} {v}" if n not in ("GPU", "CPU") else v)[:LEAD_MOST])
        for n, v in report.machine
        if n in shown
    )


def _compared(comparison: ComparisonPart) -> str:
    lines = []
    if comparison.changed:
        lines += [*_changes(comparison.changed), ""]
        lines += _what_to_do(comparison.changed)
    elif comparison.changes:
        lines.append("No row is seen to have changed.")
    if comparison.counters:
        lines += ["", "Counters that changed:", ""]
        lines += [
            f"- {_code(case)} {_text(words)}" for case, words in comparison.counters[:POINTS_MOST]
        ]
        lines += _more(len(comparison.counters), POINTS_MOST, "counter")
    return "\n".join([*lines, ""])


def _what_to_do(changes: Sequence[ChangePart]) -> Iterator[str]:
    """Of each case what changed, in sentences, and the next command."""
    cases = dict.fromkeys(change.case for change in changes if change.sentence and change.status)
    for case in list(cases)[:POINTS_MOST]:
        own = [change for change in changes if change.case == case]
        said = "<br>".join(_text(change.sentence.removeprefix(f"{case}: ")) for change in own)
        following = next((change.next for change in own if change.next), "")
        yield f"- {_code(case)}<br>{said}" + (f"<br>next: {_code(following)}" if following else "")


def _changes(changes: Sequence[ChangePart]) -> Iterator[str]:
    yield "| verdict | case | metric | base | head | change |"
    yield "|---|---|---|--:|--:|--:|"
    for change in changes[:ROWS_MOST]:
        moved = figures.percent(change.ratio) + (f" ({change.interval})" if change.interval else "")
        cells = (
            f"{MARKS[change.mood]} {_text(change.status or 'not judged')}",
            _code(change.case),
            _text(change.metric.replace("_", " ")),
            _text(change.base),
            _text(change.head),
            _text(moved),
        )
        yield "| " + " | ".join(cells) + " |"
    yield from _more(len(changes), ROWS_MOST, "row")


def _more(number: int, most: int, what: str) -> list[str]:
    return (
        [f"\n… and {figures.count(number - most, 'more ' + what)} in the page"]
        if number > most
        else []
    )


def _points(report: Report) -> str:
    points = report.verdict.points
    lines = []
    for point in points[:POINTS_MOST]:
        following = f"<br>next: {_code(point.next)}" if point.next else ""
        lines.append(
            f"- {MARKS[point.mood]} **{_text(point.status)}** {_text(point.sentence)}{following}"
        )
    return "\n".join([*lines, *_more(len(points), POINTS_MOST, "finding"), ""])


def _folded(report: Report) -> Iterator[str]:
    if report.comparison and report.verdict.points:
        yield _fold("Findings of the tests", _points(report))
    if report.comparison and report.comparison.inconclusive:
        inconclusive = report.comparison.inconclusive
        rows = figures.count(len(inconclusive), "row")
        lines = [*_changes(inconclusive), "", *_what_to_do(inconclusive)]
        yield _fold(f"{rows} that could not be told", "\n".join(lines))
    for workload in report.workloads:
        yield _fold(f"{workload.name}: {workload.title}", "\n".join(_table(workload)))
    if report.comparison and report.comparison.unchanged:
        unchanged = report.comparison.unchanged
        rows = figures.count(len(unchanged), "row")
        yield _fold(f"{rows} that did not change", "\n".join(_changes(unchanged)))
    if report.lost:
        lines = [
            f"- {_code(lost.id)} {_text(lost.status)}: {_text(lost.sentence)}"
            for lost in report.lost
        ]
        yield _fold("Without a time", "\n".join(lines[:ROWS_MOST]))
    machine = "\n".join(f"- {_text(name)}: {_text(value)}" for name, value in report.machine)
    notes = "\n".join(f"- {_text(note)}" for note in report.notes[:POINTS_MOST])
    yield _fold("Machine, run and notes", f"{machine}\n\n{notes}")


def _fold(title: str, content: str) -> str:
    return f"<details><summary>{_text(title)}</summary>\n\n{content}\n\n</details>\n"


def _table(workload: WorkloadPart) -> Iterator[str]:
    # The terminal's columns; the rest is on the page.
    spared = ("images/s", "bound by", "first image", "verdict")
    head = [name for name in HEAD if name not in spared]
    yield "| " + " | ".join((*head, "verdict")) + " |"
    yield "|---" + "|--:" * (len(head) - 1) + "|---|"
    for case in workload.cases[:ROWS_MOST]:
        yield "| " + " | ".join((_code(case.label), *map(_text, _cells(case)))) + " |"
    yield from _more(len(workload.cases), ROWS_MOST, "case")


def _cells(case: CasePart) -> tuple[str, ...]:
    seen = case.seen
    if case.record.image_only:
        return ("", "", "", "", "", "", case.image, case.status)
    return (
        figures.seconds(seen.latency_s),
        figures.times(case.speedup),
        figures.seconds(seen.gpu_busy_s),
        figures.times(case.gpu_speedup),
        figures.times(case.guide.get("speedup")),
        figures.mebibytes(seen.peak_memory_bytes),
        case.image,
        case.status,
    )


def _text(words: str) -> str:
    """Words that stay words: no markup, no cell that ends, nobody mentioned, no issue linked."""
    escaped = html.escape(" ".join(words.split()), quote=False)
    escaped = re.sub(r"([\\`*_\[\]|~])", lambda m: f"&#{ord(m[1])};", escaped)
    return re.sub(r"([@#])(?=\w)", "\\1\u2060", re.sub(r"://", ":\u2060//", escaped)).replace(
        "&#\u2060", "&#"
    )


def _code(words: str) -> str:
    """The same as code, in which GitHub neither mentions nor links."""
    escaped = html.escape(" ".join(words.split()), quote=False)
    escaped = re.sub(r"([\\`*_\[\]|~@#])", lambda m: f"&#{ord(m[1])};", escaped)
    # An entity of html.escape has no sign of these, and one of ours is not escaped again.
    return f"<code>{escaped}</code>"
