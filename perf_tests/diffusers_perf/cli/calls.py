"""Counts what a case calls, for `structure`: operators, and Python functions."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from diffusers_perf.catalog.declarations import Case

if TYPE_CHECKING:
    from diffusers_perf.measurement.pipelines import Source
    from diffusers_perf.records.measurement import Count
    from diffusers_perf.records.operators import OperatorCounts


def count(case: Case, source: Source) -> OperatorCounts:
    """What the case's pipeline asks for. `NotCountable`; `NotApplied` if an applied check fails."""
    import torch

    from diffusers_perf.measurement import structure
    from diffusers_perf.measurement.counting import counted, has_data
    from diffusers_perf.measurement.pipelines import built

    with built(case, source, torch.device("cpu")) as pipeline:
        # A check calls the pipeline's code, which may read a number that is not there.
        with nullcontext() if has_data(pipeline) else counted(pipeline):
            for optimization in case.stack:
                # One that needs a GPU proves itself by running on it.
                if optimization.needs.compute_capability is None:
                    optimization.applied(pipeline)
        return structure.observe(pipeline, case.workload, alike=case.alike)


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
