"""What a user's own pipeline must not hide: other weights, and an input that it does not hear."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_perf.cli import __main__ as cli
from perf_tests.tests import families, tiny

DEAF = """
from perf_tests.tests import tiny

class Deaf(tiny.diffusers.StableDiffusionPipeline):
    def __call__(self, prompt, *, guidance_scale=7.5, **call):
        return super().__call__(prompt, guidance_scale=7.5, **call)

def build(*, dtype, device):
    return Deaf(**tiny._sd_parts()).to(device, dtype)
"""
TEST_FILE = """
from dataclasses import replace

from diffusers_perf import measure
from diffusers_perf import test_generation as test_generation
from perf_tests.tests import tiny

WORKLOAD = replace(
    tiny.workload("sd", steps=4, model="deaf_pipeline:build"),
    sensitive_to={"guidance": {"guidance_scale": 1.0}},
)
measure(WORKLOAD, "channels_last", suite="tiny")
"""


def test_input_that_changes_nothing_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.path / "deaf_pipeline.py").write_text(DEAF)
    monkeypatch.syspath_prepend(pytester.path)
    (pytester.path / "test_tiny.py").write_text(TEST_FILE)
    result = families.run(pytester, "-k", "reference")
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str()
    assert "another guidance gives the same image" in result.stdout.str()


def test_runs_on_fine_tuned_weights_are_not_compared(
    pytester: pytest.Pytester, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same folder, with the same header and size."""
    folder = tiny.folder("zimage", tmp_path)
    text = families.TEST_FILE.format(name="zimage", model=str(folder), stacks=("bf16",))
    (pytester.path / "test_tiny.py").write_text(text)
    runs = []
    for name in ("base", "head"):
        result = families.run(pytester, f"--benchmark-json={name}.json")
        assert result.ret == 0, result.stdout.str()
        runs.append(str(pytester.path / f"{name}.json"))
        path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        weights = load_file(path)
        size = path.stat().st_size
        tuned = {key: torch.nextafter(w, w + 1) for key, w in weights.items()}
        save_file(tuned, path, metadata={"format": "pt"})
        assert path.stat().st_size == size
    capsys.readouterr()
    code = cli.main(["compare", "--base", runs[0], "--head", runs[1]])
    shown = capsys.readouterr()
    assert code == 2
    assert "weights" in shown.out + shown.err
