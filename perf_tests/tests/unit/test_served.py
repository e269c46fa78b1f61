"""Full-size models on computed weights: their numbers, layers, tokenizers and workloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.cli.faults import weights_on_host
from diffusers_perf.models import Sources, hashed, open_source
from diffusers_perf.models.architectures import Architecture
from diffusers_perf.models.seeded import without_weights
from diffusers_perf.models.served import FAMILIES, computed
from diffusers_perf.models.tokenizers import clip_tokenizer, stand_in_for_t5

CPU = torch.device("cpu")
MASK = 2**32 - 1
SMALL_TEXT = Architecture(
    library="transformers",
    class_name="CLIPTextModel",
    config={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "vocab_size": 50,
    },
    parameters=19_264,
)


def murmur(place: int, seed: int) -> int:
    """The hash in Python's integers."""
    value = (place * 0x9E3779B1 + seed) & MASK
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = ((value ^ value >> shift) * factor) & MASK
    return value ^ value >> 16


def test_a_hash_is_that_of_pythons_integers() -> None:
    places = torch.tensor([0, 1, 2, 999, 2**31 - 1], dtype=torch.int32)
    made = hashed.hashed(places.clone(), 0xDEADBEEF).tolist()
    assert [value & MASK for value in made] == [murmur(p, 0xDEADBEEF) for p in places.tolist()]


def test_numbers_fill_their_bounds_evenly_and_differ_by_seed() -> None:
    one, other = torch.empty(100_000), torch.empty(100_000)
    hashed.fill_uniform(one, seed=1, bound=0.5)
    hashed.fill_uniform(other, seed=2, bound=0.5)
    assert -0.5 <= one.min() < -0.4999
    assert 0.4999 < one.max() < 0.5
    assert float(one.std()) == pytest.approx(0.5 / 3**0.5, rel=0.01)
    # The error of a correlation of so many is 0.003.
    for second in (other, one.roll(1)):
        assert abs(float(torch.corrcoef(torch.stack([one, second]))[0, 1])) < 0.015


def test_numbers_are_the_same_in_parts_and_rounded_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, parts, half = torch.empty(10, 10), torch.empty(10, 10), torch.empty(10, 10).bfloat16()
    hashed.fill_uniform(whole, seed=7, bound=2.0)
    hashed.fill_uniform(half, seed=7, bound=2.0)
    monkeypatch.setattr(hashed, "CHUNK", 7)
    hashed.fill_uniform(parts, seed=7, bound=2.0)
    assert torch.equal(whole, parts)
    assert torch.equal(whole.bfloat16(), half)


def test_layers_keep_unit_scale_but_for_their_gains() -> None:
    own = replace(SMALL_TEXT, gains={"q_proj": 3.0, "layer_norm1": 2.0})
    module = computed(own, "text_encoder", dtype=torch.float32, device=CPU, kept_on=CPU)
    assert all(parameter.requires_grad for parameter in module.parameters())
    by_name = {name.rpartition("layers.0.")[2]: p.detach() for name, p in module.named_parameters()}
    root = 3**0.5 / 32**0.5
    assert by_name["self_attn.k_proj.weight"].abs().max() == pytest.approx(root, rel=0.02)
    assert by_name["self_attn.q_proj.weight"].abs().max() == pytest.approx(3 * root, rel=0.02)
    assert set(by_name["layer_norm1.weight"].tolist()) == {2.0}
    assert set(by_name["layer_norm2.weight"].tolist()) == {1.0}


def test_what_is_given_sinusoids_hardly_follows_the_fast_ones() -> None:
    own = Architecture(
        library="diffusers",
        class_name="FluxTransformer2DModel",
        config={
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 16,
            "axes_dims_rope": (4, 6, 6),
        },
        parameters=71_872,
        slow=("timestep_embedder.linear_1",),
    )
    module = computed(own, "transformer", dtype=torch.float32, device=CPU, kept_on=CPU)
    layer = module.get_submodule("time_text_embed.timestep_embedder.linear_1")
    reach = layer.weight.detach().abs().amax(0)  # type: ignore[operator]
    assert reach[0] < 0.01 * reach[127]
    assert reach[128] < 0.01 * reach[255]


def test_other_parameters_than_the_checkpoints_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="has 19,264 parameters and should have 5"):
        computed(
            replace(SMALL_TEXT, parameters=5), "x", dtype=torch.float32, device=CPU, kept_on=CPU
        )


def test_a_layer_without_a_rule_is_an_error() -> None:
    own = Architecture(
        library="diffusers",
        class_name="PixArtTransformer2DModel",
        config={"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8},
        parameters=0,
    )
    count = sum(p.numel() for p in without_weights(own).parameters())
    with pytest.raises(TypeError, match="which has no rule to be drawn by"):
        computed(replace(own, parameters=count), "x", dtype=torch.float32, device=CPU, kept_on=CPU)


def test_the_stand_in_for_t5_has_its_words_and_ends() -> None:
    tokenizer = stand_in_for_t5()
    ids = tokenizer("a photo of an astronaut", padding="max_length", max_length=8).input_ids
    assert ids[5:] == [1, 0, 0]
    assert len(tokenizer) <= 32_100
    assert len(set(ids[:5])) == 5
    assert clip_tokenizer(pad="!").pad_token_id == 0


def test_a_served_model_says_what_runs_it_without_a_gpu() -> None:
    with pytest.raises(Refusal, match="diffusers-perf structure --model=sdxl counts"):
        open_source("sdxl").load(scheduler=None, variants={}, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_served_model_runs_its_own_workloads_alone(model: str) -> None:
    sources = Sources(device="cuda", model=model)
    for other in FAMILIES:
        workload = Workload(name="w", model=other, call={"prompt": "x"}, steps=4)
        assert sources.runs(workload) == (other == model)
        assert Sources(device="cuda").runs(workload)
        assert not Sources(device="cpu").runs(workload)


def test_weights_are_kept_on_a_gpu_of_models_that_draw_them_on_the_host() -> None:
    workloads = [
        Workload(name=model, model=model, call={}, steps=4) for model in ("sd15", *FAMILIES)
    ]
    kept = weights_on_host(Sources(device="cuda"), workloads)
    assert [source.name for source in kept] == ["sd15"]


@pytest.mark.parametrize("tokenizer", [clip_tokenizer, stand_in_for_t5])
def test_a_word_that_one_pipeline_adds_is_not_in_the_next(tokenizer: Callable[[], Any]) -> None:
    words = len(tokenizer())
    tokenizer().add_tokens(["<a-new-word>"])
    assert len(tokenizer()) == words
