"""A folder of runs: one file per run, append-only, one row per case and metric.

The rows are newline-delimited JSON, compressed with gzip, which DuckDB and pandas read without this
library. A file is named after its content and appears as a whole, so that adding a run twice
changes nothing and any number of writers may add at once.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from diffusers_perf.catalog.metric import Metric, MetricKind, Unit
from diffusers_perf.catalog.metrics import LATENCY, METRICS
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.messages import common
from diffusers_perf.messages import history as messages
from diffusers_perf.records.files import phrase_of, read_gzip, write_bytes_whole
from diffusers_perf.records.quantities import Integer, Number, Record
from diffusers_perf.records.run import CaseRecord, Run

MAIN = "main"
"""The label of runs whose history is judged. All others are shown and judge nothing."""
CONTROL = "control"
"""The label of runs that measured an older commit again, to separate machine from code."""
TIME_TO_FIRST_IMAGE = Metric(
    name="time to first image",
    field="time_to_first_image_s",
    unit=Unit.SECONDS,
    kind=MetricKind.TIME,
    worse=Status.SLOWER,
    detector=LATENCY.detector,
    about="load, check, compile, capture, first generation",
    wall_clock=True,
)
MEASURED = (
    *(
        m
        for m in METRICS
        if m.field and not m.ratio_of and m.kind in (MetricKind.TIME, MetricKind.MEMORY)
    ),
    TIME_TO_FIRST_IMAGE,
)
"""The metrics with noise that a history keeps. It keeps all counters as well."""
SUFFIX = ".jsonl.gz"


class Row(Record, frozen=True, kw_only=True, gc=False):
    """One metric of one case in one run."""

    run: str
    """Digest of the run's rows."""
    rows: Integer
    """How many rows the run has, so that a file which lost some is noticed."""
    time: Annotated[dt.datetime, Meta(tz=True)]
    label: str
    """``main`` for the nightly history, any other word for other runs."""
    commit: str
    """Empty where git did not know it."""
    dirty: bool
    cohort: str
    """Digest of all that follows here down to `quick`."""
    workload: str
    model: str
    weights: str
    pins: str
    """Digest of all that is pinned about what is generated."""
    machine: str
    device: str
    memory_bytes: int | None
    threads: int | None
    """Of PyTorch on a CPU; None on a GPU, where they change nothing that is measured."""
    driver: str | None
    cuda: str | None
    python: str
    torch: str
    diffusers: str
    transformers: str
    harness: str
    """`Session.harness_version`."""
    quick: bool
    gpu: str | None
    """The card's UUID."""
    case: str
    """The id that pytest shows."""
    metric: str
    """`Metric.name`, or a counter's name."""
    unit: Unit
    value: Number
    status: Status
    """Of the case, as the run judged it."""
    valid: bool
    """Whether no interference concerns this metric."""
    clock_mhz: float | None
    """Median SM clock of the timed rounds."""
    cpu_loop_s: float | None
    """Median of the calibration loop beside the timed rounds."""


DECODER = msgspec.json.Decoder(Row)
FIELDS = Row.__struct_fields__
COHORT = FIELDS[FIELDS.index("cohort") + 1 : FIELDS.index("quick") + 1]
"""What runs of one cohort have in common."""


def rows_of(run: Run, *, label: str = MAIN) -> list[Row]:
    """What a history keeps of a run. `Refusal` for one that measured nothing."""
    machine, commit = run.machine, run.commit
    try:
        time = run.datetime.astimezone(dt.UTC)
    except OverflowError:
        # Its offset from UTC leads out of the calendar.
        raise Refusal(messages.bad_datetime(run.path, run.datetime)) from None
    rows = [
        Row(
            machine=machine.name,
            device=machine.device,
            memory_bytes=machine.memory_bytes,
            threads=machine.threads if machine.device == "cpu" else None,
            driver=machine.driver,
            cuda=machine.cuda,
            python=machine.python,
            torch=machine.torch,
            diffusers=machine.diffusers,
            transformers=machine.transformers,
            harness=run.session.harness_version,
            quick=run.session.quick,
            run="",
            rows=0,
            cohort="",
            time=time,
            label="",
            commit=commit.id or "",
            dirty=bool(commit.dirty),
            gpu=machine.gpu_uuid,
            case=case.id,
            workload=case.measurement.workload,
            model=case.measurement.model,
            weights=case.measurement.weights,
            pins=pins_of(case),
            metric=name,
            unit=unit,
            value=value,
            status=case.status,
            valid=valid,
            clock_mhz=_median(case.measurement.interference.sm_clocks_mhz),
            cpu_loop_s=_median(case.measurement.interference.cpu_loops_s),
        )
        for case in run.cases.values()
        for name, unit, value, valid in values_of(case)
    ]
    if not rows:
        raise Refusal(messages.no_cases(run.path))
    digest = _digest(msgspec.json.Encoder().encode_lines(rows))[:16]
    count = len(rows)
    return [replace(row, run=digest, rows=count, label=label, cohort=_cohort(row)) for row in rows]


def pins_of(case: CaseRecord) -> str:
    """Digest of all that is pinned about what a case generates, as in `Row.pins`."""
    return _digest(msgspec.json.encode(case.workload, order="deterministic"))[:12]


def _cohort(row: Row) -> str:
    return _digest(msgspec.json.encode([getattr(row, name) for name in COHORT]))[:8]


def values_of(case: CaseRecord) -> Iterator[tuple[str, Unit, float, bool]]:
    """Name, unit, value and validity of everything numeric that a history keeps of a case."""
    seen = case.measurement
    for metric in MEASURED:
        value = metric.of(seen)
        if value is not None:
            disturbed = seen.interference.reasons(wall_clock=metric.wall_clock)
            valid = metric.kind is not MetricKind.TIME or not disturbed
            yield metric.name, metric.unit, value, valid
    for name, count in seen.counters.items():
        yield name, Unit.COUNT, count.total(seen.steps), True


def add(run: Run, folder: Path, *, label: str = MAIN) -> tuple[Path, str | None]:
    """The run's file in a store, and the label that it keeps if it was there already, else None.

    `Refusal` as `rows_of` and for a folder inside a store; `OSError`. A file that was damaged
    since it was added is written anew.
    """
    rows = rows_of(run, label=label)
    first = rows[0]
    if folder.is_dir():
        _refuse_inner(folder)
    path = folder / run.machine.slug / f"{first.time:%Y%m%dT%H%M%S}-{first.run}{SUFFIX}"
    kept = _label_in(path, rows) if path.exists() else None
    if kept is None:
        write(rows, path)
    return path, kept


def write(rows: Sequence[Row], path: Path) -> None:
    """Write a file of a store, whole or not at all. `OSError`."""
    # Without a time in its head, the same run is the same bytes.
    lines = msgspec.json.Encoder().encode_lines(rows)
    write_bytes_whole(path, gzip.compress(lines, mtime=0))


def _label_in(path: Path, rows: Sequence[Row]) -> str | None:
    """The label under which a file of a store has these rows; None where it has not."""
    try:
        known = _read(path)
    except Refusal:
        return None
    is_same = [replace(row, label=rows[0].label) for row in known] == list(rows)
    return known[0].label if is_same else None


def load(folder: Path) -> list[Row]:
    """Every row of a store, oldest run first.

    `Refusal` for a folder that is not a store, and for what in it cannot be read.
    """
    return [row for path in _files(folder) for row in _read(path)]


def _files(folder: Path) -> list[Path]:
    """At least one, the oldest first."""
    try:
        _refuse_inner(folder)
        # Not by `glob`, which passes over what it may not read.
        found = [
            Path(file)
            for machine in _entries(folder)
            if machine.is_dir() and not machine.name.startswith(".")
            for file in _entries(machine)
            if file.name.endswith(SUFFIX)
        ]
    except FileNotFoundError:
        raise Refusal(messages.no_store(folder)) from None
    except OSError as error:
        raise Refusal(common.cannot_read(error.filename, error.strerror)) from None
    if not found:
        inner = next(folder.glob(f"*/*/*{SUFFIX}"), None)
        raise Refusal(messages.no_runs(folder, inner and inner.parents[1]))
    return sorted(found, key=lambda path: path.name)


def _refuse_inner(folder: Path) -> None:
    """`Refusal` for the folder of one machine, which lies in a store; `OSError`."""
    if any(entry.name.endswith(SUFFIX) for entry in _entries(folder)):
        raise Refusal(messages.one_machine(folder, folder.parent))


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _read(path: Path) -> list[Row]:
    """The rows of a file of a store. `Refusal` for a file that is not of one."""
    try:
        rows: list[Row] = DECODER.decode_lines(read_gzip(path))
    except msgspec.ValidationError as error:
        raise Refusal(f"{path}: {phrase_of(error)}") from None
    except (EOFError, OSError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refusal(common.cannot_read(path, reason)) from None
    if not rows:
        raise Refusal(messages.empty(path))
    there = Counter(row.run for row in rows)
    for row in rows:
        if there[row.run] != row.rows:
            raise Refusal(messages.lost_rows(path, there[row.run], row.rows))
    return rows


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
