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
# Numbers of a group that one program holds: enough for these, and too few for any.
HELD = [kernels.HELD, 0]


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(("pictures", "channels", "side", "shifts"), SHAPES)
def test_group_norm_is_pytorchs(
    pictures: int,
    channels: int,
    side: int,
    shifts: int,
    silu: bool,
    held: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "HELD", held)
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


@pytest.mark.parametrize("held", HELD)
def test_half_precision_shapes_and_strides(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the UNet uses it: float16, not square, and a shift that is a slice of a wider table."""
    monkeypatch.setattr(kernels, "HELD", held)
    torch.manual_seed(0)
    device = "cuda" if ON_GPU else "cpu"
    x = torch.randn(2, 320, 6, 10, device=device).to(torch.float16)
    x = x.to(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, 320, device=device).to(torch.float16)
    shift = torch.randn(2, 640, device=device).to(torch.float16)[:, 320:]
    made = kernels.group_norm(x, weight, bias, shift, groups=32, eps=1e-5, silu=True)
    moved = x.double() + shift.double()[:, :, None, None]
    meant = functional.group_norm(moved, 32, weight.double(), bias.double(), 1e-5)
    assert (made - functional.silu(meant)).abs().max() < 1e-2


def test_what_it_cannot_take_is_refused() -> None:
    def refused(x: torch.Tensor, shift: torch.Tensor | None = None, groups: int = 32) -> None:
        with pytest.raises(ValueError, match=r"channels last|does not"):
            kernels.group_norm(
                x, x.new_ones(96), x.new_ones(96), shift, groups=groups, eps=1e-5, silu=False
            )

    x = torch.zeros(4, 96, 4, 4)
    refused(x)
    x = x.to(memory_format=torch.channels_last)
    refused(x, torch.zeros(2, 96))
    refused(x, groups=24)


@pytest.mark.parametrize("held", HELD)
def test_a_shift_that_cancels_a_mean_costs_no_digits(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a convolution's bias does: before it is added, a channel can be far from zero."""
    monkeypatch.setattr(kernels, "HELD", held)
    torch.manual_seed(0)
    device = "cuda" if ON_GPU else "cpu"
    far = 1000 * torch.randn(1, 320, device=device)
    x = torch.randn(2, 320, 8, 8, device=device) - far[:, :, None, None]
    x = x.to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(320, device=device), torch.zeros(320, device=device)
    made = kernels.group_norm(x, ones, zeros, far, groups=32, eps=1e-5, silu=False)
    meant = functional.group_norm((x + far[:, :, None, None]).double(), 32)
    assert (made - meant).abs().max() < 1e-3


@pytest.mark.parametrize("held", HELD)
def test_a_constant_is_normalized_to_nothing(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variance is 0, of which rounding can leave less."""
    monkeypatch.setattr(kernels, "HELD", held)
    device = "cuda" if ON_GPU else "cpu"
    x = torch.full((1, 320, 8, 8), 0.1, device=device).to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(320, device=device), torch.zeros(320, device=device)
    made = kernels.group_norm(x, ones, zeros, None, groups=32, eps=1e-5, silu=False)
    assert made.abs().max() < 1e-3
