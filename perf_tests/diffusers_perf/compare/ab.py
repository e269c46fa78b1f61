"""Compare two commits, or two environments, in fresh processes on this machine.

    diffusers-perf ab --base origin/main --head HEAD --quick --device cuda -- -k "fp16 or reference"
    diffusers-perf ab --base-python old/bin/python --head-python new/bin/python --device cuda

Base and head run in turn (A B B A …), so that a drifting machine affects both alike: five pairs,
and five more if those can resolve what is inconclusive. Each side has a compile cache of its own
that is empty at first. Run the same command again to continue after an interruption.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join
from statistics import fmean
from time import monotonic
from typing import Annotated

import msgspec
from msgspec import Meta

from diffusers_perf.cli.answers import (
    CANNOT_JUDGE,
    add_baselines,
    named,
    positive,
    refuse,
    store_of,
)
from diffusers_perf.cli.ending import ended_by, leave_lost_terminal
from diffusers_perf.compare import compare
from diffusers_perf.compare.lock import BadFolder, held
from diffusers_perf.compare.sides import (
    BadSide,
    Side,
    commits_of,
    of_commits,
    of_pythons,
    repository,
)
from diffusers_perf.judge.comparable import NotComparable
from diffusers_perf.judge.comparison import Comparison
from diffusers_perf.judge.weighing import PAIRS_MOST
from diffusers_perf.records.files import as_json, write_whole
from diffusers_perf.records.quantities import Integer, Positive, PositiveInteger, StrictRecord
from diffusers_perf.records.reading import BadRunError, load_run
from diffusers_perf.records.store import BaselineStore

PAIRS = 5
PAIRS_LEAST = 2
"""With fewer there is no interval."""
MINUTES = 30.0
LAST_LINES = 15
MEASURED = (0, 1)
"""pytest's exit codes of a run that is through: all passed, or some failed."""
STOPPING_S = 10
NO_CASE = 5
"""pytest's exit code where its arguments select no test."""
STATE = "ab.json"
OUT = Path("runs", "ab")
"""Below the repository's root."""

CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "PYTORCH_KERNEL_CACHE_PATH": "kernels",
}
"""Where compilers keep what they made, as environment variables."""


class OutOfTime(Exception):
    """The budget holds no further process; the text says how to go on."""


class NothingMeasured(Exception):
    """A process that gave no run; the text has its last lines."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", metavar="REF", help="git ref, installed in its own environment")
    parser.add_argument("--head", metavar="REF", help="git ref to judge against it")
    parser.add_argument(
        "--base-python", metavar="PATH", help="Python of an environment, run on this checkout"
    )
    parser.add_argument(
        "--head-python", metavar="PATH", help="Python of the environment to judge against it"
    )
    parser.add_argument(
        "--out",
        type=named,
        metavar="FOLDER",
        help="where runs, checkouts and environments are kept (default: runs/ab)",
    )
    parser.add_argument(
        "--minutes",
        type=positive,
        default=MINUTES,
        metavar="N",
        help=f"time for all processes, installation not included (default: {MINUTES:g})",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="passed to pytest")
    add_baselines(parser)
    parser.add_argument(
        "--quick", action="store_true", help="passed to pytest: shorter processes, less exact"
    )
    parser.add_argument(
        "pytest",
        nargs="*",
        metavar="-- ARGUMENT",
        help="passed to pytest, for example: -- -k fp16 --model=FOLDER",
    )


def main(args: argparse.Namespace) -> int:
    refs, pythons = (args.base, args.head), (args.base_python, args.head_python)
    if not (all(refs) and not any(pythons)) and not (all(pythons) and not any(refs)):
        raise BadSide(
            "ab takes either --base and --head (two refs of this repository) or --base-python and "
            "--head-python (two environments), and both of them"
        )
    options = [
        *(["--device", args.device] if args.device else []),
        *(["--quick"] if args.quick else []),
        *_as_one(args.pytest),
    ]
    out: Path = (args.out or repository() / OUT).absolute()
    try:
        with _interruptible() as interruption, held(out, by="ab") as lock:
            if all(pythons):
                sides = of_pythons(*pythons)
                settings = {side.name: (str(side.python), side.text, side.files) for side in sides}
                state = State.open(out, {"pytest": tuple(options), **settings})
            else:
                commits = commits_of(*refs)
                # Before anything is checked out over what another comparison measured.
                state = State.open(out, {"pytest": tuple(options), **commits})
                sides = of_commits(commits, out)
            return Turns(
                sides={side.name: side for side in sides},
                state=state,
                typed=_typed(args),
                options=options,
                budget_s=args.minutes * 60,
                lock=lock,
                store=store_of(args),
                interruption=interruption,
            ).judge()
    except BadFolder as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        leave_lost_terminal()
        print(
            "interrupted; the same command goes on from the pairs that are finished",
            file=sys.stderr,
        )
        return CANNOT_JUDGE


def _as_one(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``--model`` and its value in one: see `models.options_for`."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--model":
            joined[-1] = f"--model={argument}"
        else:
            joined.append(argument)
    return joined


def _typed(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The command as it was given, before and behind the place of its --minutes."""
    given = {
        "--base": args.base,
        "--head": args.head,
        "--base-python": args.base_python,
        "--head-python": args.head_python,
        "--out": args.out,
        "--device": args.device,
        "--baselines": args.baselines,
    }
    options = [str(part) for option in given.items() if option[1] is not None for part in option]
    command = ["diffusers-perf", "ab", *options, *(["--quick"] if args.quick else [])]
    return command, ["--", *args.pytest] if args.pytest else []


class Interruption:
    """A signal that ends: a `KeyboardInterrupt`, at once or as soon as nothing is half done."""

    def __init__(self) -> None:
        self._came = False
        self._is_held_back = False

    def __call__(self, *_: object) -> None:
        self._came = True
        if not self._is_held_back:
            raise KeyboardInterrupt

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """One that comes in here waits for the end of it."""
        try:
            self._is_held_back = True
            yield
        finally:
            self._is_held_back = False
            self._raise_if_it_came()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Within `held_back`: in here one comes at once, also one that came before."""
        try:
            self._is_held_back = False
            self._raise_if_it_came()
            yield
        finally:
            self._is_held_back = True

    def _raise_if_it_came(self) -> None:
        if self._came:
            raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """A `kill` ends the process that is measuring, too, as Ctrl-C does."""
    interruption = Interruption()
    with ended_by(interruption):
        yield interruption


class Finished(StrictRecord, frozen=True, kw_only=True):
    """One process that ran to its end and measured something."""

    side: Annotated[str, Meta(pattern="^(base|head)$")]
    pair: PositiveInteger
    """Counted from 1."""
    seconds: Positive


Setting = str | tuple[str, ...]


class StateFile(StrictRecord, frozen=True, kw_only=True, omit_defaults=True):
    """The file that `State` is kept in."""

    settings: Mapping[str, Setting]
    finished: tuple[Finished, ...]
    compared: Integer = 0


@dataclass(kw_only=True)
class State:
    """What a folder holds: of which sides, and which processes are finished."""

    path: Path
    settings: Mapping[str, Setting]
    finished: list[Finished] = field(default_factory=list)
    compared: int = 0
    """Pairs of the comparison that was made, whatever it said."""

    @classmethod
    def open(cls, out: Path, settings: Mapping[str, Setting]) -> State:
        """As it was left, or a new one. `BadSide` where other settings were measured here.

        Half a pair is left out: its other half would be measured on what is another machine by now.
        """
        state = cls(path=out / STATE, settings=settings)
        if not state.path.exists():
            return state
        try:
            known = msgspec.json.decode(state.path.read_bytes(), type=StateFile)
        except (OSError, ValueError, RecursionError):
            raise BadSide(f"{state.path}: was not written by ab; give another --out") from None
        before = known.settings
        state.finished, state.compared = [*known.finished], known.compared
        for name, value in settings.items():
            if before.get(name) != value:
                raise BadSide(
                    f"--out {out} holds runs with {name} {_text(before.get(name))}, and this is "
                    f"{_text(value)}: give another --out, or remove that folder"
                )
        whole = state.pairs()
        state.finished = [entry for entry in state.finished if entry.pair in whole]
        return state

    def run(self, side: str, pair: int) -> Path:
        """Where a process writes its JSON."""
        return self.path.with_name(f"{side}-{pair}.json")

    def has(self, side: str, pair: int) -> bool:
        return any((entry.side, entry.pair) == (side, pair) for entry in self.finished)

    @property
    def spent_s(self) -> float:
        """By all processes that are finished."""
        return sum(entry.seconds for entry in self.finished)

    def pairs(self) -> list[int]:
        """Those of which both sides are finished."""
        numbers = sorted({entry.pair for entry in self.finished})
        return [n for n in numbers if self.has("base", n) and self.has("head", n)]

    def add(self, entry: Finished) -> None:
        """Keep it, so that an interruption at any moment loses one pair at most."""
        self.finished.append(entry)
        self.save()

    def save(self) -> None:
        """Write all of it, or leave what was there."""
        content = StateFile(
            settings=self.settings,
            finished=tuple(self.finished),
            compared=self.compared,
        )
        write_whole(self.path, as_json(content))


def _text(value: Setting | None) -> str:
    return (" ".join(value) if isinstance(value, tuple) else str(value)) or "none"


@dataclass(frozen=True, kw_only=True)
class Turns:
    """All processes of one comparison, base and head in turn."""

    sides: dict[str, Side]
    state: State
    typed: tuple[Sequence[str], Sequence[str]]
    """The command, before and behind its --minutes."""
    options: Sequence[str]
    """Of the main job."""
    budget_s: float
    lock: int
    store: BaselineStore
    """With the calibrated noise of this machine."""
    interruption: Interruption

    def judge(self) -> int:
        """Measure what is not finished yet, then compare; returns the exit code."""
        for side in self.sides.values():
            print(f"{side.name}  {side.text}")
        if self.state.finished:
            pairs = len(self.state.pairs())
            print(f"{pairs} {'pair is' if pairs == 1 else 'pairs are'} finished from before")
            self._compared()
        try:
            self._measure(PAIRS)
            # The first five decide, also where more are there: who looks anew after each pair stops
            # whenever chance is kind.
            first = self._compared(most=PAIRS)
            if first.inconclusive:
                end = "" if first.worth_more else "; more pairs would not resolve it"
                print(f"inconclusive after {PAIRS} pairs: {', '.join(first.inconclusive)}{end}")
            if first.worth_more:
                self._measure(PAIRS_MOST)
        except OutOfTime as reason:
            print(f"stopped: {reason}")
        except NothingMeasured as reason:
            return refuse(str(reason))
        if len(self.state.pairs()) < PAIRS_LEAST:
            return refuse("there is no interval from fewer than two pairs")
        comparison = self._compared()
        self.state.compared = comparison.pairs
        self.state.save()
        print()
        compare.tell(comparison)
        print(f"all runs are in {self.state.path.parent}; remove it to measure anew")
        return comparison.exit_code

    def _measure(self, most: int) -> None:
        """Run what is not finished of this many pairs: A B B A A B …"""
        order = [
            (name, pair)
            for pair in range(1, most + 1)
            for name in (self.sides if pair % 2 else reversed(self.sides))
        ]
        for number, (name, pair) in enumerate(order, start=1):
            if self.state.has(name, pair):
                continue
            if number % 2:
                self._afford_pair(left=len(order) - number + 1)
            self._run(self.sides[name], pair, left=len(order) - number)
            if self.state.pairs() == [1]:
                # What cannot be compared at all is said now, and not after the last process.
                self._compared()

    def _compared(self, *, most: int = PAIRS_MOST) -> Comparison:
        numbers = self.state.pairs()[:most]
        base, head = ([self.state.run(side, n) for n in numbers] for side in self.sides)
        try:
            return compare.load(base, head, self.store, more=self._more(len(numbers)))
        except NotComparable as error:
            raise BadRunError(str(error)) from None

    def _more(self, pairs: int) -> str:
        """The command that measures the pairs that are to follow these."""
        left = 2 * ((PAIRS if pairs < PAIRS else PAIRS_MOST) - pairs)
        before, behind = self.typed
        return join([*before, "--minutes", f"{self._minutes_for(left):.0f}", *behind])

    @property
    def _longest_s(self) -> float:
        return max((entry.seconds for entry in self.state.finished), default=0.0)

    def _minutes_for(self, left: int) -> float:
        """What holds so many more processes, beside those that are finished."""
        return (self.state.spent_s + left * self._longest_s) / 60 + 1

    def _afford_pair(self, *, left: int) -> None:
        """`OutOfTime` where the budget does not hold two more of the processes that are left."""
        if self.state.spent_s + 2 * self._longest_s >= self.budget_s:
            raise OutOfTime(
                f"{self.state.spent_s / 60:.1f} of {self.budget_s / 60:g} min are used, and a "
                f"process takes up to {self._longest_s:.0f} s; the same command with --minutes "
                f"{self._minutes_for(left):.0f} runs the {left} that are left"
            )

    def _run(self, side: Side, pair: int, *, left: int) -> None:
        """One process. `NothingMeasured`; `OutOfTime` where it took all that was left."""
        path = self.state.run(side.name, pair)
        log = path.with_suffix(".log")
        start = monotonic()
        code = self._process(side, path, log, limit_s=self.budget_s - self.state.spent_s)
        seconds = monotonic() - start
        try:
            cases = len(load_run(path).cases) if code in MEASURED else 0
        except BadRunError:
            cases = 0
        if code == NO_CASE:
            raise NothingMeasured(
                f"{side.name} {pair} measured nothing: no case is selected by "
                f"{join(self.options) or 'default'} (all: {log})"
            )
        if not cases:
            lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            raise NothingMeasured(
                f"{side.name} {pair} ended with exit code {code} and measured nothing. Its last "
                "lines:\n" + "\n".join(f"  {line}" for line in lines) + f"\n  (all: {log})"
            )
        self.state.add(Finished(side=side.name, pair=pair, seconds=seconds))
        mean_s = fmean(entry.seconds for entry in self.state.finished)
        failed = ", some of them failed" if code else ""
        print(
            f"[{len(self.state.finished)}/{len(self.state.finished) + left}] {side.name} {pair}: "
            f"{cases} case{'s' * (cases > 1)} in {seconds:.0f} s{failed}, "
            f"about {left * mean_s / 60:.1f} min left",
            flush=True,
        )

    def _process(self, side: Side, path: Path, log: Path, *, limit_s: float) -> int:
        """The main job in a process group of its own, which never outlives this call."""
        command = [str(side.python), "-m", "pytest", "perf_tests", "--benchmark-only"]
        command += [*self.options, f"--benchmark-json={path}"]
        cache = path.parent / f"cache-{side.name}"
        caches = {name: str(cache / folder) for name, folder in CACHES.items()}
        # What an interrupted process left is not a run of this one, nor a warm cache for it.
        path.unlink(missing_ok=True)
        if not any(entry.side == side.name for entry in self.state.finished):
            with suppress(FileNotFoundError):
                shutil.rmtree(cache)
        # Interrupted between the steps in which Python starts a process, it would leave it behind.
        with log.open("wb") as output, self.interruption.held_back():
            process = subprocess.Popen(
                command,
                cwd=side.checkout,
                env=_environment(side) | caches,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self.lock,),
            )
            try:
                with self.interruption.let_through():
                    return process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                raise OutOfTime(
                    f"{path.stem} was ended after {limit_s:.0f} s, when all "
                    f"{self.budget_s / 60:g} min were used; the same command with more --minutes "
                    "goes on"
                ) from None
            finally:
                _end(process)


PASSED_ON = re.compile(
    r"(PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|(HTTPS?|NO)_PROXY|CC|CXX|SSL_CERT_\w+"
    r"|(CUDA|NVIDIA|NCCL|CUDNN|CUBLAS|TORCH\w*|PYTORCH|TRITON|HF|HUGGINGFACE|DIFFUSERS|OMP|MKL|KMP"
    r"|OPENBLAS|XFORMERS)(_\w+)?)",
    re.IGNORECASE,
)
"""Names of environment variables that measured code gets: what machine and libraries need."""
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY$|_PAT$", re.IGNORECASE)


def _environment(side: Side) -> dict[str, str]:
    """Of a side's processes: no secret of the job reaches the code that is measured."""
    passed = {n: v for n, v in os.environ.items() if PASSED_ON.fullmatch(n)}
    passed = {n: v for n, v in passed.items() if not SECRET.search(n)}
    return passed | ({"PYTHONPATH": str(side.site)} if side.site else {})


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started, if it has not ended by itself."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOPPING_S)
            return
