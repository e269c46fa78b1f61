"""Counts the Python functions that a case calls, for `structure --write`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers_perf.catalog.declarations import Case

if TYPE_CHECKING:
    from diffusers_perf.measurement.pipelines import Source
    from diffusers_perf.records.measurement import Count


def python_calls(case: Case, source: Source) -> Count | None:
    """Of a real generation, as the main job counts them; None of a model that is too large."""
    if source.kind != "embedded" or case.image_only:
        return None
    import torch

    from diffusers_perf.measurement import host
    from diffusers_perf.measurement.generation import Generation
    from diffusers_perf.measurement.pipelines import built

    with built(case, source, torch.device("cpu")) as pipeline:
        generation = Generation(pipeline, case.workload)
        # Later calls leave out what the first one makes and keeps.
        generation.shortest()
        return host.python_calls(generation, pipeline)
