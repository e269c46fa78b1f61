"""Counts of compiled code, from the cache on disk or compiled in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusers_perf.measurement import host
from diffusers_perf.measurement.counters import compile_cache
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.records.measurement import Count
from perf_tests.tests.unit.fake import WORKLOAD, FakePipeline

# Inductor imports what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WEIGHTS = torch.eye(8)


def products(x: torch.Tensor) -> torch.Tensor:
    """Nothing to fuse: no kernel is generated, so that no C++ compiler is needed."""
    return x @ WEIGHTS @ WEIGHTS


def broken_products(x: torch.Tensor) -> torch.Tensor:
    x = x @ WEIGHTS
    torch._dynamo.graph_break()
    return x @ WEIGHTS


def count(step: Callable[[torch.Tensor], torch.Tensor]) -> Count:
    """The Python calls of a pipeline that has this compiled, as in a new process, in each step."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(step)
    pipeline = FakePipeline()
    pipeline.unet.forward = lambda sample: compiled(WEIGHTS)  # type: ignore[method-assign]
    with torch.no_grad():
        generation = Generation(pipeline, WORKLOAD)
        generation.shortest()
        return host.python_calls(generation, pipeline)


@pytest.fixture
def _fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("_fresh_cache")
def test_python_calls_do_not_depend_on_the_compile_cache() -> None:
    cold = count(products)
    assert compile_cache() == (0, 1)
    warm = count(products)
    taken, made = compile_cache()
    assert taken
    assert not made
    assert warm == cold


@pytest.mark.usefixtures("_fresh_cache")
def test_graph_break_is_more_python_calls() -> None:
    assert count(broken_products).per_step > count(products).per_step + 20


def test_what_is_left_out_is_there() -> None:
    """In the release of torch that is installed, under the name by which it is left out."""
    assert (Path(host.AOT_WRAPPERS) / "runtime_wrappers.py").is_file()
