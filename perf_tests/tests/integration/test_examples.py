"""The examples of the documents, measured on a CPU in a repository of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.tests.documents import ROOT

FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TO_A_CPU = {
    '"sd15"': '"embedded"',
    '"height": 512, "width": 512': '"height": 64, "width": 64',
    "steps=30": "steps=6",
    '"fp16", "fp16+channels_last", "fp16+compile"': '"channels_last"',
    "    steps=6,\n)": '    steps=6,\n    scheduler="DDIMScheduler",\n)',
}
"""What the README's file states for a GPU, and what a CPU measures in its place."""


def example(document: str, containing: str) -> str:
    """The one example of a document that has this in it."""
    (found,) = [text for text in FENCE.findall((ROOT / document).read_text()) if containing in text]
    return str(found)


@pytest.mark.parametrize(
    ("document", "containing", "case"),
    [
        ("README.md", "SERVING", "serving-channels_last"),
        ("perf_tests/README.md", "unet_channels_last", "bicycle-unet_channels_last"),
    ],
)
def test_example_is_measured(document: str, containing: str, case: str, tmp_path: Path) -> None:
    text = example(document, containing)
    if document == "README.md":
        for before, after in TO_A_CPU.items():
            assert before in text
            text = text.replace(before, after)
    (tmp_path / "perf_tests").mkdir()
    (tmp_path / "perf_tests" / "test_example.py").write_text(text)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest]\ntestpaths = ["perf_tests"]\n')
    words = "-m pytest perf_tests --benchmark-only --quick --device cpu --benchmark-json run.json"
    ran = subprocess.run(
        [sys.executable, *words.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    names = [one["name"] for one in json.loads((tmp_path / "run.json").read_text())["benchmarks"]]
    assert f"test_generation[{case}]" in names
