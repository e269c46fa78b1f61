"""Where a stack's GPU time goes, by kernel: `python -m perf_tests.training.kernels flux1-dev dev28
flux_best_lossless`.

A generation of all steps is profiled after two that are not. The table is for the model's document:
what a stack still spends, and on what.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli.answers import refuse
from diffusers_perf.measurement import counters
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.gradients import gradients_off
from diffusers_perf.measurement.pipelines import built
from diffusers_perf.measurement.trace import Trace, profile
from diffusers_perf.messages.common import meant
from diffusers_perf.messages.measurement import NO_EVENTS
from diffusers_perf.models import open_source

HEAD = "| kernel | family | calls | GPU time | share |\n|---|---|---|---|---|"
LONGEST = 100
"""Of a kernel's name: templates of CUTLASS go on for a thousand letters."""


def of_trace(trace: Trace) -> Iterator[tuple[str, float]]:
    """What ran on the GPU: names and seconds."""
    return ((event.name, event.end_s - event.start_s) for event in trace.on_gpu)


def table(ran: Iterable[tuple[str, float]], *, rows: int) -> Iterator[str]:
    """The kernels that take the longest, then what all others take together, then the whole; of
    names and seconds. Of nothing a sentence, since there are no shares of it.
    """
    calls: defaultdict[str, list[float]] = defaultdict(list)
    for name, seconds in ran:
        calls[name].append(seconds)
    if not calls:
        yield NO_EVENTS
        return
    whole = sum(map(sum, calls.values()))
    longest = sorted(calls, key=lambda name: -sum(calls[name]))
    yield HEAD
    for name in longest[:rows]:
        yield _line(f"`{_short(name)}`", counters.family_of(name), calls[name], whole)
    if others := [time for name in longest[rows:] for time in calls[name]]:
        yield _line(f"{len(longest) - rows} others", "", others, whole)
    yield _line("all", "", [time for each in calls.values() for time in each], whole)


def _line(name: str, family: str, seconds: list[float], whole: float) -> str:
    time = sum(seconds)
    return f"| {name} | {family} | {len(seconds)} | {1e3 * time:.1f} ms | {time / whole:.1%} |"


def _short(name: str) -> str:
    """Without namespaces and return type, for a table's cell."""
    name = re.sub(r"\(anonymous namespace\)::|\w+::|^void ", "", name).replace("|", "/")
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}…"


def cases_of(name: str, stacks: Iterable[str]) -> list[Case]:
    """Stacks on the workload of this name. `ValueError` for one that is not known."""
    catalog = declared_in("perf_tests.cases")
    known = list(dict.fromkeys(case.workload.name for case in catalog.cases))
    if name not in known:
        raise ValueError(
            f"no workload is called {name!r}{meant(name, known)}; known are {', '.join(known)}"
        )
    workload = next(case.workload for case in catalog.cases if case.workload.name == name)
    return [catalog.case(workload, stack) for stack in stacks]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("workload")
    parser.add_argument("stacks", nargs="+", metavar="STACK")
    parser.add_argument("--rows", type=int, default=16)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        return refuse("kernels run on a GPU, and torch sees no CUDA device here")
    try:
        cases, source = cases_of(args.workload, args.stacks), open_source(args.model)
    except (ValueError, Refusal) as error:
        return refuse(str(error))
    for case in cases:
        with built(case, source, torch.device("cuda")) as pipeline, gradients_off(pipeline):
            generation = Generation(pipeline, case.workload)
            generation()
            generation()
            trace = profile(generation, pipeline, steps=case.workload.steps)
        print(f"\n{case.id}:\n", *table(of_trace(trace), rows=args.rows), sep="\n", flush=True)
        gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
