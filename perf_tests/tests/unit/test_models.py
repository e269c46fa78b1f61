"""Sources of weights: what each loads, and what each refuses."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.models import Sources, open_source, options_for
from diffusers_perf.models.architectures import ARCHITECTURES
from diffusers_perf.models.checkpoint import with_scheduler
from diffusers_perf.models.seeded import constructed, drawn, on_device
from diffusers_perf.models.tokenizers import clip_tokenizer
from perf_tests.cases import workloads
from perf_tests.tests import tiny
from perf_tests.tests.unit.fake import FakePipeline
from perf_tests.training import __main__ as recipe
from perf_tests.training import prices

CPU = torch.device("cpu")
FIRST_WEIGHTS = [0.150277525, 0.060712989, -0.243210226]
"""Of the seeded tiny autoencoder: other draws are other weights, and need another name."""


def test_command_line_shows_options_that_are_not_defaults() -> None:
    assert options_for("cuda", None) == ()
    assert options_for("cuda", "embedded") == ("--model=embedded",)
    assert options_for("cpu", None) == ("--device", "cpu")
    assert options_for("cpu", "sd15") == ("--device", "cpu", "--model=sd15")


def test_clip_tokenizer_is_the_published_one() -> None:
    ids = clip_tokenizer()("a photo of an astronaut riding a horse on mars").input_ids
    assert ids == [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_architectures_have_the_checkpoints_parameters(model: str) -> None:
    for role, architecture in ARCHITECTURES[model].items():
        with torch.device("meta"):
            module = constructed(architecture)
        assert sum(p.numel() for p in module.parameters()) == architecture.parameters, role


def test_seeded_weights_are_shared_unless_copied() -> None:
    host = drawn("sd15", "tiny_vae")
    assert drawn("sd15", "tiny_vae") is host
    copy = on_device(host, dtype=torch.float16, device=CPU)
    assert {p.dtype for p in copy.parameters()} == {torch.float16}
    assert {p.dtype for p in host.parameters()} == {torch.float32}
    first = next(host.parameters()).flatten()[:3].tolist()
    assert first == pytest.approx(FIRST_WEIGHTS, abs=1e-6)


def test_seeded_tiny_autoencoder_image_is_neither_black_nor_uniform() -> None:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image = (drawn("sd15", "tiny_vae").decode(noise).sample / 2 + 0.5).clamp(0, 1)  # type: ignore[operator]
    assert 0.3 < image.mean() < 0.7
    assert image.std() > 0.05


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small seeded model as a checkpoint in a folder, with its variants."""
    folder = tmp_path_factory.mktemp("checkpoints") / "mine"
    source = open_source("small")
    whole, variants = (
        source.load(
            scheduler="DDIMScheduler",
            variants=taken,
            dtype=torch.float32,
            device=CPU,
        )
        for taken in ({}, {"unet": "distilled_unet", "vae": "tiny_vae"})
    )
    # CLIP's has 49,408 words, which take longer to read than the weights.
    words = ["a", *whole.tokenizer.all_special_tokens]
    vocabulary = {word: index for index, word in enumerate(words)}
    whole.register_modules(tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[]))
    whole.save_pretrained(folder)
    variants.unet.save_pretrained(folder / "distilled_unet")
    variants.vae.save_pretrained(folder / "tiny_vae")
    return folder


def test_checkpoint_loads_from_a_folder(saved: Path) -> None:
    """The code that loads from the Hub, on a folder in the same format."""
    source = open_source(str(saved))
    assert (source.name, source.kind, source.scale) == ("mine", "checkpoint", "small")
    assert source.variants == {"distilled_unet", "tiny_vae"}
    pipeline = source.load(
        scheduler="PNDMScheduler",
        variants={"unet": "distilled_unet", "vae": "tiny_vae"},
        dtype=torch.bfloat16,
        device=CPU,
    )
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    assert pipeline.unet.config.layers_per_block == 1
    assert type(pipeline.vae).__name__ == "AutoencoderTiny"
    assert pipeline.unet.dtype == pipeline.vae.dtype == torch.bfloat16


def test_pickled_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(saved, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(Refusal, match="no safetensors, only pickled weights"):
        open_source(str(folder))


@pytest.mark.parametrize("missing", ["tokenizer", "scheduler", "vae"])
def test_checkpoint_without_one_of_its_parts_is_refused(
    saved: Path, tmp_path: Path, missing: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / missing)
    with pytest.raises(Refusal, match=f"it lacks {missing}"):
        open_source(str(folder))


def test_tokenizer_without_a_vocabulary_is_refused(saved: Path, tmp_path: Path) -> None:
    """It would load all the same, and every prompt would be the same one."""
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    for name in ("tokenizer.json", "vocab.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(Refusal, match=r"its tokenizer has no vocabulary \(tokenizer.json,"):
        open_source(str(folder))


def test_another_schedulers_file_does_not_change_pndm(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(saved, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    del config["skip_prk_steps"]
    path.write_text(json.dumps(config))
    pipeline = open_source(str(folder)).load(
        scheduler="PNDMScheduler",
        variants={},
        dtype=torch.float32,
        device=CPU,
    )
    assert pipeline.scheduler.config.skip_prk_steps


def test_checkpoint_that_cannot_be_loaded_is_one_sentence(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    source = open_source(str(folder))
    with pytest.raises(Refusal, match="broken cannot be loaded: ") as error:
        source.load(
            scheduler="DDIMScheduler",
            variants={},
            dtype=torch.float32,
            device=CPU,
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("renamed", [True, False])
@pytest.mark.parametrize("place", ["unet", "text_encoder"])
def test_a_module_that_lacks_tensors_is_named(
    place: str, renamed: bool, saved: Path, tmp_path: Path
) -> None:
    """torch's sentence names no module, and transformers draws random numbers without a word."""
    folder = tmp_path / "lacking"
    shutil.copytree(saved, folder)
    (weights,) = (folder / place).glob("*.safetensors")
    tensors = load_file(weights)
    for name in sorted(tensors)[::2]:
        tensor = tensors.pop(name)
        if renamed:
            tensors[f"other.{name}"] = tensor
    save_file(tensors, weights, metadata={"format": "pt"})
    source = open_source(str(folder))
    with pytest.raises(Refusal, match=rf"its {place} lacks \d+ of \d+ tensors \(first \w+"):
        source.load(scheduler=None, variants={}, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"it lacks model_index.json; a model is a folder that save_pretrained wrote, a Hub"),
        ("{", "model_index.json is not valid JSON"),
        ("{}", "model_index.json names no class; build the pipeline in a function of yours"),
        ('{"_class_name": "OurPipeline"}', "is of a OurPipeline, which diffusers does not have"),
        ('{"_class_name": ["pipeline", "OurPipeline"]}', "OurPipeline.*--model module:function"),
        ('{"_class_name": "FluxPipeline"}', "its model_index.json names no component"),
        ('{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}', "it lacks vae"),
        (
            '{"_class_name": "FluxPipeline", "vae": ["our_vae", "VAE"]}',
            "its vae is code of our_vae",
        ),
    ],
)
def test_folder_that_is_not_a_pipeline_is_refused(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(Refusal, match=sentence):
        open_source(str(tmp_path))


def test_unknown_name_lists_the_known_ones() -> None:
    known = "sd15, sdxl, flux1-dev, flux1-schnell, small, embedded, embedded-flux"
    with pytest.raises(Refusal, match=f"the known names are {known}; a model is a folder that"):
        open_source("sd-15")


@pytest.mark.parametrize("name", ["flux", "wan"])
def test_folder_of_any_family_loads(name: str, tmp_path: Path) -> None:
    folder = tiny.folder(name, tmp_path)
    source = open_source(str(folder))
    built = tiny.builder(name)()
    assert source.family == type(built).__name__
    pipeline = source.load(scheduler=None, variants={}, dtype=torch.bfloat16, device=CPU)
    assert type(pipeline) is type(built)
    assert type(pipeline.scheduler) is type(built.scheduler)
    assert pipeline.transformer.dtype == torch.bfloat16


def test_fine_tuned_weights_are_others(tmp_path: Path) -> None:
    """Of the same names, shapes and sizes, in a folder of the same name."""
    first = tiny.folder("pixart", tmp_path / "a")
    second = tmp_path / "b" / first.name
    shutil.copytree(first, second)
    assert open_source(str(second)).weights == open_source(str(first)).weights
    path = second / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = max(tensors, key=lambda n: tensors[n].numel())
    tensors[name] += 0.01
    save_file(tensors, path)
    assert open_source(str(second)).weights != open_source(str(first)).weights
    assert open_source(str(second)).name == open_source(str(first)).name


def test_function_builds_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("perf_tests.tests.tiny:sd_subclass")
    assert source.weights == ""
    pipeline = source.load(scheduler="PNDMScheduler", variants={}, dtype=torch.bfloat16, device=CPU)
    assert type(pipeline) is tiny.Warmer
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    assert pipeline.unet.dtype == torch.bfloat16
    # The case decides the dtype, which leaves the weights the same.
    first = source.weights
    source.load(scheduler=None, variants={}, dtype=torch.float32, device=CPU)
    assert source.weights == first


def listed(**_: object) -> Any:
    pipeline: Any = FakePipeline()
    pipeline.components = list(pipeline.components.values())
    return pipeline


def asked(**_: object) -> object:
    class Asked(FakePipeline):
        def components(self) -> object: ...  # type: ignore[override]

        def __init__(self) -> None: ...

    return Asked()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("no_such_module:build", "no module is called no_such_module here"),
        ("perf_tests.tests.tiny:nothing", "perf_tests.tests.tiny has no function nothing"),
        ("perf_tests.tests.tiny:SIDE", "perf_tests.tests.tiny has no function SIDE"),
        ("perf_tests.tests.tiny:init_image", "TypeError: .* unexpected keyword argument 'dtype'"),
        ("perf_tests.tests.unit.test_models:listed", "a FakePipeline whose components are a list;"),
        ("perf_tests.tests.unit.test_models:asked", "whose components are a method; they must be"),
        ("builtins:dict", "gave a dict: a pipeline has components and can be called"),
    ],
)
def test_function_that_builds_nothing_is_one_sentence(model: str, says: str) -> None:
    with pytest.raises(Refusal, match=f"model {model}.* ?{says}") as error:
        open_source(model).load(scheduler=None, variants={}, dtype=torch.float32, device=CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", ["sys.exit('bad')", "def build(**_): sys.exit('bad')"])
def test_builder_that_exits_is_refused(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves.py").write_text(f"import sys\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Refusal, match=r"SystemExit: bad|leaves.py, line 2"):
        open_source("leaves:build").load(
            scheduler=None, variants={}, dtype=torch.float32, device=CPU
        )
    sys.modules.pop("leaves", None)


OURS = Workload(name="ours", model="perf_tests.tests.tiny:sd", call=tiny.CALLS["sd"], steps=2)


def test_by_default_a_session_runs_what_fits_its_device() -> None:
    for device, model in (("cuda", "sd15"), ("cpu", "embedded")):
        sources = Sources(device=device)
        named = [w for w in (workloads.DDIM50, workloads.DDIM50_SMALL, OURS) if sources.runs(w)]
        assert [w.model for w in named] == [model, OURS.model]
        assert sources.of(OURS).name == OURS.model
    assert Sources(device="cpu").runs(workloads.FLUX8)
    assert not Sources(device="cuda").runs(workloads.FLUX8)
    assert Sources(device="cpu").scale_of([workloads.DDIM50_SMALL, workloads.FLUX8]) == "small"
    assert Sources(device="cpu").scale_of([workloads.DDIM50_SMALL, OURS]) == "full"


def test_model_that_is_named_takes_the_place_of_its_family(saved: Path, tmp_path: Path) -> None:
    everything = (workloads.DDIM50, workloads.DDIM50_SMALL, OURS)
    small = Sources(device="cpu", model=str(saved))
    assert [small.runs(workload) for workload in everything] == [False, True, False]
    assert small.of(workloads.DDIM50_SMALL).name == "mine"
    full = Sources(device="cpu", model="sd15")
    assert [full.runs(workload) for workload in everything] == [True, False, False]
    ours = Sources(device="cpu", model=OURS.model)
    assert [ours.runs(workload) for workload in everything] == [False, False, True]
    other = Sources(device="cpu", model=str(tiny.folder("flux", tmp_path)))
    assert not any(other.runs(workload) for workload in everything)


def test_embedded_transformer_is_known_by_name() -> None:
    source = open_source("embedded-flux")
    assert (source.name, source.weights, source.kind) == ("embedded-flux",) * 2 + ("embedded",)
    assert (source.family, source.scale) == ("FluxPipeline", "small")
    named = Sources(device="cuda", model="embedded-flux")
    assert named.runs(workloads.FLUX8)
    assert not named.runs(workloads.DDIM50_SMALL)


# What it costs in image, and the recipe


def priced(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prices", "--device", "cpu", *arguments])
    return prices.main()


@pytest.mark.parametrize("package", ["diffusers", "tqdm"])
def test_prices_name_a_package_that_is_not_installed(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert priced(monkeypatch) == 2
    assert capsys.readouterr().err.startswith(f"error: {package} is not installed: ")


def test_recipe_names_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert recipe.main(["--out", str(tmp_path), "--smoke", "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: diffusers is not installed: ")


def test_prices_of_an_unknown_stack_name_no_workload(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert priced(monkeypatch, "other") == 2
    assert capsys.readouterr().err.startswith("error: no optimization is called 'other'")


def test_stack_that_takes_no_latents_is_priced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stack that steps on the device draws its noise from a generator."""
    monkeypatch.setattr(prices, "STEPS", 2)
    monkeypatch.setattr(prices, "faulty", lambda *_, **__: [])
    assert priced(monkeypatch, "device_steps", "--prompts", "1") == 0
    (line,) = (at for at in capsys.readouterr().out.splitlines() if at.startswith("| device_steps"))
    assert float(line.split("|")[2]) > 80


@pytest.mark.parametrize("prompts", ["0", "-1"])
def test_prices_of_no_prompts_are_refused(
    prompts: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        priced(monkeypatch, "--prompts", prompts)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: --prompts: at least 1\n")


def test_prices_end_with_their_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `prices … | head -1`: no further line, and nothing left to flush."""
    monkeypatch.setattr(prices, "table", lambda *_, **__: iter(["one", "two"]))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert priced(monkeypatch) == 0


@pytest.mark.parametrize("model", ["small", "perf_tests.tests.tiny:sd"])
def test_scheduler_that_diffusers_lacks_is_refused(model: str) -> None:
    with pytest.raises(Refusal, match="diffusers has no scheduler of that name"):
        open_source(model).load(
            scheduler="DDIMSheduler", variants={}, dtype=torch.float32, device=CPU
        )


@pytest.mark.parametrize("scheduler", [None, SimpleNamespace(step=lambda: None)])
def test_scheduler_for_a_pipeline_without_configuration_of_its_own_is_refused(
    scheduler: Any,
) -> None:
    pipeline = FakePipeline()
    pipeline.scheduler = scheduler
    says = "made with the config of the pipeline's own scheduler, and FakePipeline has"
    with pytest.raises(Refusal, match=says):
        with_scheduler(pipeline, "DDIMScheduler")
    with_scheduler(pipeline, None)
    assert pipeline.scheduler is scheduler


def test_users_module_is_imported_ahead_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While importing is timed: it may import all that a service needs."""
    (tmp_path / "own_builder.py").write_text("def build(**_): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    sources = Sources(device="cpu")
    for model in ("sd15", "no_module_of_this_name:build", "own_builder:build"):
        assert "own_builder" not in sys.modules
        sources.import_builder(replace(workloads.DDIM50, model=model))
    monkeypatch.delitem(sys.modules, "own_builder")


def test_error_in_the_users_module_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_builder.py").write_text("import math\nmath.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Refusal, match="AttributeError: module 'math' has no attribute 'nothing'"):
        open_source("broken_builder:build")
