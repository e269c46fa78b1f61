"""Which cases become tests: parametrization, suites and shards. Imports nothing heavy.

The plugin is loaded wherever it is installed, so its hooks act on tests with its marker alone, and
what needs torch is imported once such a test is collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from diffusers_perf.catalog.declarations import Case, Suite, suites_of
from diffusers_perf.measurement.packages import not_installed

if TYPE_CHECKING:
    from diffusers_perf.plugin.session import PerfSession

MARK = "diffusers_perf"
"""On the library's test, and on no other."""
DEFAULT: Suite = "guide"
"""What runs where nobody asks for anything by name."""
PARTS = tuple(f"diffusers_perf.plugin.{name}" for name in ("session", "document", "summary"))
"""Plugins of a session that has one of our tests."""

SESSION = pytest.StashKey["PerfSession"]()
REFUSED = pytest.StashKey[pytest.UsageError]()
"""Why the session's cases cannot be run: raised once collecting is over, since pytest would make a
traceback of what is raised before."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}: the test of diffusers-perf, one case at a time")


def case_of(item: pytest.Item | None) -> Case | None:
    """The case that this test runs; None if it is not one of ours."""
    if item is None or item.get_closest_marker(MARK) is None:
        return None
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("perf_case") if callspec else None
    return case if isinstance(case, Case) else None


def cases_of(items: Sequence[pytest.Item]) -> list[Case]:
    """The cases among these tests, in their order."""
    return [case for item in items if (case := case_of(item)) is not None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker(MARK) is None:
        return
    config = metafunc.config
    if SESSION not in config.stash and REFUSED not in config.stash:
        try:
            config.stash[SESSION] = _start(config)
        except pytest.UsageError as error:
            config.stash[REFUSED] = error
    if REFUSED in config.stash:
        metafunc.parametrize("perf_case", [None], ids=["refused"])
        return
    cases = config.stash[SESSION].cases
    metafunc.parametrize(
        "perf_case",
        [
            pytest.param(
                case,
                id=case.id,
                marks=[getattr(pytest.mark, suite) for suite in suites_of(case, cases)],
            )
            for case in cases
        ],
    )


def _start(config: pytest.Config) -> PerfSession:
    """Load the plugin's other parts, which import torch. `pytest.UsageError` for bad input."""
    try:
        for name in PARTS:
            config.pluginmanager.register(import_module(name), name)
        from diffusers_perf.plugin.session import start

        return start(config)
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            raise pytest.UsageError(sentence) from None
        raise


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the guide's cases where none were asked for by name, and of these this shard's."""
    # In a process of pytest-xdist it would be an internal error: there each test fails with it.
    if REFUSED in config.stash and not hasattr(config, "workerinput"):
        raise config.stash[REFUSED]
    shard: tuple[int, int] | None = config.getoption("shard")
    if not cases_of(items):
        return
    if not is_named(config) and not config.getoption("markexpr", ""):
        kept = [i for i in items if case_of(i) is None or i.get_closest_marker(DEFAULT)]
        _keep(items, config, kept)
    perf = config.stash[SESSION]
    cases = cases_of(items)
    perf.not_selected = [case.id for case in perf.cases if case not in cases]
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
        [item for item in items if (case := case_of(item)) is not None and case.id in own],
    )


def _keep(items: list[pytest.Item], config: pytest.Config, kept: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def is_narrowed(config: pytest.Config) -> bool:
    """Were some cases asked for, or left out, by name?"""
    # lastfailed is absent where pytest's cache plugin is off.
    return is_named(config) or any(config.getoption(name, None) for name in ("deselect", "lf"))


def is_named(config: pytest.Config) -> bool:
    """Were some cases asked for by name?"""
    return bool(config.getoption("keyword")) or any(
        "::" in str(argument) for argument in config.args
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    if SESSION in session.config.stash:
        perf = session.config.stash[SESSION]
        perf.expected = [case.id for case in cases_of(session.items)]
        perf.progress.total = len(perf.expected)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if REFUSED in item.config.stash and item.get_closest_marker(MARK) is not None:
        pytest.fail(str(item.config.stash[REFUSED]), pytrace=False)
