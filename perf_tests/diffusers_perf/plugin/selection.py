"""What a command line asks for: by name, by file or all; and the case of a test."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.plugin.options import MARK
from diffusers_perf.records.main_job import MODEL, MainJob
from diffusers_perf.records.repository import as_path, repository


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


def is_narrowed(config: pytest.Config) -> bool:
    """Were some cases asked for, or left out, by name or by file?"""
    # lastfailed is absent where pytest's cache plugin is off.
    left_out = any(config.getoption(name, None) for name in ("deselect", "lf"))
    return is_named(config) or left_out or not is_whole(config)


def is_named(config: pytest.Config) -> bool:
    """Were some cases asked for by name?"""
    return bool(config.getoption("keyword")) or any(
        "::" in str(argument) for argument in config.args
    )


def is_whole(config: pytest.Config) -> bool:
    """Does pytest collect all that the repository has?"""
    args = [
        (config.invocation_params.dir / argument.split("::")[0]).resolve()
        for argument in config.args
    ]
    testpaths = [(config.rootpath / name).resolve() for name in config.getini("testpaths")]
    if not testpaths:
        return all(arg.is_dir() for arg in args)
    return all(any(arg in (path, *path.parents) for arg in args) for path in testpaths)


def main_job(config: pytest.Config, options: Sequence[str]) -> MainJob:
    """How pytest was called, in the folder where it was; `options` are those that say what is
    measured on what.
    """
    given = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else ()
    selected = {"-m": config.getoption("markexpr"), "-k": config.getoption("keyword")}
    return MainJob(
        # A case's own test is selected by its name.
        tests=tuple(dict.fromkeys(argument.split("::")[0] for argument in given)),
        selected=tuple(part for pair in selected.items() if pair[1] for part in pair),
        baselines=config.getoption("baselines"),
        options=tuple(options),
    )


def kept(config: pytest.Config, job: MainJob) -> MainJob:
    """The same job as a run's file keeps it, for every folder of the repository."""
    from diffusers_perf import models

    # Elsewhere pytest passes over its settings.
    tests = config.args if config.args_source is pytest.Config.ArgsSource.TESTPATHS else job.tests
    model = config.getoption("model")
    # Path.is_dir raises for a name that is too long.
    if model and model not in models.NAMED and os.path.isdir(model):  # noqa: PTH112
        named = {MODEL + model: MODEL + as_path(model)}
        job = replace(job, options=tuple(named.get(option, option) for option in job.options))
    job = replace(job, tests=tuple(tests))
    return job.seen_from(repository(), of=config.invocation_params.dir)
