"""Before and after each case's test: signals, what cannot run here, and repeated references."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from logging import Handler, LogRecord
from pathlib import Path
from time import monotonic

import pytest

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.status import Status
from diffusers_perf.ending import Interruption, ended_by
from diffusers_perf.judge.finding import Finding, Message
from diffusers_perf.judge.messages.run import not_timed_again
from diffusers_perf.measurement.failing import CaseError, is_out_of_memory
from diffusers_perf.messages.common import OUT_OF_MEMORY
from diffusers_perf.messages.plugin import FULL_TRACE
from diffusers_perf.plugin.collection import SESSION
from diffusers_perf.plugin.crash import crash
from diffusers_perf.plugin.selection import case_of, cases_of


def pytest_collection_finish(session: pytest.Session) -> None:
    """A signal ends a run of our cases as Ctrl-C does, with what was measured. It ends any other
    run as it would without this plugin.
    """
    config = session.config
    if not cases_of(session.items) or config.option.collectonly:
        return
    interruption = config.stash[SESSION].interruption
    endings = ExitStack()
    endings.enter_context(ended_by(interruption))
    config.add_cleanup(endings.close)
    config.pluginmanager.register(Ending(interruption))


@dataclass(frozen=True)
class Ending:
    """Plugin of a session that runs our cases."""

    interruption: Interruption

    @pytest.hookimpl(tryfirst=True)
    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        """With --pdb a signal ends one case, and pytest goes on with the next."""
        if call.excinfo is not None and call.excinfo.errisinstance(KeyboardInterrupt):
            self.interruption.forget()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Leave pytest nothing that it could fail with before it ends the session."""
        # A job in CI that is cancelled gets a second signal soon after the first.
        self.interruption.hold_back()
        # pytest cannot show where Python knows no line, which is where a signal may come.
        excinfo.value.__suppress_context__ = True
        excinfo.traceback = excinfo.traceback.filter(
            lambda entry: entry._rawentry.tb_lineno is not None
        )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip before any fixture is asked for: pytest-benchmark warns of one that was not used."""
    case = case_of(item)
    if case is None:
        return
    perf = item.config.stash[SESSION]
    lack = perf.bench.lacks(case.stack, case.workload)
    if lack is not None:
        if lack.by_choice:
            perf.left_out.add(case.id)
        perf.skip(case, lack.reason)
    # Here, since collecting the test must not import torch.
    item.add_marker(pytest.mark.benchmark(timer=perf.bench.stopwatch.clock, disable_gc=True))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """An older run must not be taken for this one should this one end with nothing."""
    report: Path | None = session.config.getoption("benchmark_json")
    writes = not session.config.option.collectonly
    if writes and report and session.items and report.is_file():
        report.unlink()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note how long the case's test took, by which `fleet` plans its shards; log no trace in it."""
    case = case_of(item)
    if case is None:
        return (yield)
    perf = item.config.stash[SESSION]
    start, before = monotonic(), sum(perf.judging.references_s.values())
    try:
        with _torch_trace_is_not_logged(item.config):
            return (yield)
    finally:
        references_s = sum(perf.judging.references_s.values()) - before
        perf.tests_s[case.id] = max(0.0, monotonic() - start - references_s)


@contextmanager
def _torch_trace_is_not_logged(config: pytest.Config) -> Iterator[None]:
    """Keep torch.compile's trace out of pytest's logs. It is written for a file of torch's own: its
    records have no text, and pytest would hold thousands of them and show each in a failure.
    """
    # It can be turned off with -p no:logging.
    plugin = config.pluginmanager.get_plugin("logging-plugin")
    own = vars(plugin).values() if plugin else ()
    handlers = [value for value in own if isinstance(value, Handler)]

    def others(record: LogRecord) -> bool:
        return record.name != "torch.__trace"

    for handler in handlers:
        handler.addFilter(others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(others)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Repeat a workload's reference after its last case, so that drift is seen."""
    yield
    case, following = case_of(item), case_of(nextitem)
    if item.config.getoption("quick"):
        return  # whoever compares many processes sees a reference that drifts between them
    if case is None or (following is not None and following.workload == case.workload):
        return
    perf = item.config.stash[SESSION]
    why_not, workload = perf.judging.not_timed_again, case.workload.name
    name = f"{workload}-{REFERENCE}"
    try:
        with perf.interruption.not_an_error():
            perf.judging.repeat_reference(case, perf.cases)
    except Exception as error:
        why_not[workload] = _reason(error)
        if not isinstance(error, CaseError) and not is_out_of_memory(error):
            said = perf.crash(case, error)
            if not said:
                raise
            sentence = f"{Status.ERROR}: {said}{FULL_TRACE}"
            raise pytest.fail.Exception(sentence, pytrace=False) from None
        message = Message(what=not_timed_again(why_not[workload]))
        perf.findings.append(Finding.of(Status.INVALID, Subject.DRIFT, name, message))
    else:
        if why_not.pop(workload, None):
            # Another test, between cases of this workload, had it repeated too early.
            about = (Subject.DRIFT, name)
            perf.findings = [f for f in perf.findings if (f.metric, f.case) != about]


def _reason(error: Exception) -> str:
    """Why a reference could not be timed again, in a line."""
    if isinstance(error, CaseError):
        return str(error)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return crash(error) or " ".join(f"{type(error).__name__}: {error}".split())
