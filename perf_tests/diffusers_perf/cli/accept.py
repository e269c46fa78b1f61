"""Accept what runs measured as this machine's baseline. Does not change any verdict.

Writes `baselines/<machine>.json`, the images of references that have none yet, and a line in
`HISTORY.md`. Cases that whole runs no longer declare are dropped.

    diffusers-perf accept runs/1.json runs/2.json runs/3.json --reason "torch 2.12 on this GPU"
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence, Sized
from pathlib import Path

from msgspec import structs

from diffusers_perf.catalog.metrics import BY_NAME, COUNTERS
from diffusers_perf.catalog.status import Status
from diffusers_perf.cli.answers import named
from diffusers_perf.judge import comparable
from diffusers_perf.judge.images import REPEAT_PSNR_DB
from diffusers_perf.judge.limits import accepted_of
from diffusers_perf.judge.sides import disturbed_in
from diffusers_perf.records import baselines, image_files, pixels
from diffusers_perf.records.baselines import CaseBaseline, MachineBaseline
from diffusers_perf.records.files import write_whole
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.names import BadName, image_file
from diffusers_perf.records.pixels import Images
from diffusers_perf.records.reading import BadRunError, load_runs
from diffusers_perf.records.run import CaseRecord, Run

LATENCY = BY_NAME["latency"]
PROCESSES_MIN = 3
ROUNDS_MIN = 3
"""Of fewer the median is whatever one of them was."""
ACCEPTABLE = (
    Status.SAME,
    Status.FASTER,
    Status.LESS_WORK,
    Status.NEW,
    Status.INCONCLUSIVE,
    Status.SLOWER,
    Status.MORE_MEMORY,
    Status.MORE_WORK,
    Status.WORSE_IMAGE,
    Status.INVALID,
)
"""A person may mean a case to be slower, its image to be another one, or another workload (which
is invalid until then). Nobody can mean a black image."""
HISTORY_HEAD = """# What was accepted, when and why

Written by `diffusers-perf accept` and `diffusers-perf calibrate`; newest last.

"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=named, metavar="RUN.json", help="written by --benchmark-json"
    )
    parser.add_argument("--reason", required=True, help="why; written to baselines/HISTORY.md")
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


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of runs: it takes 1 or more")
    return int(text)


def main(args: argparse.Namespace) -> int:
    # A line of the history is one line.
    reason = " ".join(args.reason.split())
    if args.images_only:
        if len(args.runs) != 1:
            raise BadRunError(f"--images-only takes one run, not {len(args.runs)}")
        return accept_images(args.runs[0], reason=reason)
    return accept(args.runs, reason=reason, processes=args.processes)


def accept_images(path: Path, *, reason: str) -> int:
    """Keep the images of the run's references; 0. `BadRunError` for a bad run."""
    (run,) = _load([path], reason)
    check([run])
    images = {target: _thumbnail(*source) for target, source in _images(run).items()}
    if not images:
        raise BadRunError(f"{path} has no reference, so there is no image to accept")
    write_history(_about_images(images, run, reason=reason))
    _keep(images)
    number = f"{len(images)} reference image{'s' * (len(images) != 1)}"
    print(f"accepted {number}; commit baselines/")
    return 0


def accept(paths: Sequence[Path], *, reason: str, processes: int = PROCESSES_MIN) -> int:
    """Write the runs' cases into their machine's baseline; 0. `BadRunError` for bad runs.

    A case that fewer than this many of the runs measured and saw undisturbed is left out.
    """
    runs = _load(paths, reason)
    if len(runs) < processes:
        raise BadRunError(
            f"{len(runs)} of {processes} processes: between processes the noise is larger than "
            "within one; run the main job again, or say --processes"
        )
    check(runs)
    _check_whole(runs)
    machine = runs[0].machine
    old = baselines.load_machine(machine.slug)
    measured: dict[str, list[CaseRecord]] = {key: [] for run in runs for key in _judged(run)}
    taken = []
    for run in runs:
        disturbed = _disturbed(run)
        says = [key for key in _judged(run) if key not in disturbed]
        for key in says:
            measured[key].append(run.cases[key])
        taken += [run] if says else []
        for why in dict.fromkeys(disturbed.values()):
            names = [run.cases[key].id for key in disturbed if disturbed[key] == why]
            print(f"left out of {run.path}: {', '.join(names)}: {why}")
    known = old.cases if old else {}
    accepted = {
        key: _merge(cases, runs[0], known.get(key))
        for key, cases in measured.items()
        if len(cases) >= processes
    }
    if not accepted:
        raise BadRunError(
            f"no case was measured in {processes} of the runs undisturbed: nothing is accepted; "
            "add runs that are made on a quieter machine"
        )
    for key, seen in measured.items():
        if key not in accepted:
            print(f"left out: {key} has {len(seen)} of {processes} processes that say something")
    for line in _although({key: measured[key] for key in accepted}):
        print(line)
    gone = set(known).intersection(*(run.undeclared(known) for run in runs))
    for key in sorted(gone):
        print(f"dropped: {key} is no longer declared")
    cases = {key: case for key, case in {**known, **accepted}.items() if key not in gone}
    baseline = MachineBaseline(
        path=baselines.machine_path(machine.slug), machine=machine.name, cases=cases
    )
    # An image that is accepted holds on every machine: whoever accepts how fast one of them is
    # does not move it by the way.
    images = {
        target: _thumbnail(*source)
        for target, source in _images(runs[0]).items()
        if not target.exists()
    }
    write_history(
        [
            *(
                _history_line(key, known.get(key), accepted.get(key), runs[0], reason=reason)
                for key in (*accepted, *sorted(gone))
            ),
            *_about_images(images, runs[0], reason=reason),
        ]
    )
    baselines.save_machine(baseline)
    _keep(images)
    print(
        f"accepted {_many(accepted, 'case', 'cases')} from {_many(taken, 'process', 'processes')} "
        f"into {baseline.path.name} and "
        f"{_many(images, 'reference image that was', 'reference images that were')} not "
        "there yet; commit baselines/"
    )
    few = [key for key in accepted if len(measured[key]) < PROCESSES_MIN]
    if few:
        print(
            f"limits on the latency of {_many(few, 'case', 'cases')} are wide: so few processes do "
            "not tell how far they differ (baselines/README.md)"
        )
    return 0


def _many(things: Sized, one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"


def _although(accepted: Mapping[str, Sequence[CaseRecord]]) -> list[str]:
    """The cases that failed, which a person should know to have meant."""
    failed = {
        f"accepted although {case.status}: {key}": None
        for key, cases in accepted.items()
        for case in cases
        if not case.status.passes
    }
    return list(failed)


def _load(paths: Sequence[Path], reason: str) -> list[Run]:
    if not reason.strip():
        raise BadRunError("--reason is empty: it says to a reviewer why the numbers changed")
    return load_runs(paths)


def check(runs: Sequence[Run], *, acceptable: Collection[str] = ACCEPTABLE) -> None:
    """`BadRunError` unless the runs are of one machine, stopwatch and workload, and each case got
    one of these verdicts, and the same image from the same seed alone.
    """
    first = runs[0]
    for run in runs:
        if not run.machine.is_like(first.machine):
            raise BadRunError(
                f"{run.path} was measured on another machine or with other versions than "
                f"{first.path}"
            )
        if run.session.harness_version != first.session.harness_version:
            raise BadRunError(
                f"{run.path} was measured by another version of the suite's own measuring code "
                f"than {first.path}"
            )
        for key, case in run.cases.items():
            if case.status not in acceptable:
                raise BadRunError(f"{run.path}: {key} is {case.status}, which nobody accepts")
            repeated = case.measurement.repeat_psnr_db
            if repeated < REPEAT_PSNR_DB:
                raise BadRunError(
                    f"{run.path}: {key} gave another image for the same seed ({repeated:.1f} dB "
                    "between them), which nobody accepts"
                )
            if ignored := case.measurement.ignored:
                raise BadRunError(
                    f"{run.path}: {key} gave the same image for another {ignored[0]}, which "
                    "nobody accepts"
                )
        if run.session.failed:
            raise BadRunError(f"{run.path}: {run.session.failed[0]} gave no measurement")
    try:
        comparable.same_workloads(runs)
    except comparable.NotComparable as error:
        raise BadRunError(str(error)) from None


def _check_whole(runs: Sequence[Run]) -> None:
    """`BadRunError` unless each case has as many rounds as a value to hold others to needs."""
    for run in runs:
        if run.session.quick:
            raise BadRunError(
                f"{run.path} was measured with --quick, whose few rounds are for comparing many "
                "processes: take runs of the whole main job"
            )
        for key, case in run.cases.items():
            rounds = len(case.measurement.rounds_s)
            if rounds < ROUNDS_MIN and not case.image_only:
                raise BadRunError(
                    f"{run.path}: {key} was timed in {rounds} of at least {ROUNDS_MIN} rounds; run "
                    "the main job again with more --rounds"
                )


def _disturbed(run: Run) -> dict[str, str]:
    """The cases of which this process says nothing, as something else was at work on the machine,
    its pace changed or the measuring failed, with them or with what they are held to; each with the
    reason.
    """
    found = {}
    for key in _judged(run):
        case = run.cases[key]
        held_to = [] if case.compared_with is case.measurement else [_as_recorded(case)]
        reasons = [
            why for one in (case, *held_to) for why in disturbed_in(run, one, BY_NAME["latency"])
        ]
        if reasons:
            found[key] = reasons[0].removeprefix(f"{case.id}: ")
    return found


def _as_recorded(case: CaseRecord) -> CaseRecord:
    """The case that this one is compared with, as it stands with it: a reference can be measured
    without a test of its own.
    """
    return structs.replace(case, measurement=case.compared_with, reference=None)


def _judged(run: Run) -> list[str]:
    return [key for key, case in run.cases.items() if not case.image_only]


def _merge(cases: Sequence[CaseRecord], run: Run, before: CaseBaseline | None) -> CaseBaseline:
    counters = [case.measurement.counters for case in cases]
    generates = cases[0].workload
    same = before is not None and not comparable.differing(before.generates, generates)
    merged = accepted_of(
        [(case.measurement, case.compared_with if case.reference else None) for case in cases],
        accepted=run.date,
        versions=run.machine.versions,
        generates=generates,
        device=run.machine.device,
        # The machine's noise stays what it is when the code becomes slower.
        calibrations=before.calibrations if before and same else {},
    )
    for why, names in (
        ("differently in each process", merged.moving),
        ("in some of the processes alone", _partly(counters)),
    ):
        if names:
            print(f"left out: {cases[0].id} counts {', '.join(names)} {why}")
    return merged


def _partly(counters: Sequence[Mapping[str, Count]]) -> list[str]:
    """The judged ones that some have and some lack."""
    return [n for n in COUNTERS if len({n in one for one in counters}) > 1]


def _images(run: Run) -> dict[Path, tuple[Path, CaseRecord]]:
    """Where the references' images are kept once accepted; those that the run saved, and of which
    case. `BadRunError` for names that cannot be a file's.
    """
    references = [case for case in run.cases.values() if case.is_reference]
    try:
        return {
            baselines.image_path(
                model=case.measurement.model,
                weights=case.measurement.weights,
                workload=case.measurement.workload,
            ): (image_file(run.images, case.id), case)
            for case in references
        }
    except BadName as error:
        raise BadRunError(f"{run.path}: {error}") from None


def _thumbnail(path: Path, case: CaseRecord) -> Images:
    """As an accepted image is kept. `BadRunError` if there is none of the size that was pinned."""
    if not path.exists():
        raise BadRunError(f"{path} is missing: a run's images are saved beside its JSON")
    try:
        images = image_files.load(path)
    except image_files.BadImage as error:
        raise BadRunError(str(error)) from None
    count, *size, _ = images.shape
    pinned = case.image_size
    if count % case.measurement.num_images or (pinned and tuple(size) != pinned):
        height, width = pinned or size
        raise BadRunError(
            f"{path}: has {count} of {size[1]}x{size[0]} pixels, and the run says "
            f"{case.measurement.num_images} of {width}x{height}"
        )
    return pixels.thumbnail(images)


def _keep(images: Mapping[Path, Images]) -> None:
    for target, image in images.items():
        image_files.save(image, target)


def _about_images(images: Collection[Path], run: Run, *, reason: str) -> list[str]:
    """The line on accepted images, if there are any."""
    names = ", ".join(f"`{target.name}`" for target in images)
    return [f"- {run.date} {names}: images. {reason}"] if names else []


def _history_line(
    key: str, was: CaseBaseline | None, now: CaseBaseline | None, run: Run, *, reason: str
) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.machine.versions.items())
    change = f"{_figure(was) if was else 'new'} → {_figure(now) if now else 'gone'}"
    return f"- {run.date} `{key}`: {change}. {reason} ({versions})"


def write_history(lines: Sequence[str]) -> None:
    """Add lines to `HISTORY.md`. Before anything is accepted: what cannot be read is refused."""
    path = baselines.FOLDER / "HISTORY.md"
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else HISTORY_HEAD
    except UnicodeDecodeError:
        raise baselines.BadBaseline(f"{path}: is not in UTF-8") from None
    # Whoever wrote by hand may have ended without one.
    end = "" if text.endswith("\n") else "\n"
    write_whole(path, text + end + "\n".join(lines) + "\n")


def _figure(case: CaseBaseline) -> str:
    latency = f"latency {min(case.measured['latency_s']):.3f} s"
    busy_s = case.measured.get("gpu_busy_s")
    return f"GPU busy {min(busy_s):.4f} s, {latency}" if busy_s else latency
