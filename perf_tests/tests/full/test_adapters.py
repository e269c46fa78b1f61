"""A LoRA adapter is swapped under a compiler; the rest is in `integration`."""

from __future__ import annotations

import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog.discovery import shipped
from diffusers_perf.measurement.counters import compiled_graphs
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import built
from perf_tests.tests import tiny


def test_swap_compiles_nothing_anew() -> None:
    pytest.importorskip("peft")
    catalog = shipped().without_cases()
    workload = tiny.workload("sd_lora")
    case = catalog.case(workload, "lora_hotswap")
    with built(case, models.open_source(workload.model), torch.device("cpu")) as pipeline:
        generation = Generation(pipeline, workload)
        eager = generation.images()
        torch.compiler.reset()
        # What it makes of a graph is another question than whether it makes one.
        pipeline.unet.forward = torch.compile(pipeline.unet.forward, backend="eager")
        assert (generation.images() == eager).all()
        graphs, _ = compiled_graphs()
        assert graphs > 0
        case.stack[0].applied(pipeline)
        assert (generation.images() == eager).all()
        assert compiled_graphs()[0] == graphs
        # As it was without: a scale that is a number is part of a graph.
        for layer in pipeline.unet.modules():
            if hasattr(layer, "lora_A"):
                layer.scaling["default"] = 0.5
        generation.images()
        assert compiled_graphs()[0] > graphs
