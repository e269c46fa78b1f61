"""Tiny pipelines with a stack of optimizations, and the images they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from diffusers_perf import models
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import built
from perf_tests.tests import tiny
from perf_tests.tests.unit.catalogs import ours

CPU = torch.device("cpu")
STEPS = 4
EXACT_DB = 100
"""What another order of the same sums leaves between two float32 images, and more."""


@contextmanager
def pipeline_of(stack: str, family: str = "flux") -> Iterator[Any]:
    workload = tiny.workload(family, steps=STEPS)
    source = models.open_source(workload.model)
    with built(ours().case(workload, stack), source, CPU) as pipeline:
        yield pipeline


def images_of(stack: str, family: str = "flux") -> Any:
    """The images, once each optimization of the stack was seen to be applied."""
    workload = tiny.workload(family, steps=STEPS)
    with pipeline_of(stack, family) as pipeline:
        images = Generation(pipeline, workload).images()
        for optimization in ours().case(workload, stack).stack:
            optimization.applied(pipeline)
        return images
