"""Which runs and cases can become a baseline."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import structs

from diffusers_perf.catalog.metrics import LATENCY
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import comparable
from diffusers_perf.judge.images import REPEAT_PSNR_DB
from diffusers_perf.judge.sides import interference_in
from diffusers_perf.messages import baselines as messages
from diffusers_perf.records.run import CaseRecord, Run

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
is invalid until then). A black image is never intended."""


def check(runs: Sequence[Run], *, acceptable: Collection[str] = ACCEPTABLE) -> None:
    """`Refusal` unless the runs are of one machine, stopwatch and workload, and each case got
    one of these verdicts, and the same image from the same seed alone.
    """
    for run in runs:
        if not run.machine.is_like(runs[0].machine):
            raise Refusal(messages.other_machine(run.path, runs[0].path))
        if run.session.harness_version != runs[0].session.harness_version:
            raise Refusal(messages.other_code(run.path, runs[0].path))
        check_cases(run, run.cases.values(), acceptable=acceptable)
        for case in run.session.failures:
            raise Refusal(messages.not_measured(run.path, case))
    comparable.same_workloads(runs)


def check_cases(
    run: Run, cases: Iterable[CaseRecord], *, acceptable: Collection[str] = ACCEPTABLE
) -> None:
    """`Refusal` unless each of these cases got one of these verdicts, and the same image from the
    same seed alone.
    """
    for case in cases:
        if case.status not in acceptable:
            raise Refusal(messages.not_acceptable(run.path, case.key, case.status))
        repeated = case.measurement.repeat_psnr_db
        if repeated < REPEAT_PSNR_DB:
            raise Refusal(messages.not_repeated(run.path, case.key, repeated))
        if ignored := case.measurement.ignored:
            raise Refusal(messages.ignored(run.path, case.key, ignored[0]))


def check_whole(runs: Sequence[Run]) -> None:
    """`Refusal` unless each case has as many rounds as a value to hold others to needs."""
    for run in runs:
        if run.session.quick:
            raise Refusal(messages.quick(run.path))
        for key, case in run.cases.items():
            rounds = len(case.measurement.rounds_s)
            if rounds < ROUNDS_MIN and not case.image_only:
                raise Refusal(messages.too_few_rounds(run.path, key, rounds, ROUNDS_MIN))


def ended_early(runs: Iterable[Run]) -> Iterator[str]:
    """Which runs stopped half-way, and which of their cases have no measurement therefore."""
    for run in runs:
        lost = [case for case in run.lost(()) if case.status in (Status.INVALID, Status.MISSING)]
        if lost:
            interrupted = any(case.status == Status.INVALID for case in lost)
            names = [case.id for case in lost]
            yield messages.ended_early(run.path, names, interrupted=interrupted)


def cases_with_interference(run: Run) -> dict[str, str]:
    """The cases of which this process says nothing, as something else was at work on the machine,
    its pace changed or the measuring failed, in them or in their reference; each with the
    reason.
    """
    found = {}
    for key in judged_keys(run):
        case = run.cases[key]
        held_to = [] if case.compared_with is case.measurement else [_as_recorded(case)]
        reasons = [why for one in (case, *held_to) for why in interference_in(run, one, LATENCY)]
        if reasons:
            found[key] = reasons[0].removeprefix(f"{case.id}: ")
    return found


def _as_recorded(case: CaseRecord) -> CaseRecord:
    """The case that this one is compared with, as it stands with it: a reference can be measured
    without a test of its own.
    """
    return structs.replace(case, measurement=case.compared_with, reference=None)


def judged_keys(run: Run) -> list[str]:
    return [key for key, case in run.cases.items() if not case.image_only]
