"""The techniques against the pipelines they stand for, and their applied checks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tqdm.auto

from diffusers_perf import models
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.host import left
from diffusers_perf.measurement.pipelines import DoesNotFit, Source, built
from diffusers_perf.measurement.replay import replay
from diffusers_perf.records import pixels
from diffusers_perf.techniques.conditioning import precompute
from diffusers_perf.techniques.cuda_graphs import Graphed
from diffusers_perf.techniques.device_steps import Plan, StepKind
from diffusers_perf.techniques.fused import _biased
from diffusers_perf.techniques.schedules import ROOM, table
from diffusers_perf.techniques.shared_prefix import share_prefix
from perf_tests.cases import suites, workloads
from perf_tests.tests.unit.catalogs import ours

FEW = replace(workloads.DDIM50_SMALL, steps=2)
EXACT_DB = 100
"""What another order of the same sums leaves between two float32 images, and more."""


@pytest.fixture(scope="module")
def source() -> Source:
    models.quiet_libraries()
    return models.open_source("small")


@contextmanager
def pipeline_of(name: str, source: Source, workload: Workload = FEW) -> Iterator[Any]:
    with built(ours().case(workload, name), source, torch.device("cpu")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def plain(source: Source) -> Any:
    with pipeline_of("reference", source) as pipeline:
        return Generation(pipeline, FEW).images()


def test_sixteen_blocks_are_sixteen_graphs(source: Source) -> None:
    """As many as merged tokens make of one code; more than dynamo allows by itself."""
    before = torch._dynamo.config.recompile_limit
    with pipeline_of("compile_regional", source):
        assert torch._dynamo.config.recompile_limit >= 16 > before
    assert torch._dynamo.config.recompile_limit == before


def test_progress_bar_thread_sleeps_during_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tqdm.std.tqdm, "monitor_interval", 10)
    for kind in (tqdm.std.tqdm, tqdm.auto.tqdm):
        monkeypatch.setattr(kind, "monitor", None)
    before = set(threading.enumerate())
    source = models.open_source("small")
    with pipeline_of("reference", source) as pipeline:
        Generation(pipeline, FEW).images()
    assert [thread for thread in set(threading.enumerate()) - before if thread.is_alive()] == []


@pytest.mark.parametrize(
    "name",
    [
        "fused_qkv",
        "sdpa_math",
        "device_steps",
        "device_steps+precomputed_conditioning",
        "fused_qkv+device_steps+precomputed_conditioning",
        "device_steps+shared_prefix",
        "channels_last+fused_group_norm",
        "fused_qkv+channels_last+fused_group_norm+device_steps+precomputed_conditioning+shared_prefix",
    ],
)
def test_images_match_the_plain_pipeline(name: str, source: Source, plain: Any) -> None:
    case = ours().case(FEW, name)
    with pipeline_of(name, source) as pipeline:
        generation = Generation(pipeline, FEW)
        for optimization in case.stack:
            optimization.applied(pipeline)
        assert pixels.distance(generation.images(), plain).psnr_db > EXACT_DB
        # Nothing of one generation is left for the next, whatever it is of.
        assert left(generation, torch.device("cpu")).ignored == ()
        assert pixels.distance(generation.images(), plain).psnr_db > EXACT_DB
        # As users call it, without naming what they get.
        assert generation.call(output_type=None)().images[0].size == (64, 64)
        for optimization in case.stack:
            optimization.applied(pipeline)


def test_applied_checks_compile_no_further_shape(
    source: Source, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An applied check's small sample never reaches what was compiled for the real one."""
    shapes: list[torch.Size] = []

    def compiler(function: Any, **_: Any) -> Any:
        def compiled(*args: Any, **kwargs: Any) -> Any:
            shapes.append(args[0].shape)
            return function(*args, **kwargs)

        compiled._torchdynamo_orig_callable = function  # type: ignore[attr-defined]
        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    with pipeline_of("best_lossless", source) as pipeline:
        for optimization in ours().case(FEW, "best_lossless").stack:
            optimization.applied(pipeline)
        assert shapes == []
    with pipeline_of("compile+device_steps", source) as pipeline:
        ours().optimizations["compile"].applied(pipeline)
        replay(pipeline)
        assert shapes == []
        images = Generation(pipeline, FEW).images()
        assert pixels.distance(images, plain).psnr_db > EXACT_DB
        assert len(shapes) == FEW.steps + 1
    with pipeline_of("compile+late_bias", source) as pipeline:
        ours().optimizations["late_bias"].applied(pipeline)
        images = Generation(pipeline, FEW).images()
        assert pixels.distance(images, plain).psnr_db > EXACT_DB
        next(iter(_biased(pipeline.unet))).forward = None  # type: ignore[assignment, method-assign]
        with pytest.raises(applied.NotApplied, match="add their biases"):
            ours().optimizations["late_bias"].applied(pipeline)


def test_modules_are_not_walked_between_images(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As diffusers' own words on a pipeline's device and dtype do, with nothing on the GPU."""
    walked: list[str] = []
    walk = torch.nn.Module.named_modules

    def noting(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        walked.append(type(module).__name__)
        return walk(module, *args, **kwargs)

    with pipeline_of("device_steps+precomputed_conditioning+shared_prefix", source) as pipeline:
        generation = Generation(pipeline, FEW)
        generation()
        monkeypatch.setattr(torch.nn.Module, "named_modules", noting)
        generation()
        assert "UNet2DConditionModel" not in walked
        assert pipeline.unet.dtype == torch.float32
        assert "UNet2DConditionModel" in walked


def test_step_table_matches_ddim(source: Source) -> None:
    """`next = a * latents + b * noise`, compared with the scheduler's own step."""
    with pipeline_of("reference", source) as pipeline:
        scheduler = pipeline.scheduler
        rows = table(scheduler, 10)
        latents, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
        for step, timestep in enumerate(scheduler.timesteps):
            assert rows[0, step] == timestep
            own = scheduler.step(noise, timestep, latents).prev_sample
            ours = rows[1, step].double() * latents + rows[2, step].double() * noise
            assert torch.allclose(own, ours, atol=1e-6)
        with pytest.raises(ValueError, match=f"{ROOM + 1} steps are more than"):
            table(scheduler, ROOM + 1)


def test_schedule_other_than_plain_ddim_is_refused(source: Source) -> None:
    with (
        pytest.raises(DoesNotFit, match="its scheduler is a PNDMScheduler, not one of DDIM"),
        pipeline_of("device_steps", source, workloads.PNDM25X4_SMALL),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "puts_in"),
    [("precomputed_conditioning", precompute), ("shared_prefix", share_prefix)],
)
def test_optimization_that_needs_device_steps_says_so(
    name: str, puts_in: Callable[[Any], None], source: Source
) -> None:
    with pytest.raises(ValueError, match=f"{name} needs device_steps before it"):
        ours().case(FEW, name)
    with (
        pipeline_of("reference", source) as pipeline,
        pytest.raises(ValueError, match="device_steps, which has to come before"),
    ):
        puts_in(pipeline)


def test_steps_are_grouped_by_kind() -> None:
    fresh, kept = StepKind(guided=True, fresh=True), StepKind(guided=True, fresh=False)
    alone = replace(fresh, guided=False), replace(kept, guided=False)
    assert Plan().kinds(3) == [fresh] * 3
    assert Plan(fresh_every=2).kinds(5) == [fresh, kept, fresh, kept, fresh]
    assert Plan(fresh_every=3, fresh_first=2).kinds(5) == [fresh, fresh, kept, fresh, kept]
    # What is kept of guided steps does not fit those without guidance.
    assert Plan(fresh_every=2, guided_share=0.5).kinds(6) == [
        *(fresh, kept, fresh),
        *(alone[0], alone[1], alone[0]),
    ]


class Taped(Graphed):
    """Captured by writing down the call: what a GPU does is not there."""

    captures = 0

    def _capture(self, leaves: list[Any], tree: Any) -> Any:
        Taped.captures += 1
        inputs = [x.clone() if isinstance(x, torch.Tensor) else x for x in leaves]
        args, kwargs = torch.utils._pytree.tree_unflatten(inputs, tree)
        outputs = self.function(*args, **kwargs)
        graph = SimpleNamespace(replay=lambda: outputs[0].copy_(self.function(*args, **kwargs)[0]))
        return graph, inputs, outputs


class OnGpu(torch.Tensor):
    """Says that it is on a GPU."""

    is_cuda = True


def test_graph_copies_in_and_out_and_knows_its_shapes() -> None:
    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(*shape).as_subclass(OnGpu)

    graphed = Taped(lambda x, *, twice: (2 * x if twice else x + 0,))
    (first,) = graphed(ones(2), twice=True)
    (second,) = graphed(3 * ones(2), twice=True)
    assert first.tolist() == [2, 2]  # and not what the second wrote there
    assert second.tolist() == [6, 6]
    assert Taped.captures == 1
    graphed(ones(3), twice=True)
    graphed(ones(3), twice=False)
    assert Taped.captures == 3
    with pytest.raises(TypeError, match="on the GPU alone"):
        graphed(torch.ones(2), twice=True)


def test_applied_checks_name_what_is_missing(source: Source) -> None:
    missing = {
        "compile": "the unet is not compiled",
        "compile_regional": "not all of the unet's repeated blocks are compiled",
        "cuda_graph": "the unet is launched kernel by kernel",
        "cuda_graph_step": "the pipeline is a StableDiffusionPipeline, not a DeviceSteps",
        "device_steps": "the pipeline is a StableDiffusionPipeline, not a DeviceSteps",
        "shared_prefix": "both halves of a guided batch run through all of the UNet",
        "precomputed_conditioning": "the conditioning is computed in each step",
        "cudnn_benchmark": "the flag benchmark reads False",
        "fused_qkv": "0 of the unet's .* attentions are fused",
        "fused_group_norm": "group normalizations are PyTorch's own",
        "late_bias": "transformer blocks add their biases",
        "sdpa_math": "attention runs on FLASH_ATTENTION, not MATH",
    }
    with pipeline_of("reference", source) as pipeline:
        for name, sentence in missing.items():
            with pytest.raises(applied.NotApplied, match=sentence):
                ours().optimizations[name].applied(pipeline)
    with (
        pytest.raises(applied.NotApplied, match="kernel by kernel, not as CUDA graphs"),
        pipeline_of("device_steps", source) as pipeline,
    ):
        ours().optimizations["cuda_graph_step"].applied(pipeline)


def test_missing_normalization_is_detected(source: Source) -> None:
    with pipeline_of("channels_last+fused_group_norm", source) as pipeline:
        unet, check = pipeline.unet, ours().optimizations["fused_group_norm"].applied
        block = unet.down_blocks[0].resnets[0]
        fused, block.forward = block.forward, partial(_residual_block_without_shift, block)
        with pytest.raises(applied.NotApplied, match=r"\d+ of the UNet's \d+ residual blocks are"):
            check(pipeline)
        block.forward = fused
        check(pipeline)
        del unet.conv_norm_out.forward
        with pytest.raises(applied.NotApplied, match="PyTorch's own"):
            check(pipeline)


def test_fused_blocks_call_their_layers(source: Source) -> None:
    """What counts or watches layers by their hooks misses none."""

    def seen(stack: str) -> set[str]:
        names: set[str] = set()
        with pipeline_of(stack, source) as pipeline:
            for name, module in pipeline.unet.named_modules():
                if isinstance(module, torch.nn.Conv2d | torch.nn.GroupNorm):
                    module.register_forward_hook(lambda *_, name=name: names.add(name))
            replay(pipeline)
        return names

    plain = seen("channels_last")
    assert any("conv1" in name for name in plain)
    assert seen("channels_last+fused_group_norm") == plain


def _residual_block_without_shift(block: Any, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = block.conv2(block.norm2(block.conv1(block.norm1(x))))
    return hidden + (x if block.conv_shortcut is None else block.conv_shortcut(x))


@pytest.mark.parametrize(
    "stack",
    ["channels_last+deepcache+fused_group_norm", "channels_last+fused_group_norm+deepcache"],
)
def test_rewriting_comes_before_wrapping(stack: str, source: Source) -> None:
    """Else it would silently take the wrapper away."""
    with pipeline_of(stack, source) as pipeline:
        for name in ("fused_group_norm", "deepcache"):
            ours().optimizations[name].applied(pipeline)


def test_stacks_have_names() -> None:
    assert suites.BEST_LOSSLESS == "best_lossless"
    case = ours().case(workloads.DDIM50, "best_lossless")
    assert [o.name for o in case.stack][:2] == ["fp16", "channels_last"]
    tolerance = case.tolerance_on("seeded")
    assert tolerance is not None
    assert tolerance.psnr_db == 40
