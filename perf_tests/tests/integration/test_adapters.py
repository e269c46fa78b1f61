"""LoRA adapters that are swapped in place, and a ControlNet that runs in some steps alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog.discovery import shipped
from diffusers_perf.measurement import structure
from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import DoesNotFit, built
from diffusers_perf.optimizations.tolerances import CONTROL_CACHED
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB
from diffusers_perf.techniques import hot_swap
from perf_tests.tests import tiny

CATALOG = shipped().without_cases()


@contextmanager
def pipeline_of(name: str, stack: str = "reference") -> Iterator[Any]:
    workload = tiny.workload(name)
    case = CATALOG.case(workload, stack)
    with built(case, models.open_source(workload.model), torch.device("cpu")) as pipeline:
        yield pipeline


def check(name: str, pipeline: Any) -> None:
    CATALOG.optimizations[name].applied(pipeline)


def generation(name: str, pipeline: Any) -> Generation:
    return Generation(pipeline, tiny.workload(name))


@pytest.fixture
def swapped() -> Iterator[Any]:
    pytest.importorskip("peft")
    with pipeline_of("sd_lora", "lora_hotswap") as pipeline:
        yield pipeline


def test_swapped_adapter_gives_the_same_images(swapped: Any) -> None:
    with pipeline_of("sd_lora") as plain:
        expected = generation("sd_lora", plain).images()
    assert pixels.distance(generation("sd_lora", swapped).images(), expected).psnr_db > 100
    check("lora_hotswap", swapped)
    assert pixels.distance(generation("sd_lora", swapped).images(), expected).psnr_db > 100
    with pipeline_of("sd") as without:
        assert pixels.distance(generation("sd", without).images(), expected).psnr_db < 40


def test_swap_keeps_the_scale_of_the_adapter() -> None:
    pytest.importorskip("peft")
    pipeline = tiny.sd_lora()
    pipeline.unet.set_adapters("default", 0.25)
    hot_swap.take_the_place_of_another(pipeline.unet)
    scales = [m.scaling["default"] for m in pipeline.unet.modules() if hasattr(m, "lora_A")]
    assert scales
    assert {float(scale) for scale in scales} == {0.25}


def test_adapter_that_would_compile_anew_is_not_applied(swapped: Any) -> None:
    layer = next(m for m in swapped.unet.modules() if hasattr(m, "lora_A"))
    layer.scaling["default"] = 1.0
    with pytest.raises(NotApplied, match="is a number"):
        check("lora_hotswap", swapped)
    swapped.unet.unload_lora()
    with pytest.raises(NotApplied, match="no layer with an adapter"):
        check("lora_hotswap", swapped)


def test_swap_into_another_tensor_is_not_applied(
    swapped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = swapped.unet.load_lora_adapter

    def loaded(*args: Any, **kwargs: Any) -> None:
        load(*args, **kwargs)
        layer = next(m for m in swapped.unet.modules() if hasattr(m, "lora_A"))
        weight = layer.lora_A["default"].weight
        weight.data = weight.data.clone()

    monkeypatch.setattr(swapped.unet, "load_lora_adapter", loaded)
    with pytest.raises(NotApplied, match="into another tensor"):
        check("lora_hotswap", swapped)


def test_control_is_kept_for_a_step() -> None:
    calls: list[None] = []
    with pipeline_of("sd_controlnet") as pipeline:
        expected = generation("sd_controlnet", pipeline).images()
        plain = structure.observe(pipeline, tiny.workload("sd_controlnet"))
    with pipeline_of("sd_controlnet", "controlnet_cache") as pipeline:
        check("controlnet_cache", pipeline)
        own = pipeline.control_cache.function

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(None)
            return own(*args, **kwargs)

        pipeline.control_cache.function = counted
        made = generation("sd_controlnet", pipeline)
        images = made.images()
        assert len(calls) == tiny.workload("sd_controlnet").steps / 2
        assert pixels.distance(made.images(), images).psnr_db == IDENTICAL_DB
        allowed = CONTROL_CACHED.checkpoint
        assert allowed is not None
        assert allowed.ssim < pixels.distance(images, expected).ssim < 0.999
        cached = structure.observe(pipeline, tiny.workload("sd_controlnet"))
        # Counted before and after: what has no data is not taken for the next generation.
        assert pixels.distance(made.images(), images).psnr_db == IDENTICAL_DB
    steps = tiny.workload("sd_controlnet").steps
    assert cached.total().calls.total(steps) < plain.total().calls.total(steps)
    assert all(count.fixed >= 0 for count in cached.counters.values())


def test_lost_control_is_worse_than_the_tolerance() -> None:
    with pipeline_of("sd_controlnet") as pipeline:
        made = generation("sd_controlnet", pipeline)
        lost = tiny.workload("sd_controlnet", controlnet_conditioning_scale=0.0)
        distance = pixels.distance(made.images(of=lost), made.images())
    assert CONTROL_CACHED.checkpoint is not None
    assert distance.ssim < CONTROL_CACHED.checkpoint.ssim


def test_control_that_is_computed_anew_is_not_applied() -> None:
    with pipeline_of("sd_controlnet", "controlnet_cache") as pipeline:
        pipeline.control_cache.every = 1
        with pytest.raises(NotApplied, match="computed 2 times in 2 calls"):
            check("controlnet_cache", pipeline)
        del pipeline.controlnet.forward
        with pytest.raises(NotApplied, match="computed 0 times"):
            check("controlnet_cache", pipeline)
    with pipeline_of("sd_controlnet") as plain, pytest.raises(NotApplied, match="no cache"):
        check("controlnet_cache", plain)


@pytest.mark.parametrize(
    ("optimization", "reason"),
    [("lora_hotswap", "has no adapter"), ("controlnet_cache", "no ControlNet runs in its steps")],
)
def test_pipeline_without_either_does_not_fit(optimization: str, reason: str) -> None:
    with pytest.raises(DoesNotFit, match=reason), pipeline_of("sd", optimization):
        pass
