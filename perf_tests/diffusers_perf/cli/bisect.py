"""Find the commit, or the version of a package, that changed a metric of a case.

    diffusers-perf bisect --good v1.0 --bad HEAD --case ddim50-fp16 --metric kernels
    diffusers-perf bisect --package torch --good 2.10 --bad 2.13 --case ddim50-fp16 --metric latency

Both ends are verified first. A counter takes one process per step, a metric with noise pairs of
processes in turn with the good end. Several packages, each with its own --good and --bad, change
one after the other. What cannot be installed or measured is skipped. Processes run with pytest's
--quick. Run the same command again to continue after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING

from diffusers_perf.catalog.metrics import COUNTERS
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import CANNOT_JUDGE
from diffusers_perf.cli.answers import add_minutes, named, plainly, refuse
from diffusers_perf.messages import bisect as messages
from diffusers_perf.messages.common import INTERRUPTED

if TYPE_CHECKING:
    from diffusers_perf.compare.bisection import Culprit
    from diffusers_perf.compare.candidates import Candidate

MINUTES = 60.0
OUT = Path("runs", "bisect")
"""Below the repository's root."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--case", required=True, metavar="ID", help="the id that pytest shows")
    parser.add_argument(
        "--metric",
        required=True,
        type=_metric,
        metavar="NAME",
        help="for example kernels or 'GPU busy'",
    )
    for side in ("good", "bad"):
        parser.add_argument(
            f"--{side}",
            action="append",
            required=True,
            metavar="REF",
            help=f"git ref, or with --package a version, where the metric was {side}",
        )
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="NAME",
        help="bisect the versions of this package in the current environment",
    )
    parser.add_argument(
        "--out",
        type=named,
        metavar="FOLDER",
        help="where runs, checkouts and environments are kept (default: runs/bisect)",
    )
    add_minutes(parser, MINUTES)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="passed to pytest")
    parser.add_argument("pytest", nargs="*", metavar="-- ARGUMENT", help="passed to pytest")


def _metric(name: str) -> str:
    """As a run names it: a counter also as documents and failures write it, with spaces."""
    field = name.replace(" ", "_")
    return field if field in COUNTERS else name


def main(args: argparse.Namespace) -> int:
    from diffusers_perf.compare.bisection import Bisection, OutOfTime
    from diffusers_perf.compare.lock import held
    from diffusers_perf.compare.processes import NoCaseSelected
    from diffusers_perf.ending import interruptible, leave_lost_terminal
    from diffusers_perf.records.repository import repository

    out: Path = plainly(args.out or repository() / OUT)
    own = [*(["--device", args.device] if args.device else []), "--quick"]
    options = [*own, *args.pytest]
    settings = {name: str(getattr(args, name)) for name in ("good", "bad", "package", "metric")}
    settings |= {"case": args.case, "pytest": join(options)}
    try:
        with interruptible() as interruption, held(out, by="bisect") as lock:
            candidates = _candidates(args, out)
            print(messages.candidates(len(candidates) - 1, candidates[0].label))
            culprit = Bisection(
                candidates=candidates,
                case=args.case,
                metric=args.metric,
                options=[*options, "-k", f"[{args.case}]"],
                out=out,
                settings=settings,
                budget_s=60 * args.minutes,
                lock=lock,
                interruption=interruption,
                say=lambda line: print(line, flush=True),
            ).find()
            print("\n".join(_conclusion(culprit, args, own)))
            return 0
    except NoCaseSelected as error:
        return refuse(_unknown(args.case) or str(error))
    except OutOfTime as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        leave_lost_terminal()
        print(INTERRUPTED, file=sys.stderr)
        return CANNOT_JUDGE


def _unknown(case: str) -> str:
    """That this checkout declares no case of this name; empty where it does, or cannot say."""
    from diffusers_perf.plugin.finding import find_project

    try:
        known = [one.id for one in find_project().cases]
    except Refusal:
        return ""
    return "" if case in known else messages.no_case(case, known)


def _candidates(args: argparse.Namespace, out: Path) -> list[Candidate]:
    from diffusers_perf.compare.candidates import PackageRange, of_commits, of_versions

    count = max(len(args.package), 1)
    if len(args.good) != count or len(args.bad) != count:
        raise Refusal(messages.unequal_ends(len(args.good), len(args.bad), count))
    if args.package:
        ends = zip(args.package, args.good, args.bad, strict=True)
        packages = [PackageRange(name=name, good=good, bad=bad) for name, good, bad in ends]
        found = of_versions(packages, out)
    else:
        found = of_commits(args.good[0], args.bad[0], out)
    if len(found) < 2:
        raise Refusal(messages.SAME_ENDS)
    return found


def _conclusion(culprit: Culprit, args: argparse.Namespace, own: Sequence[str]) -> Sequence[str]:
    """The culprit, the evidence, and the command that repeats the last comparison; `own` are
    options of `ab` itself.
    """
    unmeasured = [candidate.name for candidate in culprit.between]
    lines = ["", *messages.found(culprit.bad.label, culprit.good.label, unmeasured)]
    lines += [f"  {step.answer:8}{step.candidate.name}  {step.evidence}" for step in culprit.steps]
    lines.append(messages.cost(culprit.processes, culprit.seconds))
    names = ("--base", "--head")
    ends = [culprit.good.name, culprit.bad.name]
    if args.package:
        names = ("--base-python", "--head-python")
        ends = [str(one.prepare().python) for one in (culprit.good, culprit.bad)]
    pairs = [part for pair in zip(names, ends, strict=True) for part in pair]
    select = ["--", *args.pytest, "-k", f"[{args.case}]"]
    lines.append(f"  next      {join(['diffusers-perf', 'ab', *pairs, *own, *select])}")
    return lines
