"""Searches for the fastest stack of optimizations whose picture keeps a promise.

Tries what `perf_tests/optimizations.py` declares, one on top of the other, within a limit on memory
and a budget of time, and keeps what is faster. 0: it found a stack that is faster than the
reference. 1: it found none. 2: bad input. Interrupted, the same command goes on.

    python -m ci explore
    python -m ci explore --psnr 25 --ssim 0.8 --memory 4 --minutes 20 --out runs/lossy
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import get_terminal_size
from time import monotonic
from typing import TYPE_CHECKING, Any

from ci.answers import refuse
from ci.bare import BadInput, bare_bench
from ci.sides import ROOT
from perf_tests.harness.catalog import (
    OPTIMIZATIONS,
    REFERENCE,
    STACKS,
    Case,
    Closeness,
    Optimization,
    Workload,
    cases_for,
    stacked,
)
from perf_tests.harness.measuring import PACKAGE, digest, digest_of
from perf_tests.harness.records import Measurement, gpu_speedup
from perf_tests.harness.runs import measurement
from perf_tests.harness.screen import picture, table
from perf_tests.harness.search import (
    Ask,
    Search,
    Stack,
    Step,
    Stopped,
    Tried,
    closeness_text,
    gain,
    shortlist,
)
from perf_tests.harness.verdicts import PASSING, judge

if TYPE_CHECKING:
    from perf_tests.harness.bench import Bench

MINUTES = 10.0
ROUNDS_S = 2.5
"""Of timed rounds for a stack as fast as the fastest so far, within these numbers of them: what is
fast differs by little."""
ROUNDS_LEAST, ROUNDS_MOST = 3, 8
COMPILING_S = 90.0
"""What a stack is expected to take that is the first to be compiled."""
LOSSLESS = "lossless"
FILE = "explore.json"
SCHEMA = 1
BEGUN_MOST = 2
"""A stack in which the process ended so often is not tried again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workload", metavar="NAME", help="what is generated (default: the model's first)"
    )
    parser.add_argument(
        "--promise",
        metavar="NAME",
        help="pictures as close to the reference's as this optimization promises "
        f"(default: {LOSSLESS}, as close as half precision)",
    )
    parser.add_argument("--psnr", type=_decibels, metavar="DB", help="the promise in numbers: PSNR")
    parser.add_argument("--ssim", type=_similarity, metavar="S", help="and SSIM, from -1 to 1")
    parser.add_argument(
        "--memory", type=_positive, metavar="GB", help="the most GPU memory, in GiB (2^30 bytes)"
    )
    parser.add_argument(
        "--minutes",
        type=_positive,
        default=MINUTES,
        metavar="N",
        help=f"start nothing that would take longer than this in all (default: {MINUTES:g})",
    )
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="optimizations to leave out"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU"
    )
    parser.add_argument("--model", help="any model that pytest takes, and its default")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "runs" / "explore",
        metavar="FOLDER",
        help="where each stack that was tried is kept (default: runs/explore)",
    )


def _positive(text: str) -> float:
    return _number(text, "more than 0", low=0)


def _decibels(text: str) -> float:
    return _number(text, "0 or more", low=-1e-9)


def _similarity(text: str) -> float:
    return _number(text, "a number from -1 to 1", low=-1 - 1e-9, high=1 + 1e-9)


def _number(text: str, takes: str, *, low: float, high: float = 1e6) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low < number < high:
        raise argparse.ArgumentTypeError(f"it takes {takes}, and not {text}")
    return number


def main(args: argparse.Namespace) -> int:
    """Search, then tell."""
    # Importing the optimizations declares them.
    from perf_tests import models, optimizations  # noqa: F401

    models.quiet_libraries()
    try:
        limit = _limit(args)
        bench = bare_bench(device=args.device, model=args.model)
        workload = _workload(args.workload, bench)
        if args.memory is not None and bench.device.type == "cpu":
            raise BadInput("--memory: it is GPU memory that is measured, and this runs on the CPU")
        promised = limit(bench.source.kind)
        folder = Folder.open(args.out, _settings(bench, workload))
    except BadInput as error:
        return refuse(str(error))
    candidates, others = shortlist(
        OPTIMIZATIONS.values(),
        base=[OPTIMIZATIONS[name] for name in workload.base],
        kind=bench.source.kind,
        picture=promised,
        without=args.without,
        lack=lambda o: _lack(bench, workload, o),
    )
    attempts = Attempts(
        bench=bench, workload=workload, promise=promised, folder=folder, budget_s=60 * args.minutes
    )
    search = Search(
        candidates=candidates,
        attempt=attempts,
        tell=lambda text: print(f"      {text}", flush=True),
        memory_bytes=args.memory and args.memory * 2**30,
    )
    print("\n".join(_opening(bench, workload, promised, args)), flush=True)
    stopped = ""
    with _stoppable():
        try:
            try:
                search.run()
            except Stopped as reason:
                stopped = str(reason)
            if search.steps:
                attempts.budget_s = math.inf  # for two more, which say what all that was worth
                search.confirm()
        except Stopped as reason:
            stopped = str(reason)
        except KeyboardInterrupt:
            stopped = "interrupted; the same command goes on"
            print()
    if not search.steps:
        return refuse(stopped)
    print("\n".join(_closing(search, attempts, others, stopped=stopped)))
    return 0 if _found(search) else 1


def _limit(args: argparse.Namespace) -> Any:
    """The closeness that is asked for, by the kind of weights. `BadInput` for no such promise."""
    from perf_tests import optimizations

    unknown = next((n for n in args.without if n not in OPTIMIZATIONS), None)
    if unknown is not None:
        raise BadInput(_no_optimization("--without", unknown))
    in_numbers = args.psnr is not None or args.ssim is not None
    if in_numbers and args.promise is not None:
        raise BadInput("the promise is given either by --promise or in numbers")
    if in_numbers:
        numbers = Closeness(
            psnr_db=0.0 if args.psnr is None else args.psnr,
            ssim=-1.0 if args.ssim is None else args.ssim,
        )
        return lambda kind: numbers
    if args.promise in (None, LOSSLESS):
        promise = optimizations.LOSSLESS
    elif args.promise in OPTIMIZATIONS:
        promise = OPTIMIZATIONS[args.promise].promise
    else:
        raise BadInput(_no_optimization("--promise", args.promise))
    return lambda kind: promise.on(kind) or Closeness()


def _no_optimization(option: str, name: str) -> str:
    known = ", ".join([*((LOSSLESS,) if option == "--promise" else ()), *OPTIMIZATIONS])
    return f"{option}: no optimization is called {name!r}; known are {known}"


def _workload(name: str | None, bench: Bench) -> Workload:
    found = {case.workload.name: case.workload for case in cases_for(bench.source.scale)}
    if name is None:
        return next(iter(found.values()))
    if name not in found:
        raise BadInput(
            f"--workload: {bench.source.name} has none that is called {name!r}; known are "
            f"{', '.join(found)}"
        )
    return found[name]


def _lack(bench: Bench, workload: Workload, optimization: Optimization) -> str | None:
    """Why it cannot run here, whatever it stands on."""
    alone = Case(
        workload=workload,
        name=optimization.name,
        stack=(optimization,),
        against=REFERENCE,
        picture_only=False,
    )
    lack = bench.lacks(alone)
    return lack.reason if lack else None


def _settings(bench: Bench, workload: Workload) -> dict[str, Any]:
    """What measurements depend on; those of other settings cannot stand beside each other."""
    machine = bench.machine.as_json()
    if bench.machine.device == "cuda":
        del machine["threads"]  # the host's, which change nothing on a GPU
    declared = [PACKAGE / "optimizations.py", *PACKAGE.glob("techniques/*.py")]
    settings = machine | {
        "model": bench.source.name,
        "weights": bench.source.weights,
        "workload": asdict(workload),
        "measuring code": digest(),
        "optimizations' code": digest_of(declared),
    }
    # As a file gives it back.
    read: dict[str, Any] = json.loads(json.dumps(settings))
    return read


@dataclass(kw_only=True)
class Folder:
    """What was tried so far, kept in one file."""

    path: Path
    settings: Mapping[str, Any]
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By `Ask.key`: seconds, and what was measured or why nothing was."""
    begun: dict[str, int] = field(default_factory=dict)
    """How often a stack was begun that never came to an end."""

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any]) -> Folder:
        """As it was left, or a new one. `BadInput` for other settings, or no place to write."""
        opened = cls(path=folder / FILE, settings=settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if opened.path.exists():
                content = json.loads(opened.path.read_text())
                before = dict(content["settings"])
                opened.tried, opened.begun = dict(content["tried"]), dict(content["begun"])
                for entry in opened.tried.values():
                    _tried(entry)
            else:
                before = dict(settings)
                opened.save()
        except OSError as error:
            raise BadInput(f"--out {folder}: cannot be written ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(
                f"{opened.path}: was not written by explore; give another --out"
            ) from None
        for name, value in settings.items():
            if before.get(name) != value:
                other = f" {before.get(name)}, and this is {value}"
                told = " another" if isinstance(value, dict) or "code" in name else other
                raise BadInput(
                    f"--out {folder} holds what was measured with{told} as its {name}: give "
                    "another --out, or remove that folder"
                )
        return opened

    @property
    def stacks(self) -> set[Stack]:
        """Those that were tried."""
        return {_stack_of(key) for key in self.tried}

    def begin(self, key: str) -> None:
        self.begun[key] = self.begun.get(key, 0) + 1
        self.save()

    def end(self, key: str, entry: Mapping[str, Any] | None) -> None:
        """Keep what came out; None where it was interrupted, which is not its fault."""
        self.begun.pop(key, None)
        if entry is not None:
            self.tried[key] = dict(entry)
        self.save()

    def save(self) -> None:
        """Write all of it, or leave what was there."""
        content = {
            "schema": SCHEMA,
            "settings": self.settings,
            "tried": self.tried,
            "begun": self.begun,
        }
        written = self.path.with_suffix(".new")
        written.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        written.replace(self.path)


def _stack_of(key: str) -> Stack:
    names = key.split(" ")[0]
    return tuple(names.split("+")) if names else ()


def _tried(entry: Mapping[str, Any]) -> Tried:
    if entry["measured"] is None:
        return Tried(measured=None, refused=str(entry["failed"]))
    return Tried(measured=measurement(entry["measured"]))


@dataclass(kw_only=True)
class Attempts:
    """Tries stacks on a bench, and keeps what came out."""

    bench: Bench
    workload: Workload
    promise: Closeness
    folder: Folder
    budget_s: float
    number: int = 0
    disturbed: int = 0
    """Of what was measured, beside other work on the machine."""
    _started: float = field(default_factory=monotonic)

    def __call__(self, ask: Ask) -> Tried:
        """As it was tried before, or now. `Stopped` where no time is left for it."""
        self.number += 1
        entry = self.folder.tried.get(ask.key)
        print(f"[{self.number:3}] {ask.change}", end=" … ", flush=True)
        if entry is None:
            begun = self.folder.begun.get(ask.key, 0)
            if begun >= BEGUN_MOST:
                print(f"the process ended {begun} times in it")
                return Tried(measured=None, refused=f"the process ended {begun} times in it")
            try:
                self._afford(ask)
                self._make_reference(ask)
            except Stopped:
                print("not tried")
                raise
            entry = self._run(ask)
        else:
            entry = entry | {"seconds": None}
        tried = self._judged(ask, _tried(entry))
        print(_line(tried, entry["seconds"]), flush=True)
        self._see_that_it_works()
        return tried

    def _afford(self, ask: Ask) -> None:
        compiles = _compiles(ask.stack)
        alike = [
            entry["seconds"]
            for key, entry in self.folder.tried.items()
            if _stack_of(key) and _compiles(_stack_of(key)) == compiles
        ]
        expected = max(alike, default=COMPILING_S if compiles else 0.0)
        if monotonic() - self._started + expected > self.budget_s:
            raise Stopped(
                f"{self.budget_s / 60:g} min do not hold the next one, which may take "
                f"{expected:.0f} s; the same command goes on"
            )

    def _make_reference(self, ask: Ask) -> None:
        """Its picture is not in the folder, and its floor is not known to this process."""
        case = stacked(self.workload, REFERENCE)
        if ask.stack and case.id not in self.bench.measurements:
            _, failed = self._measure(case, full=True)
            if failed:
                raise Stopped(f"the reference fails: {failed}")

    def _run(self, ask: Ask) -> dict[str, Any]:
        started = monotonic()
        entry: dict[str, Any] | None = None
        self.folder.begin(ask.key)
        try:
            case = stacked(self.workload, "+".join(ask.stack) or REFERENCE)
            measured, failed = self._measure(case, full=not ask.why)
            entry = {
                "seconds": round(monotonic() - started, 1),
                "measured": measured and measured.as_json(reference=None),
                "failed": failed,
            }
        finally:
            # A reference that fails is no result: the next run tries it again.
            self.folder.end(ask.key, entry if ask.why or (entry and entry["measured"]) else None)
        return entry

    def _measure(self, case: Case, *, full: bool) -> tuple[Measurement | None, str]:
        """The measurement, or why there is none."""
        from perf_tests.harness.bench import CaseError
        from perf_tests.harness.timing import time_rounds

        self.bench.quick = not full
        fastest_s = min(
            (
                seen["measured"]["latency_s"]
                for seen in self.folder.tried.values()
                if seen["measured"]
            ),
            default=ROUNDS_S,
        )
        self.bench.rounds = max(ROUNDS_LEAST, min(ROUNDS_MOST, round(ROUNDS_S / fastest_s)))
        failed = ""
        try:
            self.bench.open(case)
            return self.bench.measure(case, time_rounds), ""
        except CaseError as error:
            failed = str(error).removeprefix(f"{case.id}: ")
        except Exception as error:
            # A combination can break anything in three libraries, and the others have to go on.
            text = (str(error).strip().splitlines() or [""])[0]
            failed = f"{type(error).__name__}: {text}"
        finally:
            self.bench.close()
            if "torch._dynamo" in sys.modules:
                import torch

                # What it compiled holds on to the modules that it compiled.
                torch.compiler.reset()
            gc.collect()
        return None, failed

    def _judged(self, ask: Ask, tried: Tried) -> Tried:
        """By the rule of a test, with what was asked for as the promise."""
        measured = tried.measured
        if measured is None:
            return tried
        if measured.validity.get("disturbed_by") or measured.validity.get("host_disturbed_by"):
            self.disturbed += 1
        case = stacked(self.workload, measured.case)
        reference = self.bench.measurements.get(stacked(self.workload, REFERENCE).id, measured)
        question = self.bench.question(case, measured, reference if ask.stack else None)
        if ask.stack:
            question = replace(question, promise=self.promise)
        failing = [f for f in judge(question).findings if f.status not in PASSING]
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
        except RuntimeError as error:
            raise Stopped(
                f"the GPU does not answer any more in this process "
                f"({str(error).splitlines()[0]}); the same command goes on"
            ) from None


def _compiles(stack: Sequence[str]) -> bool:
    return any(name in OPTIMIZATIONS and OPTIMIZATIONS[name].compiles for name in stack)


@contextmanager
def _stoppable() -> Iterator[None]:
    """A `kill` ends the search as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What a person reads


def _opening(
    bench: Bench, workload: Workload, promise: Closeness, args: argparse.Namespace
) -> Iterator[str]:
    machine, images = bench.machine, workload.images
    yield (
        f"{workload.name} of {bench.source.name} on {machine.name}, torch {machine.torch}: "
        f"{'one picture' if images == 1 else f'{images} pictures'}, "
        f"{workload.size}x{workload.size}, {workload.steps} steps"
    )
    memory = f", at most {args.memory:g} GiB" if args.memory else ""
    yield f"asked for: {closeness_text(promise)}{memory}, in {args.minutes:g} min"


def _line(tried: Tried, seconds: float | None) -> str:
    """One attempt; what was measured, then what is wrong with it."""
    parts = []
    if tried.measured is not None:
        _, latency, _, busy, _, memory, seen = _cells("", tried.measured, tried.measured)
        parts = [part for part in (latency, busy and f"GPU busy {busy}", memory, seen) if part]
    elif tried.refused:
        parts = [f"failed: {tried.refused}"]
    told = "from before" if seconds is None else f"in {seconds:.0f} s"
    return f"{', '.join(parts)} ({told})"


HEAD = ("step", "latency", "speedup", "GPU busy", "GPU speedup", "memory", "picture")


def _cells(name: str, seen: Measurement, reference: Measurement) -> tuple[str, ...]:
    on_gpu = gpu_speedup(seen, reference)
    memory = seen.peak_memory_bytes
    return (
        name,
        f"{seen.latency_s:.3f} s",
        f"{reference.latency_s / seen.latency_s:.2f}x",
        f"{seen.gpu_busy_s:.3f} s" if seen.gpu_busy_s is not None else "",
        f"{on_gpu:.2f}x" if on_gpu else "",
        f"{memory / 2**20:,.0f} MiB" if memory else "",
        # The reference's own closeness is to the accepted picture, and no part of this.
        "" if seen.case == REFERENCE else picture(seen),
    )


def _found(search: Search) -> bool:
    """Whether the best stack is faster than the reference, and within the memory."""
    best, reference = search.steps[-1], search.steps[0]
    return search.fits(best.measured) and gain(best.measured, reference.measured).latency > 1


def _closing(
    search: Search, attempts: Attempts, others: Mapping[str, str], *, stopped: str
) -> Iterator[str]:
    """What it says as a whole; the last line is the answer."""
    reference, best = search.steps[0].measured, search.steps[-1]
    width = get_terminal_size(fallback=(100, 24)).columns
    yield ""
    rows = [_cells(step.change, step.measured, reference) for step in search.steps]
    yield from table(HEAD, rows, width=width)
    yield ""
    yield from _bounds(best, attempts)
    if search.rejected:
        yield ""
        yield "tried, and not in it:"
        for name, rejected in search.rejected.items():
            yield f"  {name}: {rejected.reason}"
    yield ""
    yield "not tried:"
    why: dict[str, list[str]] = {}
    for name, reason in {**others, **dict.fromkeys(search.untried, stopped)}.items():
        why.setdefault(reason.removeprefix(f"{name} "), []).append(name)
    for reason, names in why.items():
        yield f"  {', '.join(names)}: {reason}"
    candidates = len(search.candidates)
    yield (
        f"  most combinations: of the {2**candidates:,} that {candidates} optimizations make, "
        f"{len(attempts.folder.stacks)} were tried, one added, replaced or left out at a time; two "
        "that gain only together are found where one declares that it needs the other"
    )
    if stopped:
        yield f"stopped: {stopped}"
    if attempts.disturbed:
        yield (
            f"disturbed: {attempts.disturbed} of {attempts.number} measurements were taken beside "
            "other work on this machine, and say less"
        )
    yield ""
    if not _found(search):
        yield "no stack was found that is faster than the reference and within the limits"
        return
    yield (
        f"found: {reference.latency_s / best.measured.latency_s:.2f}x as fast as the reference"
        + _called(best.stack, attempts.workload.base)
    )
    yield f'stack("best_{attempts.workload.name}", "{"+".join(best.stack)}")'


def _called(stack: Stack, base: Sequence[str]) -> str:
    """Where it is a stack that has a name already."""
    same = [n for n, of in STACKS.items() if {*of} - {*base} == {*stack}]
    return f"; it is {same[0]}" if same else ""


def _bounds(best: Step, attempts: Attempts) -> Iterator[str]:
    """What holds the best stack back now."""
    seen = best.measured
    bound = seen.bound()
    if bound is None:
        yield "bound by: unknown, since there is no GPU whose time could be seen"
        return
    by = {"host": "the host, which", "gpu": "the GPU, which"}[bound["by"]]
    idle = bound["gpu_idle_share"]
    yield (
        f"bound by: {by} leaves the GPU idle for {idle:.0%} of the time"
        if bound["by"] == "host"
        else f"bound by: {by} is busy for {1 - idle:.0%} of the time"
    )
    if seen.floor_s:
        rate = {"arithmetic": "its matrix products take", "memory": "reading its weights takes"}
        yield (
            f"floor: {seen.floor_s:.3f} s, which {rate[seen.floor_by or 'arithmetic']} at the rate "
            f"of this GPU; it takes {seen.latency_s / seen.floor_s:.1f} times as long"
        )
    else:
        yield "floor: unknown, since what it leaves out was not counted operator by operator"
    families = sorted(seen.families.items(), key=lambda item: -item[1][0])[:5]
    if families:
        told = [f"{name} {seconds:.3f} s ({kernels:,})" for name, (seconds, kernels) in families]
        yield f"GPU time by family of kernels: {', '.join(told)}"
