"""Every kind of pipeline on a CPU: its life, what fits it, and the faults that must show in it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog.declarations import NO_TOLERANCE, Optimization
from diffusers_perf.catalog.discovery import Project, load, shipped
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.faults import declared
from diffusers_perf.faults.trials import Trials
from diffusers_perf.measurement import structure
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.machine import this_machine
from diffusers_perf.measurement.pipelines import DoesNotFit, built
from diffusers_perf.plugin.judging import Judging
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests import families, tiny

CPU = torch.device("cpu")
EVERY = [name for name in tiny.CALLS if name != "sd_lora" or importlib.util.find_spec("peft")]


@pytest.mark.parametrize("name", EVERY)
def test_life_of_a_pipeline_that_a_function_builds(pytester: pytest.Pytester, name: str) -> None:
    families.life(pytester, name, "bf16")


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_life_of_a_pipeline_in_a_folder(
    pytester: pytest.Pytester, tmp_path: Path, name: str
) -> None:
    families.life(pytester, name, "bf16", model=str(tiny.folder(name, tmp_path)))


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_batch_of_prompts_repeats_exactly(name: str) -> None:
    """Also where a pipeline writes into its list of prompts, as Z-Image's does."""
    pipeline = tiny.builder(name)()
    prompts = [tiny.PROMPT, tiny.OTHER_PROMPT]
    batch: dict[str, Any] = {"prompt": prompts}
    if "negative_prompt" in tiny.CALLS[name]:
        batch["negative_prompt"] = ["", ""]
    generation = Generation(pipeline, tiny.workload(name, steps=3, **batch))
    first = generation.images()
    assert (generation.images() == first).all()
    assert prompts == [tiny.PROMPT, tiny.OTHER_PROMPT]


# What fits which

RUNS_ON_CPU = [
    name
    for name, optimization in shipped().optimizations.items()
    if optimization.needs.compute_capability is None
    and optimization.needs.optimization is None
    and optimization.needs.variant is None
    and importlib.util.find_spec(optimization.needs.package or "torch")
]
UNETS = ("sd", "sdxl", "sd_img2img", "sd_inpaint", "sd_lora", "sd_subclass", "sdxl_modular")
CACHED = ("flux", "qwen", "wan")
FITS = {
    # Decoders of videos are made of convolutions of videos.
    "channels_last": tuple(n for n in EVERY if n not in ("qwen", "wan")),
    "naive_attention": (*UNETS, "sd_controlnet", "pixart"),
    "sdpa": (*UNETS, "sd_controlnet", "pixart"),
    "fused_qkv": tuple(n for n in EVERY if n not in ("zimage", "qwen", "sd_controlnet", "sd_lora")),
    "fused_lora": ("sd_lora",),
    "lora_hotswap": ("sd_lora",),
    "controlnet_cache": ("sd_controlnet",),
    "device_steps": ("sd", "sd_lora", "sdxl", "flux"),
    "precomputed_prompt": tuple(n for n in EVERY if n != "sdxl_modular"),
    "deepcache": UNETS,
    "sparse_deepcache": UNETS,
    "dbcache": ("flux",),
    # What has a GELU by tanh.
    "fused_mlp": ("sd3", "flux", "pixart", "qwen", "wan"),
    "fused_rotary": ("flux",),
    # The tiny UNets have no attention at full resolution.
    "tome": (),
    "first_block_cache": CACHED,
    # Qwen-Image's and Wan's guidance is a second call, and Wan names its blocks otherwise.
    "pyramid_attention_broadcast": ("flux",),
    "faster_cache": ("flux",),
    "taylorseer": ("flux", "qwen"),
    "taylorseer_lite": ("flux", "qwen"),
    "mag_cache": ("flux",),
}
"""By optimization, the pipelines that it fits; others fit all."""


@pytest.mark.parametrize("name", EVERY)
def test_optimization_applies_or_says_why_not(name: str) -> None:
    workload = tiny.workload(name, steps=6)
    source = models.open_source(workload.model)
    catalog = shipped().without_cases()
    with built(catalog.case(workload, "reference"), source, CPU) as pipeline:
        generation = Generation(pipeline, workload)
        plain = generation.images()
        another = generation.images(of=workload.changed(seed=workload.seed + 1))
    another_db = pixels.distance(another, plain).psnr_db
    for optimization in RUNS_ON_CPU:
        case = catalog.case(workload, optimization)
        fits = name in FITS.get(optimization, EVERY)
        try:
            with built(case, source, CPU) as pipeline:
                assert fits, f"{optimization} fits {name}"
                _check(case.stack[0], pipeline, workload, plain, another_db)
        except DoesNotFit as error:
            reason = str(error)
            assert not fits, reason


def _check(
    optimization: Optimization, pipeline: Any, workload: Any, plain: Any, another_db: float
) -> None:
    optimization.applied(pipeline)
    generation = Generation(pipeline, workload)
    images = generation.images()
    assert images.shape == plain.shape
    # None of these is so lossy that it could be of another seed. Tiles of a few pixels, which
    # promise nothing, are at 14.8 dB in the tiny Stable Diffusion, and another seed at 8.
    least_db = 15 if optimization.tolerance != NO_TOLERANCE else another_db + 3
    assert pixels.distance(images, plain).psnr_db > least_db, optimization.name
    optimization.applied(pipeline)
    try:
        seen = structure.observe(pipeline, workload)
    except structure.NotCountable as error:
        reads = ("first_block_cache", "dbcache", "autocast")
        assert optimization.name in reads, str(error)  # noqa: PT017
    else:
        calls = [work.calls.total(workload.steps) for work in seen.operators.values()]
        assert min(calls) >= 0, optimization.name
    assert pixels.distance(generation.images(), images).psnr_db == IDENTICAL_DB


# Faults

GENERAL = (
    "no_guidance",
    "prompt_lost",
    "block_skipped",
    "upcast_norms",
    "item_in_step",
    "tensor_from_list",
    "sdpa_math_only",
    "decoded_twice",
    "stale_output",
    "images_kept",
)
KINDS = {"sd": "a UNet", "sd3": "an MMDiT", "zimage": "a single stream", "wan": "video"}


@pytest.fixture
def trials(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trials]:
    workload = tiny.workload(request.param, steps=6)
    load("diffusers_perf.faults")
    catalog: Catalog = shipped().without_cases()
    catalog.add_cases(workload)
    bench = Bench(
        sources=models.Sources(device="cpu"),
        machine=this_machine("cpu"),
        rounds=1,
        say=lambda *_: None,
        images_folder=None,
        store=BaselineStore(tmp_path / "baselines"),
    )
    yield Trials(
        judging=Judging(bench=bench),
        project=Project(shared=catalog),
        folder=tmp_path,
        workload=workload.name,
    )
    bench.close()


@pytest.mark.parametrize("trials", KINDS, indirect=True)
def test_general_faults_are_detected(trials: Trials) -> None:
    rows = {name: trials.run(declared()[name]) for name in GENERAL}
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(GENERAL, "detected"), {
        name: row.sentence for name, row in rows.items()
    }
    assert trials.false_alarms == []
