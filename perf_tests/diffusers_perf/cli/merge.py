"""Join the runs of all shards, made on GPUs of one kind, into one run.

Every other command, and pytest-benchmark, reads the result.

    pytest perf_tests --benchmark-only --shard 1/2 --benchmark-json runs/1.json
    pytest perf_tests --benchmark-only --shard 2/2 --benchmark-json runs/2.json
    diffusers-perf merge runs/1.json runs/2.json --json runs/run.json
"""

from __future__ import annotations

import argparse

from diffusers_perf.cli.answers import named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="+", type=named, metavar="SHARD.json")
    parser.add_argument("--json", type=named, required=True, metavar="OUT", help="file to write")


def main(args: argparse.Namespace) -> int:
    from diffusers_perf.compare.merge import merge

    return merge(args.shards, args.json)
