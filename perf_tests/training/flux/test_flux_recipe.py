"""The small Flux's recipe on a CPU, a few steps of everything."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from perf_tests.training.architecture import TEXT_WIDTH
from perf_tests.training.captions import caption_count, caption_of
from perf_tests.training.flux import architecture, folder, scores, words
from perf_tests.training.flux.__main__ import main
from perf_tests.training.flux.compute import Compute
from perf_tests.training.flux.stages import (
    AFTER_TRAINING_S,
    FLOW_SHARE,
    FULL,
    Workshop,
    half_rounded,
)
from perf_tests.training.training import Log

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run."""
    out = tmp_path_factory.mktemp("flux")
    assert main(["--out", str(out), "--smoke", "--device", "cpu"]) == 0
    return out


class TestWords:
    def test_word_of_the_captions_is_one_token(self) -> None:
        tokenizer = words.t5_tokenizer()
        assert tokenizer.tokenize("a small ring, on the left") == [
            "▁a", "▁small", "▁ring", ",", "▁on", "▁the", "▁left",
        ]  # fmt: skip

    def test_unknown_word_is_split_into_characters(self) -> None:
        tokenizer = words.t5_tokenizer()
        ids = tokenizer("A horse on Mars!").input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == "A horse on Mars!"

    def test_token_table_matches_the_pipeline(self) -> None:
        tokenizer = words.t5_tokenizer()
        table = words.token_table(tokenizer)
        assert table.shape == (caption_count() + 1, words.MAX_TOKENS)
        numbers = list(range(0, caption_count(), 5003))
        texts = [caption_of(number).text for number in numbers]
        assert torch.equal(table[numbers], words.token_ids(tokenizer, texts))
        assert torch.equal(table[-1:], words.token_ids(tokenizer, [""]))
        assert bool((table == tokenizer.eos_token_id).any(1).all()), "a caption was cut off"


def test_training_levels_are_shifted_like_the_sampler_s() -> None:
    scheduler = architecture.scheduler()
    even, shift = 0.25, architecture.level_shift()
    mu = torch.log(torch.tensor(shift)).item()
    assert scheduler.time_shift(mu, 1.0, even) == pytest.approx(
        shift * even / (1 + (shift - 1) * even)
    )


def test_half_of_the_levels_arrive_as_bfloat16_passes_them() -> None:
    torch.manual_seed(0)
    level, guidance = torch.full((400,), 0.9632), torch.full((400,), 3.5)
    coarse_level, coarse_guidance = half_rounded(level, guidance)
    assert 120 < int((coarse_level != level).sum()) < 280
    assert float((coarse_level - level).abs().max()) < 0.004
    assert sorted(set(coarse_guidance.tolist())) == pytest.approx([3.5, 3.504])


def test_bfloat16_does_not_round_the_level() -> None:
    transformer = architecture.transformer()
    Compute.BF16.prepare(transformer)
    seen: list[torch.Tensor] = []
    transformer.time_text_embed.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    with torch.no_grad(), Compute.BF16.autocast(CPU):
        transformer(
            hidden_states=torch.randn(1, architecture.TOKENS, architecture.TOKEN_CHANNELS),
            timestep=torch.tensor([0.9632]),
            guidance=torch.tensor([3.21]),
            encoder_hidden_states=torch.randn(1, 2, TEXT_WIDTH),
            pooled_projections=torch.randn(1, TEXT_WIDTH),
            txt_ids=torch.zeros(2, 3),
            img_ids=torch.zeros(architecture.TOKENS, 3),
        )
    assert [float(value) for value in seen[:2]] == pytest.approx([963.2, 3210.0])


def workshop(tmp_path: Path, **settings: Any) -> Workshop:
    return Workshop(
        out=tmp_path, plan=FULL, seed=0, device=CPU, capture=False, log=Log(quiet=True),
        compute=Compute.FLOAT32, **settings,
    )  # fmt: skip


class TestDeadline:
    def test_stage_without_a_budget_keeps_its_plan(self, tmp_path: Path) -> None:
        assert workshop(tmp_path).budget("flow") == FULL.flow

    def test_budget_shortens_every_stage(self, tmp_path: Path) -> None:
        left_s = 100.0
        shop = workshop(tmp_path, deadline_s=time.perf_counter() + AFTER_TRAINING_S + left_s)
        assert shop.budget("flow").limit_s == pytest.approx(FLOW_SHARE * left_s, abs=1)
        assert shop.budget("guidance").limit_s == pytest.approx(left_s, abs=1)
        assert shop.budget("flow").steps == FULL.flow.steps

    def test_interrupted_stage_counts_what_it_trained(self, tmp_path: Path) -> None:
        shop = workshop(tmp_path, deadline_s=time.perf_counter() + AFTER_TRAINING_S + 100)
        shop.checkpoint("flow").parent.mkdir(parents=True)
        torch.save({"elapsed_s": 60.0}, shop.checkpoint("flow"))
        assert shop.budget("flow").limit_s == pytest.approx(FLOW_SHARE * 160, abs=1)

    def test_exhausted_budget_leaves_a_second(self, tmp_path: Path) -> None:
        shop = workshop(tmp_path, deadline_s=time.perf_counter() - 5)
        assert shop.budget("guidance").limit_s == 1


def test_minutes_must_be_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path), "--minutes", "0"])
    assert stopped.value.code == 2
    assert "--minutes must be positive (got 0)" in capsys.readouterr().err


class TestSmoke:
    def test_model_folder_loads_like_any_checkpoint(self, smoke: Path) -> None:
        from diffusers import DiffusionPipeline

        pipeline: Any = DiffusionPipeline.from_pretrained(smoke / "model", local_files_only=True)
        assert type(pipeline).__name__ == "FluxPipeline"
        assert pipeline.transformer.config.guidance_embeds
        assert pipeline.scheduler.config.use_dynamic_shifting
        assert pipeline.vae.config.shift_factor
        assert pipeline.tokenizer_2.tokenize("a red ring") == ["▁a", "▁red", "▁ring"]
        image = pipeline(
            "a red ring", height=64, width=64, num_inference_steps=1, max_sequence_length=20,
            output_type="np",
        ).images  # fmt: skip
        assert image.shape == (1, 64, 64, 3)

    def test_noise_is_what_the_pipeline_draws(self, smoke: Path) -> None:
        pipeline = folder.load(smoke / "model", CPU, torch.float32)
        with torch.no_grad():
            mine = scores.generate(pipeline, ["a red ring"], seed=4, steps=1)
            its = pipeline(
                "a red ring", height=64, width=64, num_inference_steps=1, max_sequence_length=20,
                generator=torch.Generator().manual_seed(4), output_type="pt",
            ).images  # fmt: skip
        assert torch.equal(mine, its)

    def test_only_float16_safetensors_within_its_size(self, smoke: Path) -> None:
        from safetensors.torch import load_file

        files = list((smoke / "model").rglob("*.safetensors"))
        assert len(files) == 4
        weights = [weight for path in files for weight in load_file(path).values()]
        assert {weight.dtype for weight in weights} == {torch.float16}
        assert sum(weight.numel() for weight in weights) <= folder.MAX_PARAMETERS
        sizes = [path.stat().st_size for path in (smoke / "model").rglob("*") if path.is_file()]
        assert sum(sizes) <= folder.MAX_FOLDER_BYTES

    def test_scores_and_card(self, smoke: Path) -> None:
        scores = json.loads((smoke / "model" / "scores.json").read_text())
        assert list(scores["scores"]) == ["2 steps, guidance 3.5", "1 steps, guidance 3.5"]
        assert scores["guidance"] == 3.5
        card = (smoke / "model" / "README.md").read_text()
        assert "guidance_scale=3.5," in card
        assert card.startswith("---\nlicense: apache-2.0\n")
        assert (smoke / "model" / "sheet.png").is_file()

    def test_finished_stages_are_skipped(
        self, smoke: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--out", str(smoke), "--smoke", "--device", "cpu"]) == 0
        assert capsys.readouterr().out.count("finished before, skipped") == 4
