"""Parts of a pipeline that are compiled beside others: FLUX, traced and run as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.counters import compiled_graphs
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.host import left
from diffusers_perf.measurement.pipelines import built
from diffusers_perf.measurement.replay import replay
from diffusers_perf.optimizations import attention
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB
from perf_tests.cases import workloads
from perf_tests.cases.fast import LOOP
from perf_tests.tests import tiny
from perf_tests.tests.unit.catalogs import ours

FLUX = replace(workloads.FLUX28, steps=7)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole, as on a GPU, and run as it is."""
    models.quiet_libraries()
    compiler = torch.compile

    def traced(function: Any, *, mode: Any = None, **options: Any) -> Any:
        return compiler(function, backend="eager", **options)

    def call(module: Any, **options: Any) -> None:
        module._compiled_call_impl = traced(module._call_impl, **options)

    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr(torch.nn.Module, "compile", call)


@contextmanager
def pipeline_of(name: str, workload: Workload = FLUX) -> Iterator[Any]:
    source = models.open_source(workload.model)
    with built(ours().case(workload, name), source, CPU) as pipeline:
        yield pipeline


def images_of(name: str, workload: Workload = FLUX) -> Any:
    with pipeline_of(name, workload) as pipeline:
        generation = Generation(pipeline, workload)
        images = generation.images()
        assert (generation.images() == images).all()
        assert left(generation, CPU).ignored == ()
        for optimization in ours().case(workload, name).stack:
            optimization.applied(pipeline)
        return images


@pytest.mark.parametrize(
    "stack", ["mag_cache+compile_regional", "compile_regional+taylorseer_lite"]
)
def test_cache_around_compiled_blocks_gives_the_same(stack: str) -> None:
    cache = stack.replace("compile_regional", "").strip("+")
    assert pixels.distance(images_of(stack), images_of(cache)).psnr_db == IDENTICAL_DB


def test_looking_at_inputs_compiles_nothing() -> None:
    """Without guidance a batch is half as large: a minute of compilation for SDXL's UNet."""
    guided = replace(
        workloads.DDIM50_SMALL, steps=3, sensitive_to={"guidance": {"guidance_scale": 1.0}}
    )
    with pipeline_of("compile_regional", guided) as pipeline:
        generation = Generation(pipeline, guided)
        generation()
        before = compiled_graphs()
        assert left(generation, CPU).ignored == ()
        assert compiled_graphs() == before
        generation.images(of=guided.probes["guidance"])
        assert compiled_graphs() > before


def test_quantized_blocks_are_compiled_with_fused_projections() -> None:
    pytest.importorskip("torchao")
    eager = images_of("bf16+fused_qkv+int8")
    compiled = images_of("bf16+fused_qkv+compile_regional+int8")
    assert pixels.distance(compiled, eager).psnr_db == IDENTICAL_DB


def test_scales_of_float8_weights_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their products need a GPU that has them; a CPU is made to compute them as well."""
    pytest.importorskip("torchao")
    from torchao.quantization import quant_api

    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)
    with pipeline_of("bf16+fp8_tensor") as pipeline:
        ours().optimizations["fp8_tensor"].applied(pipeline)
        with pytest.raises(applied.NotApplied, match="are 1, not"):
            ours().optimizations["fp8"].applied(pipeline)


def test_layers_of_all_modules_are_offloaded() -> None:
    """Here from the CPU to itself, which shows where diffusers puts its hooks."""
    group_offload = ours().optimizations["group_offload"]
    plain = images_of("reference")
    with pipeline_of("reference") as pipeline:
        fits = group_offload.needs.fits
        assert fits is not None
        assert fits(pipeline) is None
        with pytest.raises(applied.NotApplied, match=r"0% of the .+ wait on the host"):
            group_offload.applied(pipeline)
        pipeline.enable_group_offload(onload_device=CPU, offload_type="leaf_level")
        group_offload.applied(pipeline)
        assert (Generation(pipeline, FLUX).images() == plain).all()
        pipeline.vae._supports_group_offloading = False
        assert fits(pipeline) == "diffusers moves no layers of its vae (AutoencoderKL)"


@pytest.mark.parametrize(
    "stack",
    ["compile_regional+group_offload", "cuda_graph_decoder+group_offload", "int8+group_offload"],
)
def test_offloaded_layers_are_neither_captured_nor_compiled(stack: str) -> None:
    with pytest.raises(ValueError, match="both decide"):
        ours().case(FLUX, stack)


def test_cache_of_a_package_computes_blocks_that_are_compiled() -> None:
    pytest.importorskip("cache_dit")
    images = images_of("dbcache")
    assert 20 < pixels.distance(images, images_of("reference")).psnr_db < 100
    for stack in ("compile_regional+dbcache", f"{LOOP}+dbcache"):
        assert pixels.distance(images_of(stack), images).psnr_db > 100
    with (
        pipeline_of("reference") as pipeline,
        pytest.raises(applied.NotApplied, match="no cache of cache-dit"),
    ):
        ours().optimizations["dbcache"].applied(pipeline)
    with pipeline_of("dbcache") as pipeline:
        del pipeline.transformer.forward
        with pytest.raises(applied.NotApplied, match="its last block in 5 of 5 calls"):
            ours().optimizations["dbcache"].applied(pipeline)


def test_attention_of_a_package_stands_in_for_the_denoisers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its kernels need a GPU and wider heads than the embedded transformer's."""
    dispatched = torch.nn.functional.scaled_dot_product_attention

    def attended(query: Any, key: Any, value: Any, *, sm_scale: Any) -> Any:
        return dispatched(query, key, value, scale=sm_scale)

    package = ModuleType("sageattention")
    package.sageattn = attended  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sageattention", package)
    sage = ours().optimizations["sage"]
    with pipeline_of("reference") as pipeline:
        assert sage.needs.fits is not None
        seen = sage.needs.fits(pipeline)
        assert seen == "the heads of its transformer have 32 channels, not 64, 96 or 128"
    needs = replace(sage.needs, fits=None)
    monkeypatch.setitem(ours().optimizations, "sage", replace(sage, needs=needs))
    plain = images_of("reference")
    with (
        pipeline_of("sage") as pipeline,
        pytest.raises(applied.NotApplied, match="0 of 6 attentions call sageattn"),
    ):
        sage.applied(pipeline)
    monkeypatch.setattr(attention, "SAGE_HEADS", (32,))
    assert pixels.distance(images_of("sage+compile_regional"), plain).psnr_db > 100
    assert torch.nn.functional.scaled_dot_product_attention is dispatched


@pytest.mark.parametrize(
    "stack",
    [
        "compile_regional+taylorseer",
        "compile_regional+pyramid_attention_broadcast",
        "compile_regional+faster_cache",
        "compile+first_block_cache",
        "device_steps+cuda_graph_step+mag_cache",
    ],
)
def test_cache_that_no_compiler_or_capture_follows_is_refused(stack: str) -> None:
    with pytest.raises(ValueError, match="both decide"):
        ours().case(FLUX, stack)


def test_decoder_is_compiled_and_laid_out_alone() -> None:
    plain = images_of("reference")
    stack = "compile_regional+channels_last+compile_decoder"
    assert pixels.distance(images_of(stack), plain).psnr_db > 100
    missing = {
        "compile_decoder": "the vae.decoder is not compiled",
        "channels_last": "is not in channels_last layout",
    }
    with pipeline_of("reference") as pipeline:
        for name, sentence in missing.items():
            with pytest.raises(applied.NotApplied, match=sentence):
                ours().optimizations[name].applied(pipeline)


def test_unet_is_compiled_per_block_around_its_conditioning() -> None:
    sdxl = tiny.workload("sdxl", steps=4)
    stack = "channels_last+fused_qkv+compile_regional+compile_decoder+device_steps"
    made = images_of(f"{stack}+precomputed_conditioning", sdxl)
    assert pixels.distance(made, images_of("reference", sdxl)).psnr_db > 100


def test_prompt_is_encoded_once_until_there_is_another() -> None:
    with pipeline_of("precomputed_prompt") as pipeline:
        calls: list[None] = []
        pipeline.text_encoder_2.register_forward_pre_hook(lambda *_: calls.append(None))
        generation = Generation(pipeline, FLUX)
        first, second = generation.images(), generation.images()
        assert (first == second).all()
        assert (first == images_of("reference")).all()
        assert len(calls) == 1
        other = FLUX.changed(prompt_2="a small yellow star")
        assert pixels.distance(generation.images(of=other), first).psnr_db < 60
        assert len(calls) == 2
        given = pipeline.encode_prompt(prompt="a", device=CPU)[:2]
        embedded = {"prompt_embeds": given[0], "pooled_prompt_embeds": given[1]}
        assert pipeline.encode_prompt(prompt=None, **embedded)[0] is given[0]
        ours().optimizations["precomputed_prompt"].applied(pipeline)
    with (
        pipeline_of("reference") as pipeline,
        pytest.raises(applied.NotApplied, match="encoded for each image"),
    ):
        ours().optimizations["precomputed_prompt"].applied(pipeline)


@pytest.mark.parametrize("cache", ["pyramid_attention_broadcast", "faster_cache"])
def test_cache_is_replayed_between_generations(cache: str) -> None:
    """As an applied check does, when the pipeline says no timestep."""
    with pipeline_of(cache) as pipeline:
        replay(pipeline)
