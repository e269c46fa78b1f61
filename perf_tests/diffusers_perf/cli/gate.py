"""Judge one run against its machine's baseline, by the rules that judged its tests.

Reads the run's JSON only. Needs no GPU and writes nothing. Exit codes: 0, all holds; 1, a
regression; 2, bad input, inconclusive or invalid cases, or not one case with a baseline.

    diffusers-perf gate runs/run.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers_perf.catalog.metrics import PYTHON_CALLS
from diffusers_perf.catalog.status import CANNOT_JUDGE, Status, exit_code
from diffusers_perf.cli.answers import add_baselines, named, store_of
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.drift import drift_lines
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.judge.messages.commands import Accept, Command, Rerun, accept_structure
from diffusers_perf.judge.messages.run import RESTORE
from diffusers_perf.judge.question import Question
from diffusers_perf.judge.verdicts import asks_for_drift, judge
from diffusers_perf.messages import gate as messages
from diffusers_perf.records.baselines import MachineBaseline, OperatorBaseline, Portable
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import COUNTERS
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.run import CaseRecord, Run
from diffusers_perf.records.store import BaselineStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=named, metavar="RUN.json", help="written by --benchmark-json, or by merge"
    )
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    return gate(args.run, store_of(args), baselines=args.baselines)


def gate(path: Path, store: BaselineStore, *, baselines: Path | None = None) -> int:
    """Print what does not hold and one closing sentence; 0 holds, 1 a regression, 2 not judged.

    With 2 the last line is ``inconclusive: …`` where the run was judged, and an error where it was
    not.

    Commands to run next name these `baselines`; without, those of the run.

    `Refusal` for what cannot be read.
    """
    run = load_run(path).seen_from_here(baselines)
    standards = standards_of(run, store)
    rows = [*_measured(run, standards), *_untimed(run, standards)]
    for row in rows:
        if row.sentence:
            print(row.sentence)
        for other in row.others:
            print(messages.also(other))
    for line in _closing(run, standards, rows):
        print(line)
    code = exit_code(row.status for row in rows)
    unjudged = _unjudged(run, standards)
    if unjudged and code != 1:
        print(f"error: {unjudged}", file=sys.stderr)
        return CANNOT_JUDGE
    if code == CANNOT_JUDGE:
        # The last line alone must say it, to readers of nothing else: this is not an error.
        doubtful = [row for row in rows if row.status.warns]
        helps = any(row.advised is None for row in doubtful)
        ids = [row.id for row in doubtful]
        print(messages.inconclusive(ids, len(rows), another_run_helps=helps))
    return code


@dataclass(frozen=True, kw_only=True)
class Standards:
    """Everything that a run is judged by."""

    store: BaselineStore
    name: str
    """The machine's file, as a message names it."""
    baseline: MachineBaseline | None
    portable: Portable
    operators: Mapping[str, OperatorBaseline]

    def knows(self, case: CaseRecord) -> bool:
        """Did anybody accept how fast this case is?"""
        return self.baseline is not None and case.key in self.baseline.cases

    def counted(self, run: Run, case: CaseRecord) -> OperatorBaseline | None:
        """What was accepted of a case's code, for a run that could only count that."""
        if run.machine.device == "cuda" or case.image_only:
            return None
        return self.operators.get(case.measurement.code_key)


@dataclass(frozen=True, kw_only=True)
class JudgedCase:
    """What became of one case."""

    id: str
    status: Status
    """A verdict's, or ``skipped``."""
    sentence: str = ""
    """Empty where all is well."""
    others: tuple[str, ...] = ()
    """What else fails in it: the worst finding need not be the cause."""
    about_new: tuple[Command, ...] = ()
    """What to run where the case is new, for each reason that it is."""
    advised: tuple[str, Command] | None = None
    """What to do first where the case is in doubt, since running it again is not enough."""


def standards_of(run: Run, store: BaselineStore) -> Standards:
    """What a run is compared with. `Refusal` for what cannot be read."""
    machine = run.machine
    return Standards(
        store=store,
        name=store.shown(store.machine_path(machine.slug)),
        baseline=store.load_machine(machine.slug),
        portable=store.load_portable(scale=run.session.scale, device=machine.device),
        operators=store.load_operators(),
    )


# What became of the cases


def _measured(run: Run, standards: Standards) -> Iterator[JudgedCase]:
    for case in run.cases.values():
        verdict = judged(run, case, standards)
        sentence = verdict.sentence
        if verdict.status == Status.NEW and not sentence and standards.baseline is not None:
            sentence = messages.new(case.id)
        failing = [found for found in verdict.messages if not found.status.passes]
        others = tuple(f"{found.status}: {found.what}" for found in failing[1:])
        new = [found for found in verdict.findings if found.status == verdict.status == Status.NEW]
        doubts = [found for found in verdict.messages if found.status == verdict.status]
        advised = next(
            ((f.advice, f.command) for f in doubts if f.status.warns and f.advice and f.command),
            None,
        )
        yield JudgedCase(
            id=case.id,
            status=verdict.status,
            sentence=sentence,
            others=others,
            # Of a case without a baseline, the finding has nothing more to say.
            about_new=tuple(found.command or Accept(job=run.session.main_job) for found in new),
            advised=advised,
        )


def judged(run: Run, case: CaseRecord, standards: Standards) -> Verdict:
    """The verdict that the case's own test would have reached with these standards."""
    baseline = standards.baseline.cases.get(case.key) if standards.baseline else None
    question = Question(
        measured=case.measurement,
        reference=case.compared_with,
        tolerance=case.tolerance,
        baseline=baseline,
        baseline_name=standards.name,
        folder=standards.store.shown(standards.store.folder),
        portable=standards.portable.get(case.id, {}),
        card=run.machine.card,
        versions=run.machine.versions,
        image_only=case.image_only,
        workload=case.workload,
        job=run.session.main_job,
        had_no_accepted_image=_had_no_accepted_image(case, standards.store),
    )
    verdict, drift = judge(question), run.drift_of(case)
    if asks_for_drift(verdict) and not question.is_reference and drift and drift.significant:
        verdict = judge(replace(question, drift=drift.ratio))
    return Verdict(findings=(*verdict.findings, *_counted(run, case, standards, question)))


def _had_no_accepted_image(case: CaseRecord, store: BaselineStore) -> bool:
    """One that was accepted after the run, or lies where the run did not look."""
    seen = case.measurement
    return case.is_reference and seen.image_distance is None and store.has_image(seen)


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """What a run's JSON says its code asks for: how much, and not where."""

    counters: Mapping[str, Count]

    def where(self) -> dict[str, dict[str, Count]]:
        return {}

    def sites(self) -> dict[str, dict[structure_verdicts.Site, Count]]:
        return {}


def _counted(run: Run, case: CaseRecord, standards: Standards, question: Question) -> list[Finding]:
    was, id, store = standards.counted(run, case), case.id, standards.store
    if was is None:
        return []
    counters = {n: c for n, c in question.measured.counters.items() if n in COUNTERS}
    if not counters:
        return [structure_verdicts.uncounted(id)]
    return structure_verdicts.judge(
        id,
        _Counts(counters=counters),
        was,
        steps=case.measurement.steps,
        versions={n: version.split("+")[0] for n, version in run.machine.versions.items()},
        rerun=question.rerun,
        accept=accept_structure(question.job, case.measurement.model),
        file=store.shown(store.operators_path(case.measurement.workload)),
        python_calls=question.measured.counters.get(PYTHON_CALLS.field),
    )


def _untimed(run: Run, standards: Standards) -> Iterator[JudgedCase]:
    for case in run.lost(standards.baseline.cases if standards.baseline else ()):
        said = f"{case.id}: {case.sentence.removeprefix(f'{case.id}: ')}"
        # What is missing says of itself which case it is.
        said = case.sentence if case.sentence.startswith(f"{case.id} ") else said
        yield JudgedCase(id=case.id, status=case.status, sentence=f"{case.status}: {said}")


# What follows


def _unjudged(run: Run, standards: Standards) -> str | None:
    """Why this run proves nothing even though nothing in it is wrong; None if it does."""
    if not run.cases:
        return messages.nothing_measured(run.path)
    timed = [case for case in run.cases.values() if not case.image_only]
    if not timed or any(standards.knows(case) for case in timed):
        return None
    if any(standards.counted(run, case) for case in timed):
        # On a CPU: speed is any CPU's own, what the code asks for is not.
        return None
    if standards.baseline is None:
        return messages.no_baseline(run.machine.name)
    return messages.unknown_cases(standards.name, timed[0].measurement.weights)


def _closing(run: Run, standards: Standards, rows: list[JudgedCase]) -> Iterator[str]:
    statuses = [row.status for row in rows]
    yield messages.totals(
        len(rows),
        held=sum(s == Status.SAME or s.improves for s in statuses),
        failed=sum(not s.passes and s != Status.MISSING for s in statuses),
        doubtful=sum(s.warns for s in statuses),
        new=statuses.count(Status.NEW),
        skipped=statuses.count(Status.SKIPPED),
        missing=statuses.count(Status.MISSING),
        machine=run.machine.name,
        file=standards.name,
    )
    yield from drift_lines(run.session, all_of=False)
    if standards.baseline is None:
        yield messages.no_file(standards.name)
    if run.session.narrowed:
        yield messages.NARROWED
    if run.session.shard:
        shard = f"{run.session.shard.index}/{run.session.shard.count}"
        yield messages.shard(shard)
    failed = [row.id for row in rows if not row.status.passes and row.status != Status.MISSING]
    if failed:
        yield messages.next_step(Rerun(job=run.session.main_job).of(*failed))
    elif Status.MISSING in statuses:
        yield messages.next_step(Accept(job=run.session.main_job).of(), RESTORE)
    elif advised := next((row.advised for row in rows if row.advised), None):
        advice, command = advised
        own = [row.id for row in rows if row.advised == advised]
        yield messages.next_step(command.of(*own), advice)
    elif Status.NEW in statuses:
        yield _about_new(rows)


def _about_new(rows: list[JudgedCase]) -> str:
    """What to do about new cases: accept what is not accepted yet, else run them again."""
    commands = [command for row in rows for command in row.about_new]
    accepting = [command for command in commands if not isinstance(command, Rerun)]
    if accepting:
        # Accepting runs accepts new images with them.
        whole = next((one for one in accepting if isinstance(one, Accept)), accepting[0])
        return messages.next_step(whole.of(), messages.ACCEPT_NEW)
    return messages.next_step(commands[0].of(*(row.id for row in rows if row.about_new)))
