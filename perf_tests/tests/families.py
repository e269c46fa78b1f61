"""What every kind of pipeline goes through in a user's repository: shared by two tiers of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as cli

TEST_FILE = """
from diffusers_perf import measure
from diffusers_perf import test_generation as test_generation
from perf_tests.tests import tiny

measure(tiny.workload({name!r}, steps=4, model={model!r}), *{stacks!r}, suite="tiny")
"""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """The main job on the test file, in one round, which says nothing about latency."""
    return pytester.runpytest_inprocess(
        "test_tiny.py",
        "-m",
        "tiny",
        "--benchmark-only",
        "--device=cpu",
        "--rounds=1",
        "--baselines=baselines",
        "-p",
        "no:cacheprovider",
        *options,
    )


def life(pytester: pytest.Pytester, name: str, *stacks: str, model: str | None = None) -> None:
    """A pipeline is measured, its image is accepted, it passes, and fails under each fault.

    What a machine measured is accepted elsewhere: it takes many rounds on a quiet machine, and
    knows no pipeline.
    """
    source = model or f"perf_tests.tests.tiny:{name}"
    text = TEST_FILE.format(name=name, model=source, stacks=stacks)
    (pytester.path / "test_tiny.py").write_text(text)
    (pytester.path / "baselines").mkdir(exist_ok=True)
    result = run(pytester, "--benchmark-json=run.json")
    assert result.ret == 0, result.stdout.str()
    assert result.parseoutcomes()["passed"] == 1 + len(stacks)
    accept = ("accept", "run.json", "--images-only", "--baselines=baselines", "--reason=first")
    assert _command(pytester.path, *accept) == 0
    assert list((pytester.path / "baselines" / "images").rglob("*.png"))
    result = run(pytester)
    assert result.ret == 0, result.stdout.str()
    for fault, says in (("swapped_colours", "accepted"), ("stale_output", "same image")):
        result = run(pytester, "-p", "diffusers_perf.faults.plugin", "--inject", fault)
        assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str()
        assert says in result.stdout.str()


def _command(folder: Path, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return cli.main(list(arguments))
