"""The operators of `fused_mlp`, compared with the layers that they stand for; on a GPU where there
is one.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from diffusers_perf.techniques.fused_mlp import (
    linear_gelu,
    linear_of_two,
    runs_gelu_apart,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IN, OUT, OTHER = 48, 64, 80
RECORDED = Path(__file__).parent / "recorded" / "h100-fp16-2steps.json.gz"


@pytest.fixture
def drawn() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    return {
        "x": draw(2, 24, IN),
        "other": draw(2, 24, OTHER),
        "weight": draw(OUT, IN) / math.sqrt(IN),
        "wide": draw(OUT, IN + OTHER) / math.sqrt(IN + OTHER),
        "bias": draw(OUT),
    }


def gelu(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


def test_gelu_is_approximated_by_tanh(drawn: dict[str, torch.Tensor]) -> None:
    """GELU by erf, which the same call of PyTorch computes on a CPU, is 5e-4 away."""
    x, _, weight, _, bias = drawn.values()
    wanted = gelu(functional.linear(x.double(), weight.double(), bias.double()))
    made = linear_gelu(x, weight, bias)
    assert made.shape == wanted.shape
    assert (made - wanted).abs().max() < 1e-5
    # A prompt's rows need not lie next to each other, and there may be one alone.
    assert (linear_gelu(x[:, 3:9], weight, bias) - wanted[:, 3:9]).abs().max() < 1e-5
    assert (linear_gelu(x[:1, :1], weight, bias) - wanted[:1, :1]).abs().max() < 1e-5


def test_sum_of_two_products_is_that_of_the_joined(drawn: dict[str, torch.Tensor]) -> None:
    x, other, _, weight, bias = drawn.values()
    joined = torch.cat([x, other], dim=2)
    wanted = functional.linear(joined.double(), weight.double(), bias.double())
    before = bias.clone()
    made = linear_of_two(x, other, weight, bias)
    assert made.shape == wanted.shape
    assert (made - wanted).abs().max() < 1e-5
    assert (bias == before).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_exact_as_the_layers(
    dtype: torch.dtype, drawn: dict[str, torch.Tensor]
) -> None:
    x, other, weight, wide, bias = (tensor.to(dtype) for tensor in drawn.values())

    def error(made: torch.Tensor, wanted: torch.Tensor) -> float:
        return float((made.double() - wanted).square().mean().sqrt())

    joined = torch.cat([x, other], dim=2)
    wanted = gelu(functional.linear(x.double(), weight.double(), bias.double()))
    layers = error(gelu(functional.linear(x, weight, bias)), wanted)
    assert error(linear_gelu(x, weight, bias), wanted) <= 1.5 * layers
    wanted = functional.linear(joined.double(), wide.double(), bias.double())
    layers = error(functional.linear(joined, wide, bias), wanted)
    assert error(linear_of_two(x, other, wide, bias), wanted) <= 1.5 * layers


def test_operators_are_known_without_data(drawn: dict[str, torch.Tensor]) -> None:
    """To the compiler, and to what counts on tensors without data."""
    x, other, weight, wide, bias = drawn.values()
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(linear_gelu, (x, weight, bias), test_utils=utilities)
    torch.library.opcheck(linear_of_two, (x, other, wide, bias), test_utils=utilities)
    with FlopCounterMode(display=False) as counter:
        linear_gelu(x, weight, bias)
        linear_of_two(x, other, wide, bias)
    assert counter.get_total_flops() == 2 * 48 * OUT * (IN + IN + OTHER)


def test_gelu_of_its_own_is_told_from_a_product_with_one() -> None:
    lines = json.loads(gzip.decompress(RECORDED.read_bytes()))["traceEvents"]
    names = {line["name"] for line in lines if line.get("cat") == "kernel"}
    apart = [name for name in names if "gelu" in name.lower()]
    assert apart
    assert all(runs_gelu_apart([name]) for name in apart)
    assert runs_gelu_apart(
        [
            "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_bias_TNT",
            "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl("
            "at::TensorIteratorBase&, at::native::GeluType)::{lambda()#1}::operator()() const>",
        ]
    )
    products = names - {*apart}
    products |= {
        "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_bias_GELU_TNT",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_bias_f32_"
        "gelu_execute_segment_k_off_kernel__5x_cublas",
        "void cublasLt::epilogue::impl::globalKernel<8, 32, float, __nv_bfloat16, gelu>()",
    }
    assert not runs_gelu_apart(products)
