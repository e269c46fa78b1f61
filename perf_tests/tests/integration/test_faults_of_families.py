"""Faults whose places differ from family to family, in a tiny SDXL."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf import faults, models
from diffusers_perf.faults.building import injecting
from diffusers_perf.faults.injection import Injection
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import Builder, built
from diffusers_perf.records import pixels
from perf_tests.tests import tiny
from perf_tests.tests.unit.catalogs import ours

WORKLOAD = tiny.workload("sdxl", steps=3)


def images_of(build: Builder) -> Any:
    source = models.open_source(WORKLOAD.model)
    case = ours().case(WORKLOAD, "reference")
    with build(case, source, torch.device("cpu")) as pipeline:
        return Generation(pipeline, WORKLOAD).images()


def test_guidance_in_two_calls_halves_all_that_is_of_the_whole_batch() -> None:
    """SDXL's UNet is given the image's size and a pooled prompt beside the prompt's states."""
    sizes: list[int] = []
    injection = Injection(device="cpu")

    def noted(pipeline: Any) -> None:
        forward = pipeline.unet.forward

        def noting(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            sizes.append(len(sample))
            return forward(sample, *args, **kwargs)

        pipeline.unet.forward = noting

    injection.then(noted)
    faults.declared()["guidance_in_two_calls"].injected(injection)
    distance = pixels.distance(images_of(injecting(injection)), images_of(built))
    assert sizes[-2 * WORKLOAD.steps :] == [1, 1] * WORKLOAD.steps
    assert distance.psnr_db > 100
