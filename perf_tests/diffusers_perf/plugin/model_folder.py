"""A model folder comes from elsewhere: nothing in it is collected, and no settings are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from diffusers_perf.messages import plugin as messages
from diffusers_perf.plugin.options import OPTIONS
from diffusers_perf.records.files import real

INDEX = "model_index.json"
"""A folder with this file is a model, whether or not an option names it."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> Iterator[None]:
    """`pytest.UsageError` where pytest reads settings in a model folder, or a conftest.py unasked.

    It reads settings before it knows this plugin's options, and takes the value behind ``--model``
    for a test path where the two are separate arguments.
    """
    for option, value in pairwise(args):
        if option == "--model" and _folder(value):
            raise pytest.UsageError(messages.model_apart(value))
    if not _is_ours(early_config):
        return (yield)
    known = early_config.known_args_namespace
    tests = known.file_or_dir or [*early_config.getini("testpaths"), "."]
    # Of these, pytest loads a conftest.py before it asks which folders to ignore.
    for folder in (path for test in tests if _folder(test) for path in Path(test).glob("test*")):
        if _is_model(folder, known.model) and (folder / "conftest.py").exists():
            raise pytest.UsageError(messages.model_among_tests(folder))
    return (yield)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over model folders that lie below the tests."""
    ours = _is_ours(config) and _is_model(collection_path, config.getoption("model", None))
    return True if ours else None


def _is_ours(config: pytest.Config) -> bool:
    """Whether this is a run of ours: in a repository that measures nothing, a folder with a model
    may have tests of its own.
    """
    known = vars(config.known_args_namespace)
    options = ("benchmark_only", *(option[2:].replace("-", "_") for option in OPTIONS))
    settings = ("perf_declarations", "perf_suites")
    return any(known.get(o) for o in options) or any(config.getini(s) for s in settings)


def _is_model(path: Path, named: str | None) -> bool:
    # Path.is_file raises for a folder that may not be read.
    has_index = os.path.isfile(path / INDEX)  # noqa: PTH113
    return path.is_dir() and (has_index or real(path) == _folder(named))


def _folder(model: str | None) -> Path | None:
    # Path.is_dir raises for a name that is too long.
    return real(Path(model)) if model and os.path.isdir(model) else None  # noqa: PTH112
