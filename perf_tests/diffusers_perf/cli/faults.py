"""Inject every fault of the catalog and report which are detected; controls must pass.

Each is injected between two clean runs in this process and judged by the rules that judge a case
against its baseline. Exit codes: 0, every fault is detected and every control passes; 1, one is
missed or fails; 2, bad input; 3, the machine was too busy or the time too short to decide.

    diffusers-perf faults --device cpu
    diffusers-perf faults upcast_norms item_in_step
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from diffusers_perf.catalog.status import REGRESSION
from diffusers_perf.cli.answers import (
    add_device_and_model,
    configured_store,
    listed,
    named,
    number,
    refuse,
)
from diffusers_perf.cli.quiet import quiet
from diffusers_perf.compare.bare import bare_bench
from diffusers_perf.messages import faults as messages
from diffusers_perf.messages.declarations import NO_CASE
from diffusers_perf.messages.plugin import skipped as skipped_because
from diffusers_perf.plugin.finding import find_project
from diffusers_perf.plugin.screen import table
from diffusers_perf.records.files import as_json, make_room, read_text, unwritable, write_whole

if TYPE_CHECKING:
    from diffusers_perf.catalog.discovery import Project
    from diffusers_perf.catalog.workload import Workload
    from diffusers_perf.faults.injection import Fault
    from diffusers_perf.faults.outcomes import Outcome
    from diffusers_perf.faults.trials import Trials
    from diffusers_perf.measurement.pipelines import Opened
    from diffusers_perf.models.seeded import Seeded

SCHEMA = 1
HEAD = ("fault", "detected by", "verdict", "smallest", "sentence")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="faults and controls to inject (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="list all faults and controls instead")
    add_device_and_model(parser)
    parser.add_argument(
        "--workload",
        metavar="NAME",
        help="inject all in this workload (default: each fault's own, of this repository's; of a "
        "model that runs none of these, its shortest)",
    )
    parser.add_argument("--json", type=named, metavar="OUT", help="write all rows to this file")
    parser.add_argument(
        "--minutes",
        type=number("0 or more", low=0),
        metavar="N",
        help="start no further trial after N minutes",
    )


def main(args: argparse.Namespace) -> int:
    """Run the trials, then tell."""
    from diffusers_perf.catalog.discovery import load
    from diffusers_perf.faults.outcomes import Outcome, OutcomeStatus
    from diffusers_perf.faults.trials import Trials
    from diffusers_perf.plugin.judging import Judging

    started = perf_counter()
    load("diffusers_perf.faults")
    from diffusers_perf import faults

    known = faults.declared()
    if args.list:
        print("\n".join(listed({fault.name: fault.line for fault in known.values()})))
        return 0
    project = find_project(args.model)
    quiet()
    if not project.cases:
        return refuse(NO_CASE)
    unknown = [name for name in args.names if name not in known]
    if unknown:
        return refuse(messages.unknown(unknown[0], known))
    if args.json is not None:
        if _is_anothers(args.json):
            return refuse(messages.anothers_file(args.json))
        if args.json.is_fifo():
            return refuse(messages.pipe(args.json))
        try:
            make_room(args.json)
        except OSError as error:
            return refuse(unwritable(args.json, error))
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench(args, project)
        trials = Trials(
            judging=Judging(bench=bench),
            project=project,
            folder=Path(folder),
            workload=args.workload or _stand_in(project, bench.sources, known.values()),
        )
        device = trials.bench.device.type
        chosen = [f for f in known.values() if not args.names or f.name in args.names]
        elsewhere = [f for f in chosen if not f.runs_on(device)]
        # On a GPU first what shows nowhere else.
        here = sorted((f for f in chosen if f.runs_on(device)), key=lambda f: f.where == "any")
        if not here:
            return refuse(messages.nothing_to_run([f.name for f in elsewhere], device))
        for fault in here:
            try:
                trials.check(fault)
            except (TypeError, ValueError) as error:
                return refuse(f"{fault.name}: {error}")
        rows: list[Outcome] = []
        for fault in here:
            if args.minutes is not None and perf_counter() - started > 60 * args.minutes:
                rows.append(
                    Outcome(fault=fault, status=OutcomeStatus.NOT_RUN, sentence=messages.NO_TIME)
                )
                continue
            rows.append(trials.run(fault))
            print(f"[{len(rows)}/{len(here)}] {_line(rows[-1])}", flush=True)
            # What was found so far stays, whatever happens to this process.
            _write(args.json, rows, trials, seconds=perf_counter() - started)
    print()
    print("\n".join(table(HEAD, [_cells(row) for row in rows], width=sys.maxsize)))
    print()
    given = ["--workload", args.workload] if args.workload else []
    said = closing(rows, elsewhere, trials, given=given, seconds=perf_counter() - started)
    print("\n".join(said))
    _write(args.json, rows, trials, seconds=perf_counter() - started)
    return code(rows, trials)


def _bench(args: argparse.Namespace, project: Project) -> Any:
    """A bare bench, with the weights at hand. `Refusal` where there is none."""
    workloads = {case.workload for case in project.cases}
    bench = bare_bench(
        device=args.device, model=args.model, workloads=workloads, store=configured_store()
    )
    if bench.device.type == "cuda":
        for source in weights_on_host(bench.sources, workloads):
            source.keep_on(bench.device)
    return bench


def weights_on_host(sources: Opened, workloads: Iterable[Workload]) -> list[Seeded]:
    """Models whose weights are drawn on the host: a hundred pipelines are built of them, and the
    way over the bus would take longer than all that is measured.
    """
    from diffusers_perf.models.seeded import Seeded

    used = {sources.of(workload) for workload in workloads if sources.runs(workload)}
    return [source for source in used if isinstance(source, Seeded)]


def _stand_in(project: Project, sources: Opened, faults: Iterable[Fault]) -> str | None:
    """Name of a model's shortest workload, if it runs none of those that faults are injected in."""
    runs = [case.workload for case in project.cases if sources.runs(case.workload)]
    own = {fault.setting.workload for fault in faults}
    if not runs or not own.isdisjoint(workload.name for workload in runs):
        return None
    return min(runs, key=lambda workload: workload.steps * workload.num_images).name


def code(rows: Sequence[Outcome], trials: Trials) -> int:
    """1 for a fault missed, a control failed or a false alarm; else 3 for undecided ones, and for
    false alarms that only the clock gave, both times.
    """
    codes = {row.status.exit_code for row in rows} | {a.exit_code for a in trials.false_alarms}
    return REGRESSION if REGRESSION in codes else max(codes, default=0)


def _cells(row: Outcome) -> tuple[str, ...]:
    return (
        row.fault.name,
        row.fault.detected_by or "nothing",
        row.verdict if row.status.holds and row.verdict else row.status,
        _size(row),
        row.sentence,
    )


def _size(row: Outcome) -> str:
    return "" if row.smallest is None else f"{row.smallest:g} {row.fault.unit}"


def _line(row: Outcome) -> str:
    size = f", down to {_size(row)}" if row.smallest is not None else ""
    text = f"{row.fault.name}: {row.status}{size} ({row.seconds:.1f} s)"
    return text if row.status.as_wanted else f"{text}: {row.sentence}"


def closing(
    rows: Sequence[Outcome],
    elsewhere: Sequence[Fault],
    trials: Trials,
    *,
    given: Sequence[str],
    seconds: float,
) -> Iterator[str]:
    """The lines below the table; `given` are options that the bench does not know."""
    for alarm in trials.false_alarms:
        yield f"false alarm: {alarm.text}"
    faults = [row for row in rows if not row.fault.is_control]
    controls = [row for row in rows if row.fault.is_control]
    undecided = [row for row in rows if row.status.asks_again]

    skipped = [row for row in rows if row.status.is_skipped]
    yield messages.totals(
        sum(row.status.as_wanted for row in faults),
        sum(not row.status.is_skipped for row in faults),
        unflagged=sum(row.status.as_wanted for row in controls),
        controls=sum(not row.status.is_skipped for row in controls),
        alarms=len(trials.false_alarms),
        verdicts=trials.verdicts,
        seconds=seconds,
        skipped=len(skipped),
    )
    for row in skipped:
        yield skipped_because(f"{row.fault.name}: {row.sentence}")
    if elsewhere:
        device = "GPU" if trials.bench.device.type == "cpu" else "CPU"
        yield messages.elsewhere(device, [f.name for f in elsewhere])
    if undecided:
        names = [row.fault.name for row in undecided]
        again = shlex.join(["diffusers-perf", "faults", *names, *given, *trials.bench.options])
        yield messages.undecided(again)


def _is_anothers(path: Path) -> bool:
    """Is something in this file that this command did not write?"""
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(content, dict) or "clean_verdicts" not in content


def _write(path: Path | None, rows: Sequence[Outcome], trials: Trials, *, seconds: float) -> None:
    if path is None:
        return
    content = {
        "schema": SCHEMA,
        "machine": trials.bench.machine,
        "models": {source.name: source.weights for source in trials.sources},
        "seconds": round(seconds, 1),
        "clean_verdicts": trials.verdicts,
        "false_alarms": [alarm.text for alarm in trials.false_alarms],
        "rows": [
            {
                "name": row.fault.name,
                "what": row.fault.line,
                "source": row.fault.source,
                "control": row.fault.is_control,
                "detected_by": row.fault.detected_by,
                "where": row.fault.where,
                "status": row.status,
                "verdict": row.verdict or "",
                "sentence": row.sentence,
                "also_detected_by": list(row.also_detected_by),
                "unit": row.fault.unit or None,
                "smallest": row.smallest,
                "seconds": round(row.seconds, 2),
            }
            for row in rows
        ],
    }
    write_whole(path, as_json(content) + "\n")
