"""Whether what a session writes at its end can be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage

from diffusers_perf.records.files import make_room, unwritable


def refuse_unwritable(config: pytest.Config) -> None:
    """See now, and not after an hour, that the run can be written wherever it is asked for.
    `pytest.UsageError` where it cannot.
    """
    report: Path | None = config.getoption("benchmark_json")
    if report is not None:
        with _refused("--benchmark-json", report):
            make_room(report)
            report.with_name(f"{report.stem}-images").mkdir(exist_ok=True)
    benchmarks: Any = config.pluginmanager.get_plugin("pytest-benchmark")
    for option, name in (
        ("--benchmark-save", benchmarks.save),
        ("--benchmark-autosave", benchmarks.autosave),
    ):
        # It may save to a server instead.
        if name and isinstance(benchmarks.storage, FileStorage):
            file = benchmarks.storage.get(f"{name}.json")
            with _refused(option, file):
                make_room(file)


@contextmanager
def _refused(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = unwritable(Path(error.filename or path), error)
        raise pytest.UsageError(f"{option} {said}") from None
