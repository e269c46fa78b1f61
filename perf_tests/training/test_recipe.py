"""The embedded model's recipe, its data and its evaluator, on a CPU in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch
from torch.nn import functional

from diffusers_perf.catalog.workload import Workload
from diffusers_perf.models.checkpoint import EMBEDDED
from diffusers_perf.optimizations.tolerances import BFLOAT16, FLOAT16
from perf_tests.cases.workloads import DDIM50_SMALL, PNDM25X4_SMALL
from perf_tests.training import image_distance
from perf_tests.training.__main__ import main
from perf_tests.training.captions import (
    caption_count,
    caption_of,
    every_text,
    held_out_captions,
    held_out_triples,
    is_held_out,
    numbers_for,
    training_triples,
)
from perf_tests.training.evaluator import NOTHING, Evaluator
from perf_tests.training.scores import generate, score
from perf_tests.training.shapes import SHAPES, Painter, Scene
from perf_tests.training.training import Budget, Log, Training
from perf_tests.training.vocabulary import (
    MAX_TOKENS,
    corpus,
    token_ids,
    token_table,
    train_tokenizer,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(CPU)


@pytest.fixture(scope="module")
def drawn(painter: Painter) -> tuple[Scene, torch.Tensor]:
    """Scenes of held-out captions, and their images in [0, 1]."""
    torch.manual_seed(0)
    triples = torch.tensor([caption.triple for caption in held_out_captions(96, seed=0)])
    scene = painter.scene(triples)
    return scene, (painter.draw(scene) + 1) / 2


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run."""
    out = tmp_path_factory.mktemp("recipe")
    assert main(["--out", str(out), "--smoke"]) == 0
    return out


class TestData:
    def test_captions_are_thousands_and_distinct(self) -> None:
        assert len(set(every_text())) > 100_000

    def test_held_out_combinations_are_never_trained_but_their_parts_are(self) -> None:
        trained = {tuple(triple) for triple in training_triples(CPU).tolist()}
        held_out = {tuple(triple) for triple in held_out_triples(CPU).tolist()}
        assert not trained & held_out
        assert len(held_out) > 50
        for pair in ((0, 1), (0, 2), (1, 2)):
            parts = {(t[pair[0]], t[pair[1]]) for t in held_out}
            assert parts <= {(t[pair[0]], t[pair[1]]) for t in trained}

    def test_held_out_captions_are_of_held_out_combinations(self) -> None:
        assert all(is_held_out(*caption.triple) for caption in held_out_captions(200, seed=2))

    def test_training_captions_are_true_of_their_images(self, painter: Painter) -> None:
        torch.manual_seed(0)
        triples = training_triples(CPU)
        scene = painter.scene(triples[torch.randint(len(triples), (300,))])
        numbers = numbers_for(scene).tolist()
        assert caption_count() in numbers
        for row, number in enumerate(numbers):
            if number == caption_count():
                continue
            caption = caption_of(number)
            assert not is_held_out(*caption.triple)
            assert caption.triple == tuple(triples.new_tensor(
                [scene.shape[row], scene.colour[row], scene.background[row]]
            ).tolist())  # fmt: skip
            assert caption.size in (None, int(scene.size[row]))
            assert caption.place in (None, int(scene.place[row]))

    def test_captions_follow_the_grammar(self) -> None:
        texts = list(every_text())
        assert "an orange background with a small yellow triangle at the bottom" in texts
        assert not [text for text in texts if "  " in text or ",," in text or "a orange" in text]

    def test_seed_decides_what_the_caption_omits(self, painter: Painter) -> None:
        torch.manual_seed(0)
        images = painter.draw(painter.scene(held_out_triples(CPU)[:1].expand(8, 3)))
        assert float(images.var(0).mean()) > 0.01


class TestVocabulary:
    def test_pairs_are_merged_and_unknown_words_are_split(self) -> None:
        tokenizer = train_tokenizer(corpus())
        assert len(tokenizer.tokenize("a small orange triangle")) == 4
        assert len(tokenizer.tokenize("astronaut")) > 1
        text = "a horse on mars"
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text

    def test_token_table_matches_the_pipeline(self) -> None:
        tokenizer = train_tokenizer(corpus())
        table = token_table(tokenizer)
        assert table.shape == (caption_count() + 1, MAX_TOKENS)
        numbers = list(range(0, caption_count(), 5003))
        texts = [caption_of(number).text for number in numbers]
        assert torch.equal(table[numbers], token_ids(tokenizer, texts))
        assert torch.equal(table[-1:], token_ids(tokenizer, [""]))
        assert bool((table[:, -1] == tokenizer.eos_token_id).all()), "a caption was cut off"


class TestEvaluator:
    @pytest.mark.parametrize("spoilt", ["clean", "blurred", "blurred and noisy"])
    def test_score_reads_drawn_shapes(
        self, painter: Painter, drawn: tuple[Scene, torch.Tensor], spoilt: str
    ) -> None:
        scene, images = drawn
        if spoilt != "clean":
            images = functional.avg_pool2d(
                functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1
            )
        if spoilt == "blurred and noisy":
            torch.manual_seed(1)
            images = (images + 0.03 * torch.randn_like(images)).clamp(0, 1)
        seen = Evaluator(painter).look(images)
        for field in ("shape", "colour", "background", "place", "size"):
            right = (getattr(seen, field) == getattr(scene, field)).float().mean()
            assert right >= 0.98, field

    def test_shuffled_captions_score_at_chance(
        self, painter: Painter, drawn: tuple[Scene, torch.Tensor]
    ) -> None:
        captions = held_out_captions(96, seed=0)
        result = score(Evaluator(painter), drawn[1], captions)
        assert result.right == 1.0
        assert result.shuffled < 0.08

    @pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
    def test_plain_image_shows_no_shape(self, painter: Painter, level: float) -> None:
        seen = Evaluator(painter).look(torch.full((1, 3, 64, 64), level))
        assert int(seen.shape) == NOTHING

    def test_noise_shows_no_shape(self, painter: Painter) -> None:
        torch.manual_seed(0)
        seen = Evaluator(painter).look(torch.rand(8, 3, 64, 64))
        assert bool((seen.shape == NOTHING).all())

    def test_two_shapes_are_not_one(self, painter: Painter) -> None:
        """A second shape spoils the overlap: only an image of one shape is right."""
        here = torch.tensor([[18.0, 18.0]])
        there = torch.tensor([[46.0, 46.0]])
        radius, angle = torch.tensor([13.0]), torch.zeros(1)
        for outline in SHAPES:
            both = painter.coverage(outline, radius, here, radius, angle) + painter.coverage(
                outline, radius, there, radius, angle
            )
            seen = Evaluator(painter).look(both[:, None].expand(1, 3, 64, 64))
            assert int(seen.shape) == NOTHING, outline


class TestSmoke:
    def test_model_folder_loads_like_any_checkpoint(self, smoke: Path) -> None:
        from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel

        folder = smoke / "model"
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, local_files_only=True
        )
        pipeline.set_progress_bar_config(disable=True)
        assert len(pipeline.tokenizer.tokenize("a small orange triangle")) == 4
        assert not pipeline.scheduler.config.clip_sample
        for name, module in {
            "vae": AutoencoderTiny.from_pretrained(folder / "tiny_vae"),
            "unet": UNet2DConditionModel.from_pretrained(folder / "distilled_unet"),
        }.items():
            images = pipeline("a red ring", num_inference_steps=2, output_type="np").images
            assert images.shape == (1, 64, 64, 3)
            pipeline.register_modules(**{name: module})

    def test_only_float16_safetensors(self, smoke: Path) -> None:
        from safetensors.torch import load_file

        files = list((smoke / "model").rglob("*.safetensors"))
        assert len(files) == 5
        assert not [p for p in smoke.joinpath("model").rglob("*") if p.suffix in (".bin", ".pt")]
        for path in files:
            assert {weight.dtype for weight in load_file(path).values()} == {torch.float16}

    def test_scores_and_card(self, smoke: Path) -> None:
        scores = json.loads((smoke / "model" / "scores.json").read_text())
        assert list(scores["scores"]) == ["teacher", "student", "student + tiny autoencoder"]
        card = (smoke / "model" / "README.md").read_text()
        assert card.startswith("---\nlicense: apache-2.0\n")
        assert (smoke / "model" / "sheet.png").is_file()

    def test_finished_stages_are_skipped(
        self, smoke: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--out", str(smoke), "--smoke", "--until", "student"]) == 0
        assert capsys.readouterr().out.count("finished before, skipped") == 4


class TestBadInput:
    def test_stage_needs_the_one_before(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--out", str(tmp_path), "--smoke", "--stage", "student"]) == 1
        assert "stage vae has not finished" in capsys.readouterr().err

    def test_file_in_place_of_a_folder_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        assert main(["--out", str(tmp_path / "file")]) == 1
        assert "name a folder" in capsys.readouterr().err

    def test_other_seed_in_the_same_folder_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--out", str(tmp_path), "--smoke", "--seed", "1", "--stage", "tokenizer"]) == 0
        assert main(["--out", str(tmp_path), "--smoke", "--stage", "tokenizer"]) == 1
        assert "name another folder" in capsys.readouterr().err

    def test_unknown_stage_lists_the_known_ones(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            main(["--out", str(tmp_path), "--stage", "typo"])
        assert stopped.value.code == 2
        assert "teacher" in capsys.readouterr().err


class TestEmbedded:
    """The model as it is shipped, and what was measured of it when it was made."""

    MEASURED = json.loads((EMBEDDED / "scores.json").read_text())

    @pytest.mark.parametrize("workload", [DDIM50_SMALL, PNDM25X4_SMALL], ids=lambda w: w.name)
    def test_model_obeys_unseen_prompts(self, workload: Workload, painter: Painter) -> None:
        captions = held_out_captions(16, seed=7)
        pipeline = image_distance.load(EMBEDDED, CPU, torch.float32)
        scheduler = getattr(diffusers, str(workload.scheduler))
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
        images = generate(
            pipeline,
            [caption.text for caption in captions],
            seed=7,
            steps=workload.steps,
            guidance=workload.call["guidance_scale"],
        )
        seen = score(Evaluator(painter), images, captions)
        assert seen.right >= 15 / 16
        assert seen.shuffled <= 2 / 16

    def test_model_was_good_enough_when_made(self) -> None:
        right = {name: seen["right"] for name, seen in self.MEASURED["scores"].items()}
        assert right["teacher"] >= 0.95
        assert right["student"] >= 0.90
        assert right["student + tiny autoencoder"] >= 0.90

    def test_model_fits_into_a_repository(self) -> None:
        sizes = [path.stat().st_size for path in EMBEDDED.rglob("*.safetensors")]
        assert len(sizes) == 5
        assert max(sizes) <= 12e6
        assert sum(sizes) <= 24e6

    def test_limits_separate_harmless_from_harmful_changes(self) -> None:
        measured = self.MEASURED["image_distance"]
        half, brain = FLOAT16.embedded, BFLOAT16.embedded
        assert half is not None
        assert brain is not None
        assert measured["fp16"]["min"] >= half.psnr_db
        assert measured["bf16"]["min"] >= brain.psnr_db
        for fault in (
            "another_prompt",
            "another_seed",
            "guidance_off",
            "text_zeroed",
            "attention_skipped",
            "mid_block_skipped",
            "cross_attention_q_halved",
            "all_q_halved",
        ):
            each = measured[fault]["each"]
            detected = sum(psnr_db < half.psnr_db for psnr_db in each)
            assert len(each) >= 20
            assert detected / len(each) >= 19 / 20, fault


def test_interrupted_training_resumes(tmp_path: Path) -> None:
    weight = torch.nn.Linear(1, 1, bias=False)
    calls = 0

    def training(stop_at: int) -> Training:
        def loss() -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt
            made: torch.Tensor = weight(torch.ones(4, 1))
            return (made - 3).square().mean()

        return Training(
            name="line",
            modules=[weight],
            loss=loss,
            budget=Budget(steps=40, limit_s=60, batch=4, peak_rate=0.5, average=0.5),
            seed=0,
            checkpoint=tmp_path / "checkpoint.pt",
            log=Log(),
            capture=True,
        )

    with pytest.raises(KeyboardInterrupt):
        training(stop_at=26).run()
    outcome = training(stop_at=0).run()
    assert outcome.steps == 40
    assert 40 < calls <= 46, "it did not go on from the checkpoint at half the steps"
    assert float(weight.weight.detach()) == pytest.approx(3, abs=0.5)


def test_learning_rate_ends_at_zero() -> None:
    budget = Budget(steps=100, limit_s=10, batch=1, peak_rate=1.0)
    assert budget.rate(0, 0.0) < budget.rate(10, 0.1)
    assert budget.rate(50, 1.0) == pytest.approx(0.0)
    assert budget.rate(99, 0.99) < 0.01


def test_long_training_starts_as_fast_as_a_short_one() -> None:
    budget = Budget(steps=60_000, limit_s=10, batch=1, peak_rate=1.0)
    assert budget.rate(249, 0.0) == pytest.approx(0.5)
    assert budget.rate(500, 0.0) == pytest.approx(1.0)
