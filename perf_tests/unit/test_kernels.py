"""Our kernels, held to PyTorch's own operators: on a GPU, or in Triton's interpreter.

TRITON_INTERPRET=1 pytest perf_tests/unit/test_kernels.py
"""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional

pytest.importorskip("triton", reason="Triton is not installed, without which no kernel runs")
ON_GPU = torch.cuda.is_available()
if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

from perf_tests.techniques import kernels  # noqa: E402

# Pictures, channels, side, rows of the shift. Among them: parts that are not full, slices that are
# wider than their groups, a batch that leaves each picture one program, and no slices at all.
SHAPES = [(2, 320, 16, 1), (1, 640, 8, 0), (3, 96, 7, 3), (2, 960, 5, 2), (70, 640, 4, 1)]


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(("pictures", "channels", "side", "shifts"), SHAPES)
def test_group_norm_is_pytorchs(
    pictures: int, channels: int, side: int, shifts: int, silu: bool
) -> None:
    torch.manual_seed(0)
    device = "cuda" if ON_GPU else "cpu"
    # Far from zero, where sums of squares lose what they differ by.
    x = 3 + torch.randn(pictures, channels, side, side, device=device)
    x = x.to(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, channels, device=device)
    shift = torch.randn(shifts, channels, device=device) if shifts else None
    made = kernels.group_norm(x, weight, bias, shift, groups=32, eps=1e-5, silu=silu)
    moved = x if shift is None else x + shift[:, :, None, None]
    meant = functional.group_norm(moved.double(), 32, weight.double(), bias.double(), 1e-5)
    meant = functional.silu(meant) if silu else meant
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert (made - meant).abs().max() < 2e-5


def test_a_constant_is_normalized_to_nothing() -> None:
    """Its variance is 0, of which rounding can leave less."""
    device = "cuda" if ON_GPU else "cpu"
    x = torch.full((1, 320, 8, 8), 0.1, device=device).to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(320, device=device), torch.zeros(320, device=device)
    made = kernels.group_norm(x, ones, zeros, None, groups=32, eps=1e-5, silu=False)
    assert made.abs().max() < 1e-3
