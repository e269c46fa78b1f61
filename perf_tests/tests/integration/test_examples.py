"""The examples of the documents, measured on a CPU in a repository of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffusers_perf.catalog.metrics import BY_NAME
from diffusers_perf.models.checkpoint import EMBEDDED
from perf_tests.tests import blocks
from perf_tests.tests.documents import ROOT

TO_A_CPU = {
    '"sd15"': '"embedded"',
    '"height": 512, "width": 512': '"height": 64, "width": 64',
    '"height": 768, "width": 512': '"height": 64, "width": 64',
    "steps=30": "steps=6",
    '"fp16", "fp16+channels_last", "fp16+compile"': '"channels_last"',
    '"fp16", "fp16+compile"': '"channels_last"',
    "    steps=6,\n)": '    steps=6,\n    scheduler="DDIMScheduler",\n)',
}
"""What an example states for a GPU, and what a CPU measures in its place."""


EXAMPLES = {
    "serving-channels_last": ("README.md", "SERVING"),
    "bicycle-unet_channels_last": ("perf_tests/README.md", "unet_channels_last"),
    "portrait-channels_last": ("perf_tests/README.md", "PORTRAIT"),
}
"""By a case that it declares, the document and a word of each example."""


def test_examples_are_measured(tmp_path: Path) -> None:
    (tmp_path / "perf_tests").mkdir()
    for number, (document, word) in enumerate(EXAMPLES.values()):
        text = blocks.example(document, word)
        if word == "SERVING":
            text = text.replace('"sd15"', '"acme.pipelines:build"')
        for before, after in TO_A_CPU.items():
            text = text.replace(before, after)
        (tmp_path / "perf_tests" / f"test_example_{number}.py").write_text(text)
    builder = tmp_path / "acme" / "pipelines.py"
    builder.parent.mkdir()
    builder.write_text(blocks.example("perf_tests/README.md", "def build(*"))
    shutil.copytree(EMBEDDED, tmp_path / "my-checkpoint")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest]\ntestpaths = ["perf_tests"]\n')
    words = "-m pytest perf_tests --benchmark-only --quick --device cpu --benchmark-json run.json"
    ran = subprocess.run(
        [sys.executable, *words.split()],
        cwd=tmp_path,
        # On busy cores, threads that wait for each other take many times as long.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    run = json.loads((tmp_path / "run.json").read_text())
    names = {one["name"] for one in run["benchmarks"]}
    assert names >= {f"test_generation[{case}]" for case in EXAMPLES}


@pytest.mark.parametrize("document", blocks.CARD_FILES)
def test_card_generates_an_image(document: str) -> None:
    import diffusers

    text = blocks.example(document, "from_pretrained(FOLDER")
    known: dict[str, Any] = {"FOLDER": (ROOT / document).parent}
    for name in ("FluxPipeline", "StableDiffusionPipeline"):
        known[name] = getattr(diffusers, name)
    exec(text, known)
    call = {"prompt": "a red ring", "height": 64, "width": 64, "num_inference_steps": 2}
    if "Flux" in text:
        call["max_sequence_length"] = 20
    (image,) = known["pipeline"](**call).images
    assert image.size == (64, 64)


def test_quoted_metric_is_the_tables() -> None:
    known: dict[str, Any] = {}
    exec(blocks.example("perf_tests/README.md", "PEAK_MEMORY"), known)
    assert known["PEAK_MEMORY"] == BY_NAME["peak memory"]
