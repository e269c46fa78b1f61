"""The rule of lossless stacks, on the embedded transformer."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from perf_tests.training import lossless
from perf_tests.training.lossless import Errors


def run(monkeypatch: pytest.MonkeyPatch, *stacks: str) -> int:
    arguments = ["lossless", "embedded-flux", "flux8", *stacks, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    return lossless.main()


@pytest.mark.parametrize(
    ("stack", "code"), [("bf16+device_steps", 0), ("bf16+layerwise_casting", 1)]
)
def test_stack_is_held_to_eagers_error(
    stack: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, stack) == code
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head == lossless.HEAD
    assert [line.split(" | ")[:2] for line in lines] == [
        [f"| {name}", f"{seed}"] for name in ("bf16", stack) for seed in (0, 1)
    ]
    assert all("| 1.00x | 1.00x |" in line for line in lines[:2])


def test_shares_are_of_the_worst_call_and_of_the_largest_difference() -> None:
    eager, own = Errors(image_db=40), Errors(image_db=34)
    wanted = torch.zeros(2)
    for errors, calls in ((eager, [(1, 3), (2, 2)]), (own, [(2, 2), (3, 3)])):
        for call in calls:
            errors.note(torch.tensor(call, dtype=torch.float64), wanted)
    assert own.beside(eager) == pytest.approx((1.5, 1, 10**0.3))
    for broken in (torch.full((2,), math.nan), torch.zeros(3)):
        own = Errors(rms=[1.0], largest=[1.0])
        own.note(broken.double(), wanted)
        assert own.beside(eager)[:2] == (math.inf, math.inf)
    assert lossless.share(0, 0) == 1
    assert lossless.share(1e-9, 0) == math.inf


@pytest.mark.parametrize("stack", ["no_such", "fp16+deepcache", "bf16+fused_mlp+cuda_graph"])
def test_stack_that_cannot_be_built_is_one_sentence(
    stack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, stack) == 2
    assert capsys.readouterr().err.startswith("error: ")
