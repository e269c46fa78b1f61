"""Counts of generations whose steps differ, beside what one of all steps asks for."""

from __future__ import annotations

from typing import Any

import diffusers as untyped_diffusers

from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import structure
from diffusers_perf.measurement.counting import counted, without_data
from diffusers_perf.measurement.generation import Generation
from perf_tests.tests import tiny

diffusers: Any = untyped_diffusers

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm of order 3": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "unipc of order 3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "lcm": ("LCMScheduler", {}),
}


def pipeline_with(scheduler: str) -> Any:
    """The tiny Stable Diffusion with a scheduler of the table."""
    name, config = SCHEDULERS[scheduler]
    pipeline = tiny.sd()
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def assert_exact(pipeline: Any, workload: Workload, *, alike: bool = True) -> None:
    """What was observed is what a generation of all steps asks for, by operator and place."""
    generation = Generation(pipeline, workload)
    seen = structure.observe(pipeline, workload, alike=alike)
    with without_data(pipeline):
        # What is made in a first one and kept.
        with counted(pipeline):
            generation.images()
        with counted(pipeline) as counting:
            generation.images()
    steps = generation.turns(workload.steps)
    calls = {operator: cost.calls.total(steps) for operator, cost in seen.operators.items()}
    happened = {key: count.total(steps) for key, count in seen.occurrences.items()}
    counts = [*seen.occurrences.values(), *(c for cost in seen.operators.values() for c in cost)]
    if not alike:
        # Over its period, no step lacks what is said of each.
        assert not any(count.missing for count in counts)
    assert calls == {operator: sums[0] for operator, sums in counting.operators.items()}
    assert happened == dict(counting.occurrences)
