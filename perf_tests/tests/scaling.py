"""How far a plan of `fleet` scales: simulated GPUs, and durations that runs recorded.

    python -m perf_tests.tests.scaling RUN.json [--models N]

Each row is a plan for so many GPUs. `--models` plans the run's cases N times, as the lists of N
models. Efficiency is the time of one GPU alone over the time that all GPUs are taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.cli.result_rows import table
from diffusers_perf.fleet.listing import references
from diffusers_perf.fleet.plan import Durations, ListedCase, Plan, plan
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.run import Run

GPUS = (1, 2, 4, 8, 16, 32, 64)
DECLARATIONS = "perf_tests.cases"
WORTH = 0.95
"""GPUs that make a run no shorter than this are too many."""


def listed(run: Run) -> list[ListedCase]:
    """The cases that a run was to measure."""
    declared = declared_in(DECLARATIONS).cases
    by_id = {case.id: case for case in declared}
    return [
        ListedCase(id=id, against=tuple(references(by_id[id], declared)))
        for id in run.session.expected
    ]


def plans(groups: Mapping[str, Sequence[ListedCase]], durations: Durations) -> list[Plan]:
    return [plan(groups, durations, gpus=gpus) for gpus in GPUS]


def rows(found: Sequence[Plan]) -> list[list[str]]:
    alone_s = found[0].finish_s
    return [
        [
            str(one.gpus),
            str(len(one.shards)),
            f"{one.finish_s:.0f} s",
            f"{alone_s / one.finish_s:.1f}x",
            f"{100 * one.efficiency:.0f} %",
        ]
        for one in found
    ]


def stops(found: Sequence[Plan]) -> int:
    """The number of GPUs beyond which twice as many make the run hardly shorter."""
    for one, twice in pairwise(found):
        if twice.finish_s > WORTH * one.finish_s:
            return one.gpus
    return found[-1].gpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--models", type=int, default=1)
    args = parser.parse_args()
    run = load_run(args.run)
    durations, cases = Durations.recorded_in([run]), listed(run)
    groups = {str(number): cases for number in range(args.models)}
    found = plans(groups, durations)
    print(table(["GPUs", "shards", "all done after", "faster", "efficiency"], rows(found)))
    longest = max(cases, key=lambda case: durations.shard_s([case]))
    print(f"\nIt stops scaling at {stops(found)} GPUs.")
    print(f"The longest case takes {durations.shard_s([longest]):.0f} s: {longest.id}, of which")
    print(f"{durations.start_s:.0f} s are the process's start, and its references count as well.")


if __name__ == "__main__":
    main()
