"""`fused_rotary` in whole pipelines, alone and with what it can be stacked with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from diffusers_perf import models
from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import anatomy_of
from diffusers_perf.measurement.pipelines import DoesNotFit
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB
from diffusers_perf.techniques import device_steps
from diffusers_perf.techniques.fused_rotary import rotary_is_fused, why_rotary_does_not_fuse
from perf_tests.cases.fast import LOOP
from perf_tests.tests.stacked import EXACT_DB, images_of, pipeline_of
from perf_tests.tests.taped import Taped


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    models.quiet_libraries()


@pytest.mark.parametrize(
    "stack",
    [
        "fused_rotary",
        "bf16+fused_rotary",
        "fused_rotary+fused_qkv",
        "sdpa_math+fused_rotary",
        "fused_rotary+sdpa_math",
        f"fused_rotary+fused_mlp+{LOOP}",
        f"fused_rotary+{LOOP}+cuda_graph_step",
        "fused_rotary+layerwise_casting",
        "fused_rotary+pyramid_attention_broadcast",
        "taylorseer_lite+fused_rotary",
    ],
)
def test_images_are_the_plain_pipelines(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit: the same numbers are multiplied and added."""
    monkeypatch.setattr(device_steps, "Graphed", Taped)
    plain = "+".join(name for name in stack.split("+") if name != "fused_rotary") or "reference"
    assert pixels.distance(images_of(stack), images_of(plain)).psnr_db == IDENTICAL_DB


def test_blocks_of_a_kind_share_their_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole, without a break, and run as they are."""
    compiler = torch.compile

    def call(module: Any, **options: Any) -> None:
        module._compiled_call_impl = compiler(module._call_impl, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", call)
    graphs: set[int] = set()
    made = []
    for stack in ("compile_regional", "fused_rotary+compile_regional"):
        # What another test compiled of these blocks, in another shape, makes more graphs.
        torch.compiler.reset()
        counters.clear()
        made.append(images_of(stack))
        assert not counters["graph_break"]
        graphs.add(counters["stats"]["unique_graphs"])
    assert pixels.distance(*made).psnr_db > EXACT_DB
    assert len(graphs) == 1


def test_other_attentions_are_refused() -> None:
    with pipeline_of("reference") as pipeline:
        assert why_rotary_does_not_fuse(pipeline) is None
        attention = pipeline.transformer.transformer_blocks[0].attn
        attention.set_processor(type("Own", (type(attention.processor),), {})())
        assert why_rotary_does_not_fuse(pipeline) == (
            "transformer_blocks.0.attn of its transformer has another processor, Own"
        )
    refused = pytest.raises(DoesNotFit, match=r"has no attention of FLUX\.1's kind")
    with refused, pipeline_of("fused_rotary", "sd3"):
        pass


def test_processor_that_is_put_back_is_not_applied() -> None:
    with pipeline_of("reference") as pipeline:
        own = [block.attn.processor for block in pipeline.transformer.transformer_blocks]
    with pipeline_of("fused_rotary") as pipeline:
        assert anatomy_of(pipeline).denoisers
        rotary_is_fused(pipeline)
        pipeline.transformer.transformer_blocks[0].attn.set_processor(own[0])
        with pytest.raises(NotApplied, match=r"1 of the denoiser's \d+ attentions turn twice"):
            rotary_is_fused(pipeline)
