"""A builder that injects a fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from diffusers_perf.catalog.declarations import Case
from diffusers_perf.faults.injection import Injection
from diffusers_perf.measurement.pipelines import Builder, Source, built


def injecting(injection: Injection) -> Builder:
    """As `built`, injecting in every pipeline once its optimizations are applied."""

    @contextmanager
    def build(case: Case, source: Source, device: torch.device) -> Iterator[Any]:
        with built(case, source, device) as pipeline:
            injection.into(pipeline, case.name)
            try:
                yield pipeline
            finally:
                # Before the inner context collects: what is held here stays, with all that it has
                # on a GPU, until after the next pipeline is built.
                del pipeline

    return build
