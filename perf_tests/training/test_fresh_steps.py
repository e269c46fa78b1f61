"""The table of steps that are whole, of few steps of the small model."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from perf_tests.cases import workloads
from perf_tests.training import fresh_steps


def test_each_choice_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("DeepCache")
    few = replace(workloads.DDIM50_SMALL, steps=4)
    monkeypatch.setitem(fresh_steps.WORKLOADS, "small", few)
    monkeypatch.setattr(sys, "argv", ["fresh_steps", "small", "--device", "cpu"])
    assert fresh_steps.main() == 0
    head, _, all_of_them, second, *others = capsys.readouterr().out.splitlines()
    assert head == fresh_steps.HEAD
    assert len(others) == len(fresh_steps.CHOICES) - 2
    assert all_of_them == "| all | 4 | 120.0 dB | 1.000 |"
    assert second.startswith("| every second | 2 | ")
    assert "120.0 dB" not in second


def test_missing_gpu_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["fresh_steps", "sdxl", "--device", "cuda"])
    with pytest.raises(SystemExit) as ended:
        fresh_steps.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("torch sees no CUDA device here; leave it out\n")
