"""The main job over the fake catalog."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
import pytest_benchmark.plugin
import xdist.plugin

import diffusers_perf.plugin
from perf_tests.tests.unit import fake

ROOT = Path(__file__).parents[3]
PARTS = [import_module(name) for name in diffusers_perf.plugin.pytest_plugins]
"""Of the suite's plugin, for each of which pytest would look through all packages."""


def run(
    pytester: pytest.Pytester,
    *options: str,
    fakes: str = "fine",
    only: bool = True,
    rounds: int | None = 2,
    tests: Sequence[str] = ("perf_tests",),
) -> pytest.RunResult:
    """The main job on the fake catalog, in this process, as in a repository of its own."""
    test = pytester.path / "perf_tests" / "test_generation.py"
    test.parent.mkdir(exist_ok=True)
    test.write_text("from diffusers_perf import test_generation as test_generation\n")
    return run_pytest(
        pytester,
        f"--rootdir={pytester.path}",
        f"--config-file={ROOT / 'pyproject.toml'}",
        # Else pytest looks at the folders of all tests before this one.
        f"--confcutdir={pytester.path}",
        "-p",
        "no:cacheprovider",
        f"--fakes={fakes}",
        f"--baselines={Path.cwd() / 'baselines'}",
        *(["--benchmark-only"] if only else []),
        *([f"--rounds={rounds}"] if rounds else []),
        *options,
        *tests,
        plugins=[fake],
    )


def run_pytest(
    pytester: pytest.Pytester, *arguments: str, plugins: Sequence[object] = ()
) -> pytest.RunResult:
    """Pytest in this process with the suite, what it stands on, and these plugins."""
    return pytester.runpytest_inprocess(
        # Looking for others and loading them takes a fifth of a session.
        "--disable-plugin-autoload",
        *arguments,
        plugins=[xdist.plugin, pytest_benchmark.plugin, *PARTS, diffusers_perf.plugin, *plugins],
        no_reraise_ctrlc=True,
    )
