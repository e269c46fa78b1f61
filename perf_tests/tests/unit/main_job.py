"""The main job over the fake catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(
    pytester: pytest.Pytester,
    *options: str,
    fakes: str = "fine",
    only: bool = True,
    rounds: int | None = 2,
) -> pytest.RunResult:
    """The main job on the fake catalog, in this process, as in a repository of its own."""
    test = pytester.path / "perf_tests" / "test_generation.py"
    test.parent.mkdir(exist_ok=True)
    test.write_text("from diffusers_perf import test_generation as test_generation\n")
    return pytester.runpytest_inprocess(
        f"--rootdir={pytester.path}",
        f"--config-file={ROOT / 'pyproject.toml'}",
        # Else pytest looks at the folders of all tests before this one.
        f"--confcutdir={pytester.path}",
        "-p",
        "no:cacheprovider",
        "-p",
        "perf_tests.tests.unit.fake",
        f"--fakes={fakes}",
        f"--baselines={Path.cwd() / 'baselines'}",
        *(["--benchmark-only"] if only else []),
        *([f"--rounds={rounds}"] if rounds else []),
        *options,
        "perf_tests",
        no_reraise_ctrlc=True,
    )
