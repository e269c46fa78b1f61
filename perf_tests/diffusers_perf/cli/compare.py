"""Compare runs of head with runs of base, pair by pair, and report what changed.

Takes one run per process, made in turn on one machine; `ab` makes and compares them. Times need
five pairs. With one pair they are inconclusive, and counters and images are still judged.

    diffusers-perf compare --base base-1.json base-2.json --head head-1.json head-2.json
"""

from __future__ import annotations

import argparse

from diffusers_perf.cli.answers import add_baselines, named, store_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for side in ("base", "head"):
        parser.add_argument(
            f"--{side}",
            nargs="+",
            type=named,
            required=True,
            metavar="RUN.json",
            help=f"runs of {side}, in the order of the pairs",
        )
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    from diffusers_perf.compare.compare import run

    return run(args.base, args.head, store_of(args))
