"""What the terminal shows: where the session runs, a line per case, and the closing table."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import TYPE_CHECKING

import pytest

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.claims import claims
from diffusers_perf.judge.finding import texts
from diffusers_perf.messages import plugin as messages
from diffusers_perf.messages.declarations import no_case_runs
from diffusers_perf.messages.report import SEEDED
from diffusers_perf.plugin.collection import SESSION
from diffusers_perf.plugin.options import MARK
from diffusers_perf.plugin.screen import closing_line, closing_table, notes

if TYPE_CHECKING:
    from diffusers_perf.measurement.pipelines import Source
    from diffusers_perf.plugin.session import PerfSession


def pytest_report_collectionfinish(config: pytest.Config) -> str | None:
    if SESSION not in config.stash:
        return None
    perf = config.stash[SESSION]
    machine = perf.bench.machine
    return messages.opening(
        _models(perf),
        machine.name,
        {"torch": machine.torch, "diffusers": machine.diffusers},
        threads=machine.threads,
        is_accepted=perf.judging.baseline is not None,
    )


def _models(perf: PerfSession) -> str:
    return ", ".join(map(_model, perf.sources)) or "no model"


def _model(source: Source) -> str:
    # Of seeded models alone.
    said = [source.weights, getattr(source, "stands_in", "")]
    inner = "; ".join(part for part in said if part)
    return f"{source.name} ({inner})" if inner else source.name


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Our own line per case says more than a dot."""
    # A collection that failed is reported here as well, without keywords.
    if MARK not in getattr(report, "keywords", ()):
        return None
    if report.passed and report.when != "call":
        return None
    outcome = "error" if report.failed and report.when != "call" else report.outcome
    return outcome, "", outcome.upper()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    if SESSION not in config.stash:
        return
    perf = config.stash[SESSION]
    asked = config.getoption("keyword") or config.getoption("markexpr")
    if asked and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        terminalreporter.write_line(messages.no_case_matches(perf.elsewhere))
        if config.getoption("markexpr"):
            terminalreporter.write_line(messages.suites_are(perf.project.suites))
    elif perf.is_all_elsewhere:
        model: str | None = config.getoption("model")
        of = perf.elsewhere
        said = no_case_runs(of, model) if model else messages.no_case_runs_here(of)
        terminalreporter.write_line(said, red=True)
    if not perf.rows:
        return

    from diffusers_perf.judge.drift import drift_text

    bench, write = perf.bench, terminalreporter.write_line
    # Elsewhere than on a terminal nothing is cut.
    width = get_terminal_size().columns if terminalreporter.isatty else 240
    terminalreporter.section("perf_tests")
    for status, text in texts(perf.findings):
        write(text, red=not status.passes, yellow=status.warns)
    for row in perf.rows:
        if row.status == Status.SKIPPED or row.reason == messages.INTERRUPTED:
            write(f"{row.status}: {row.case.id}: {row.reason}")
    for shown in closing_table(perf.rows, perf.published.cases, width=width):
        terminalreporter.write(shown.text.removesuffix(shown.verdict or ""))
        write(shown.verdict or "", **shown.colour)
    write("")
    in_table = {row.case.id for row in perf.rows}
    others = [
        f"{case} {measured.latency_s:.3f} s"
        for case, measured in bench.measurements.items()
        if case not in in_table
    ]
    if others:
        write(messages.also_timed(others))
    measured = [
        (row.measured, row.reference)
        for row in perf.rows
        if row.measured and not row.case.image_only
    ]
    for line in claims(measured, perf.published.claims):
        write(line)
    for workload, drift in perf.judging.drift.items():
        write(f"{workload}: {drift_text(drift)}", yellow=drift.significant)
    seen = [row.measured for row in perf.rows if row.measured and row.measured.observing_s]
    if seen:
        share = sum(m.observing_s for m in seen) / sum(sum(m.rounds_s) for m in seen)
        write(messages.observing(share))
    for note in notes(perf.rows):
        write(note)
    if any(source.kind == "seeded" for source in perf.sources):
        write(SEEDED)
    write(f"{_models(perf)} on {bench.machine.name}")
    if perf.unsaved:
        write(messages.unsaved(perf.unsaved), red=True)
    write(closing_line(perf.rows, missing=perf.missing))
