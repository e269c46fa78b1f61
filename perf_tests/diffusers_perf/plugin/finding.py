"""Finds what a repository declares, for the commands, by pytest's own collection."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from glob import glob
from pathlib import Path
from types import ModuleType

import pytest

from diffusers_perf.catalog.discovery import Project, declared_in, declares_cases
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.messages import plugin as messages
from diffusers_perf.plugin import unimported
from diffusers_perf.records.files import read_bytes

COLLECTED = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def find_project(model: str | None = None) -> Project:
    """What the repository around the working directory declares.

    In the modules of the ini option `perf_declarations`, and in test files below `testpaths`, but
    not in the folder that `model` may name.
    `Refusal` for a mistake in one of them, or one that pytest cannot import.
    """
    finder = _Finder()
    printed = io.StringIO()
    # Without our own collection, which would start a session; with its options and settings.
    arguments = ["--collect-only", "--benchmark-only", "-p", "no:diffusers_perf.plugin.collection"]
    arguments += [f"--model={model}"] if model else []
    with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = pytest.main(arguments, plugins=[finder])
    _reopen_logs(printed)
    if finder.broken:
        raise Refusal(finder.broken)
    # pytest takes them away again, and a model may be a function in one of them.
    sys.path[:0] = [path for path in finder.pythonpath if path not in sys.path]
    if code not in COLLECTED:
        lines = [line for line in printed.getvalue().splitlines() if line.strip()]
        raise Refusal(messages.cannot_collect((lines or ["?"])[-1]))
    project = Project(shared=declared_in(*finder.declarations))
    for module in finder.modules:
        project.add(module)
    return project


def _reopen_logs(printed: io.StringIO) -> None:
    """A library that was imported meanwhile logs to what stood for stderr, and is gone."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            # Not one of its kinds, such as of a file that is yet to be opened.
            if type(handler) is not logging.StreamHandler:
                continue
            if handler.stream is printed or handler.stream.closed:
                # `setStream` would flush what is closed.
                handler.stream = sys.stderr


class _Finder:
    """A plugin that notes which test modules declare cases."""

    def __init__(self) -> None:
        self.declarations: list[str] = []
        self.modules: list[ModuleType] = []
        self.pythonpath: list[str] = []
        self.broken = ""

    def pytest_configure(self, config: pytest.Config) -> None:
        """In a folder of the repository, collect what pytest collects in its root."""
        if config.invocation_params.dir != config.rootpath:
            root, tests = os.path.relpath(config.rootpath), config.getini("testpaths")
            # Path.glob takes no "." and nothing absolute.
            as_pytest = partial(glob, root_dir=root, recursive=True)
            found = [path for name in tests for path in as_pytest(name)]
            config.args = [str(Path(root, path)) for path in found or ["."]]

    @pytest.hookimpl(wrapper=True)
    def pytest_load_initial_conftests(self) -> Generator[None, None, None]:
        try:
            return (yield)
        except Exception as error:
            self.broken = unimported.why_conftest(error)
            raise

    def pytest_collection(self, session: pytest.Session) -> None:
        self.declarations = session.config.getini("perf_declarations")
        self.pythonpath = [*map(str, session.config.getini("pythonpath"))]

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Import only test files that may declare something."""
        # Weights lie below the tests as well, and are large.
        if collection_path.suffix != ".py" or collection_path.name == "conftest.py":
            return None
        return None if b"diffusers_perf" in read_bytes(collection_path) else True

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if report.failed:
            self.broken = self.broken or _why(collector, report)
        elif isinstance(collector, pytest.Module) and declares_cases(collector.obj):
            self.modules.append(collector.obj)
        return report


def _why(collector: pytest.Collector, report: pytest.CollectReport) -> str:
    """What a collection that failed is put down to."""
    reason = str(report.longrepr).strip().splitlines()[-1].removeprefix("E").strip()
    is_module = isinstance(collector, pytest.Module)
    refused = messages.cannot_import if is_module else messages.cannot_collect_in
    return unimported.why(collector, report) or refused(collector.nodeid, reason)
