"""Run the suite on many GPUs: plan shards, run each on a GPU of its own, join and judge them.

    diffusers-perf fleet --models sd15,./my-checkpoint --suites guide,lossless --json runs/run.json
    diffusers-perf fleet --ab="--base origin/main --head HEAD --quick" --json runs/pr.json

Shards are cut by how long each case took in --durations. A shard whose machine is lost is repeated
once. What is measured lies in a folder beside RUN.json; run the same command again to continue
after an interruption. Each kind of GPU measures all cases. Of several kinds or models, each has a
file of its own, RUN-MODEL-KIND.json.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import CANNOT_JUDGE, REGRESSION
from diffusers_perf.cli.answers import add_baselines, named, refuse, store_of
from diffusers_perf.messages import fleet as messages
from diffusers_perf.messages.common import cannot_write, must_be
from diffusers_perf.messages.records import NOT_A_FILE
from diffusers_perf.records.files import make_room, real, unwritable

if TYPE_CHECKING:
    from diffusers_perf.fleet.jobs import Executor
    from diffusers_perf.fleet.run import Fleet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", type=named, required=True, metavar="RUN.json", help="file of the joined run"
    )
    parser.add_argument(
        "--models",
        type=_names,
        default=(),
        metavar="MODEL,...",
        help="each passed to pytest as --model (default: the workloads' own)",
    )
    parser.add_argument(
        "--suites",
        type=_names,
        default=(),
        metavar="SUITE,...",
        help="passed to pytest as -m (default: those of pytest's settings)",
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU"
    )
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where: on this machine (default), or on the Ray cluster that RAY_ADDRESS names; "
        "needs the extra `ray`",
    )
    parser.add_argument(
        "--durations",
        nargs="+",
        type=named,
        default=[],
        metavar="RUN.json",
        help="runs that say how long each case takes (default: the one that --json has now)",
    )
    parser.add_argument(
        "--ab",
        type=_words,
        metavar="ARGUMENTS",
        help="compare instead: each shard is one `diffusers-perf ab` with these arguments, so that "
        "both sides of a case run on one GPU",
    )
    add_baselines(parser)
    parser.add_argument(
        "pytest",
        nargs="*",
        metavar="-- ARGUMENT",
        help="passed to pytest, for example: -- -k fp16 --quick",
    )


def main(args: argparse.Namespace) -> int:
    from diffusers_perf.compare.lock import held
    from diffusers_perf.ending import interruptible, leave_lost_terminal
    from diffusers_perf.fleet.state import FOLDER
    from diffusers_perf.records.repository import repository

    out: Path = args.json.absolute()
    if not args.json.name:
        return refuse(messages.NO_JSON)
    if out.exists() and not (out.is_file() or out.is_dir()):
        return refuse(f"--json {cannot_write(out, NOT_A_FILE)}")
    try:
        make_room(out)
    except OSError as error:
        return refuse(f"--json {unwritable(out, error)}")
    folder = out.with_name(f"{out.stem}{FOLDER}")
    try:
        with held(folder, by="fleet") as lock:
            root = repository()
            executor = _executor(args, root=root, folder=folder, lock=lock)
            try:
                # Now: Ray has a handler of its own for the signal that ends a job.
                with interruptible():
                    return _run(args, executor, out=out, folder=folder, root=root)
            finally:
                executor.close()
    except Refusal as error:
        # Its folder is not one that an option names.
        return refuse(str(error).removeprefix("--out "))
    except KeyboardInterrupt:
        leave_lost_terminal()
        print(messages.INTERRUPTED, file=sys.stderr)
        return CANNOT_JUDGE


def _executor(args: argparse.Namespace, *, root: Path, folder: Path, lock: int) -> Executor:
    from diffusers_perf.fleet.local import Local

    if args.executor == "local":
        return Local(args.device, root=root, folder=folder, lock=lock)
    if find_spec("ray") is None:
        raise Refusal(messages.NO_RAY)
    from diffusers_perf.fleet.ray import OnRay

    return OnRay(args.device, root=root)


def _run(
    args: argparse.Namespace, executor: Executor, *, out: Path, folder: Path, root: Path
) -> int:
    """Measure what is not finished, then join and judge it."""
    from diffusers_perf.compare.sides import code_digest
    from diffusers_perf.fleet.commands import Asked
    from diffusers_perf.fleet.plan import Durations
    from diffusers_perf.fleet.run import Fleet
    from diffusers_perf.fleet.state import State
    from diffusers_perf.records.reading import load_run

    baselines = _baselines(args.baselines, root)
    asked = Asked(
        models=args.models,
        suites=args.suites,
        pytest=(*args.pytest, *(baselines if args.ab is None else ())),
        compare=None if args.ab is None else (*args.ab, *baselines),
    )
    settings = {
        "models": asked.models,
        "suites": asked.suites,
        "pytest": asked.pytest,
        "ab": asked.compare or (),
        "device": executor.device,
        "code": code_digest(root)[:12],
    }
    fleet = Fleet(asked=asked, executor=executor, state=State.open(folder, settings), root=root)
    fleet.plan(Durations.recorded_in(map(load_run, args.durations or fleet.earlier(out))))
    for path in fleet.outputs(out):
        make_room(path)
        # An older run must not be taken for this one should this one end with nothing.
        path.unlink(missing_ok=True)
    fleet.run()
    if missing := fleet.missing():
        print("\n".join(missing), messages.incomplete(len(missing), len(fleet.shards())), sep="\n")
        return CANNOT_JUDGE
    codes = _compared(fleet) if asked.compare is not None else _judged(fleet, args, out)
    print(messages.runs_are_in(folder))
    return REGRESSION if REGRESSION in codes else max(codes)


def _judged(fleet: Fleet, args: argparse.Namespace, out: Path) -> list[int]:
    """Join the runs of each kind and model, and judge them; the exit codes."""
    from diffusers_perf.cli.gate import gate
    from diffusers_perf.compare.merge import merge
    from diffusers_perf.fleet.commands import RUN

    store = store_of(args)
    codes = []
    for path, folders in fleet.outputs(out).items():
        merge([folder / RUN for folder in folders], path)
        codes.append(gate(path, store, baselines=args.baselines))
    for sentence in fleet.failed_beside_cases():
        print(sentence, file=sys.stderr)
        codes.append(REGRESSION)
    return codes


def _compared(fleet: Fleet) -> list[int]:
    """Show what each comparison printed; their exit codes."""
    for text in fleet.comparisons():
        print(text)
    return [finished.code for finished in fleet.state.finished.values()]


def _baselines(given: Path | None, root: Path) -> tuple[str, ...]:
    """The option for a job, which runs in a repository's root: here, or in a copy of it."""
    if given is None:
        return ()
    folder = real(given)
    return (f"--baselines={folder.relative_to(root) if root in folder.parents else folder}",)


def _words(text: str) -> list[str]:
    """An option's type: a command line."""
    try:
        return shlex.split(text)
    except ValueError:
        raise argparse.ArgumentTypeError(must_be(messages.QUOTED, text)) from None


def _names(text: str) -> tuple[str, ...]:
    """An option's type: at least one name."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError(messages.NO_NAME)
    return names
