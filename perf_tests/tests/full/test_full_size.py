"""Pipelines of full size are counted without a GPU and without weights."""

from __future__ import annotations

import pytest

from diffusers_perf.measurement import structure
from perf_tests.tests import full_size, tiny

STEPS = 28
BILLIONS = {
    "sdxl": 3.5,
    "sd3": 13.7,
    "flux": 16.9,
    "pixart": 5.4,
    "zimage": 9.8,
    "qwen": 27.1,
    "wan": 19.2,
}
"""Parameters; some text encoders have few words."""


@pytest.mark.parametrize("name", BILLIONS)
def test_full_size_is_counted_without_a_gpu(name: str) -> None:
    pipeline = full_size.build(name)
    pipeline.set_progress_bar_config(disable=True)
    modules = [m for m in pipeline.components.values() if hasattr(m, "parameters")]
    parameters = [p for module in modules for p in module.parameters()]
    assert sum(p.numel() for p in parameters) / 1e9 == pytest.approx(BILLIONS[name], abs=0.1)
    call = {"height": 1024, "width": 1024, **full_size.CALLS.get(name, {})}
    seen = structure.observe(pipeline, tiny.workload(name, steps=STEPS, **call))
    assert seen.counters["operators"].per_step > 500
    # Also of a scheduler of several orders, which does less in its first steps.
    counts = [*seen.occurrences.values(), *(c for work in seen.operators.values() for c in work)]
    assert min(count.total(STEPS) for count in counts) >= 0
    assert seen.total().flops.total(STEPS) > 3e14
    assert all(p.is_meta for p in parameters)
