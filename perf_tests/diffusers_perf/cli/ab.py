"""Compare two commits, or two environments, in fresh processes on this machine.

    diffusers-perf ab --base origin/main --head HEAD --quick --device cuda -- -k "fp16 or reference"
    diffusers-perf ab --base-python old/bin/python --head-python new/bin/python --device cuda

Base and head run in turn (A B B A …), so that a drifting machine affects both alike: five pairs,
and five more if those can resolve what is inconclusive. Each side has a compile cache of its own
that is empty at first. Run the same command again to continue after an interruption. Without
--out, each comparison gets a folder of its own, and a selection of cases (-k and others) a new one
once its comparison is complete.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import CANNOT_JUDGE
from diffusers_perf.cli.answers import add_baselines, add_minutes, named, plainly, store_of
from diffusers_perf.messages import ab as messages

MINUTES = 30.0
OUT = Path("runs", "ab")
"""Below the repository's root."""
BY_CASE = ("-k", "--shard", "--deselect", "--last-failed-no-failures", "--lfnf")
"""pytest's options that select single cases, each followed by a value."""
BY_LAST_RUN = (
    *("--last-failed", "--lf", "--failed-first", "--ff", "--new-first", "--nf"),
    *("--stepwise", "--sw", "--stepwise-skip", "--sw-skip", "--stepwise-reset", "--sw-reset"),
)
"""Those that select or order them by what pytest remembers."""


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
        help="where runs, checkouts and environments are kept (default: runs/ab, or "
        "runs/ab-2 and so on where that holds another comparison)",
    )
    add_minutes(parser, MINUTES)
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
    from diffusers_perf.compare.kept import Setting
    from diffusers_perf.compare.lock import held
    from diffusers_perf.compare.sides import commits_of, of_commits, of_pythons, refs_anywhere
    from diffusers_perf.compare.state import Asked, State, own_held
    from diffusers_perf.compare.turns import Turns
    from diffusers_perf.ending import interruptible, leave_lost_terminal
    from diffusers_perf.records.repository import repository

    refs, pythons = (args.base, args.head), (args.base_python, args.head_python)
    if not (all(refs) and not any(pythons)) and not (all(pythons) and not any(refs)):
        raise Refusal(messages.TWO_REFS_OR_TWO_PYTHONS)
    options = [
        *(["--device", args.device] if args.device else []),
        *(["--quick"] if args.quick else []),
        *_as_one(args.pytest),
    ]
    typed = ["diffusers-perf", "ab", *_own_options(args, refs), *_given({"--out": args.out})]
    pytests = tuple(_not_of_cases(args.pytest))
    try:
        with interruptible() as interruption:
            own = _own_options(args, refs)
            settings: dict[str, Setting] = {"pytest": tuple(options)}
            if all(pythons):
                sides = of_pythons(*pythons)
                settings |= {side.name: (str(side.python), side.code[:12]) for side in sides}
            else:
                commits = commits_of(*refs)
                settings |= commits
                own = _own_options(args, refs_anywhere(refs, commits))
            with ExitStack() as holding:
                if args.out is None:
                    selects = pytests != tuple(args.pytest)
                    own_folder = own_held(repository() / OUT, settings, anew=selects)
                    out, lock = holding.enter_context(own_folder)
                else:
                    out = plainly(args.out)
                    lock = holding.enter_context(held(out, by="ab"))
                # Before anything is checked out over what another comparison measured.
                state = State.open(out, settings, Asked.of(own, pytest=pytests))
                if not state.finished:
                    # The same comparison, started meanwhile, finds that it is at work here.
                    state.save()
                if not all(pythons):
                    sides = of_commits(commits, out)
                now = {side.name: side.packages for side in sides}
                for name, changed in state.see(now).items():
                    print(messages.changed_environment(name, changed))
                return Turns(
                    sides={side.name: side for side in sides},
                    state=state,
                    typed=(typed, ["--", *args.pytest] if args.pytest else []),
                    options=options,
                    budget_s=args.minutes * 60,
                    lock=lock,
                    store=store_of(args),
                    interruption=interruption,
                ).judge()
    except KeyboardInterrupt:
        leave_lost_terminal()
        print(
            messages.INTERRUPTED,
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


def _own_options(args: argparse.Namespace, refs: Sequence[str | None]) -> tuple[str, ...]:
    """As they were given, as far as they say what is compared; the refs are these."""
    sides = {
        "--base": refs[0],
        "--head": refs[1],
        "--base-python": args.base_python,
        "--head-python": args.head_python,
    }
    others = {"--device": args.device, "--baselines": args.baselines}
    quick = ["--quick"] if args.quick else []
    return (*_given(sides), *quick, *_given(others))


def _given(options: Mapping[str, object]) -> Iterator[str]:
    return (str(part) for pair in options.items() if pair[1] is not None for part in pair)


def _not_of_cases(arguments: Sequence[str]) -> Iterator[str]:
    """Those of pytest's arguments that do not select single cases; of a test, its file."""
    left = iter(arguments)
    files = set()
    for argument in left:
        name = argument.partition("=")[0]
        file, of_test, _ = argument.partition("::")
        if argument in BY_CASE:
            next(left, None)
        elif name in BY_CASE or argument in BY_LAST_RUN or argument.startswith("-k"):
            continue
        elif not (of_test and file.endswith(".py")):
            yield argument
        elif file not in files:
            files.add(file)
            yield file
