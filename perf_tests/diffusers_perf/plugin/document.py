"""What a run's JSON says beside pytest-benchmark's numbers, and that it is written whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import to_builtins
from msgspec.structs import asdict

from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.ending import leave_lost_terminal
from diffusers_perf.judge.finding import Finding, Message
from diffusers_perf.judge.messages.commands import Accept
from diffusers_perf.judge.messages.run import RESTORE
from diffusers_perf.messages.plugin import INTERRUPTED
from diffusers_perf.plugin.collection import SESSION
from diffusers_perf.plugin.options import MARK, Part
from diffusers_perf.plugin.screen import ShownCase
from diffusers_perf.plugin.selection import is_narrowed, kept
from diffusers_perf.plugin.session import PerfSession
from diffusers_perf.records.files import as_json, write_whole
from diffusers_perf.records.missing import missing
from diffusers_perf.records.reading import run_of
from diffusers_perf.records.run import KEY, Session
from diffusers_perf.records.shards import Shard


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    if SESSION in config.stash:
        machine_info[KEY] = to_builtins(config.stash[SESSION].bench.machine)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if SESSION not in config.stash:
        return
    perf = config.stash[SESSION]
    session = Session(
        quick=config.getoption("quick"),
        **asdict(kept(config, perf.judging.job)),
        harness_version=perf.harness_version,
        scale=perf.scale,
        expected=tuple(perf.expected),
        narrowed=is_narrowed(config),
        not_selected=tuple(perf.not_selected),
        shard=_shard_of(config, perf),
        reference_drift=perf.judging.drift,
        not_timed_again=perf.judging.not_timed_again,
        not_timed=tuple(perf.untimed),
        durations_s=perf.durations_s,
    )
    output_json[KEY] = to_builtins(session)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Settle what the session as a whole shows, before pytest-benchmark writes its JSON."""
    leave_lost_terminal()
    perf = session.config.stash.get(SESSION, None)
    if perf is not None:
        # Describing the machine takes seconds, and a signal in them would lose everything.
        perf.interruption.hold_back()
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            _note_interruption(perf)
        elif perf.rows and exitstatus in (0, 1):
            _fail_missing(session, perf)
        elif exitstatus == pytest.ExitCode.OK and _is_all_elsewhere(session, perf):
            # As if none had been selected: a job that measures nothing is not to be green.
            perf.is_all_elsewhere = True
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
        if perf.rows:
            benchmarks: Any = session.config.pluginmanager.get_plugin("pytest-benchmark")
            _save_whole(benchmarks, session, perf)
            _write_what_was_not_timed(benchmarks, session.config)
    yield


def _is_all_elsewhere(session: pytest.Session, perf: PerfSession) -> bool:
    """Whether benchmarks are to run, and all that were collected are declared cases, of which none
    runs here.
    """
    runs, option = perf.bench.sources.runs, session.config.option
    return (
        option.benchmark_only
        and not option.collectonly
        and bool(perf.project.cases)
        and not any(runs(case.workload) for case in perf.project.cases)
        and all(item.get_closest_marker(MARK) for item in session.items)
    )


def _save_whole(benchmarks: Any, session: pytest.Session, perf: PerfSession) -> None:
    """Have pytest-benchmark write its JSON wholly or not at all, and only one that can be read; and
    the verdicts shown even if the disk is full, also where the run is saved beside others.
    """
    save_beside_others = benchmarks.storage.save

    def save_json(content: dict[str, Any]) -> None:
        path, text = Path(benchmarks.json), as_json(content, indent=4)
        try:
            run_of(msgspec.json.decode(text), path)
            write_whole(path, text)
            benchmarks.logger.info(f"wrote {path}", purple=True)
        except Refusal as error:
            unsaved(f"--benchmark-json {error}")
        except OSError as error:
            unsaved(f"--benchmark-json {path}: {error.strerror}")

    def save(content: dict[str, Any], name: str) -> None:
        try:
            save_beside_others(content, name)
        except OSError as error:
            unsaved(f"--benchmark-storage {benchmarks.storage}: {error.strerror}")

    def unsaved(reason: str) -> None:
        perf.unsaved = perf.unsaved or reason
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    benchmarks.save_json, benchmarks.storage.save = save_json, save


def _write_what_was_not_timed(benchmarks: Any, config: pytest.Config) -> None:
    """Where not one case was timed, pytest-benchmark writes no JSON, and a run that broke would be
    taken for one that never was.
    """
    if not benchmarks.json or benchmarks.benchmarks:
        return
    hook = config.hook
    commit = hook.pytest_benchmark_generate_commit_info(config=config)
    hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit)
    content = hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=[],
        include_data=True,
        machine_info=benchmarks.get_machine_info(),
        commit_info=commit,
    )
    hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=content)
    benchmarks.save_json(content)
    # It has nothing left to say of.
    benchmarks.json = None


def _note_interruption(perf: PerfSession) -> None:
    """Ctrl-C: the case under way, or the next one, is written as invalid; what was measured before
    it stays.
    """
    through = {row.case.id for row in perf.rows}
    under_way = [case for case in perf.cases if case.id in perf.expected]
    case = next((case for case in under_way if case.id not in through), None)
    if case is not None:
        perf.rows.append(
            ShownCase(
                case=case,
                measured=None,
                reference=None,
                status=Status.INVALID,
                reason=INTERRUPTED,
            )
        )


def _fail_missing(session: pytest.Session, perf: PerfSession) -> None:
    """What the baseline knows and this run lost fails it, though no test does."""
    baseline = perf.judging.baseline
    for lost in missing(
        baseline.cases if baseline else (),
        weights={f"{s.name}/{s.weights}" for s in perf.sources if s.weights},
        measured=[row.case.id for row in perf.rows if row.measured is not None],
        untimed=perf.untimed,
        # What pytest ended early it says itself.
        expected=perf.expected if _finished(session) else (),
        whole=_asked_for_everything(session),
        not_selected=perf.not_selected,
    ):
        message = Message(
            what=lost.sentence.removeprefix(f"{lost.id} "),
            advice=RESTORE,
            command=Accept(job=perf.judging.job),
        )
        perf.findings.append(Finding.of(Status.MISSING, Subject.CASE, lost.id, message))
        perf.missing.append(lost.id)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _finished(session: pytest.Session) -> bool:
    return not session.shouldstop and not session.shouldfail


def _asked_for_everything(session: pytest.Session) -> bool:
    sharded = session.config.getoption("shard") is not None
    return _finished(session) and not sharded and not is_narrowed(session.config)


def _shard_of(config: pytest.Config, perf: PerfSession) -> Shard | None:
    part: Part | None = config.getoption("shard")
    if part is None:
        return None
    return Shard(index=part.index, count=part.count, cases=tuple(perf.dealt))
