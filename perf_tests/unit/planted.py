"""Faults to plant in a real run, to see the suite turn red: a plugin.

python -m pytest perf_tests --benchmark-only -p perf_tests.unit.planted --plant black
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from perf_tests.harness import bench
from perf_tests.harness.catalog import Case
from perf_tests.harness.pipelines import Source, built


def _decoded(change: Callable[[torch.Tensor], torch.Tensor], pipeline: Any) -> None:
    decode = pipeline.vae.decode

    def changed(*args: Any, **kwargs: Any) -> Any:
        sample, *rest = decode(*args, **kwargs)
        return (change(sample), *rest)

    pipeline.vae.decode = changed


def black(case: Case, pipeline: Any) -> None:
    """The decoder's output is black."""
    _decoded(lambda sample: torch.full_like(sample, -1.0), pipeline)


def grey(case: Case, pipeline: Any) -> None:
    """The decoder's output is one even grey."""
    _decoded(torch.zeros_like, pipeline)


def nan(case: Case, pipeline: Any) -> None:
    """One number in the last picture of a batch of four is NaN."""
    if case.workload.images != 4:
        return

    def change(sample: torch.Tensor) -> torch.Tensor:
        sample = sample.clone()
        sample[-1, 0, 0, 0] = torch.nan
        return sample

    _decoded(change, pipeline)


def no_guidance(case: Case, pipeline: Any) -> None:
    """Guidance is lost, for every case and the reference alike, as by a bad dependency bump."""
    real = type(pipeline)
    pipeline.__class__ = type(
        real.__name__,
        (real,),
        {"do_classifier_free_guidance": property(lambda self: False)},
    )


def slow(case: Case, pipeline: Any) -> None:
    """The steps of one case take three times as long."""
    if case.name != "distilled_unet":
        return
    forward = pipeline.unet.forward

    def thrice(*args: Any, **kwargs: Any) -> Any:
        forward(*args, **kwargs)
        forward(*args, **kwargs)
        return forward(*args, **kwargs)

    pipeline.unet.forward = thrice


PLANTS = {plant.__name__: plant for plant in (black, grey, nan, no_guidance, slow)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plant", choices=sorted(PLANTS), required=True, help="which fault")


@pytest.fixture(scope="session", autouse=True)
def planted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Plant the fault in every pipeline that is built, once its optimizations are applied."""
    plant = PLANTS[request.config.getoption("--plant")]

    @contextmanager
    def built_with_fault(case: Case, source: Source, device: torch.device) -> Iterator[Any]:
        with built(case, source, device) as pipeline:
            plant(case, pipeline)
            yield pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "built", built_with_fault)
        yield
