"""The timing of blocks, on a CPU in seconds."""

from __future__ import annotations

import sys

import pytest
import torch

from perf_tests.training import block_speed, kernels


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["block_speed", *arguments])
    return block_speed.main()


def test_blocks_are_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--device", "cpu", "--width", "small", "--seconds", "0.1")
    assert run(monkeypatch, *small, "--only", "eager", "compiled", "--longest", "0.5") == 0
    out, err = capsys.readouterr()
    row, *others = [line for line in out.splitlines() if line.startswith("| eager |")]
    assert not others
    assert row.count(" ms (") == 2
    assert row.endswith("| -, - | 1.00, 1.00 |")
    assert f"{block_speed.PROFILED_CALLS} calls of the double block, eager:" in out
    assert out.count(kernels.HEAD) == len(block_speed.BLOCKS)
    assert "compiled: not built after" in err


def test_missing_gpu_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch) == 2
    assert capsys.readouterr().err == block_speed.NO_GPU + "\n"
