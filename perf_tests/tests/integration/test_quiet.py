"""A command's output has no progress bar of a user's pipeline, whichever way it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers.modular_pipelines import LoopSequentialPipelineBlocks

from diffusers_perf.catalog.discovery import Project
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.cli import __main__ as cli
from diffusers_perf.cli import structure as command
from diffusers_perf.models.checkpoint import EMBEDDED
from perf_tests.tests import tiny


def loaded(*, dtype: torch.dtype, device: torch.device) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(EMBEDDED, torch_dtype=dtype).to(device)


def modular(*, dtype: torch.dtype, device: torch.device) -> Any:
    return tiny.sdxl_modular(dtype, device)


class Holder:
    """Has no setting for the bars of the pipeline that it holds."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.components, self.scheduler = pipeline.components, pipeline.scheduler

    def __call__(self, **call: Any) -> Any:
        return self._pipeline(**call)


def held(*, dtype: torch.dtype, device: torch.device) -> Any:
    return Holder(loaded(dtype=dtype, device=device))


@pytest.mark.parametrize("build", [loaded, modular, held])
def test_structure_draws_no_bar_of_a_users_pipeline(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in (diffusers.DiffusionPipeline, LoopSequentialPipelineBlocks):
        monkeypatch.setattr(kind, "_progress_bar_config", {}, raising=False)
    diffusers.utils.logging.enable_progress_bar()
    call = {"prompt": "a red bicycle", "height": 64, "width": 64}
    model = f"{__name__}:{build.__name__}"
    catalog = Catalog()
    catalog.add_cases(Workload(name="serving", model=model, call=call, steps=2))
    # pytest's collection, which the command asks, would run within this one.
    monkeypatch.setattr(command, "find_project", lambda _: Project(shared=catalog))
    assert cli.main(["structure", "--baselines=none"]) == 2
    shown = capsys.readouterr()
    assert "serving-reference: 2 steps, 1 image, 64x64" in shown.out
    assert shown.err == ""
