"""This repository's own pytest settings. Options, fixtures and hooks are in the plugin."""

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

TESTS = tuple(Path(__file__).parent / "perf_tests" / name for name in ("tests", "training"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The main job leaves out tests without a benchmark, so that it lists no skipped ones."""
    return True if collection_path in TESTS and config.getoption("benchmark_only") else None
