"""Keep every run, and say since when a metric changed and what it came with.

    diffusers-perf history add runs/run.json
    diffusers-perf history report --html runs/history.html

A store is a folder of compressed newline-delimited JSON, one file per run, which DuckDB and pandas
read as well. A run that is added with a --label of its own is shown and judges nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_perf.cli.answers import configured, configured_store, named
from diffusers_perf.messages import history as messages
from diffusers_perf.records.repository import repository

if TYPE_CHECKING:
    from diffusers_perf.history.trends import Range, Trend


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    adding = actions.add_parser("add", help="add runs to a store")
    adding.add_argument("runs", nargs="+", type=named, metavar="RUN.json")
    adding.add_argument(
        "--label",
        type=_word,
        default="main",
        help="main (default) for the history that is judged, control for a run that measured an "
        "older commit again, any other word for a pull request or a laptop",
    )
    reporting = actions.add_parser("report", help="list what changed, and write the page")
    reporting.add_argument(
        "--html",
        type=named,
        metavar="OUT.html",
        help="write the page; needs the extra `report`. A run's report that is written beside "
        "history.html later links to it",
    )
    reporting.add_argument(
        "--issues",
        type=named,
        metavar="FOLDER",
        help="write a Markdown file for each commit range that made something worse",
    )
    for action in (adding, reporting):
        add_store(action)


def _word(text: str) -> str:
    """An option's type: a label. Empty, as of an unset variable in a script, is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError(messages.EMPTY_LABEL)
    return text


def add_store(parser: argparse.ArgumentParser) -> None:
    """The option of commands that read or write a history."""
    parser.add_argument(
        "--store",
        type=named,
        metavar="FOLDER",
        help="where the history is kept (default: history below the folder of baselines)",
    )


def folder_of(args: argparse.Namespace) -> Path:
    """The store that a command was given, by default the one beside pytest's baselines."""
    root = repository()
    given: Path | None = args.store
    return given or root / configured(root, "perf_baselines", "baselines") / "history"


def main(args: argparse.Namespace) -> int:
    return _add(args) if args.action == "add" else _report(args)


def _add(args: argparse.Namespace) -> int:
    from diffusers_perf.cli.acceptable import ended_early
    from diffusers_perf.history.store import add
    from diffusers_perf.records.reading import load_run

    # All are read before the first is added.
    runs = [load_run(path) for path in args.runs]
    for text in ended_early(runs):
        print(text)
    for run in runs:
        path, kept = add(run, folder_of(args), label=args.label)
        if kept is None:
            print(messages.added(path))
        elif kept == args.label:
            print(messages.already_there(path))
        else:
            print(messages.keeps_label(path, kept))
    return 0


def _report(args: argparse.Namespace) -> int:
    from diffusers_perf.history.store import load
    from diffusers_perf.history.trends import ranges, red, trends
    from diffusers_perf.history.words import event_text

    folder = folder_of(args)
    rows = load(folder)
    found = trends(rows)
    if args.issues is not None:
        _write_issues(args.issues, found)
    if args.html is not None:
        _write_page(args.html, found, folder)
    for change in ranges(found):
        print("\n".join(_lines(change)), end="\n\n")
    for event in red(found):
        row = event.after
        print(f"{row.status}: {row.case} on {row.time:%Y-%m-%d}: {event_text(event)}")
        print(f"  cause     {event.cause.text}", end="\n\n")
    runs = len({row.run for row in rows})
    events = sum(len(trend.events) for trend in found)
    print(messages.totals(runs, len(found), events))
    return 0


def _write_issues(folder: Path, found: Sequence[Trend]) -> None:
    """A file for each commit range of the newest weeks whose code made something worse."""
    from diffusers_perf.history.trends import alerts
    from diffusers_perf.history.words import issue
    from diffusers_perf.records.files import write_whole

    for change in alerts(found):
        write_whole(folder / f"{change.name}.md", issue(change))


def _write_page(path: Path, found: Sequence[Trend], folder: Path) -> None:
    from diffusers_perf.records.run import slug_of
    from diffusers_perf.report import refuse_without_jinja2, write_text

    refuse_without_jinja2()
    from diffusers_perf.report.history import render

    store = configured_store()
    machines = {trend.machine for trend in found}
    loaded = {machine: store.load_machine(slug_of(machine)) for machine in machines}
    known = {machine: baseline for machine, baseline in loaded.items() if baseline}
    write_text(path, render(found, known, source=str(folder)))


def _lines(change: Range) -> Sequence[str]:
    from diffusers_perf.history.words import event_text

    first = change.events[0]
    lines = [f"{first.after.time:%Y-%m-%d} {change.cause.text}"]
    lines += [f"  {event_text(event)}" for event in change.events]
    if command := change.command:
        lines.append(f"  next      {command}")
    return lines
