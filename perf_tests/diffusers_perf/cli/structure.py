"""Count what every case asks of a GPU, without one, and compare it with the accepted counts.

Runs the pipelines' own code at full size on tensors without data, in seconds and with little
memory. The counts depend on the versions of torch and diffusers only.

    diffusers-perf structure -k fp16
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from msgspec.structs import replace

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.metrics import OPERATORS
from diffusers_perf.catalog.registry import in_order
from diffusers_perf.cli.answers import add_baselines, positive, refuse, store_of
from diffusers_perf.cli.calls import count, python_calls
from diffusers_perf.cli.quiet import quiet
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages.commands import structure_command
from diffusers_perf.judge.structure_verdicts import judge as judge_counts
from diffusers_perf.judge.structure_verdicts import key_of
from diffusers_perf.messages import structure as messages
from diffusers_perf.messages.declarations import no_case_runs
from diffusers_perf.plugin.finding import find_project
from diffusers_perf.records.baselines import OperatorBaseline
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.missing import parts_of
from diffusers_perf.records.operators import COUNTERS
from diffusers_perf.records.store import BaselineStore

if TYPE_CHECKING:
    from diffusers_perf.measurement.pipelines import Source
    from diffusers_perf.records.operators import OperatorCounts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="as for pytest's --model (default: each workload's own, as on a GPU)",
    )
    parser.add_argument("-k", metavar="WORD", default="", help="only cases with this in their id")
    parser.add_argument("--list", action="store_true", help="list the ids of the cases instead")
    parser.add_argument(
        "--write", action="store_true", help="accept these counts, beside the baselines"
    )
    parser.add_argument("--reason", help="why they are accepted; written to the file")
    parser.add_argument(
        "--matmul-tflops", type=positive, metavar="N", help="matmul rate of a GPU, for the roofline"
    )
    parser.add_argument(
        "--bandwidth-gb",
        type=positive,
        metavar="N",
        help="its memory bandwidth in GB/s, for the roofline",
    )
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    """Count, show, and judge or accept.

    0: no case needs more work than accepted, or the counts are written. 1: one does, is missing, or
    an optimization of it was not applied. 2: a case could not be counted, or none was judged.
    """
    if args.write and not (args.reason or "").strip():
        return refuse(messages.NO_REASON)
    if args.reason and not args.write:
        return refuse(messages.REASON_ALONE)
    if (args.matmul_tflops is None) != (args.bandwidth_gb is None):
        return refuse(messages.HALF_A_ROOFLINE)
    from diffusers_perf import models

    project = find_project(args.model)
    quiet()
    # As on a GPU, whose work it counts.
    sources = models.Sources(device="cuda", model=args.model)
    declared = in_order(case for case in project.cases if sources.runs(case.workload))
    chosen = [case for case in declared if args.k in case.id]
    if not declared:
        return refuse(no_case_runs(project.models, args.model))
    if not chosen:
        names = [name for case in declared for name in (case.id, case.name, case.workload.name)]
        return refuse(messages.no_match(args.k, names))
    if args.list:
        print("\n".join(case.id for case in chosen))
        return 0
    by_model: dict[str, list[Case]] = {}
    for case in chosen:
        by_model.setdefault(sources.of(case.workload).name, []).append(case)
    codes = {_count_all(sources.of(of[0].workload), of, args) for of in by_model.values()}
    return _worst(codes)


def _worst(codes: Collection[int]) -> int:
    """One exit code of several: a failure counts more than what could not be judged."""
    return 1 if 1 in codes else max(codes)


def _count_all(source: Source, cases: Sequence[Case], args: argparse.Namespace) -> int:
    """Count the cases of one model, and judge or accept; returns the exit code."""
    from diffusers_perf.measurement import applied, structure
    from diffusers_perf.measurement.failing import BROKEN
    from diffusers_perf.measurement.pipelines import DoesNotFit
    from diffusers_perf.measurement.raising import at_line, raised
    from diffusers_perf.models.seeded import Seeded
    from diffusers_perf.models.served import Served

    if isinstance(source, Seeded | Served):
        # What is counted needs no weights, and drawing those of full size takes a while.
        source = source.without_weights()
    store = store_of(args)
    accepted = store.load_operators()
    observed: dict[Case, OperatorCounts] = {}
    findings: dict[str, list[Finding]] = {}
    passed_over = []
    uncounted: list[str] = []
    codes = {0}
    for case in cases:
        key = key_of(case, source.name)
        if reason := not_countable(case):
            passed_over.append(messages.not_counted(case.id, reason))
            continue
        try:
            observed[case] = seen = count(case, source)
        except DoesNotFit as error:
            passed_over.append(messages.not_counted(case.id, error))
            continue
        except applied.NotApplied as error:
            uncounted.append(key)
            passed_over.append(messages.not_applied(case.id, error))
            codes.add(1)
            continue
        except structure.NotCountable as error:
            uncounted.append(key)
            said = messages.not_countable(case.id, at_line(error), was_counted=key in accepted)
            passed_over.append(said)
            continue
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            # The pipeline's own code raises what it likes, which ends its case alone.
            uncounted.append(key)
            reason = str(error) if isinstance(error, BROKEN) else raised(error)
            passed_over.append(messages.broken(case.id, reason))
            continue
        print("\n".join(table(case, seen, args)), end="\n\n")
        was = accepted.get(key)
        findings[case.id] = judge(case, seen, was, args, store) if was else []
    print("\n".join(passed_over))
    lacking = messages.uncounted(len(uncounted), len(uncounted) + len(observed))
    if args.write and not uncounted:
        return write(observed, source, args, store)
    if not args.write:
        codes.add(tell(observed, findings, accepted, source.name, args, uncounted=uncounted))
    if uncounted:
        codes.add(refuse(messages.not_written(lacking) if args.write else lacking))
    return _worst(codes)


def not_countable(case: Case) -> str | None:
    """Why a case cannot be expressed without a GPU, in words; None if it can."""
    import torch

    from diffusers_perf.catalog.build import Build

    build = Build(dtype=torch.float32, device=torch.device("cpu"))
    for optimization in case.stack:
        if optimization.hides_operators:
            return messages.captured(optimization.name)
        if optimization.follows_values:
            return messages.follows_values(optimization.name)
        if optimization.offloads:
            return messages.offloads(optimization.name)
        if optimization.needs.package:
            return messages.of_package(optimization.needs.package)
        if optimization.needs.probe and (refusal := optimization.needs.probe()):
            return refusal
        with warnings.catch_warnings():
            # torch.autocast("cuda") warns where there is no GPU.
            warnings.simplefilter("ignore")
            optimization.apply(build)
        if any(isinstance(context, torch.autocast) for context in build.contexts):
            return messages.autocast(optimization.name)
    return None


def versions() -> dict[str, str]:
    """What the counts depend on."""
    from importlib.metadata import version
    from platform import python_version

    import torch

    return {
        "python": python_version(),
        "torch": torch.__version__.split("+")[0],
        **{name: version(name) for name in ("diffusers", "transformers")},
    }


def judge(
    case: Case,
    seen: OperatorCounts,
    was: OperatorBaseline,
    args: argparse.Namespace,
    store: BaselineStore,
) -> list[Finding]:
    return judge_counts(
        case.id,
        seen,
        was,
        steps=case.workload.steps,
        versions=versions(),
        rerun=structure_command(*_options(args, only=case.id)),
        accept=structure_command(*_options(args), accept=True),
        file=store.shown(store.operators_path(case.workload.name)),
    )


def _options(args: argparse.Namespace, *, only: str = "") -> list[str]:
    """What this command was given, for another one; with `only`, about this case alone."""
    given = {
        "--model": args.model,
        "--matmul-tflops": args.matmul_tflops,
        "--bandwidth-gb": args.bandwidth_gb,
        "--baselines": args.baselines,
    }
    named = [f"{name}={value}" for name, value in given.items() if value]
    word = only or args.k
    return [*named, "-k", word] if word else named


def table(case: Case, seen: OperatorCounts, args: argparse.Namespace) -> Iterator[str]:
    """The lines that show one case."""
    steps, images = case.workload.steps, case.workload.num_images
    scheduler = case.workload.scheduler or messages.OWN_SCHEDULER
    yield messages.heading(
        case.id, steps=steps, images=images, size=case.workload.size, scheduler=scheduler
    )
    yield f"  {'':58}{'each step':>10}{'fixed':>8}{'missing':>9}{'all':>10}"

    def line(name: str, count: Count, indent: int) -> str:
        numbers = f"{count.per_step:10,}{count.fixed:8,}{count.missing:9,}{count.total(steps):10,}"
        return f"  {' ' * indent}{name:{58 - indent}}{numbers}"

    counters, where = seen.counters, seen.where()
    calls = counters[OPERATORS.field]
    yield line(OPERATORS.name, calls, 0)
    for (family, dtype, layout), work in seen.by(lambda o: (o.family, o.dtype, o.layout)).items():
        name = f"{family} {dtype}" + (f" {layout}" if layout != "-" else "")
        yield line(name, work.calls, 2)
    for counter in COUNTERS:
        if counter == OPERATORS.field:
            continue
        yield line(counter.replace("_", " "), counters[counter], 0)
        for what, part in where[counter].items():
            yield line(what, part, 2)
    work = seen.total()
    yield messages.work(work.flops.total(steps), work.bytes.total(steps))
    if args.matmul_tflops:
        roofline_s, eager_s = seen.roofline_s(
            steps=steps,
            flops_per_s=args.matmul_tflops * 1e12,
            bytes_per_s=args.bandwidth_gb * 1e9,
        )
        yield messages.roofline(
            args.matmul_tflops, args.bandwidth_gb, bound_s=roofline_s, eager_s=eager_s
        )


def tell(
    observed: Mapping[Case, OperatorCounts],
    findings: Mapping[str, list[Finding]],
    accepted: Mapping[str, OperatorBaseline],
    model: str,
    args: argparse.Namespace,
    *,
    uncounted: Sequence[str] = (),
) -> int:
    """Print the verdicts and one closing sentence; returns the exit code."""
    keys = {key_of(case, model) for case in observed}
    there = keys.union(uncounted)
    missing = [key for key in accepted if parts_of(key)[1] == model and key not in there]
    missing = [] if args.k else sorted(missing)
    new = sorted(keys - set(accepted))
    accept = structure_command(*_options(args), accept=True).of()
    shown = [finding for case in findings.values() for finding in case]
    for finding in sorted(shown, key=lambda f: f.status.passes):
        print(finding.text())
    for key in missing:
        print(messages.missing(key, accept))
    for key in new:
        print(messages.new(key, accept))
    worse = sum(any(not f.status.passes for f in case) for case in findings.values())
    if worse or missing:
        print(messages.more_work(worse, len(observed), len(missing)))
        return 1
    if not keys:
        print(messages.NOTHING_COUNTED)
        return 2
    if len(new) == len(keys):
        print(messages.none_accepted(len(keys), model))
        return 2
    print(messages.holds(len(keys) - len(new), len(new)))
    return 0


def write(
    observed: Mapping[Case, OperatorCounts],
    source: Source,
    args: argparse.Namespace,
    store: BaselineStore,
) -> int:
    """Accept: replace this model's counts, or with ``-k`` only those of the cases counted.

    What is as it was keeps its date and its reason.
    """
    calls = {case: python_calls(case, source) for case in observed}
    with store.changing() as changes:
        # Another process may have written since these were compared with what was accepted.
        accepted = store.load_operators()
        kept = {k: was for k, was in accepted.items() if args.k or parts_of(k)[1] != source.name}
        changed = 0
        for case, seen in observed.items():
            key = key_of(case, source.name)
            now = OperatorBaseline(
                accepted=date.today().isoformat(),
                reason=args.reason.strip(),
                versions=versions(),
                counters=seen.accepted(),
                python_calls=calls[case],
            )
            was = accepted.get(key)
            same = was and now == replace(was, accepted=now.accepted, reason=now.reason)
            kept[key] = was if was and same else now
            changed += not same
        changes.save_operators(kept)
    folder = store.shown(store.operators_path("").parent)
    print(messages.wrote(changed, len(observed) - changed, folder, args.reason.strip()))
    return 0
