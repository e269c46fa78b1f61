"""What an exploration depends on, so that it does not go on where that changed."""

from __future__ import annotations

import sys
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest

from diffusers_perf.compare.explored import _code_of_model


@pytest.mark.parametrize("module", ["own_models.serving", "own_serving"])
def test_code_of_a_model_is_that_of_its_package(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{module.replace('.', '/')}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("def build(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    invalidate_caches()
    assert _code_of_model(f"{module}:build") == ""
    import_module(module)
    was = _code_of_model(f"{module}:build")
    assert was
    (tmp_path / "test_other.py").write_text("")
    assert _code_of_model(f"{module}:build") == was
    path.write_text("import time\n\n\ndef build(): ...\n")
    assert _code_of_model(f"{module}:build") != was
    for name in {module.partition(".")[0], module}:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["sd15", "stabilityai/sdxl-turbo", "pathlib", "no_such:build"])
def test_code_of_other_models_is_of_installed_packages(name: str) -> None:
    assert _code_of_model(name) == ""
