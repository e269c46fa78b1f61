"""What commands read of pytest's settings."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from diffusers_perf.catalog.discovery import Project
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.cli import answers, faults
from diffusers_perf.cli.answers import configured


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", '[tool.pytest]\nperf_baselines = "kept"\n'),
        ("pyproject.toml", '[tool.pytest.ini_options]\nperf_baselines = "kept"\n'),
        ("pytest.ini", "[pytest]\nperf_baselines = kept\n"),
        ("setup.cfg", "[tool:pytest]\nperf_baselines = kept\n"),
    ],
)
def test_baselines_folder_is_read_from_pytests_settings(
    tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    assert configured(tmp_path, "perf_baselines", "baselines") == "kept"


@pytest.mark.parametrize("text", ["", "[tool", "[tool.pytest]\n"])
def test_default_folder_without_a_setting(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert configured(tmp_path, "perf_baselines", "baselines") == "baselines"


def test_bench_of_a_command_has_the_configured_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nperf_baselines = kept\n")
    monkeypatch.setattr(answers, "repository", lambda: tmp_path)
    project = Project(shared=Catalog())
    bench = faults._bench(Namespace(device="cpu", model=None), project)
    assert bench.store.folder == tmp_path / "kept"
