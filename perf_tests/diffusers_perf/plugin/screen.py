"""What a person reads: a line a case while it runs, and the closing table in the guide's form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from time import monotonic
from typing import Protocol

from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.metrics import (
    COLUMNS,
    GPU_BUSY,
    GPU_SPEEDUP,
    LATENCY,
    LATENCY_SPEEDUP,
    PEAK_MEMORY,
    cells,
)
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.interference import (
    CORE_SLOWED,
    loops_of,
    slowed,
)
from diffusers_perf.judge.outlier import not_compared
from diffusers_perf.messages import plugin as messages
from diffusers_perf.messages.common import seconds_left
from diffusers_perf.records.baselines import PublishedCase
from diffusers_perf.records.measurement import IDENTICAL_DB, Measurement


class Terminal(Protocol):
    """Where progress is written."""

    isatty: bool

    def line(self, text: str) -> None:
        """A line of its own."""

    def over(self, text: str) -> None:
        """Text from the start of the line, over what stands there."""


@dataclass(kw_only=True)
class Progress:
    """Says which case and round is under way and how long is left.

    On a terminal in one line that is written over; elsewhere in one plain line a case.
    """

    terminal: Terminal
    total: int
    done: int = 0
    at: Case | None = None
    """The case that is under way: perhaps the reference of the one that is tested."""
    _started: float = field(default_factory=monotonic)
    _width: int = 0

    def stage(self, case: Case, what: str) -> None:
        """Called at every stage and round of a case."""
        self.at = case
        if not self.terminal.isatty:
            return
        number, left = min(self.done + 1, self.total), self._left()
        line = messages.progress(number, self.total, case.id, what, left=left)
        self.terminal.over(line.ljust(self._width))
        self._width = len(line)

    def finished(self, case: Case, outcome: str) -> None:
        """Called once a case is through, with its outcome in words."""
        self.done += 1
        left = "" if self.terminal.isatty else self._left()
        if self._width:
            self.terminal.over(" " * self._width + "\r")
        self.terminal.line(messages.progress(self.done, self.total, case.id, outcome, left=left))
        self._width = 0

    def _left(self) -> str:
        if not self.done or self.done >= self.total:
            return ""
        return seconds_left((monotonic() - self._started) / self.done * (self.total - self.done))


@dataclass(frozen=True, kw_only=True)
class ShownCase:
    """One case as the closing table shows it."""

    case: Case
    measured: Measurement | None
    reference: Measurement | None
    status: Status
    reason: str = ""
    """Why there is no measurement, in words."""


HEAD = (
    "setting",
    *COLUMNS,
    "images/s",
    "guide",
    "bottleneck",
    "first image",
    "image",
    "verdict",
)


def outcome(row: ShownCase) -> str:
    """One case in a line, as it finishes."""
    if row.measured is None:
        return f"{row.status}: {row.reason}" if row.reason else row.status
    shown = cells(row.measured, row.reference)
    on_gpu = shown[GPU_SPEEDUP.column]
    parts = [shown[LATENCY.column], shown[LATENCY_SPEEDUP.column], on_gpu and f"GPU {on_gpu}"]
    return ", ".join(filter(None, [*parts, row.status]))


def cells_of(row: ShownCase, published: Mapping[str, PublishedCase]) -> tuple[str, ...]:
    """The row's cells, in the order of `HEAD`."""
    guide = published.get(row.case.id)
    said = f"{guide.speedup:.2f}x" if guide else ""
    name = row.case.name
    if row.case.against not in (REFERENCE, row.case.name):
        name += f" (to {row.case.against})"
    seen = row.measured
    if seen is None:
        return (name, *("" for _ in COLUMNS), "", said, "", "", "", row.status)
    return (
        name,
        *cells(seen, row.reference or seen).values(),
        f"{seen.num_images / seen.latency_s:.1f}" if seen.num_images > 1 else "",
        said,
        bottleneck(seen),
        first_image(seen),
        row.status if row.status.shows_nothing else image(seen),
        row.status,
    )


def bottleneck(seen: Measurement) -> str:
    """Whether the host or the GPU holds it back, and how far it is from what the GPU could do."""
    idle = seen.idle_share
    says = [] if idle is None else [f"{seen.bottleneck}, GPU idle {idle:.0%}"]
    if seen.roofline_s is not None:
        says.append(f"{seen.latency_s / seen.roofline_s:.1f}x roofline")
    return ", ".join(says)


def first_image(seen: Measurement) -> str:
    """What it takes to the first image, on a GPU; whether what is compiled was in the cache."""
    if seen.time_to_first_image_s is None or seen.gpu_busy_s is None:
        return ""
    return f"{seen.time_to_first_image_s:.1f} s" + (
        f", {seen.compile_cache}" * bool(seen.compile_cache)
    )


def image(seen: Measurement) -> str:
    """The image in a few words: what is wrong with it, or how close it is."""
    if not seen.look.finite:
        return "not finite"
    if seen.image_distance is None:
        return f"mean {seen.look.mean:.2f}"
    distance = seen.image_distance
    close = how_close(distance.psnr_db, distance.ssim, seen.farthest_step_db)
    # A drift that is smaller than their rounding does not show.
    return f"{close}, 8 bits" if seen.accepted_bits == 8 else close


def how_close(psnr_db: float, ssim: float | None, step_db: float | None = None) -> str:
    """PSNR and SSIM in words: ``60.1 dB, 1.000``, or ``identical`` for equal images alone.

    PSNR is capped, and by itself does not say so. Of a step-wise workload the image is what comes
    of the reference's predictions, and the farthest step stands behind it.
    """
    if psnr_db >= IDENTICAL_DB and ssim == 1.0:
        close = "identical"
    else:
        close = f"{psnr_db:.1f} dB" + ("" if ssim is None else f", {ssim:.3f}")
    if step_db is None or step_db >= IDENTICAL_DB:
        return close
    return f"{close}, {messages.farthest_step(step_db)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int) -> list[str]:
    """Lines of a table, none of them wider than this.

    Columns that are empty everywhere are left out. Where the rest does not fit, what a narrow
    window can do without goes first, then the names in the first column are cut; the last column
    stays.
    """
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    for spare in (*SPARE, None, *LAST_SPARE):
        excess = _width(head, rows, kept) - width
        if excess <= 0:
            break
        if spare is not None:
            kept = [i for i in kept if head[i] != spare]
            continue
        longest = max(len(row[kept[0]]) for row in rows)
        rows = [
            [
                _cut(row[i], max(NAME_LEAST, longest - excess) if i == kept[0] else width)
                for i in range(len(head))
            ]
            for row in rows
        ]
    sizes = [max(len(head[i]), *(len(row[i]) for row in rows)) for i in kept]
    lines = []
    for row in (head, tuple("-" * size for size in sizes), *rows):
        cells = row if len(row) == len(sizes) and row is not head else [row[i] for i in kept]
        padded = [cell.ljust(size) for cell, size in zip(cells, sizes, strict=True)]
        lines.append("  ".join(padded).rstrip()[:width])
    return lines


SPARE = (
    "first image",
    "bottleneck",
    GPU_BUSY.column,
    "guide",
    PEAK_MEMORY.column,
    "image",
    "images/s",
)
"""Columns that a narrow window can do without, least wanted first."""
LAST_SPARE = (LATENCY_SPEEDUP.column, GPU_SPEEDUP.column, LATENCY.column)
NAME_LEAST = 12


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _width(head: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    sizes = [max(len(head[i]), *(len(row[i]) for row in rows)) for i in kept]
    return sum(sizes) + 2 * (len(sizes) - 1)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the closing table; its verdict, at the end, is what a terminal colours."""

    text: str
    verdict: Status | None = None

    @property
    def colour(self) -> dict[str, bool]:
        """The verdict's, as pytest's terminal takes it."""
        if self.verdict in (None, Status.NEW, Status.SKIPPED):
            return {}
        if self.verdict.warns:
            return {"yellow": True}
        return {"green": True} if self.verdict.passes else {"red": True}


def closing_table(
    rows: Sequence[ShownCase], published: Mapping[str, PublishedCase], *, width: int
) -> list[Line]:
    """The tables of all workloads, one under the other; no line is wider than this."""
    lines: list[Line] = []
    for workload in dict.fromkeys(row.case.workload for row in rows):
        own = [row for row in rows if row.case.workload == workload]
        images = f"{workload.num_images} images" if workload.num_images > 1 else "one image"
        title = (
            f"{workload.name}: {', '.join(filter(None, (images, workload.size)))}, "
            f"{workload.steps} steps"
            + (f" of {workload.scheduler.removesuffix('Scheduler')}" if workload.scheduler else "")
            + (f", in {'+'.join(workload.base)}" if workload.base else "")
        )
        lines += [Line(text=text) for text in ("", *wrap(title, width))]
        head, rule, *lines_of = table(HEAD, [cells_of(row, published) for row in own], width=width)
        lines += [Line(text=head), Line(text=rule)]
        lines += [
            # What was cut off its end has none to colour.
            Line(text=text, verdict=row.status if text.endswith(row.status) else None)
            for text, row in zip(lines_of, own, strict=True)
        ]
    return lines


def notes(rows: Sequence[ShownCase]) -> list[str]:
    """What could not be measured or asked on this machine and why, each once; and whether it was
    quiet, and its CPU of one speed.
    """
    seen = [row.measured for row in rows if row.measured is not None]
    lines = [note for measured in seen for note in measured.notes]
    lines += [unknown for measured in seen if (unknown := measured.interference.unknown)]
    lines += not_compared(seen)
    affected = [
        f"{row.case.id}: {reasons[0]}"
        for row in rows
        if row.measured and (reasons := row.measured.interference.reasons(wall_clock=True))
    ]
    if affected:
        lines.append(messages.interference(len(affected), len(seen), affected[0]))
    loops = [loop for measured in seen for loop in loops_of(measured)]
    if loops and slowed(loops, best=min(loops)) > CORE_SLOWED:
        lines.append(messages.cpu_speed(min(loops), max(loops)))
    return list(dict.fromkeys(lines))


def closing_line(rows: Sequence[ShownCase], *, missing: Collection[str]) -> str:
    """One sentence: how many hold, fail, are inconclusive or were skipped; and the missing ids."""
    rows = [row for row in rows if row.case.id not in missing]
    measured = [row for row in rows if row.measured is not None]
    return messages.closing(
        hold=sum(row.status == Status.SAME or row.status.improves for row in measured),
        new=sum(row.status == Status.NEW for row in measured),
        doubtful=sum(row.status.warns for row in rows),
        fail=sum(not row.status.passes for row in rows),
        skipped=sum(row.status == Status.SKIPPED for row in rows),
        missing=len(missing),
    )
