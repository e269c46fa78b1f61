"""`fused_mlp` in whole pipelines, alone and with what it can be stacked with."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from diffusers_perf import models
from diffusers_perf.catalog.status import Status
from diffusers_perf.measurement import layers, structure
from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import anatomy_of
from diffusers_perf.measurement.failing import CaseError, failing
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.pipelines import DoesNotFit, built
from diffusers_perf.records import pixels
from diffusers_perf.techniques import device_steps, fused_mlp
from diffusers_perf.techniques.fused_mlp import fuse_mlps, why_mlps_do_not_fuse
from perf_tests.cases import workloads
from perf_tests.cases.fast import LOOP
from perf_tests.tests import tiny
from perf_tests.tests.stacked import CPU, EXACT_DB, STEPS, images_of, pipeline_of
from perf_tests.tests.taped import Taped
from perf_tests.tests.unit.catalogs import ours

LOSSLESS = 1.5
"""The most that a lossless path's error is of the eager one's, both to a more precise one."""


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    models.quiet_libraries()


@pytest.mark.parametrize(
    ("dtype", "exact"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float64)]
)
def test_prediction_is_as_exact_as_the_eager_one(dtype: torch.dtype, exact: torch.dtype) -> None:
    source = models.open_source(workloads.FLUX8.model)
    with built(ours().case(workloads.FLUX8, "reference"), source, CPU) as pipeline:
        (denoiser,) = anatomy_of(pipeline).denoisers
        plain = pipeline.transformer

        def predicted(dtype: torch.dtype, *, fused: bool = False) -> torch.Tensor:
            transformer = deepcopy(plain).to(dtype)
            if fused:
                fuse_mlps(transformer)
            args, kwargs = denoiser.call.on(CPU, dtype)
            with torch.no_grad():
                prediction: torch.Tensor = transformer(*args, **kwargs)[0]
            return prediction.double()

        wanted = predicted(exact)
        eager, fused = predicted(dtype) - wanted, predicted(dtype, fused=True) - wanted
    assert 0 < eager.abs().max() < 0.1
    assert fused.square().mean().sqrt() <= LOSSLESS * eager.square().mean().sqrt()
    assert fused.abs().max() <= LOSSLESS * eager.abs().max()


@pytest.mark.parametrize(
    "stack",
    [
        "fused_mlp",
        f"fused_qkv+fused_mlp+{LOOP}",
        f"fused_mlp+{LOOP}+cuda_graph_step",
        "fused_mlp+channels_last+precomputed_prompt",
        "fused_mlp+layerwise_casting",
        "layerwise_casting+fused_mlp",
    ],
)
def test_images_match_the_plain_pipeline(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_steps, "Graphed", Taped)
    plain = stack.replace("fused_mlp", "").strip("+").replace("++", "+") or "reference"
    assert pixels.distance(images_of(stack), images_of(plain)).psnr_db > EXACT_DB


@pytest.mark.parametrize("family", ["sd3", "qwen", "wan", "pixart"])
def test_other_transformers_with_such_a_gelu_match(family: str) -> None:
    made, plain = images_of("fused_mlp", family), images_of("reference", family)
    assert pixels.distance(made, plain).psnr_db > EXACT_DB


@pytest.mark.parametrize(
    "cache", ["first_block_cache", "mag_cache", "taylorseer", "taylorseer_lite", "dbcache"]
)
def test_cache_computes_fused_blocks(cache: str) -> None:
    if cache == "dbcache":
        pytest.importorskip("cache_dit")
    plain = images_of(cache)
    for stack in (f"fused_mlp+{cache}", f"{cache}+fused_mlp"):
        assert pixels.distance(images_of(stack), plain).psnr_db > EXACT_DB


def test_blocks_of_a_kind_share_their_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole, without a break, and run as they are."""
    compiler = torch.compile

    def call(module: Any, **options: Any) -> None:
        module._compiled_call_impl = compiler(module._call_impl, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", call)
    workload = tiny.workload("flux", steps=STEPS)
    made: dict[str, Any] = {}
    graphs: set[int] = set()
    for stack in ("compile_regional", "fused_mlp+compile_regional", "compile_regional+fused_mlp"):
        # What another test compiled of these blocks, in another shape, makes more graphs.
        torch.compiler.reset()
        counters.clear()
        with pipeline_of(stack) as pipeline:
            made[stack] = Generation(pipeline, workload).images()
            assert not counters["graph_break"]
            graphs.add(counters["stats"]["unique_graphs"])
    plain, *others = made.values()
    assert all(pixels.distance(other, plain).psnr_db > EXACT_DB for other in others)
    assert len(graphs) == 1


@pytest.mark.parametrize("other", ["int8", "fp8", "fp8_tensor"])
def test_products_of_another_kind_are_refused(other: str) -> None:
    workload = tiny.workload("flux", steps=STEPS)
    for stack in (f"fused_mlp+{other}", f"{other}+fused_mlp"):
        with pytest.raises(ValueError, match="both decide the denoiser's linear layers"):
            ours().case(workload, stack)


def test_layers_that_are_not_plain_are_refused() -> None:
    with pipeline_of("reference") as pipeline:
        assert why_mlps_do_not_fuse(pipeline) is None
        layer = pipeline.transformer.single_transformer_blocks[0].proj_out
        bias, layer.bias = layer.bias, None
        assert why_mlps_do_not_fuse(pipeline) == (
            "single_transformer_blocks.0.proj_out of its transformer is not a plain linear layer "
            "with a bias"
        )
        layer.bias = bias
        assert why_mlps_do_not_fuse(pipeline) is None


def test_pipeline_that_comes_with_casting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's own may, which is cast before anything is done to it."""
    workload = tiny.workload("flux", steps=STEPS)
    source = models.open_source(workload.model)
    loading = source.load

    def cast(**options: Any) -> Any:
        pipeline = loading(**options)
        pipeline.transformer.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
        )
        return pipeline

    monkeypatch.setattr(source, "load", cast)
    case = ours().case(workload, "fused_mlp")
    with pytest.raises(CaseError) as refused, failing(case, CPU), built(case, source, CPU):
        pass
    assert refused.value.status is Status.SKIPPED
    assert str(refused.value) == (
        "a Linear of the pipeline is wrapped already, by casting, a cache or offloading, and its "
        "forward cannot be replaced"
    )


def test_quantized_weights_are_refused() -> None:
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    with pipeline_of("reference") as pipeline:
        block = pipeline.transformer.transformer_blocks[0]
        quantize_(block.ff, Int8WeightOnlyConfig(version=2, set_inductor_config=False))
        reason = why_mlps_do_not_fuse(pipeline)
    assert reason is not None
    assert reason.startswith("transformer_blocks.0.ff.net.0.proj of its transformer is not a plain")


def test_adapters_are_refused() -> None:
    peft = pytest.importorskip("peft")
    with pipeline_of("reference") as pipeline:
        pipeline.transformer.add_adapter(peft.LoraConfig(r=4, target_modules=["proj_out"]))
        seen = why_mlps_do_not_fuse(pipeline)
    assert seen == "its transformer has adapters, which a fused feed-forward leaves out"


def test_denoiser_without_such_a_gelu_is_refused() -> None:
    with (
        pytest.raises(DoesNotFit, match=r"no feed-forward of its unet \(UNet2DConditionModel\)"),
        pipeline_of("fused_mlp", "sd"),
    ):
        pass


def test_missing_layer_is_noticed() -> None:
    check = ours().optimizations["fused_mlp"].applied
    with (
        pipeline_of("reference") as pipeline,
        pytest.raises(NotApplied, match="0 of the denoiser's 6 GELUs are fused"),
    ):
        check(pipeline)
    with pipeline_of("fused_mlp") as pipeline:
        check(pipeline)
        block = pipeline.transformer.single_transformer_blocks[0]
        del block.forward, block.proj_out.forward
        with pytest.raises(NotApplied, match="1 of the denoiser's 2 single-stream blocks join"):
            check(pipeline)
        del block.proj_mlp.forward, block.act_mlp.forward
        with pytest.raises(NotApplied, match="5 of the denoiser's 6 GELUs are fused"):
            check(pipeline)


def test_gelu_that_cublas_leaves_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the largest product: the single-stream blocks', of text and image."""
    asked: list[tuple[Any, ...]] = []

    def kernels(*given: Any) -> tuple[str, ...]:
        asked.append(given)
        return ("gemm", "vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl()>")

    monkeypatch.setattr(fused_mlp, "kernels_of_gelu", kernels)
    with pipeline_of("fused_mlp") as pipeline:
        shapes: list[Any] = []
        block = pipeline.transformer.single_transformer_blocks[0]
        block.proj_mlp.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
        with pytest.raises(NotApplied, match=r"a kernel of its own .+ DISABLE_ADDMM_CUDA_LT set\?"):
            ours().optimizations["fused_mlp"].applied(pipeline)
        weight = block.proj_mlp.weight.shape
    assert asked == [(*shapes, weight, torch.float32, CPU)]


def test_fused_layers_are_seen_by_hooks() -> None:
    """What counts or watches layers by their hooks misses none."""
    with pipeline_of("reference") as plain, pipeline_of("fused_mlp") as fused:
        seen = layers.wide_layers(plain).keys()
        assert any(path.endswith("net.0.proj") for path in seen)
        assert layers.wide_layers(fused).keys() == seen


def test_fused_products_are_the_same_work() -> None:
    workload = tiny.workload("flux", steps=STEPS)
    work = []
    for stack in ("reference", "fused_mlp"):
        with pipeline_of(stack) as pipeline:
            work.append(structure.observe(pipeline, workload))
    plain, fused = work
    assert fused.total().flops == plain.total().flops
    assert fused.total().bytes.total(STEPS) < plain.total().bytes.total(STEPS)
    families = [counts.by(lambda operator: operator.family)["matmul"].calls for counts in work]
    assert families[1].per_step - families[0].per_step == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_followed_as_by_the_layers(dtype: torch.dtype) -> None:
    """By a block as it is, and by one that is traced whole; on a GPU where there is one."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    block: Any = FluxSingleTransformerBlock(64, 2, 32).to(device)
    # PyTorch warns of a normalization whose weight has another dtype than its input.
    block.attn.norm_q.weight = block.attn.norm_k.weight = None
    fused = deepcopy(block)
    fuse_mlps(fused)
    traced = deepcopy(fused)
    torch.compiler.reset()
    traced.compile(backend="aot_eager", fullgraph=True)
    given = [tensor.to(device) for tensor in (torch.randn(1, 24, 64), torch.randn(1, 8, 64))]
    embedded = torch.randn(1, 64, device=device)

    def made(own: Any, *, lower: bool = True) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=lower):
            output: torch.Tensor = own(*given, embedded)[1]
        return output

    wanted = made(block, lower=False)
    layers, *errors = (
        (made(own) - wanted).square().mean().sqrt() for own in (block, fused, traced)
    )
    assert all(0 < error <= 1.5 * layers for error in errors)
