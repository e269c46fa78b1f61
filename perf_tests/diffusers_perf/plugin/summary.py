"""What the terminal shows: where the session runs, a line per case, and the closing table."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import TYPE_CHECKING

import pytest

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import texts
from diffusers_perf.plugin.collection import SESSION
from diffusers_perf.plugin.options import MARK
from diffusers_perf.plugin.screen import claims, closing_line, closing_table, notes

if TYPE_CHECKING:
    from diffusers_perf.measurement.pipelines import Source
    from diffusers_perf.plugin.session import PerfSession


def pytest_report_collectionfinish(config: pytest.Config) -> str | None:
    if SESSION not in config.stash:
        return None
    perf = config.stash[SESSION]
    machine = perf.bench.machine
    accepted = "accepted" if perf.judging.baseline else "none yet, so speed is shown and not judged"
    return (
        f"perf_tests: {_models(perf)} on {machine.name}, torch {machine.torch}, "
        f"diffusers {machine.diffusers}, {machine.threads} threads; baseline: {accepted}"
    )


def _models(perf: PerfSession) -> str:
    return ", ".join(map(_model, perf.sources)) or "no model"


def _model(source: Source) -> str:
    return f"{source.name} ({source.weights})" if source.weights else source.name


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
        terminalreporter.write_line(
            "no case that runs here matches; a GPU's and a CPU's differ: the same command with "
            "--collect-only and --model=sd15 lists those of one, with --model=embedded of the other"
        )
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
        if row.status == Status.SKIPPED:
            write(f"skipped: {row.case.id}: {row.reason}")
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
        write(f"also timed, as a reference: {', '.join(others)}")
    for line in claims(perf.rows, perf.published.claims):
        write(line)
    for workload, drift in perf.judging.drift.items():
        says = ": latencies of this run say little" if drift.significant else ""
        write(f"{workload}: {drift_text(drift)}{says}", yellow=drift.significant)
    seen = [row.measured for row in perf.rows if row.measured and row.measured.observing_s]
    if seen:
        share = sum(m.observing_s for m in seen) / sum(sum(m.rounds_s) for m in seen)
        write(f"counting and profiling took {share:.0%} of the time of the timed rounds")
    for note in notes(perf.rows):
        write(note)
    if any(source.kind == "seeded" for source in perf.sources):
        write("Images are of seeded weights: how close they are is about arithmetic.")
    write(f"{_models(perf)} on {bench.machine.name}")
    if perf.unsaved:
        write(f"error: {perf.unsaved}; no run was written", red=True)
    write(closing_line(perf.rows, missing=perf.missing))
