"""Head against base in paired processes: numbers in, verdicts out; no files, no torch, no clock.

The i-th run of base and the i-th of head are a pair, made one after the other on one machine. Times
and memory are weighed as `weighing` says, latencies as `clock` reads them, and the times of a
workload's cases also together, as `pooling` says. Counters must be base's exactly. Head's images
must be within the tolerance of their optimizations, as in `images`, and with or without one no
farther from the reference than base's by `IMAGE_DROP_DB`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from statistics import median

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.metrics import BY_LEAST, COMPARED, DENOISING_STAGE, SHORTEST
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import paired
from diffusers_perf.judge.clock import Hosts
from diffusers_perf.judge.comparable import NotComparable, check
from diffusers_perf.judge.comparison import Change, Comparison
from diffusers_perf.judge.messages import comparison as messages
from diffusers_perf.judge.messages.commands import Command, Rerun
from diffusers_perf.judge.paired import Noise
from diffusers_perf.judge.pooling import with_pooled
from diffusers_perf.judge.sides import PairedCase
from diffusers_perf.judge.weighing import PAIRS_MOST, PAIRS_TO_FORESEE
from diffusers_perf.records.missing import Untimed
from diffusers_perf.records.run import CaseRecord, Run


def compare(
    base: Sequence[Run],
    head: Sequence[Run],
    *,
    noise: Noise | None = None,
    more: str = "",
    again: Command | None = None,
) -> Comparison:
    """What head changed. `noise` is what a calibration of the machine knows of each case, `more`
    the command that measures more pairs, and `again` the one that compares a case anew, where they
    are known: with `again` alone, no more pairs are to follow.

    `NotComparable` where nothing follows from these runs, whatever they say.
    """
    check(base, head)
    ids = dict.fromkeys(
        name
        for run in (*head, *base)
        for name in (*run.by_id, *(lost.id for lost in run.session.not_timed))
    )
    drifts = {change.case: change for change in _drifts(base, head)}
    hosts = Hosts.of(base, head)
    changes: list[Change] = []
    for name in ids:
        sides = PairedCase(name=name, base=base, head=head, more=more, again=again, hosts=hosts)
        changes += _changes(sides, noise or {})
        changes += [drifts.pop(name)] if name in drifts else []
    # References that were measured for others and have no test in these runs.
    changes += drifts.values()
    workloads = {
        case.id: case.measurement.workload for run in (*base, *head) for case in run.cases.values()
    }
    rerun = again or Rerun(job=head[0].session.main_job)
    found = Comparison(
        changes=tuple(with_pooled(changes, workloads, rerun=rerun)),
        pairs=len(base),
        machines=_machines(base[0], head[0]),
    )
    if not found.verdicts:
        raise NotComparable(messages.NOTHING_MEASURED)
    # What is wrong with head by itself is so without base, too.
    if not any(run.by_id for run in base) and found.exit_code != 1:
        raise NotComparable(messages.NOTHING_IN_BASE)
    return found


def _machines(base: Run, head: Run) -> str:
    versions = ("python", "torch", "diffusers", "transformers")
    had, has = ([f"{n} {getattr(run.machine, n)}" for n in versions] for run in (base, head))
    changed = [f"{was} → {now.split()[1]}" for was, now in zip(had, has, strict=True) if was != now]
    if changed:
        return f"{head.machine.name}: {', '.join(changed)}"
    return f"{head.machine.name}, both with {', '.join(has)}"


def _changes(sides: PairedCase, noise: Noise) -> Iterator[Change]:
    lost = [c for run in sides.head for c in run.session.not_timed if c.id == sides.name]
    failed = next((case for case in lost if not case.status.passes), None)
    if failed:
        yield _failed(sides, failed)
    if not sides.in_head:
        if sides.in_base and not failed:
            yield _not_in_head(sides, lost)
        return
    yield from paired.alone(sides)
    if not sides.in_base:
        yield Change.of(Status.NEW, Subject.CASE, sides.name, messages.not_in_base())
        return
    if sides.in_head[0].image_only:
        return
    had, has = _fewest_steps(sides.in_base), _fewest_steps(sides.in_head)
    apart = SHORTEST if had != has and had and has else ()
    for metric in COMPARED:
        if metric not in apart:
            yield from paired.timed(sides, metric, noise)
    for metric in BY_LEAST:
        if metric not in apart:
            yield from paired.least(sides, metric)
    if apart:
        message = messages.other_fewest_steps([m.name for m in apart], had, has)
        yield Change.of(Status.INVALID, DENOISING_STAGE.name, sides.name, message)
    yield from paired.counted(sides)
    yield from paired.flagged(sides)


def _fewest_steps(side: Sequence[CaseRecord]) -> int:
    """Of the shortest generation; 0 of runs that were made before it was recorded."""
    return min((steps for case in side if (steps := case.measurement.fewest_steps)), default=0)


def _failed(sides: PairedCase, failed: Untimed) -> Change:
    in_base = any(
        (case.id, case.status) == (failed.id, failed.status)
        for run in sides.base
        for case in run.session.not_timed
    )
    sentence = failed.sentence.removeprefix(f"{sides.name}: ")
    message = messages.failed(sentence, in_base=in_base, rerun=sides.rerun)
    return Change.of(failed.status, Subject.CASE, sides.name, message)


def _not_in_head(sides: PairedCase, lost: Sequence[Untimed]) -> Change:
    """A case that only base measured."""
    why = messages.NOT_DECLARED
    status = Status.MISSING
    if lost:
        why = lost[0].sentence.removeprefix(f"{sides.name}: ")
        if any(case.status == Status.INVALID for case in lost):
            status = Status.INVALID
    elif any(_ended_before(sides.name, run) for run in sides.head):
        why, status = messages.INTERRUPTED, Status.INVALID
    elif any(sides.name in run.session.not_selected for run in sides.head):
        why, status = messages.LEFT_OUT, Status.INCONCLUSIVE
    again = status == Status.INVALID
    # Restored, it is in what is checked out.
    rerun = sides.run_alone if status == Status.MISSING else sides.rerun
    message = messages.not_in_head(why, again=status != Status.MISSING, rerun=rerun)
    return replace(
        Change.of(status, Subject.CASE, sides.name, message),
        more_could_tell=again and sides.pairs < PAIRS_MOST,
    )


def _ended_before(name: str, run: Run) -> bool:
    session = run.session
    return name in session.expected and any(c.status == Status.INVALID for c in session.not_timed)


def _drifts(base: Sequence[Run], head: Sequence[Run]) -> Iterator[Change]:
    """A row for each workload's reference: did it hold while a process ran?"""
    for workload in dict.fromkeys(
        name for run in (*base, *head) for name in run.session.reference_drift
    ):
        ratios = [
            [drift.ratio for run in side if (drift := run.session.reference_drift.get(workload))]
            for side in (base, head)
        ]
        pairs = list(zip(base, head, strict=True))
        moved = sum(any(workload in run.session.drifted for run in pair) for pair in pairs)
        too_few = bool(moved) and len(pairs) - moved < 2
        # Enough pairs are left, or the machine is what is judged here.
        status = Status.INVALID if too_few else Status.SAME
        most = PAIRS_TO_FORESEE if moved == len(pairs) else PAIRS_MOST
        message = messages.timed_again([*chain(*ratios)], moved=moved, pairs=len(pairs))
        yield replace(
            Change.of(status, Subject.DRIFT, f"{workload}-{REFERENCE}", message),
            base=median(ratios[0]) if ratios[0] else None,
            head=median(ratios[1]) if ratios[1] else None,
            more_could_tell=too_few and len(pairs) < most,
        )
