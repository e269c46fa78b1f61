"""A run on the CPU of a machine with a GPU opens no CUDA context."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = """
import os

import torch


def opened():
    raise AssertionError("a CUDA context was opened")


# As torch behaves where there is a GPU. The code: other modules of torch hold the function.
torch.cuda._lazy_init.__code__ = opened.__code__
torch.cuda.is_available = lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != "-1"

# As torchao and xFormers do when they are imported.
if torch.cuda.is_available():
    torch.cuda.current_device()
"""

TEST_FILE = """
import torch

from diffusers_perf import measure, optimization, tolerances
from diffusers_perf import test_generation as test_generation
from perf_tests.tests import tiny


def compiled(pipeline):
    assert hasattr(pipeline.transformer.forward, "get_compiler_config")


@optimization(tolerance=tolerances.SAME_ARITHMETIC, applied=compiled)
def traced(build):
    \"\"\"Traced by torch.compile, which saves the state of each device's random numbers.\"\"\"

    @build.then
    def _(pipeline):
        pipeline.transformer.forward = torch.compile(pipeline.transformer.forward, backend="eager")


measure(tiny.workload("flux", steps=4), "traced", suite="tiny")
"""


def test_run_on_the_cpu_opens_no_cuda_context(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_traced=TEST_FILE)
    done = pytester.runpytest_subprocess("--benchmark-only", "--device=cpu", "--rounds=1")
    done.assert_outcomes(passed=2)
