"""Accept what runs measured as this machine's baseline. Does not change any verdict.

Writes the machine's file, the images of references that have none yet, and a line in
`HISTORY.md`. Cases that whole runs no longer declare are dropped.

    diffusers-perf accept runs/1.json runs/2.json runs/3.json --reason "torch 2.12 on this GPU"
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.metrics import COUNTERS, GPU_BUSY, LATENCY
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.cli.acceptable import (
    PROCESSES_MIN,
    cases_with_interference,
    check,
    check_cases,
    check_whole,
    ended_early,
    judged_keys,
)
from diffusers_perf.cli.answers import add_baselines, named, store_of
from diffusers_perf.judge import comparable
from diffusers_perf.judge.limits import accepted_of
from diffusers_perf.judge.messages.commands import accept_structure
from diffusers_perf.messages import baselines as messages
from diffusers_perf.messages.common import first_line, positive_integer
from diffusers_perf.records import image_files
from diffusers_perf.records.baselines import CaseBaseline, MachineBaseline
from diffusers_perf.records.image_files import Thumbnail
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.names import BadName, image_file
from diffusers_perf.records.reading import load_runs
from diffusers_perf.records.run import CaseRecord, Run
from diffusers_perf.records.store import BaselineStore, Changes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=named, metavar="RUN.json", help="written by --benchmark-json"
    )
    parser.add_argument(
        "--reason", required=True, help="why; written to HISTORY.md beside the baselines"
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=PROCESSES_MIN,
        metavar="N",
        help=f"accept from as few as N runs (default: {PROCESSES_MIN})",
    )
    parser.add_argument(
        "--images-only",
        action="store_true",
        help="accept only the references' images, which are valid on every machine; from one run",
    )
    add_baselines(parser)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(positive_integer(text))
    return int(text)


def main(args: argparse.Namespace) -> int:
    # A line of the history is one line.
    reason = " ".join(args.reason.split())
    if args.images_only:
        if len(args.runs) != 1:
            raise Refusal(messages.one_run(len(args.runs)))
        return accept_images(args.runs[0], store_of(args), reason=reason)
    return accept(
        args.runs,
        store_of(args),
        reason=reason,
        processes=args.processes,
        baselines=args.baselines,
    )


def accept_images(path: Path, store: BaselineStore, *, reason: str) -> int:
    """Keep the images of the run's references, whatever became of its other cases; 0. `Refusal`
    for a bad reference.
    """
    (run,) = _load([path], reason)
    check_cases(run, (case for case in run.cases.values() if case.is_reference))
    for line in (*ended_early([run]), *_without_image(run)):
        print(line)
    images = {target: _thumbnail(*source) for target, source in _images(run, store).items()}
    if not images:
        raise Refusal(messages.no_reference(path))
    with store.changing() as changes:
        for target, image in images.items():
            _check_shape(image, target)
            changes.save_image(image, target)
        changes.add_history(_about_images(images, run, reason=reason))
    print(messages.accepted_images(len(images), store.shown(store.folder)))
    return 0


def accept(
    paths: Sequence[Path],
    store: BaselineStore,
    *,
    reason: str,
    processes: int = PROCESSES_MIN,
    baselines: Path | None = None,
) -> int:
    """Write the runs' cases into their machine's baseline; 0. `Refusal` for bad runs.

    A case that fewer than this many of the runs measured without interference is left out.
    Commands to run next name these `baselines`; without, those of the runs.
    """
    runs = [run.seen_from_here(baselines) for run in _load(paths, reason)]
    if len(runs) < processes:
        raise Refusal(messages.too_few_to_accept(len(runs), processes))
    check(runs)
    check_whole(runs)
    for line in ended_early(runs):
        print(line)
    with store.changing() as changes:
        printed = _accept(runs, changes, reason=reason, processes=processes)
    print("\n".join(printed))
    return 0


def _accept(runs: Sequence[Run], changes: Changes, *, reason: str, processes: int) -> list[str]:
    """Write what was measured; returns what to say once it is written."""
    machine = runs[0].machine
    old = changes.store.load_machine(machine.slug)
    measured: dict[str, list[CaseRecord]] = {key: [] for run in runs for key in judged_keys(run)}
    cards: dict[str, list[str]] = {key: [] for key in measured}
    taken = []
    for run in runs:
        affected = cases_with_interference(run)
        says = [key for key in judged_keys(run) if key not in affected]
        for key in says:
            measured[key].append(run.cases[key])
            cards[key].append(run.machine.card)
        taken += [run] if says else []
        for why in dict.fromkeys(affected.values()):
            names = [run.cases[key].id for key in affected if affected[key] == why]
            print(messages.left_out_of(run.path, names, why))
    known = old.cases if old else {}
    accepted = {
        key: _merge(cases, runs[0], known.get(key), cards=cards[key])
        for key, cases in measured.items()
        if len(cases) >= processes
    }
    if not accepted:
        clean = {key: len(cases) for key, cases in measured.items()}
        raise Refusal(messages.too_few_without_interference(clean, processes))
    too_few = {key: len(seen) for key, seen in measured.items() if key not in accepted}
    for key, number in too_few.items():
        print(messages.left_out(messages.in_too_few(key, number, processes)))
    for line in _although({key: measured[key] for key in accepted}):
        print(line)
    gone = set(known).intersection(*(run.undeclared(known) for run in runs))
    for key in sorted(gone):
        print(messages.dropped(key))
    cases = {key: case for key, case in {**known, **accepted}.items() if key not in gone}
    # An image that is accepted holds on every machine: whoever accepts how fast one of them is
    # does not move it by the way.
    images = {
        target: _thumbnail(*source)
        for target, source in _images(runs[0], changes.store).items()
        if _accepted_shape(target) is None
    }
    path = changes.save_machine(MachineBaseline(machine=machine.name, cases=cases))
    for target, image in images.items():
        changes.save_image(image, target)
    changes.add_history(
        [
            *(
                _history_line(key, known.get(key), accepted.get(key), runs[0], reason=reason)
                for key in (*accepted, *sorted(gone))
            ),
            *_about_images(images, runs[0], reason=reason),
        ]
    )
    folder = changes.store.shown(changes.store.folder)
    printed = [messages.accepted(len(accepted), len(taken), path.name, len(images), folder=folder)]
    if machine.device == "cpu":
        # `limits.accepted_of` leaves out what is the same on every machine.
        models = {key.partition("/")[0]: measured[key][0].measurement.model for key in accepted}
        new = [n for n in models if not changes.store.operators_path(n).exists()]
        if new:
            job = runs[0].session.main_job
            commands = dict.fromkeys(accept_structure(job, models[n]).of() for n in new)
            printed.append(messages.without_operators(new, [*commands]))
    if too_few:
        printed.append(messages.measure_more(len(too_few), processes - min(too_few.values())))
    few = [key for key in accepted if len(measured[key]) < PROCESSES_MIN]
    return [*printed, messages.wide_limits(len(few), PROCESSES_MIN)] if few else printed


def _although(accepted: Mapping[str, Sequence[CaseRecord]]) -> list[str]:
    """The cases that failed, which a person should know to have meant."""
    failed = {
        messages.accepted_although(case.status, key): None
        for key, cases in accepted.items()
        for case in cases
        if not case.status.passes
    }
    return list(failed)


def _load(paths: Sequence[Path], reason: str) -> list[Run]:
    if not reason.strip():
        raise Refusal(messages.NO_REASON)
    return load_runs(paths)


def _merge(
    cases: Sequence[CaseRecord], run: Run, before: CaseBaseline | None, *, cards: Sequence[str]
) -> CaseBaseline:
    counters = [case.measurement.counters for case in cases]
    workload = cases[0].workload
    same = before is not None and not comparable.differing(before.workload, workload)
    merged = accepted_of(
        [(case.measurement, case.compared_with if case.reference else None) for case in cases],
        accepted=run.date,
        versions=run.machine.versions,
        workload=workload,
        device=run.machine.device,
        # The machine's noise stays what it is when the code becomes slower.
        calibrations=before.calibrations if before and same else {},
        cards=cards,
    )
    if merged.moving:
        print(messages.left_out(messages.unsteady(cases[0].id, merged.moving)))
    if partly := _partly(counters):
        print(messages.left_out(messages.not_in_all(cases[0].id, partly)))
    return merged


def _partly(counters: Sequence[Mapping[str, Count]]) -> list[str]:
    """The judged ones that some have and some lack."""
    return [n for n in COUNTERS if len({n in one for one in counters}) > 1]


def _without_image(run: Run) -> Iterator[str]:
    """The references that failed or were skipped, each with the reason."""
    for case in run.session.not_timed:
        if case.id.endswith(f"-{REFERENCE}") and case.status != Status.INVALID:
            why = first_line(case.sentence.removeprefix(f"{case.id}: ")) or case.status
            yield messages.left_out_of(run.path, [case.id], why)


def _images(run: Run, store: BaselineStore) -> dict[Path, tuple[Path, CaseRecord]]:
    """Where the references' images are kept once accepted; those that the run saved, and of which
    case. `Refusal` for names that cannot be a file's.
    """
    references = [case for case in run.cases.values() if case.is_reference]
    try:
        return {
            store.image(
                model=case.measurement.model,
                weights=case.measurement.weights,
                workload=case.measurement.workload,
            ): (image_file(run.images, case.id), case)
            for case in references
        }
    except BadName as error:
        raise Refusal(f"{run.path}: {error}") from None


def _thumbnail(path: Path, case: CaseRecord) -> Thumbnail:
    """The image as a baseline keeps it. `Refusal` where it is missing or has another size."""
    if path.parent.is_file():
        raise Refusal(messages.folder_is_a_file(path.parent))
    if not path.exists():
        raise Refusal(messages.no_image(path))
    try:
        count, height, width, _ = image_files.load_quantized(path).shape
        thumbnail = image_files.load_thumbnail(path)
    except image_files.BadImage as error:
        raise Refusal(str(error)) from None
    pinned = case.image_size or (height, width)
    if count % case.measurement.num_images or pinned != (height, width):
        expected = (case.measurement.num_images, *pinned)
        raise Refusal(messages.other_size(path, (count, height, width), expected))
    return thumbnail


def _accepted_shape(path: Path) -> tuple[int, ...] | None:
    """Of the accepted images in this file; None where there are none, or a damaged file."""
    try:
        return image_files.load_quantized(path).shape
    except image_files.BadImage:
        return None


def _check_shape(image: Thumbnail, target: Path) -> None:
    """`Refusal` for images of another shape than those that are accepted."""
    accepted, own = _accepted_shape(target), image.images.shape
    if accepted is not None and accepted != own:
        raise Refusal(messages.other_accepted_size(target, _size(accepted), _size(own)))


def _size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Number, height and width."""
    number, height, width, *_ = shape
    return number, height, width


def _about_images(images: Collection[Path], run: Run, *, reason: str) -> list[str]:
    """The line on accepted images, if there are any."""
    names = ", ".join(f"`{target.name}`" for target in images)
    return [f"- {run.date} {run.machine.name} {names}: images. {reason}"] if names else []


def _history_line(
    key: str, was: CaseBaseline | None, now: CaseBaseline | None, run: Run, *, reason: str
) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.machine.versions.items())
    change = f"{_figure(was) if was else 'new'} → {_figure(now) if now else 'gone'}"
    return f"- {run.date} {run.machine.name} `{key}`: {change}. {reason} ({versions})"


def _figure(case: CaseBaseline) -> str:
    latency = f"latency {min(case.measured[LATENCY.field]):.3f} s"
    busy_s = case.measured.get(GPU_BUSY.field)
    return messages.busy(latency, min(busy_s)) if busy_s else latency
