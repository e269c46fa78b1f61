"""Search for the fastest stack of optimizations whose images keep a tolerance.

Tries the optimizations that ship and those of this repository, one on top of the other, within a
memory limit and a time budget, and keeps what is faster. A stack that takes several times as long
as the best so far is dropped after one generation. Exit codes: 0, found a stack faster than the
reference; 1, found none; 2, bad input or stopped early. Run the same command again to continue.

    diffusers-perf explore
    diffusers-perf explore --psnr 25 --ssim 0.8 --memory 4 --minutes 20 --out runs/lossy
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from diffusers_perf.catalog.declarations import REFERENCE, Tolerance, WeightsKind
from diffusers_perf.catalog.metrics import COLUMNS
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.cli.answers import (
    add_device_and_model,
    configured_store,
    named,
    number,
    positive,
    refuse,
)
from diffusers_perf.cli.quiet import quiet
from diffusers_perf.cli.stackable import stackable
from diffusers_perf.compare.attempts import Attempts, cells_of
from diffusers_perf.compare.bare import bare_bench
from diffusers_perf.compare.explored import Folder, settings_of
from diffusers_perf.compare.lock import held
from diffusers_perf.messages import ab
from diffusers_perf.messages import explore as messages
from diffusers_perf.messages.common import INTERRUPTED
from diffusers_perf.messages.declarations import no_case_runs, no_optimization
from diffusers_perf.messages.numbers import plural
from diffusers_perf.plugin.finding import find_project
from diffusers_perf.plugin.screen import table
from diffusers_perf.records.repository import repository
from diffusers_perf.search.attempt import Adopted, Stack, Stopped, gain
from diffusers_perf.search.confirming import confirm, reference_of
from diffusers_perf.search.search import Search
from diffusers_perf.search.shortlist import shortlist, tolerance_text

if TYPE_CHECKING:
    from diffusers_perf.catalog.discovery import Project
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.records.measurement import Measurement

MINUTES = 10.0
LOSSLESS = "lossless"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workload", metavar="NAME", help="workload to run (default: the model's first)"
    )
    parser.add_argument(
        "--tolerance",
        metavar="NAME",
        help="keep the image tolerance of this optimization "
        f"(default: {LOSSLESS}, that of half precision)",
    )
    parser.add_argument(
        "--psnr",
        type=number("0 or more", low=0),
        metavar="DB",
        help="lowest PSNR, in place of --tolerance",
    )
    parser.add_argument(
        "--ssim",
        type=number("from -1 to 1", low=-1, high=1),
        metavar="S",
        help="lowest SSIM, from -1 to 1, in place of --tolerance",
    )
    parser.add_argument(
        "--memory", type=positive, metavar="GB", help="highest peak memory, in GiB (2^30 bytes)"
    )
    parser.add_argument(
        "--minutes",
        type=positive,
        default=MINUTES,
        metavar="N",
        help=f"time budget; nothing is started that would exceed it (default: {MINUTES:g})",
    )
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="optimizations to leave out"
    )
    parser.add_argument(
        "--list", action="store_true", help="list all optimizations and stacks instead"
    )
    add_device_and_model(parser)
    parser.add_argument(
        "--out",
        type=named,
        default=repository() / "runs" / "explore",
        metavar="FOLDER",
        help="where every measurement is kept (default: runs/explore)",
    )


def main(args: argparse.Namespace) -> int:
    """Search, then tell."""
    if args.list:
        for line in stackable(args.model):
            print(line)
        return 0
    project = find_project(args.model)
    quiet()
    with held(args.out, by="explore"):
        return _explore(args, project)


def _explore(args: argparse.Namespace, project: Project) -> int:
    bench = bare_bench(
        device=args.device,
        model=args.model,
        workloads=[case.workload for case in project.cases],
        store=configured_store(),
    )
    workload = _workload(args.workload, args.model, bench, project)
    catalog = project.catalog_of(workload)
    limit = _limit(args, catalog)
    if args.memory is not None and bench.device.type == "cpu":
        raise Refusal(messages.MEMORY_ON_CPU)
    source = bench.sources.of(workload)
    allowed = limit(source.kind)
    if workload.step_wise and allowed.step_db is None:
        raise Refusal(messages.no_limit_of_steps(workload.name))
    if not workload.step_wise:
        allowed = replace(allowed, step_db=None)
    folder = Folder.open(args.out, settings_of(bench, workload, catalog))
    candidates, others = shortlist(
        catalog.optimizations.values(),
        base=[catalog.optimizations[name] for name in workload.base],
        kind=source.kind,
        image=allowed,
        without=args.without,
        memory_is_limited=args.memory is not None,
        lacking=_lacking(bench, workload, catalog),
    )
    attempts = Attempts(
        bench=bench,
        catalog=catalog,
        workload=workload,
        tolerance=allowed,
        folder=folder,
        budget_s=60 * args.minutes,
    )
    search = Search(
        candidates=candidates,
        attempt=attempts,
        tell=lambda text: print(f"      {text}", flush=True),
        memory_bytes=args.memory and args.memory * 2**30,
    )
    print("\n".join(_opening(bench, workload, allowed, args)), flush=True)
    stopped = ""
    try:
        for part in (
            search.run,
            lambda: search.take_up(folder.measured),
            lambda: confirm(search),
        ):
            try:
                part()
            except Stopped as reason:
                stopped = stopped or str(reason)
            if not search.steps:
                break
        stopped = stopped or search.left_out
    except KeyboardInterrupt:
        stopped = INTERRUPTED
        print()
    if not search.steps:
        return refuse(stopped)
    print("\n".join(_closing(search, attempts, others, stopped=stopped)))
    if _found(search):
        return 0
    return 2 if stopped else 1


def _lacking(bench: Bench, workload: Workload, catalog: Catalog) -> dict[str, str]:
    """By name, why an optimization cannot run on this machine or on the workload's pipeline."""
    from diffusers_perf.measurement.pipelines import misfit

    known = catalog.optimizations.values()
    found = {o.name: lack.reason for o in known if (lack := bench.lacks([o], workload))}
    case, source = catalog.case(workload, REFERENCE), bench.sources.of(workload)
    try:
        with bench.build(case, source, bench.device) as pipeline:
            others = [o for o in known if o.name not in found]
            return found | {o.name: why for o in others if (why := misfit(o, pipeline))}
    except Exception:
        return found  # the reference is tried first, and fails with the reason


def _limit(args: argparse.Namespace, catalog: Catalog) -> Callable[[WeightsKind], Tolerance]:
    """The tolerance that is asked for, by the kind of weights. `Refusal` for no such tolerance."""
    from diffusers_perf.optimizations import tolerances

    known = catalog.optimizations
    unknown = next((name for name in args.without if name not in known), None)
    if unknown is not None:
        raise Refusal(f"--without: {no_optimization(unknown, known)}")
    in_numbers = args.psnr is not None or args.ssim is not None
    if in_numbers and args.tolerance is not None:
        raise Refusal(messages.TWO_TOLERANCES)
    if in_numbers:
        numbers = Tolerance(
            psnr_db=0.0 if args.psnr is None else args.psnr,
            ssim=-1.0 if args.ssim is None else args.ssim,
        )
        return lambda kind: numbers
    if args.tolerance in (None, LOSSLESS):
        tolerance = tolerances.LOSSLESS
    elif args.tolerance in known:
        tolerance = known[args.tolerance].tolerance
    else:
        raise Refusal(f"--tolerance: {no_optimization(args.tolerance, [LOSSLESS, *known])}")
    return lambda kind: tolerance.on(kind) or Tolerance()


def _workload(name: str | None, model: str | None, bench: Bench, project: Project) -> Workload:
    found = {c.workload.name: c.workload for c in project.cases if bench.sources.runs(c.workload)}
    if not found:
        raise Refusal(no_case_runs(project.models, model))
    if name is None:
        return next(iter(found.values()))
    if name not in found:
        raise Refusal(messages.unknown_workload(name, [*found]))
    return found[name]


# What a person reads


def _opening(
    bench: Bench, workload: Workload, tolerance: Tolerance, args: argparse.Namespace
) -> Iterator[str]:
    machine, images = bench.machine, workload.num_images
    model = bench.sources.of(workload).name
    what = f"{plural(images, 'image')}, {workload.size}, {plural(workload.steps, 'step')}"
    yield messages.opening(workload.name, model, machine.name, machine.torch, what)
    yield messages.asked(tolerance_text(tolerance), args.memory, args.minutes)


HEAD = ("step", *COLUMNS, "image")


def _found(search: Search) -> bool:
    """Whether the best stack is faster than the reference, and within the memory."""
    best = search.steps[-1].measured
    return search.fits(best) and gain(best, reference_of(search)).latency > 1


def _closing(
    search: Search, attempts: Attempts, others: Mapping[str, str], *, stopped: str
) -> Iterator[str]:
    """What it says as a whole; the last line is the answer."""
    reference, best = search.steps[0].measured, search.steps[-1]
    width = get_terminal_size(fallback=(100, 24)).columns
    yield ""
    rows = [
        cells_of(", ".join(filter(None, (step.change, few))), step.measured, reference)
        for step in search.steps
        for few in (attempts.few_steps(step.measured),)
    ]
    yield from table(HEAD, rows, width=width)
    yield ""
    yield from _measured_how(search, attempts)
    yield from _bounds(best, reference)
    if search.rejected:
        yield ""
        yield messages.REJECTED
        for name, rejected in search.rejected.items():
            yield f"  {name}: {rejected.reason}"
    why: dict[str, list[str]] = {}
    for name, reason in {**others, **dict.fromkeys(search.untried, messages.NOT_REACHED)}.items():
        why.setdefault(reason.removeprefix(f"{name} "), []).append(name)
    yield ""
    yield messages.UNTRIED
    for reason, names in why.items():
        yield f"  {', '.join(names)}: {reason}"
    if search.candidates:
        yield f"  {_combinations(search, attempts)}"
    if stopped:
        yield ab.stopped(stopped)
    if attempts.with_interference:
        yield messages.interference(attempts.with_interference, attempts.number)
    yield ""
    if not _found(search):
        yield messages.nothing_found(stopped=bool(stopped))
        return
    speedup = reference_of(search).latency_s / best.measured.latency_s
    yield messages.found(speedup, _called(best.stack, attempts))
    yield f'stack("best_{attempts.workload.name}", "{"+".join(best.stack)}")'


def _measured_how(search: Search, attempts: Attempts) -> Iterator[str]:
    """What the times in the table are, where they are not as the main job's."""
    if any(attempts.few_steps(step.measured) for step in search.steps):
        yield messages.EXTRAPOLATED
    if search.stack and not search.is_confirmed:
        yield messages.NOT_IN_FULL


def _combinations(search: Search, attempts: Attempts) -> str:
    """How few were tried of all that there are."""
    names = {optimization.name for optimization in search.candidates}
    # The folder may hold others, of a search among more.
    tried = sum(names.issuperset(stack) for stack in attempts.folder.stacks)
    return messages.combinations(2 ** len(names), len(names), tried)


def _called(stack: Stack, attempts: Attempts) -> str:
    """The name of a declared stack, if it is one."""
    base, known = {*attempts.workload.base}, attempts.catalog.stacks
    same = [name for name, of in known.items() if {*of} - base == {*stack}]
    return same[0] if same else ""


def _bounds(best: Adopted, reference: Measurement) -> Iterator[str]:
    """What holds the best stack back now."""
    seen = best.measured
    bottleneck, idle = seen.bottleneck, seen.idle_share
    if bottleneck is None or idle is None:
        yield messages.NO_BOTTLENECK
        return
    yield messages.idle_gpu(idle) if bottleneck == "host" else messages.busy_gpu(1 - idle)
    # What a stack leaves out of the work is not counted operator by operator in a search.
    counted = seen if seen.roofline_s else reference
    if counted.roofline_s:
        yield messages.roofline(
            counted.roofline_s,
            by=counted.roofline_by or "arithmetic",
            of_reference=counted is not seen,
            ratio=seen.latency_s / counted.roofline_s,
        )
    families = sorted(seen.families.items(), key=lambda item: -item[1].gpu_s)[:5]
    if families:
        yield messages.families([(name, one.gpu_s, one.kernels) for name, one in families])
