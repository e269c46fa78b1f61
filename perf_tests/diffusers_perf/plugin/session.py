"""What a session knows once it has one of our tests; records its cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from msgspec import to_builtins

from diffusers_perf import models
from diffusers_perf.catalog import discovery
from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.discovery import Project
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.registry import in_order
from diffusers_perf.catalog.status import Status
from diffusers_perf.catalog.workload import Scale
from diffusers_perf.ending import Interruption, renew
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.measurement.failing import CaseError, is_out_of_memory
from diffusers_perf.measurement.loading import Load
from diffusers_perf.measurement.machine import this_machine, with_threads_for
from diffusers_perf.measurement.measuring import digest
from diffusers_perf.measurement.pipelines import Source
from diffusers_perf.messages import plugin as messages
from diffusers_perf.messages.common import OUT_OF_MEMORY
from diffusers_perf.plugin.crash import crash
from diffusers_perf.plugin.judging import Judging
from diffusers_perf.plugin.options import QUICK_ROUNDS, ROUNDS
from diffusers_perf.plugin.room import refuse_unwritable
from diffusers_perf.plugin.screen import Progress, ShownCase, outcome
from diffusers_perf.plugin.selection import main_job
from diffusers_perf.records.missing import Untimed
from diffusers_perf.records.run import KEY, CaseFinding, CaseRecord, Reference
from diffusers_perf.records.store import BaselineStore

if TYPE_CHECKING:
    from diffusers_perf.records.baselines import Published
    from diffusers_perf.records.measurement import Measurement


@dataclass(kw_only=True)
class PerfSession:
    """What one session of the main job knows."""

    judging: Judging
    project: Project
    published: Published
    progress: Progress
    interruption: Interruption
    shows_traces: bool = False
    """Whether pytest was asked for whole tracebacks."""
    rows: list[ShownCase] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """What the closing summary says. What failed a test stands in pytest's own section."""

    left_out: set[str] = field(default_factory=set)
    """Ids of cases that were skipped for an optional package that is not installed."""

    expected: list[str] = field(default_factory=list)
    """Ids of the cases that this session is to run."""

    missing: list[str] = field(default_factory=list)
    """Ids of the cases that the baseline knows and that this session lost."""

    not_selected: list[str] = field(default_factory=list)
    """Ids of the declared cases that were not selected: other suites', above all."""

    dealt: list[str] = field(default_factory=list)
    """Ids of the cases that all shards together run, if this session is one."""

    unsaved: str = ""
    """Why the run's JSON could not be written, if it could not."""

    tests_s: dict[str, float] = field(default_factory=dict)
    """By id, how long the tests of the cases took."""

    harness_version: str = field(default_factory=digest)
    """Version of the measuring code, from before anything is measured."""

    runs_shared: bool = False
    """Whether a test file runs the cases that are declared for all."""

    is_all_elsewhere: bool = False
    """Whether benchmarks were asked for and no declared case runs here."""

    @property
    def bench(self) -> Bench:
        return self.judging.bench

    @property
    def cases(self) -> list[Case]:
        """All that is declared for this model, in every test file that was collected."""
        return self._for_this_model(self.project.cases)

    @property
    def scale(self) -> Scale:
        """``small`` if all workloads of the session are."""
        return self.bench.sources.scale_of(case.workload for case in self.cases)

    @property
    def elsewhere(self) -> list[str]:
        """The models of declared cases that do not run here."""
        cases = (c for c in self.project.cases if not self.bench.sources.runs(c.workload))
        return [*dict.fromkeys(case.workload.model for case in cases)]

    def begin(self, cases: Sequence[Case], *, imports: Sequence[Load]) -> None:
        """Get ready for the cases that were collected; `imports` is what importing took."""
        self.expected = [case.id for case in cases]
        self.progress.total = len(cases)
        self.bench.imports = imports
        # Now that every test file's workloads are known, and not those alone that all files share.
        self.bench.machine = with_threads_for(self.bench.machine, self.scale)

    @property
    def sources(self) -> list[Source]:
        """Of the cases that this session runs, as far as they can be opened."""
        found: dict[str, Source] = {}
        for case in self.cases:
            if case.id in self.expected:
                with suppress(Refusal):
                    source = self.bench.sources.of(case.workload)
                    found[source.name] = source
        return list(found.values())

    def cases_of(self, module: ModuleType) -> list[Case]:
        """The cases that this test file runs. `Refusal` for a mistake in it."""
        catalog = self.project.add(module)
        self.runs_shared |= catalog is self.project.shared
        if not catalog.cases:
            raise Refusal(messages.no_cases(module.__name__))
        return self._for_this_model(catalog.cases)

    def _for_this_model(self, cases: Sequence[Case]) -> list[Case]:
        fitting = in_order(case for case in cases if self.bench.sources.runs(case.workload))
        return [case for case in fitting if not (self.bench.quick and case.image_only)]

    @property
    def durations_s(self) -> dict[str, float]:
        """By id, how long each test took, or measuring a reference that has none."""
        return {**self.judging.references_s, **self.tests_s}

    @property
    def untimed(self) -> list[Untimed]:
        """The cases that gave no measurement."""
        return [
            Untimed(
                id=row.case.id,
                status=row.status,
                sentence=row.reason,
                by_choice=row.case.id in self.left_out,
            )
            for row in self.rows
            if row.measured is None
        ]

    @contextmanager
    def recording(self, case: Case) -> Iterator[None]:
        """Whatever goes wrong in here with a case is on record, and fails its test."""
        self.progress.at = None
        failure: tuple[Status, str] | None = None
        hint = ""
        try:
            with self.interruption.not_an_error():
                yield
        except CaseError as error:
            if error.status is Status.SKIPPED:
                self.judging.lose(self.progress.at, error.status, str(error))
                self.skip(case, str(error))
            failure = error.status, str(error)
        except Exception as error:
            if is_out_of_memory(error):
                # A traceback would not fit into memory either.
                failure = Status.ERROR, OUT_OF_MEMORY
            elif said := self.crash(case, error):
                failure, hint = (Status.ERROR, said), messages.FULL_TRACE
            else:
                # Not ours to put into a sentence: recorded, and shown as pytest shows it.
                self._record(case, Status.ERROR, f"{type(error).__name__}: {error}")
                raise
        if failure is not None:
            self._record(case, *failure)
            # The sentence says it; pytest would also show what it came from.
            status, text = failure
            raise pytest.fail.Exception(f"{status}: {text}{hint}", pytrace=False) from None

    def crash(self, case: Case, error: Exception) -> str:
        """What a pipeline raised, in a sentence that names the case that was under way; empty if
        the traceback is to be shown.
        """
        said = "" if self.shows_traces else crash(error)
        return said and f"{(self.progress.at or case).id}: {said}"

    def skip(self, case: Case, reason: str) -> NoReturn:
        """Record why the case cannot run, and skip its test."""
        row = ShownCase(
            case=case, measured=None, reference=None, status=Status.SKIPPED, reason=reason
        )
        self.rows.append(row)
        self.progress.finished(case, messages.skipped(reason))
        pytest.skip(reason)

    def _record(self, case: Case, status: Status, text: str) -> None:
        self.judging.lose(self.progress.at, status, text)
        row = ShownCase(case=case, measured=None, reference=None, status=status, reason=text)
        self.rows.append(row)
        self.progress.finished(case, outcome(row))

    def judged(
        self,
        case: Case,
        verdict: Verdict,
        *,
        measured: Measurement,
        reference: Measurement | None,
    ) -> dict[str, Any]:
        """Record a case's verdict; returns what stands in the benchmark's `extra_info`."""
        row = ShownCase(case=case, measured=measured, reference=reference, status=verdict.status)
        self.rows.append(row)
        if verdict.passes:
            self.findings += verdict.messages
        self.progress.finished(case, outcome(row))
        record = CaseRecord(
            measurement=measured,
            reference=Reference.of(reference) if reference else None,
            status=verdict.status,
            sentence=verdict.sentence,
            others=tuple(
                CaseFinding(status=finding.status, sentence=finding.sentence)
                for finding in verdict.messages
                if finding.sentence != verdict.sentence
            ),
            tolerance=case.tolerance_on(self.bench.sources.of(case.workload).kind),
            workload=case.workload.as_json(),
            stack={optimization.name: optimization.line for optimization in case.stack},
            image_only=case.image_only,
            # As it is now, which can have excused this case.
            reference_drift=self.judging.drift.get(case.workload.name),
        )
        return {KEY: to_builtins(record)}


class Uncaptured:
    """pytest's terminal, also while a test's own output is captured."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        # Either can be turned off with -p no:NAME.
        self._uncaptured: Any = capture.global_and_fixture_disabled if capture else nullcontext
        self.isatty: bool = self._reporter is not None and self._reporter.isatty

    def line(self, text: str) -> None:
        """A line of its own."""
        if self._reporter is None:
            return
        with self._uncaptured():
            self._reporter.ensure_newline()
            self._reporter.write_line(text)

    def over(self, text: str) -> None:
        """Text from the start of the line, over what stands there; on a terminal alone."""
        with self._uncaptured():
            self._reporter.write(f"\r{text}", flush=True)


def start(config: pytest.Config) -> PerfSession:
    """The session of this command line. `pytest.UsageError` for bad input."""
    # pytest-xdist's workers have no `dist`, and `workerinput` in its place.
    if config.getoption("benchmark_disable") or hasattr(config, "workerinput"):
        raise pytest.UsageError(messages.IN_ONE_PROCESS)
    if config.pluginmanager.get_plugin("pytest-benchmark") is None:
        raise pytest.UsageError(messages.NO_BENCHMARK)
    quick: bool = config.getoption("quick")
    progress = Progress(terminal=Uncaptured(config), total=0)
    interruption = Interruption()

    def say(case: Case, what: str) -> None:
        renew()
        interruption.raise_if_it_came()
        progress.stage(case, what)

    report: Path | None = config.getoption("benchmark_json")
    if report is not None and not report.name:
        raise pytest.UsageError(messages.NO_JSON)
    given: str | None = config.getoption("baselines")
    configured = config.rootpath / config.getini("perf_baselines")
    # From the working directory, as every command takes the option.
    store = BaselineStore(config.invocation_params.dir / given if given else configured)
    try:
        shared = discovery.declared_in(*config.getini("perf_declarations"))
        machine = this_machine(config.getoption("device"))
        model: str | None = config.getoption("model")
        # An empty one is a variable that is not set, not a default.
        sources = models.Sources(device=machine.device, model=model)
        scale = sources.scale_of(case.workload for case in shared.cases)
        bench = Bench(
            sources=sources,
            machine=machine,
            rounds=config.getoption("rounds") or (QUICK_ROUNDS if quick else ROUNDS),
            quick=quick,
            options=models.options_for(machine.device, model),
            say=say,
            images_folder=report and report.with_name(f"{report.stem}-images"),
            store=store,
        )
        judging = Judging(
            bench=bench,
            job=main_job(config, bench.options),
            baseline=store.load_machine(machine.slug),
            portable=store.load_portable(scale=scale, device=machine.device),
            operators=store.load_operators(),
        )
        published = store.load_published()
    except Refusal as error:
        raise pytest.UsageError(str(error)) from None
    if not config.option.collectonly:
        refuse_unwritable(config)
    return PerfSession(
        judging=judging,
        project=Project(shared=shared),
        published=published,
        progress=progress,
        interruption=interruption,
        # An option of pytest's terminal plugin, which may be off.
        shows_traces=config.getoption("fulltrace", False),
    )
