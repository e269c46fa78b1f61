"""pytest glue: options, fixtures and hooks. Nothing is measured or judged in here."""

from __future__ import annotations

import json
import signal
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import pytest

from diffusers_perf.catalog.declarations import Case, Suite, suites_of
from diffusers_perf.catalog.status import Status
from diffusers_perf.measurement.measuring import digest
from diffusers_perf.measurement.packages import not_installed
from diffusers_perf.plugin.screen import (
    Progress,
    Row,
    claims,
    closing_line,
    closing_table,
    notes,
    outcome,
)
from diffusers_perf.records.records import write_whole
from diffusers_perf.records.runs import Untimed, missing

if TYPE_CHECKING:
    from diffusers_perf.judge.verdicts import Verdict
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.records.baselines import Published
    from diffusers_perf.records.records import Measurement

PACKAGE = Path(__file__).parents[2]
TESTS_OF_OUR_OWN = (PACKAGE / "tests", PACKAGE / "training")
"""Folders with tests of this repository and none of the main job."""

ROUNDS = 5
QUICK_ROUNDS = 2
DEFAULT: Suite = "guide"
"""What runs where nobody asks for anything by name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("perf_tests", "performance of Stable Diffusion inference")
    group.addoption(
        "--device",
        choices=("cuda", "cpu"),
        help="where to run; default: cuda where there is a GPU. Name it in CI, so that a broken "
        "runner cannot fall back to the CPU and be green",
    )
    group.addoption(
        "--model",
        metavar="MODEL",
        help="sd15 (seeded weights, default on cuda), embedded (small and trained, default on "
        "a CPU), small (its shape with seeded weights), a folder in diffusers' format, or a Hub "
        "id",
    )
    group.addoption(
        "--rounds",
        type=_positive,
        metavar="N",
        help=f"timed rounds a case (default: {ROUNDS}; with --quick {QUICK_ROUNDS})",
    )
    group.addoption(
        "--quick",
        action="store_true",
        help="one short warm-up, few rounds, no roofline, no image that is only to be looked at, "
        "the reference not repeated: for one of the processes that `python -m ci ab` compares",
    )
    group.addoption(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="run the I-th of N nearly equal parts of the cases, each on a GPU of its own; "
        "`python -m ci merge` joins the runs",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is no number of rounds: it takes 1 or more")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ArgumentTypeError(f"{text} is no shard: it takes I/N, such as 1/3")
    index, of = int(parts[0]), int(parts[1])
    if not 1 <= index <= of:
        raise ArgumentTypeError(f"{text} is no shard: I goes from 1 to N")
    return index, of


@dataclass(kw_only=True)
class PerfSession:
    """What one session of the main job knows."""

    bench: Bench
    cases: list[Case]
    published: Published
    progress: Progress
    rows: list[Row] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    """Verdicts' full texts, by case id."""

    left_out: set[str] = field(default_factory=set)
    """Ids of cases that were skipped for an optional package that is not installed."""

    expected: list[str] = field(default_factory=list)
    """Ids of the cases that this session is to run."""

    missing: list[str] = field(default_factory=list)
    """Ids of the cases that the baseline knows and that this session lost."""

    not_asked: list[str] = field(default_factory=list)
    """Ids of the cases that are declared and were not asked for: other suites', above all."""

    dealt: list[str] = field(default_factory=list)
    """Ids of the cases that all shards together run, if this session is one."""

    unsaved: str = ""
    """Why the run's JSON could not be written, if it could not."""

    measuring: str = field(default_factory=digest)
    """Version of the measuring code, from before anything is measured."""

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
        from diffusers_perf.measurement.bench import CaseError

        try:
            yield
        except CaseError as error:
            self._record(case, error.status, str(error))
            # The sentence says it; pytest would show what it came from besides.
            failed = pytest.fail.Exception(f"{error.status}: {error}", pytrace=False)
            raise failed from None
        except Exception as error:
            # Not ours to put into a sentence: recorded, and shown as pytest shows it.
            self._record(case, Status.ERROR, f"{type(error).__name__}: {error}")
            raise

    def _record(self, case: Case, status: Status, text: str) -> None:
        row = Row(case=case, measured=None, reference=None, status=status, reason=text)
        self.rows.append(row)
        self.told[case.id] = f"{status}: {text}"
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
        row = Row(case=case, measured=measured, reference=reference, status=verdict.status)
        self.rows.append(row)
        if verdict.text():
            self.told[case.id] = verdict.text()
        self.progress.finished(case, outcome(row))
        return measured.as_json(reference=reference) | {
            "verdict": verdict.status,
            "sentence": verdict.sentence,
            "image_only": case.image_only,
            "tolerance": (
                asdict(tolerance)
                if (tolerance := case.tolerance_on(self.bench.source.kind))
                else None
            ),
            "generates": asdict(case.workload),
            "stack": {optimization.name: optimization.line for optimization in case.stack},
            # As it is now, which can have excused this case.
            "reference_drift": (
                asdict(drift) if (drift := self.bench.drift.get(case.workload.name)) else None
            ),
        }


class Uncaptured:
    """pytest's terminal, also while a test's own output is captured."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._capture: Any = config.pluginmanager.get_plugin("capturemanager")
        self.isatty: bool = self._reporter is not None and self._reporter.isatty

    def line(self, text: str) -> None:
        """A line of its own."""
        with self._capture.global_and_fixture_disabled():
            self._reporter.ensure_newline()
            self._reporter.write_line(text)

    def over(self, text: str) -> None:
        """Text from the start of the line, over what stands there."""
        with self._capture.global_and_fixture_disabled():
            self._reporter.write(f"\r{text}", flush=True)


PERF_SESSION = pytest.StashKey[PerfSession]()


def perf_session_of(config: pytest.Config) -> PerfSession:
    """The session's perf, made when it is first asked for. `pytest.UsageError` for bad input."""
    if PERF_SESSION in config.stash:
        return config.stash[PERF_SESSION]
    if config.getoption("benchmark_disable") or config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "perf_tests times its cases: run it in one process and without --benchmark-disable "
            "(-n starts several)"
        )
    # Here, since they import torch: the unit tests of this repository start without it.
    from diffusers_perf import models
    from diffusers_perf.catalog.declarations import cases_for
    from diffusers_perf.catalog.loading import BadDeclaration, declare
    from diffusers_perf.judge import structure_verdicts
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.measurement.machine import BadDevice, this_machine, with_threads_for
    from diffusers_perf.records import baselines

    quick: bool = config.getoption("quick")
    progress = Progress(terminal=Uncaptured(config), total=0)
    report: Path | None = config.getoption("benchmark_json")
    if report is not None and not report.name:
        raise pytest.UsageError("--benchmark-json: no file is named")
    try:
        declare("perf_tests.cases")
        machine = this_machine(config.getoption("device"))
        model: str | None = config.getoption("model")
        # An empty one is a variable that is not set, and nobody's default.
        model = models.default_model(machine.device) if model is None else model
        source = models.open_source(model)
        machine = with_threads_for(machine, source.scale)
        bench = Bench(
            source=source,
            machine=machine,
            rounds=config.getoption("rounds") or (QUICK_ROUNDS if quick else ROUNDS),
            quick=quick,
            options=models.options_for(machine.device, model),
            say=progress.stage,
            images_folder=report and report.with_name(f"{report.stem}-images"),
            baseline=baselines.load_machine(machine.slug),
            portable=baselines.load_portable(scale=source.scale, device=machine.device),
            structures=structure_verdicts.load() or {},
        )
        published = baselines.load_published()
    except (BadDeclaration, BadDevice, models.BadModel, baselines.BadBaseline) as error:
        raise pytest.UsageError(str(error)) from None
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            raise pytest.UsageError(sentence) from None
        raise
    if report is not None and not config.option.collectonly:
        _make_room(report)
    cases = [case for case in cases_for(source.scale) if not (quick and case.image_only)]
    config.stash[PERF_SESSION] = PerfSession(
        bench=bench, cases=cases, published=published, progress=progress
    )
    return config.stash[PERF_SESSION]


# Collecting


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The main job skips what has no benchmark; four hundred skipped unit tests are no news."""
    ours = collection_path in TESTS_OF_OUR_OWN
    return True if ours and config.getoption("benchmark_only") else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse bad input in one sentence before anything is collected."""
    config = session.config
    asked = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    if config.getoption("benchmark_only") or not all(
        any(folder in (path, *path.parents) for folder in TESTS_OF_OUR_OWN) for path in asked
    ):
        perf_session_of(config)
        # Whoever ends a job in CI ends it with this; what was measured is written all the same.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)

        def restore() -> None:
            signal.signal(signal.SIGTERM, before)

        config.add_cleanup(restore)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = perf_session_of(metafunc.config).cases
        metafunc.parametrize(
            "case",
            [
                pytest.param(
                    case,
                    id=case.id,
                    marks=[getattr(pytest.mark, suite) for suite in suites_of(case, cases)],
                )
                for case in cases
            ],
        )


def _make_room(report: Path) -> None:
    """See now, and not after an hour, that the run's JSON and images can be written."""
    new = not report.exists()
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        with report.open("ab"):
            pass
        if new:
            report.unlink()
        report.with_name(f"{report.stem}-images").mkdir(exist_ok=True)
    except OSError as error:
        raise pytest.UsageError(
            f"--benchmark-json {report}: cannot be written ({error.strerror})"
        ) from None


def pytest_collection_finish(session: pytest.Session) -> None:
    if PERF_SESSION in session.config.stash:
        perf = session.config.stash[PERF_SESSION]
        perf.expected = [case.id for case in _cases(session.items)]
        perf.progress.total = len(perf.expected)
        if perf.progress.total == len(session.items):
            # Each of our lines names its case; the file's name before every one would say less.
            reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
            reporter.showfspath = False


def pytest_report_header(config: pytest.Config) -> str | None:
    if PERF_SESSION not in config.stash:
        return None
    bench = config.stash[PERF_SESSION].bench
    machine, source = bench.machine, bench.source
    accepted = "accepted" if bench.baseline else "none yet, so speed is shown and not judged"
    return (
        f"perf_tests: {source.name} ({source.weights}) on {machine.name}, torch {machine.torch}, "
        f"diffusers {machine.diffusers}, {machine.threads} threads; baseline: {accepted}"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the guide's cases where none were asked for by name, and of these this shard's."""
    shard: tuple[int, int] | None = config.getoption("shard")
    if not _cases(items):
        return
    if not _named(config) and not config.getoption("markexpr", ""):
        kept = [i for i in items if _case_of(i) is None or i.get_closest_marker(DEFAULT)]
        _keep(items, config, kept)
    perf = perf_session_of(config)
    cases = _cases(items)
    perf.not_asked = [case.id for case in perf.cases if case not in cases]
    if shard is None:
        return
    index, of = shard
    if of > len(cases):
        raise pytest.UsageError(f"--shard {index}/{of}: there are {len(cases)} cases to share")
    perf.dealt = [case.id for case in cases]
    # Neighbours stay together, so that few shards measure the same reference.
    first, last = ((len(cases) * part) // of for part in (index - 1, index))
    own = set(perf.dealt[first:last])
    _keep(
        items,
        config,
        [item for item in items if (case := _case_of(item)) is not None and case.id in own],
    )


def _keep(items: list[pytest.Item], config: pytest.Config, kept: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _cases(items: list[pytest.Item]) -> list[Case]:
    return [case for item in items if (case := _case_of(item)) is not None]


def _case_of(item: pytest.Item | None) -> Case | None:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    case = item.callspec.params.get("case")
    return case if isinstance(case, Case) else None


# Running


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip before any fixture is asked for: pytest-benchmark warns of one that was not used."""
    case = _case_of(item)
    if case is None:
        return
    perf = perf_session_of(item.config)
    lack = perf.bench.lacks(case.stack)
    if lack is not None:
        perf.rows.append(
            Row(case=case, measured=None, reference=None, status=Status.SKIPPED, reason=lack.reason)
        )
        if lack.by_choice:
            perf.left_out.add(case.id)
        perf.progress.finished(case, f"skipped: {lack.reason}")
        pytest.skip(lack.reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """An older run must not be taken for this one should this one end with nothing."""
    report: Path | None = session.config.getoption("benchmark_json")
    writes = PERF_SESSION in session.config.stash and not session.config.option.collectonly
    if writes and report and session.items and report.is_file():
        report.unlink()


@pytest.fixture
def perf(request: pytest.FixtureRequest) -> PerfSession:
    """The session's perf."""
    return perf_session_of(request.config)


@pytest.fixture
def reference(case: Case, perf: PerfSession) -> Measurement | None:
    """What the case is compared with, measured now if it was not before."""
    with perf.recording(case):
        return perf.bench.reference_of(case, perf.cases)


@pytest.fixture
def bench(case: Case, reference: Measurement | None, perf: PerfSession) -> Iterator[Bench]:
    """The bench with the case's pipeline standing on it, alone on the device and proven."""
    with perf.recording(case):
        perf.bench.open(case)
    yield perf.bench
    perf.bench.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Repeat a workload's reference after its last case, so that drift is seen."""
    yield
    case, following = _case_of(item), _case_of(nextitem)
    if item.config.getoption("quick"):
        return  # whoever compares many processes sees a reference that drifts between them
    if case is None or (following is not None and following.workload == case.workload):
        return
    from diffusers_perf.measurement.bench import CaseError

    perf = perf_session_of(item.config)
    try:
        perf.bench.repeat_reference(case, perf.cases)
    except CaseError as error:
        perf.told[f"{case.workload.name} repeated"] = f"invalid: not timed again: {error}"


# Telling


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Our own line a case says more than a dot."""
    if "test_generation[" not in report.nodeid:
        return None
    if report.passed and report.when != "call":
        return None
    outcome = "error" if report.failed and report.when != "call" else report.outcome
    return outcome, "", outcome.upper()


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    if PERF_SESSION in config.stash:
        machine_info["perf_tests"] = config.stash[PERF_SESSION].bench.machine.as_json()


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if PERF_SESSION not in config.stash:
        return
    perf = config.stash[PERF_SESSION]
    output_json["perf_tests"] = {
        "schema": 1,
        "quick": config.getoption("quick"),
        "options": perf.bench.options,
        "measuring": perf.measuring,
        "scale": perf.bench.source.scale,
        "expected": perf.expected,
        "narrowed": _narrowed(config),
        "not_asked": perf.not_asked,
        "shard": _shard_json(config, perf),
        "reference_drift": {name: asdict(drift) for name, drift in perf.bench.drift.items()},
        "not_timed": [
            {
                "case": row.case.name,
                "workload": row.case.workload.name,
                "verdict": row.status,
                "sentence": row.reason,
                "by_choice": row.case.id in perf.left_out,
            }
            for row in perf.rows
            if row.measured is None
        ],
    }


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Settle what the session as a whole shows, before pytest-benchmark writes its JSON."""
    if PERF_SESSION in session.config.stash:
        perf = session.config.stash[PERF_SESSION]
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            _note_interruption(perf)
        elif perf.rows and exitstatus in (0, 1):
            _fail_missing(session, perf)
        if perf.rows:
            # Where pytest-benchmark's own hooks keep it; pytest's declares no such thing.
            benchmarks: Any = session.config._benchmarksession  # type: ignore[attr-defined]
            _save_whole(benchmarks, session, perf)
            _write_what_was_not_timed(benchmarks, session.config)
    yield


def _save_whole(benchmarks: Any, session: pytest.Session, perf: PerfSession) -> None:
    """Have pytest-benchmark write its JSON wholly or not at all, and the verdicts told all the same
    where the disk is full.
    """

    def save_json(content: dict[str, Any]) -> None:
        try:
            write_whole(Path(benchmarks.json), json.dumps(content, indent=4, default=str))
            benchmarks.logger.info(f"wrote {benchmarks.json}", purple=True)
        except OSError as error:
            perf.unsaved = f"--benchmark-json {benchmarks.json}: {error.strerror}"
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    benchmarks.save_json = save_json


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
        reason = "interrupted before it was through"
        perf.rows.append(
            Row(case=case, measured=None, reference=None, status=Status.INVALID, reason=reason)
        )


def _fail_missing(session: pytest.Session, perf: PerfSession) -> None:
    """What the baseline knows and this run lost fails it, though no test does."""
    bench = perf.bench
    for lost in missing(
        bench.baseline.cases if bench.baseline else (),
        weights={f"{bench.source.name}/{bench.source.weights}"},
        measured=[row.case.id for row in perf.rows if row.measured is not None],
        untimed=perf.untimed,
        # What pytest ended early it says itself.
        expected=perf.expected if _finished(session) else (),
        whole=_asked_for_everything(session),
        not_asked=perf.not_asked,
    ):
        perf.told[lost.id] = (
            f"missing: {lost.sentence}\n"
            "  next      bring it back, or accept whole runs without it: python -m ci accept"
        )
        perf.missing.append(lost.id)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _finished(session: pytest.Session) -> bool:
    return not session.shouldstop and not session.shouldfail


def _asked_for_everything(session: pytest.Session) -> bool:
    sharded = session.config.getoption("shard") is not None
    return _finished(session) and not sharded and not _narrowed(session.config)


def _narrowed(config: pytest.Config) -> bool:
    """Were some cases asked for, or left out, by name?"""
    # lastfailed is absent where pytest's cache plugin is off.
    return _named(config) or any(config.getoption(name, None) for name in ("deselect", "lf"))


def _named(config: pytest.Config) -> bool:
    """Were some cases asked for by name?"""
    return bool(config.getoption("keyword")) or any(
        "::" in str(argument) for argument in config.args
    )


def _shard_json(config: pytest.Config, perf: PerfSession) -> dict[str, Any] | None:
    shard: tuple[int, int] | None = config.getoption("shard")
    return shard and {"index": shard[0], "of": shard[1], "cases": perf.dealt}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    if PERF_SESSION not in config.stash:
        return
    perf = config.stash[PERF_SESSION]
    asked = config.getoption("keyword") or config.getoption("markexpr")
    if asked and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        terminalreporter.write_line(
            f"no case of {perf.bench.source.name} matches; a GPU's and a CPU's differ: the same "
            "command with --collect-only and --model sd15 lists those of one, with --model "
            "embedded of the other"
        )
    if not perf.rows:
        return

    bench, write = perf.bench, terminalreporter.write_line
    # Elsewhere than on a terminal nothing is cut.
    width = get_terminal_size().columns if terminalreporter.isatty else 240
    terminalreporter.section("perf_tests")
    for text in perf.told.values():
        status = Status(text.split(":", 1)[0])
        # What failed a test stands above, in pytest's own section.
        if status.passes or status == Status.MISSING:
            write(text, red=status == Status.MISSING, yellow=status.warns)
    for row in perf.rows:
        if row.status == Status.SKIPPED:
            write(f"skipped: {row.case.id}: {row.reason}")
    for shown in closing_table(perf.rows, perf.published.cases, width=width):
        terminalreporter.write(shown.text.removesuffix(shown.verdict or ""))
        write(shown.verdict or "", **shown.colour)
    write("")
    in_table = {row.case.id for row in perf.rows}
    besides = [
        f"{case} {measured.latency_s:.3f} s"
        for case, measured in bench.measurements.items()
        if case not in in_table
    ]
    if besides:
        write(f"timed besides, as others are held to it: {', '.join(besides)}")
    for line in claims(perf.rows, perf.published.claims):
        write(line)
    for workload, drift in bench.drift.items():
        says = ": latencies of this run say little" if drift.significant else ""
        write(f"{workload}: {drift.text()}{says}", yellow=drift.significant)
    seen = [row.measured for row in perf.rows if row.measured and row.measured.observing_s]
    if seen:
        share = sum(m.observing_s for m in seen) / sum(sum(m.rounds_s) for m in seen)
        write(f"counting and profiling took {share:.0%} of what the timed rounds took")
    for note in notes(perf.rows):
        write(note)
    if bench.source.kind == "seeded":
        write("Images are of seeded weights: how close they are is about arithmetic.")
    write(f"{bench.source.name} ({bench.source.weights}) on {bench.machine.name}")
    if perf.unsaved:
        write(f"error: {perf.unsaved}; no run was written", red=True)
    write(closing_line(perf.rows, missing=perf.missing))
