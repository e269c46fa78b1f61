"""Write the accepted baselines as tables: `RESULTS-<gpu>.md` per machine, beside them.

Every number comes from the baseline. Only the text between the two notes markers is written by
hand, and it is kept. With --check nothing is written, and the exit code is 1 if a file is stale.

    diffusers-perf results
    diffusers-perf results --check
"""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.metrics import (
    GPU_BUSY,
    GPU_SPEEDUP,
    HOST_SYNCS,
    IMAGE_PSNR,
    KERNELS,
    LATENCY,
    LIMITED,
    METRICS,
    PEAK_MEMORY,
)
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli.answers import add_baselines, refuse, store_of
from diffusers_perf.cli.result_rows import ResultRow, gain, rows_of, table
from diffusers_perf.messages import baselines as messages
from diffusers_perf.plugin.finding import find_project
from diffusers_perf.records.baselines import PublishedCase
from diffusers_perf.records.files import read_text, write_whole
from diffusers_perf.records.store import BaselineStore

NOTES = messages.NOTES
NOTES_END = messages.NOTES_END
SHOWN = tuple(metric for metric in METRICS if metric.column)
COUNTED = (KERNELS.field, HOST_SYNCS.field)
SAME = 0.01
"""A ratio of GPU busy times this close to 1 is within its noise."""
DIRECT = 2
"""Rows of a waterfall that says no more than the table of its suite."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a file is stale"
    )
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    """0: the files are written, or current. 1: with --check, one is stale."""
    cases = find_project().cases
    store = store_of(args)
    files = store.machine_paths()
    if not files:
        return refuse(messages.no_machine(store.folder))
    code = 0
    for path in files:
        target = results_path(path)
        before = _text(target) if target.exists() else ""
        text = results(path.stem, store, before, cases)
        if not args.check:
            write_whole(target, text)
            print(f"wrote {target.name}")
        elif text != before:
            print(messages.stale(target.name, store.shown(store.folder)), file=sys.stderr)
            sys.stderr.writelines(
                difflib.unified_diff(before.splitlines(True), text.splitlines(True), n=0)
            )
            code = 1
    return code


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError:
        raise Refusal(f"{path}: not UTF-8") from None


def results_path(baseline: Path) -> Path:
    """Where the tables of a machine's baseline are written."""
    return baseline.with_name(f"RESULTS-{baseline.stem}.md")


def results(slug: str, store: BaselineStore, before: str, cases: Sequence[Case]) -> str:
    """The whole document; the notes are those of `before`. `Refusal` if unreadable."""
    baseline = store.load_machine(slug)
    assert baseline is not None  # its file was listed
    rows = [*rows_of(baseline, cases)]
    parts = [
        f"# Accepted results: {baseline.machine}",
        messages.about_results(slug),
        f"{NOTES}\n{_notes(before)}\n{NOTES_END}",
        *_suites(rows, store.load_published().cases),
        *_waterfalls(rows),
        *_worth(rows),
        *_versions(rows),
    ]
    return "\n\n".join(parts) + "\n"


def _suites(rows: Sequence[ResultRow], published: Mapping[str, PublishedCase]) -> Iterator[str]:
    for suite in dict.fromkeys(row.suite for row in rows):
        yield (
            f"## Suite: {suite}"
            if suite != messages.UNDECLARED
            else f"## {messages.UNDECLARED.capitalize()}"
        )
        own = [row for row in rows if row.suite == suite]
        for workload, weights in dict.fromkeys((row.workload, row.weights) for row in own):
            here = [row for row in own if (row.workload, row.weights) == (workload, weights)]
            yield f"### {workload} ({weights})"
            yield about(here[0].line.workload)
            yield _measured(here, published)
            yield messages.ALLOWED
            yield _allowed(here)


def about(workload: Mapping[str, object]) -> str:
    """A workload in a line."""
    size = f"{workload.get('width')}×{workload.get('height')}"
    count = workload.get("num_images", 1)
    images = "one image" if count == 1 else f"{count} images"
    # A workload's values are JSON of any kind, of which mypy knows no iteration; `as_json` writes
    # a list of names here.
    base = "+".join(map(str, workload.get("base") or ()))  # type: ignore[call-overload]
    line = f"{images}, {size}, {workload.get('steps')} steps"
    if scheduler := workload.get("scheduler"):
        line += f" of {scheduler}"
    return messages.in_base(line, base)


def _measured(rows: Sequence[ResultRow], published: Mapping[str, PublishedCase]) -> str:
    heading = ["case", "against", *(m.column for m in SHOWN)]
    heading += ["roofline", "guide", "processes", "accepted"]
    lines = []
    for row in rows:
        printed = published.get(f"{row.workload}-{row.name}")
        lines.append(
            [
                row.name,
                row.against if row.against != REFERENCE else "",
                *(row.shown(metric) for metric in SHOWN),
                row.roofline,
                "" if printed is None else f"{printed.speedup:.2f}x",
                str(len(row.line.measured[LATENCY.field])),
                row.line.accepted,
            ]
        )
    return table(heading, lines)


def _allowed(rows: Sequence[ResultRow]) -> str:
    signs = {m.name: "≥" if m.more_is_better else "≤" for m in LIMITED}
    heading = ["case", *(f"{m.name} {signs[m.name]}" for m in LIMITED)]
    heading += [name.replace("_", " ") for name in COUNTED]
    return table(
        heading,
        [[r.name, *(r.limit(m) for m in LIMITED), *(r.count(n) for n in COUNTED)] for r in rows],
    )


def _waterfalls(rows: Sequence[ResultRow]) -> Iterator[str]:
    """Of each suite of a workload, the rows from the reference to the one of least latency."""
    tables = []
    for workload, weights, suite in dict.fromkeys((r.workload, r.weights, r.suite) for r in rows):
        here = [r for r in rows if (r.workload, r.weights) == (workload, weights) and r.case]
        timed = [r for r in here if r.median(LATENCY) and r.median(GPU_BUSY)]
        own = [r for r in timed if r.suite == suite]
        chain = _leading_to(min(own, key=_latency_s), timed) if own else []
        if len(chain) > DIRECT and chain[0].name == REFERENCE:
            tables += [f"### {workload} ({weights}): {suite}", _steps(chain)]
    if tables:
        yield f"## {messages.WATERFALL}"
        yield messages.ABOUT_WATERFALL
        yield from tables


def _latency_s(row: ResultRow) -> float:
    return row.median(LATENCY) or math.inf


def _leading_to(last: ResultRow, rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The most rows that each have all optimizations of the one before and more, to the last."""
    chains: list[list[ResultRow]] = []
    for row in sorted(rows, key=lambda row: len(row.settings)):
        within = [chain for chain in chains if chain[-1].settings < row.settings]
        chains.append([*max(within, key=len, default=[]), row])
    return next(chain for chain in chains if chain[-1] is last)


def _steps(chain: Sequence[ResultRow]) -> str:
    heading = ["added", LATENCY.column, "gain", GPU_BUSY.column, "GPU gain", IMAGE_PSNR.name]
    lines = []
    for above, row in zip([None, *chain], chain, strict=False):
        added = row.case.stack if above and row.case else ()
        names = [f"`{o.name}`" for o in added if above and o.name not in above.settings]
        gains = []
        for metric in (LATENCY, GPU_BUSY):
            times = gain(above, row, metric) if above else None
            gains += [row.shown(metric), _ratio(times) if times else ""]
        lines.append([", ".join(names) or REFERENCE, *gains, row.shown(IMAGE_PSNR)])
    return table(heading, lines)


def _worth(rows: Sequence[ResultRow]) -> Iterator[str]:
    """Each optimization against the accepted case that differs from it by nothing else."""
    lines = []
    for row in rows:
        for other in rows:
            added = row.settings - other.settings
            alike = (row.workload, row.weights) == (other.workload, other.weights)
            if not alike or len(added) != 1 or not other.settings < row.settings:
                continue
            times = gain(other, row, GPU_BUSY)
            held, holds = other.median(PEAK_MEMORY), row.median(PEAK_MEMORY)
            lines.append(
                [
                    f"`{next(iter(added))}`",
                    row.workload,
                    other.name,
                    _ratio(times) if times else "",
                    "" if not held or not holds else f"{holds / held:.2f}x",
                ]
            )
    if lines:
        yield f"## {messages.WORTH}"
        yield messages.ABOUT_WORTH
        yield table(
            ["optimization", "workload", "added to", GPU_SPEEDUP.column, PEAK_MEMORY.column],
            sorted(lines),
        )


def _ratio(value: float) -> str:
    return f"{value:.2f}x" + (" (within noise)" if abs(value - 1) < SAME else "")


def _versions(rows: Sequence[ResultRow]) -> Iterator[str]:
    yield "## Versions"
    found: dict[tuple[tuple[str, str], ...], list[ResultRow]] = {}
    for row in rows:
        found.setdefault(tuple(row.line.versions.items()), []).append(row)
    names = list(dict.fromkeys(name for versions in found for name, _ in versions))
    lines = [
        [f"{len(of)}", *(dict(versions).get(name, "") for name in names)]
        for versions, of in found.items()
    ]
    yield table(["cases", *names], lines)


def _notes(before: str) -> str:
    if NOTES not in before or NOTES_END not in before:
        return ""
    return before.split(NOTES, 1)[1].split(NOTES_END, 1)[0].strip("\n")
