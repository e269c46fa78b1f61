"""Lossy optimizations: each does what it says, and its applied check notices when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog.build import Build
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.host import left
from diffusers_perf.measurement.pipelines import Source, built
from diffusers_perf.measurement.replay import replay
from diffusers_perf.optimizations import caching
from diffusers_perf.records import pixels
from diffusers_perf.techniques import device_steps
from perf_tests.cases import workloads
from perf_tests.tests import uneven
from perf_tests.tests.taped import Taped
from perf_tests.tests.unit.catalogs import ours

CPU = torch.device("cpu")
FEW = replace(workloads.DDIM50_SMALL, steps=4)
EXACT_DB = 100
"""What another order of the same sums leaves between two float32 images, and more."""


@pytest.fixture(scope="module")
def source() -> Source:
    models.quiet_libraries()
    return models.open_source("small")


@contextmanager
def pipeline_of(name: str, source: Source) -> Iterator[Any]:
    with built(ours().case(FEW, name), source, torch.device("cpu")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def plain(source: Source) -> Any:
    with pipeline_of("reference", source) as pipeline:
        return Generation(pipeline, FEW).images()


def db(one: Any, other: Any) -> float:
    return pixels.distance(one, other).psnr_db


@pytest.mark.parametrize(("cache", "interval"), [("deepcache", 3), ("sparse_deepcache", 5)])
def test_planned_caching_matches_the_package(
    cache: str, interval: int, source: Source, plain: Any
) -> None:
    pytest.importorskip("DeepCache")
    made = []
    for name in (cache, f"device_steps+{cache}"):
        with pipeline_of(name, source) as pipeline:
            generation = Generation(pipeline, FEW)
            made.append(generation.images())
            # Nothing of one generation is left for the next, nor for an applied check's small
            # sample.
            assert left(generation, torch.device("cpu")).ignored == ()
            replay(pipeline)
            assert db(generation.images(), made[-1]) > EXACT_DB
            assert pipeline.deep_cache.params["cache_interval"] == interval
            pipeline.deep_cache.params["cache_interval"] = 1
            pipeline.plan = getattr(pipeline, "plan", None) and replace(
                pipeline.plan, fresh_every=1
            )
            assert db(generation.images(), plain) > EXACT_DB
    assert db(*made) > EXACT_DB
    assert db(made[0], plain) < EXACT_DB


def test_first_steps_of_a_late_cache_are_whole(source: Source) -> None:
    """What it leaves out is counted, and its applied check notices what it would not."""
    pytest.importorskip("DeepCache")
    stack = "device_steps+late_deepcache"
    workload = replace(FEW, steps=11)
    with built(ours().case(workload, stack), source, CPU) as pipeline:
        prove = ours().optimizations["late_deepcache"].applied
        prove(pipeline)
        uneven.assert_exact(pipeline, workload, alike=False)
        calls: list[None] = []
        # It is called as long as nothing kept stands in its place.
        helper = pipeline.deep_cache.function_dict
        key = next(key for key in helper if key[1] == "mid_block")
        helper[key] = noting(helper[key], calls)
        Generation(pipeline, workload).images()
        assert len(calls) == len({0, 1, 2, 3, 6, 9})
        pipeline.plan.fresh_first = 1
        with pytest.raises(applied.NotApplied, match="first 1 steps are made in full, not 3"):
            prove(pipeline)


def noting(call: Any, calls: list[None]) -> Any:
    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return call(*args, **kwargs)

    return noted


def test_captured_steps_find_their_own_cache(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a kind is captured before another that keeps something else."""
    pytest.importorskip("DeepCache")
    monkeypatch.setattr(device_steps, "Graphed", Taped)
    stack = "device_steps+precomputed_conditioning+shared_prefix+deepcache+guidance_cutoff"
    with pipeline_of(stack, source) as pipeline:
        generation = Generation(pipeline, FEW)
        eager = generation.images()
        pipeline.captured, pipeline._buffers = True, None
        generation.images(steps=1)  # has no guided step
        assert len(pipeline._buffers.steps) == 1
        ours().optimizations["cuda_graph_step"].applied(pipeline)
        assert db(generation.images(), eager) > EXACT_DB
        replay(pipeline)
        assert db(generation.images(), eager) > EXACT_DB
        assert len(pipeline._buffers.steps) == 4


def test_merged_tokens_are_averaged_in_float64(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU adds them up in any order, which fewer digits show in the image."""
    merge = pytest.importorskip("tomesd").merge
    before, averaged = merge.bipartite_soft_matching_random2d, set()

    def noting(*args: Any, **kwargs: Any) -> Any:
        reduce, unmerge = before(*args, **kwargs)

        def noted(x: torch.Tensor, mode: str = "mean") -> Any:
            averaged.add(x.dtype)
            return reduce(x, mode)

        return noted, unmerge

    monkeypatch.setattr(merge, before.__name__, noting)
    with pipeline_of("bf16+tome", source) as pipeline:
        replay(pipeline)
        assert averaged == {torch.float64}
    assert merge.bipartite_soft_matching_random2d is noting


def test_generator_of_merging_is_on_the_device_that_tokens_name(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device of another name, tomesd makes another at its first use. No tensor of a CPU names
    a number, and each of a GPU does.
    """
    pytest.importorskip("tomesd")
    devices = []

    class Noting(torch.Generator):
        def __init__(self, *device: Any) -> None:
            devices.append(device)

    monkeypatch.setattr(torch, "Generator", Noting)
    with built(ours().case(FEW, "tome"), source, torch.device("cpu:0")):
        pass
    assert devices[-1] == (CPU,)


@pytest.mark.parametrize(
    "stack",
    [
        "distilled_unet+deepcache",
        "layerwise_casting+cuda_graph",
        "layerwise_casting+compile",
        "channels_last+fused_group_norm+layerwise_casting",
        "cuda_graph_text_encoder+model_offload",
        "device_steps+model_offload",
        # The second slice's image would stand where the first one's did.
        "compile_reduce_overhead+vae_slicing",
        "compile_reduce_overhead+vae_tiling",
    ],
)
def test_conflicting_optimizations_are_refused(stack: str) -> None:
    with pytest.raises(ValueError, match="both decide"):
        ours().case(FEW, stack)


def test_applied_check_leaves_an_offloaded_decoder_in_place(
    source: Source,
) -> None:
    """Else offloading's applied check finds it on the device, where the other check called it."""
    with pipeline_of("vae_slicing", source) as pipeline:
        events: list[str] = []
        pipeline.vae.decoder.register_forward_pre_hook(lambda *_: events.append("decoded"))
        pipeline.maybe_free_model_hooks = partial(events.append, "put back")
        ours().optimizations["vae_slicing"].applied(pipeline)
    assert events == ["decoded", "decoded", "put back", "decoded", "put back"]


def test_guidance_ends_when_its_share_is_over(source: Source, plain: Any) -> None:
    with pipeline_of("device_steps+guidance_cutoff", source) as pipeline:
        prove = ours().optimizations["guidance_cutoff"].applied
        generation = Generation(pipeline, FEW)
        pipeline.plan.guided_share = 1.0
        assert db(generation.images(), plain) > EXACT_DB
        with pytest.raises(applied.NotApplied, match="guides 100% of the steps, not 50%"):
            prove(pipeline)
        pipeline.plan.guided_share = caching.GUIDED_SHARE
        with pytest.raises(applied.NotApplied, match="every step that was made is guided"):
            prove(pipeline)
        assert db(generation.images(), plain) < EXACT_DB
        prove(pipeline)
    with pytest.raises(ValueError, match="guidance_cutoff needs device_steps before it"):
        ours().case(FEW, "guidance_cutoff")


def test_applied_checks_notice_a_missing_change(source: Source) -> None:
    changes = {
        "vae_slicing": "the vae decodes 2 by 8 by 8 latents at once, not in parts",
        "vae_tiling": "the vae decodes 1 by 8 by 8 latents at once, not in parts",
        "tome": "sees every token: none are merged",
        "layerwise_casting": "waits in torch.float32, not torch.float8_e4m3fn",
    }
    missing = {
        "deepcache": "not all of the UNet's blocks are held by DeepCache",
        "sparse_deepcache": "not all of the UNet's blocks are held by DeepCache",
        "guidance_cutoff": "the pipeline is a StableDiffusionPipeline, not a DeviceSteps",
        "int8": "is kept in torch.float32, not torch.int8",
        "fp8": "is kept in torch.float32, not torch.float8_e4m3fn",
        "fp8_tensor": "is kept in torch.float32, not torch.float8_e4m3fn",
        "model_offload": "the vae stays on cpu while it is not needed",
    }
    build = Build(dtype=torch.float32, device=CPU)
    with pipeline_of("reference", source) as pipeline:
        for name, sentence in {**missing, **changes}.items():
            optimization = ours().optimizations[name]
            with pytest.raises(applied.NotApplied, match=sentence):
                optimization.applied(pipeline)
            if name in changes and find_spec(optimization.needs.package or "torch"):
                optimization.apply(build)
                build.changes.pop()(pipeline)
                optimization.applied(pipeline)
