"""Which cases become tests: parametrization, suites and shards. Imports nothing heavy.

The plugin is loaded wherever it is installed, so its hooks act on tests with its marker alone, and
what needs torch is imported once such a test is collected.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from importlib import import_module
from itertools import count
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

import pytest

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.catalog.discovery import declares_cases
from diffusers_perf.catalog.mistakes import is_below
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.registry import suites_of
from diffusers_perf.measurement.loading import Importing, Load
from diffusers_perf.measurement.packages import not_installed, too_little_address_space
from diffusers_perf.messages import plugin as messages
from diffusers_perf.plugin import unimported
from diffusers_perf.plugin.options import MARK, Part
from diffusers_perf.plugin.selection import case_of, cases_of, is_named, is_whole
from diffusers_perf.records.files import read_bytes

if TYPE_CHECKING:
    from diffusers_perf.plugin.session import PerfSession

PARTS = tuple(f"diffusers_perf.plugin.{name}" for name in ("running", "document", "summary"))
"""Plugins of a session that has one of our tests."""
FIXTURES = {
    "perf_session": "diffusers_perf",
    "perf_reference": "diffusers_perf",
    "perf_bench": "diffusers_perf",
    "benchmark": "pytest_benchmark",
}
"""What the library's test asks for, and the package that it comes from."""

SESSION = pytest.StashKey["PerfSession"]()
REFUSED = pytest.StashKey[pytest.UsageError]()
"""Why the session's cases cannot be run: raised once collecting is over, since pytest would make a
traceback of an error that is raised before."""
REFUSED_ID = "refused"


IMPORTING = pytest.StashKey[Importing]()
"""What importing has taken the process: pytest, plugins, conftests, test files, libraries. Not in a
process's later sessions, which find all of it imported."""
_SESSIONS = count()


def pytest_sessionstart(session: pytest.Session) -> None:
    if next(_SESSIONS) == 0:
        session.config.stash[IMPORTING] = Importing()


# Several processes


def pytest_configure(config: pytest.Config) -> None:
    """`pytest.UsageError` for cases that pytest-xdist's processes would measure side by side.

    With ``--benchmark-only``, pytest-benchmark refuses them later on, for a reason of its own.
    """
    options = vars(config.option)
    is_shared = options.get("dist", "no") != "no"
    if is_shared and options.get("benchmark_only") and any(map(_names_us, _test_files(config))):
        raise pytest.UsageError(messages.IN_ONE_PROCESS)


def _names_us(path: Path) -> bool:
    # What cannot be read, pytest says.
    with suppress(OSError):
        return MARK.encode() in read_bytes(path)
    return False


def _test_files(config: pytest.Config) -> Iterator[Path]:
    """Those that pytest would collect, by their names: nothing is imported yet. A wrong guess
    changes which of two sentences refuses the run, and nothing else.
    """
    wanted, passed_over = (config.getini(name) for name in ("python_files", "norecursedirs"))
    for argument in config.args:
        path = config.invocation_params.dir / argument.partition("::")[0]
        if path.suffix == ".py":
            yield path
        for folder, below, files in os.walk(path):
            below[:] = [name for name in below if not _is_like(name, passed_over)]
            yield from (Path(folder, name) for name in files if _is_like(name, wanted))


def _is_like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: Sequence[str]) -> None:
    """Called where pytest-xdist deals the tests out: its processes can only fail one by one."""
    if any(name.endswith(f"[{REFUSED_ID}]") for name in ids):
        raise pytest.UsageError(messages.IN_ONE_PROCESS)


# Making tests of cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker(MARK) is None:
        return
    config = metafunc.config
    try:
        _refuse_hidden_fixtures(metafunc)
        if REFUSED not in config.stash and SESSION not in config.stash:
            config.stash[SESSION] = _start(config)
        cases = [] if REFUSED in config.stash else config.stash[SESSION].cases_of(metafunc.module)
    except Refusal as error:
        _refuse(config, str(error))
    except pytest.UsageError as error:
        config.stash[REFUSED] = error
    if REFUSED in config.stash:
        metafunc.parametrize("perf_case", [None], ids=[REFUSED_ID])
    else:
        metafunc.parametrize("perf_case", cases, ids=[case.id for case in cases])


def _refuse_hidden_fixtures(metafunc: pytest.Metafunc) -> None:
    """`pytest.UsageError` where another plugin or a conftest.py has a fixture of the same name."""
    # pytest gives no public account of which definition a test gets.
    known = metafunc.definition._fixtureinfo.name2fixturedefs
    for name, ours in FIXTURES.items():
        definitions = known.get(name)
        where = definitions[-1].func.__module__ if definitions else "missing"
        if where.partition(".")[0] != ours:
            raise pytest.UsageError(messages.foreign_fixture(name, ours, where))


def _refuse(config: pytest.Config, sentence: str) -> None:
    config.stash.setdefault(REFUSED, pytest.UsageError(sentence))


def _start(config: pytest.Config) -> PerfSession:
    """Load the plugin's other parts, which import torch. `pytest.UsageError` for bad input."""
    if sentence := too_little_address_space():
        raise pytest.UsageError(sentence)
    try:
        for name in PARTS:
            config.pluginmanager.register(import_module(name), name)
            _end_part(config)
        from diffusers_perf.plugin.session import start

        return start(config)
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            raise pytest.UsageError(sentence) from None
        raise


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Notice a test file whose declarations no test runs, as after a linter removed an import, and
    say in one sentence what is wrong with a declaration.
    """
    if IMPORTING in collector.config.stash:
        collector.config.stash[IMPORTING].begin_part()
    report = yield
    # The first of them starts the session, which imports torch.
    if report.passed and any(node.get_closest_marker(MARK) for node in report.result):
        _end_part(collector.config)
    in_full = collector.config.getoption("fulltrace", False)
    if report.failed and not in_full and unimported.is_mistake(report):
        report.longrepr = unimported.why(collector, report) or report.longrepr
    if (
        isinstance(collector, pytest.Module)
        and report.passed
        and declares_cases(collector.obj)
        and not any(node.get_closest_marker(MARK) for node in report.result)
    ):
        _refuse(
            collector.config,
            messages.unused_file(collector.nodeid),
        )
    return report


def _end_part(config: pytest.Config) -> None:
    if IMPORTING in config.stash:
        config.stash[IMPORTING].end_part()


# Choosing among them


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Mark each case with its suites; keep what was asked for, and of this the shard's."""
    # In a process of pytest-xdist it would be an internal error: there each test fails with it.
    if REFUSED in config.stash and not hasattr(config, "workerinput"):
        raise config.stash[REFUSED]
    if SESSION not in config.stash:
        return (yield)
    perf = config.stash[SESSION]
    _refuse_unused(config, items)
    _mark_suites(config, items)
    # What two test files measure alike, above all a reference, is measured once.
    seen: set[str] = set()
    _keep(items, config, [i for i in items if (c := case_of(i)) is None or _is_first(c, seen)])
    try:
        result = yield
    except pytest.UsageError as error:
        if "'-m'" not in str(error):
            raise
        raise pytest.UsageError(f"{error} {messages.suites_are(perf.project.suites)}") from None
    if not is_named(config) and not config.getoption("markexpr", ""):
        suites = config.getini("perf_suites")
        _keep(items, config, [i for i in items if case_of(i) is None or _is_in(i, suites)])
    cases = cases_of(items)
    perf.not_selected = [case.id for case in perf.cases if case not in cases]
    part: Part | None = config.getoption("shard")
    if part is not None:
        perf.dealt = [case.id for case in cases]
        own = set(part.of(perf.dealt))
        _keep(items, config, [i for i in items if (c := case_of(i)) is not None and c.id in own])
    return result


def _refuse_unused(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """`pytest.UsageError` for cases that are declared and that no test runs."""
    perf, shared = config.stash[SESSION], config.getini("perf_declarations")
    for name, module in dict(sys.modules).items():
        if not declares_cases(module) or is_below(name, *shared) or name in perf.project.own:
            continue
        if config.rootpath not in Path(module.__file__ or "").resolve().parents:
            continue  # of another repository, as an installed package
        if not any(_is_our_test(value) for value in vars(module).values()):
            raise pytest.UsageError(messages.unused_module(name))
    if perf.project.shared.cases and is_whole(config) and not perf.runs_shared:
        raise pytest.UsageError(messages.unused_declarations(shared))


def _is_our_test(value: object) -> bool:
    marks = getattr(value, "pytestmark", ()) if isinstance(value, FunctionType) else ()
    return any(mark.name == MARK for mark in marks)


def _mark_suites(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Each suite is a mark, which ``-m`` selects. `pytest.UsageError` for a name that is taken."""
    project = config.stash[SESSION].project
    suites, declared = project.suites, project.cases
    known = {line.split(":")[0].split("(")[0].strip() for line in config.getini("markers")}
    for suite in suites:
        if suite in known:
            raise pytest.UsageError(messages.foreign_mark(suite))
        config.addinivalue_line("markers", messages.suite_mark(suite))
    unknown = [suite for suite in config.getini("perf_suites") if suite not in suites]
    if unknown and is_whole(config):
        raise pytest.UsageError(messages.empty_suite(unknown[0], suites))
    for item in items:
        if (case := case_of(item)) is not None:
            for suite in suites_of(case, declared):
                item.add_marker(suite)


def _is_in(item: pytest.Item, suites: Sequence[str]) -> bool:
    return not suites or any(item.get_closest_marker(suite) for suite in suites)


def _is_first(case: Case, seen: set[str]) -> bool:
    is_first = case.id not in seen
    seen.add(case.id)
    return is_first


def _keep(items: list[pytest.Item], config: pytest.Config, kept: list[pytest.Item]) -> None:
    if gone := [item for item in items if item not in kept]:
        config.hook.pytest_deselected(items=gone)
    items[:] = kept


# First: the terminal's own says what will run.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if SESSION in session.config.stash:
        config = session.config
        if IMPORTING in config.stash:
            config.stash[IMPORTING].begin_part()
        option = config.option
        # Where something cannot be collected, nothing runs.
        ends = session.testsfailed and not option.continue_on_collection_errors
        if not (option.collectonly or ends):
            # Here, before a fixture imports them untimed. What cannot be imported fails a test.
            with suppress(ImportError):
                housekeeping = import_module("diffusers_perf.measurement.housekeeping")
                housekeeping.import_libraries(after_each=lambda: _end_part(config))
            # A module that builds pipelines imports what it serves with.
            for case in cases_of(session.items):
                config.stash[SESSION].bench.sources.import_builder(case.workload)
        _end_part(config)
        config.stash[SESSION].begin(cases_of(session.items), imports=_imports(config))


def _imports(config: pytest.Config) -> list[Load]:
    """What importing took; where the disk's cache was cold or much was compiled from source, a
    fresh process's without either before it. One of many short processes leaves that to the others.
    """
    if IMPORTING not in config.stash:
        return []
    imported = config.stash[IMPORTING].load()
    compiled = imported.compiled
    is_warm = not imported.is_cold and not compiled.is_much
    if is_warm or config.option.collectonly or config.stash[SESSION].bench.quick:
        return [imported]
    importing = import_module("diffusers_perf.measurement.importing")
    try:
        return [importing.timed_import(sys.modules, kept=not compiled.is_lost), imported]
    except RuntimeError as error:
        warnings.warn(messages.no_import_time(str(error)), pytest.PytestWarning, stacklevel=1)
        return [imported]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if REFUSED in item.config.stash and item.get_closest_marker(MARK) is not None:
        pytest.fail(str(item.config.stash[REFUSED]), pytrace=False)
