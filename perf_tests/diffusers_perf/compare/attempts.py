"""Tries stacks of optimizations for `explore`, and keeps what came out in a folder."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import to_builtins

from diffusers_perf.catalog.declarations import REFERENCE, Case, Tolerance
from diffusers_perf.catalog.metrics import GPU_BUSY, cells
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.compare.bare import BadInput
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.measurement.measuring import PACKAGE, digest, digest_of
from diffusers_perf.messages import common
from diffusers_perf.messages import explore as messages
from diffusers_perf.plugin.screen import image
from diffusers_perf.records.files import as_json, read_bytes, write_whole
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.quantities import Integer, NotNegative, StrictRecord
from diffusers_perf.search.attempt import Ask, Stack, Stopped, TooLong, Tried

if TYPE_CHECKING:
    from diffusers_perf.measurement.bench import Bench

ROUNDS_S = 2.5
"""Of timed rounds for a stack as fast as the fastest so far, within these numbers of them: what is
fast differs by little."""
ROUNDS_LEAST, ROUNDS_MOST = 3, 8
COMPILING_S = 90.0
"""What a stack is expected to take longer that is the first to be compiled in its way."""
FILE = "explore.json"
BEGUN_MOST = 2
"""A stack in which the process ended so often is not tried again."""


def settings_of(bench: Bench, workload: Workload, catalog: Catalog) -> dict[str, Any]:
    """What measurements depend on; those of other settings cannot stand beside each other."""
    machine: dict[str, Any] = to_builtins(bench.machine)
    if bench.machine.device == "cuda":
        del machine["threads"]  # the host's, which change nothing on a GPU
    settings = machine | {
        "model": bench.sources.of(workload).name,
        "weights": bench.sources.of(workload).weights,
        "workload": workload.as_json(),
        "measuring code": digest(),
        "optimizations' code": _code_of_optimizations(catalog),
    }
    # As a file gives it back.
    read: dict[str, Any] = json.loads(json.dumps(settings))
    return read


def _code_of_optimizations(catalog: Catalog) -> str:
    """Of the library's and of whatever else declared one; not of the lists of cases."""
    ours = digest_of([*PACKAGE.glob("optimizations/*.py"), *PACKAGE.glob("techniques/*.py")])
    others = sorted(
        inspect.getsource(declared.apply)
        for declared in catalog.optimizations.values()
        if not declared.apply.__module__.startswith("diffusers_perf.")
    )
    return hashlib.sha256("".join([ours, *others]).encode()).hexdigest()[:12]


class Entry(StrictRecord, frozen=True, kw_only=True):
    """What came of a stack."""

    seconds: NotNegative
    measured: Measurement | None
    failed: str
    """Why nothing was measured."""


class FolderFile(StrictRecord, frozen=True, kw_only=True):
    """The file that `Folder` is kept in."""

    schema: Literal[2] = 2
    settings: dict[str, Any]
    tried: dict[str, Entry]
    begun: dict[str, Integer]


@dataclass(kw_only=True)
class Folder:
    """What was tried so far, kept in one file."""

    path: Path
    settings: Mapping[str, Any]
    tried: dict[str, Entry] = field(default_factory=dict)
    """By `Ask.key`."""
    begun: dict[str, int] = field(default_factory=dict)
    """How often a stack was begun that never came to an end."""

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any]) -> Folder:
        """As it was left, or a new one. `BadInput` for other settings, or no place to write."""
        opened = cls(path=folder / FILE, settings=settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if opened.path.exists():
                content = msgspec.json.decode(read_bytes(opened.path), type=FolderFile)
                before = content.settings
                opened.tried, opened.begun = content.tried, content.begun
            else:
                before = dict(settings)
                opened.save()
        except OSError as error:
            raise BadInput(common.cannot_write(f"--out {folder}", error.strerror)) from None
        except (ValueError, RecursionError):
            raise BadInput(common.not_written_by(opened.path, "explore")) from None
        for name, value in settings.items():
            if before.get(name) != value:
                is_long = isinstance(value, dict) or "code" in name
                was, now = (None, None) if is_long else (before.get(name), value)
                raise BadInput(common.other_settings(folder, name, was, now))
        return opened

    @property
    def stacks(self) -> set[Stack]:
        """Those that were tried."""
        return {_stack_of(key) for key in self.tried}

    @property
    def measured(self) -> dict[Ask, Measurement]:
        """What was measured, the latest of each stack; asked again, it is not measured again."""
        latest = {
            _stack_of(key): (key, seen)
            for key, entry in self.tried.items()
            if (seen := entry.measured) is not None
        }
        return {
            Ask(stack=stack, change="", why=key.partition(" | ")[2]): seen
            for stack, (key, seen) in latest.items()
        }

    def begin(self, key: str) -> None:
        self.begun[key] = self.begun.get(key, 0) + 1
        self.save()

    def end(self, key: str, entry: Entry | None) -> None:
        """Keep what came out; None where it was interrupted, which is not its fault."""
        self.begun.pop(key, None)
        if entry is not None:
            self.tried[key] = entry
        self.save()

    def save(self) -> None:
        """Write all of it, or leave what was there."""
        content = FolderFile(settings=dict(self.settings), tried=self.tried, begun=self.begun)
        write_whole(self.path, as_json(content) + "\n")


def _stack_of(key: str) -> Stack:
    names = key.split(" ")[0]
    return tuple(names.split("+")) if names else ()


@dataclass(kw_only=True)
class Attempts:
    """Tries stacks on a bench, and keeps what came out."""

    bench: Bench
    catalog: Catalog
    workload: Workload
    tolerance: Tolerance
    folder: Folder
    budget_s: float
    number: int = 0
    with_interference: int = 0
    """While it was measured, beside other work on the machine."""
    _started: float = field(default_factory=lambda: monotonic())

    def __call__(self, ask: Ask) -> Tried:
        """As it was tried before, or now. `Stopped` where no time is left for it."""
        self.number += 1
        entry = self.folder.tried.get(ask.key)
        print(f"[{self.number:3}] {ask.change}", end=" … ", flush=True)
        if entry is None:
            begun = self.folder.begun.get(ask.key, 0)
            if begun >= BEGUN_MOST:
                refused = messages.ended_in_it(begun)
                print(refused)
                return Tried(measured=None, refused=refused)
            try:
                self._afford(ask)
                self._make_reference(ask)
            except Stopped:
                print(messages.NOT_TRIED)
                raise
            entry = self._run(ask)
            seconds: float | None = entry.seconds
        else:
            seconds = None
        tried = self._judged(ask, Tried(measured=entry.measured, refused=entry.failed))
        print(_line(tried, seconds), flush=True)
        self._see_that_it_works()
        return tried

    def _afford(self, ask: Ask) -> None:
        """`Stopped` where the time that is left is too short for it, or `TooLong` where it is long
        enough for a stack that compiles nothing.
        """
        compilers = self._compilers(ask.stack)
        # The last ones: what was compiled before makes the next one shorter.
        took = {
            self._compilers(_stack_of(key)): entry.seconds
            for key, entry in self.folder.tried.items()
            if _stack_of(key) and entry.measured is not None
        }
        plain = took.get((), 0.0)
        expected = took.get(compilers, plain + COMPILING_S)
        left = self.budget_s - (monotonic() - self._started)
        if plain > left or left <= 0:
            raise Stopped(messages.out_of_budget(left, self.budget_s, plain))
        if compilers and expected > left:
            raise TooLong(messages.out_of_budget(left, self.budget_s, expected))

    def _compilers(self, stack: Sequence[str]) -> Stack:
        known = self.catalog.optimizations
        return tuple(name for name in stack if name in known and known[name].compiles)

    def _make_reference(self, ask: Ask) -> None:
        """Its image is not in the folder, and its roofline is not known to this process."""
        case = self.catalog.case(self.workload, REFERENCE)
        if ask.stack and case.id not in self.bench.measurements:
            _, failed = self._measure(case, full=True)
            if failed:
                raise Stopped(messages.reference_fails(failed))

    def _run(self, ask: Ask) -> Entry:
        started = monotonic()
        entry: Entry | None = None
        self.folder.begin(ask.key)
        try:
            case = self.catalog.case(self.workload, "+".join(ask.stack) or REFERENCE)
            measured, failed = self._measure(case, full=not ask.why)
            seconds = round(monotonic() - started, 1)
            entry = Entry(seconds=seconds, measured=measured, failed=failed)
        finally:
            # A reference that fails is not a result: the next run tries it again.
            self.folder.end(ask.key, entry if ask.why or (entry and entry.measured) else None)
        return entry

    def _measure(self, case: Case, *, full: bool) -> tuple[Measurement | None, str]:
        """The measurement, or why there is none."""
        from diffusers_perf.measurement.failing import CaseError

        self.bench.quick = not full
        fastest_s = min(
            (seen.latency_s for entry in self.folder.tried.values() if (seen := entry.measured)),
            default=ROUNDS_S,
        )
        self.bench.rounds = max(ROUNDS_LEAST, min(ROUNDS_MOST, round(ROUNDS_S / fastest_s)))
        try:
            try:
                self.bench.open(case)
                return self.bench.measure(case, self.bench.stopwatch.rounds), ""
            finally:
                self.bench.clear()
        except CaseError as error:
            return None, str(error).removeprefix(f"{case.id}: ")
        except Exception as error:
            # A combination can break anything in three libraries, and the others have to go on.
            text = (str(error).strip().splitlines() or [""])[0]
            # Our own refusals are sentences.
            return None, text if type(error) is ValueError else f"{type(error).__name__}: {text}"

    def _judged(self, ask: Ask, tried: Tried) -> Tried:
        """By the rule of a test, with what was asked for as the tolerance."""
        measured = tried.measured
        from diffusers_perf.plugin.judging import Judging

        if measured is None:
            return tried
        if measured.interference.reasons(wall_clock=True):
            self.with_interference += 1
        case = self.catalog.case(self.workload, measured.case)
        reference = self.bench.measurements.get(
            self.catalog.case(self.workload, REFERENCE).id, measured
        )
        judging = Judging(bench=self.bench)
        question = judging.question(case, measured, reference if ask.stack else None)
        if ask.stack:
            question = replace(question, tolerance=self.tolerance)
        failing = [f for f in judge(question).findings if not f.status.passes]
        if not failing:
            return tried
        what = failing[0].what.removeprefix(f"{case.id}: ")
        return replace(tried, refused=f"{what} ({failing[0].measured})")

    def _see_that_it_works(self) -> None:
        """`Stopped` where what failed took the GPU's context along, as a bad access does."""
        if self.bench.device.type == "cpu":
            return
        import torch

        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # refuses after a capture that did not end
        except RuntimeError as error:
            raise Stopped(messages.lost_gpu(common.last_line(str(error)))) from None


def _line(tried: Tried, seconds: float | None) -> str:
    """One attempt; what was measured, then what is wrong with it."""
    parts = []
    if tried.measured is not None:
        *_, seen = cells_of("", tried.measured, tried.measured)
        shown = cells(tried.measured, None)
        busy = GPU_BUSY.column
        shown[busy] = shown[busy] and f"{busy} {shown[busy]}"
        parts = [part for part in (*shown.values(), seen) if part]
    elif tried.refused:
        parts = [messages.failed(tried.refused)]
    what = ", ".join(parts)
    return messages.earlier(what) if seconds is None else messages.took(what, seconds)


def cells_of(name: str, seen: Measurement, reference: Measurement) -> tuple[str, ...]:
    return (
        name,
        *cells(seen, reference).values(),
        # The reference's own image_distance is to the accepted image, and no part of this.
        "" if seen.case == REFERENCE else image(seen),
    )
