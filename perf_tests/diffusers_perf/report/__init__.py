"""A run as an HTML page, or as Markdown for a pull request, beside other runs if asked for."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.compare import compare
from diffusers_perf.compare.state import again_of
from diffusers_perf.history.store import load
from diffusers_perf.history.words import HistoryLine, history_lines
from diffusers_perf.messages import report as messages
from diffusers_perf.records.files import unwritable, write_whole
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.run import Run
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.report import builder, comparison, markdown
from diffusers_perf.report.content import ComparisonPart, Report

NEEDED = ("jinja2",)
"""What the HTML page needs, and Markdown does not."""
STDOUT = Path("-")
HISTORY_PAGE = "history.html"
"""What `diffusers-perf history report` writes in CI; a report in the same folder links to it."""
CASES_MOST = 2000
"""In one report: its page has 13 MB, and takes seconds."""


def write(
    head: Sequence[Path],
    store: BaselineStore,
    *,
    base: Sequence[Path] = (),
    html: Path | None = None,
    comment: Path | None = None,
    baselines: Path | None = None,
) -> int:
    """Make the page, the comment (``-`` prints it), or both; 0. `Refusal` for bad runs.

    Commands to run next name these `baselines`; without, those of the run.
    """
    shown = load_run(head[0]).seen_from_here(baselines)
    report = make(shown, store, head=head, base=base)
    if html is not None:
        beside = html.with_name(HISTORY_PAGE)
        trends = HISTORY_PAGE if beside.is_file() and beside != html else ""
        write_text(html, _page(report, shown, store, trends=trends))
    if comment == STDOUT:
        sys.stdout.write(markdown.render(report))
    elif comment is not None:
        write_text(comment, markdown.render(report))
    return 0


def make(shown: Run, store: BaselineStore, *, head: Sequence[Path], base: Sequence[Path]) -> Report:
    """The content of the report of a run, which is the first of `head`. `Refusal` for one of
    more cases than a page can show.
    """
    if len(shown.cases) > CASES_MOST:
        raise Refusal(messages.too_many_cases(shown.path, len(shown.cases), CASES_MOST))
    baseline = store.load_machine(shown.machine.slug)
    accepted = baseline.cases.keys() if baseline else None
    history, note = _history(shown, store)
    report = builder.build(
        shown,
        published=store.load_published(),
        accepted=accepted,
        since=_accepted_since(shown, accepted or (), store),
        base=load_run(base[0]) if base else None,
        comparison=judged(head, base, store) if len(base) > 1 or len(head) > 1 else None,
        again=again_of(base, head),
    )
    return replace(report, history=history, notes=(*report.notes, *note))


def _accepted_since(shown: Run, accepted: Collection[str], store: BaselineStore) -> set[str]:
    """Ids of the cases that were new when they were judged, and of which all is accepted now."""
    since = set()
    for case in shown.cases.values():
        seen = case.measurement
        if case.is_reference and seen.image_distance is None:
            known = store.has_image(seen)
        else:
            # A sentence is about something else that is new: a counter, a flag of torch.
            known = not case.sentence
        if case.status == Status.NEW and known and (case.image_only or case.key in accepted):
            since.add(case.id)
    return since


def _history(shown: Run, store: BaselineStore) -> tuple[tuple[HistoryLine, ...], tuple[str, ...]]:
    """What the history beside the baselines knows of a run's cases; or in a note, why nothing."""
    folder = store.folder / "history"
    if not folder.is_dir():
        return (), ()
    try:
        return history_lines(shown, load(folder)), ()
    except Refusal as error:
        return (), (str(error),)


def judged(head: Sequence[Path], base: Sequence[Path], store: BaselineStore) -> ComparisonPart:
    """The verdict on pairs of runs, or why there is none. `Refusal` for bad runs."""
    sides = [[load_run(path) for path in paths] for paths in (base, head)]
    if not base:
        raise Refusal(messages.NO_BASE)
    try:
        return comparison.in_pairs(compare.load(base, head, store), *sides)
    except Refusal as error:
        return comparison.refused(str(error), *sides)


def refuse_without_jinja2() -> None:
    """`Refusal` where a page's template cannot be rendered."""
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise Refusal(messages.needs_extra(lacking))


def _page(report: Report, shown: Run, store: BaselineStore, *, trends: str) -> str:
    refuse_without_jinja2()
    from diffusers_perf.report import page

    return page.render(report, shown.images, store, source=shown.path.name, trends=trends)


def write_text(path: Path, text: str) -> None:
    """Write a page and say so. `Refusal` where it cannot be written."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise Refusal(unwritable(path, error)) from None
    size = len(text.encode(errors="backslashreplace"))
    print(messages.wrote(path, size))
