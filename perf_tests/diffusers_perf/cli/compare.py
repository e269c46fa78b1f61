"""Compare runs of head with runs of base, pair by pair, and report what changed.

Takes one run per process, made in turn on one machine; `ab` makes and compares them, and its folder
stands for all of its pairs. Times need five pairs. With one pair they are inconclusive, and
counters and images are still judged.

    diffusers-perf compare --base base-1.json base-2.json --head head-1.json head-2.json
    diffusers-perf compare runs/ab
"""

from __future__ import annotations

import argparse

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli.answers import add_baselines, named, store_of
from diffusers_perf.messages.ab import TWO_SIDES_OR_A_FOLDER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", type=named, metavar="FOLDER", help="of `ab`, instead of the runs"
    )
    for side in ("base", "head"):
        parser.add_argument(
            f"--{side}",
            nargs="+",
            type=named,
            default=[],
            metavar="RUN.json",
            help=f"runs of {side}, in the order of the pairs",
        )
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    from diffusers_perf.compare.compare import run
    from diffusers_perf.compare.state import runs_in

    sides = bool(args.base), bool(args.head)
    if sides != ((False, False) if args.folder else (True, True)):
        raise Refusal(TWO_SIDES_OR_A_FOLDER)
    base, head = runs_in(args.folder) if args.folder else (args.base, args.head)
    return run(base, head, store_of(args))
