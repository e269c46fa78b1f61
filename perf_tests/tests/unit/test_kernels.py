"""Our kernels, compared with PyTorch's own operators: on a GPU, or in Triton's interpreter.

TRITON_INTERPRET=1 pytest perf_tests/tests/unit/test_kernels.py
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

pytest.importorskip("triton", reason="Triton is not installed, without which no kernel runs")
ON_GPU = torch.cuda.is_available()
if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no GPU, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

from diffusers_perf.techniques import kernels  # noqa: E402

DEVICE = "cuda" if ON_GPU else "cpu"

# Images, channels, side, rows of the shift. Among them: parts that are not full, slices that are
# wider than their groups, and no slices at all.
SHAPES = [(2, 320, 16, 1), (1, 640, 8, 0), (3, 96, 7, 3), (2, 960, 5, 2)]
# Numbers of a group that one program holds: enough for these, and too few for any.
HELD = [kernels.HELD, 0]


@pytest.mark.parametrize(
    # What one program holds has no use for more of them.
    ("held", "programs"),
    [(kernels.HELD, kernels.PROGRAMS), (0, kernels.PROGRAMS), (0, 1)],
)
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(("images", "channels", "side", "shifts"), SHAPES)
def test_group_norm_is_pytorchs(
    images: int,
    channels: int,
    side: int,
    shifts: int,
    programs: int,
    silu: bool,
    held: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a large batch leaves each slice of an image one program."""
    monkeypatch.setattr(kernels, "HELD", held)
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    torch.manual_seed(0)
    # Far from zero, where sums of squares lose what they differ by.
    x = 3 + torch.randn(images, channels, side, side, device=DEVICE)
    x = x.to(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, channels, device=DEVICE)
    shift = torch.randn(shifts, channels, device=DEVICE) if shifts else None
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
    x = torch.randn(2, 320, 6, 10, device=DEVICE).to(torch.float16)
    x = x.to(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, 320, device=DEVICE).to(torch.float16)
    shift = torch.randn(2, 640, device=DEVICE).to(torch.float16)[:, 320:]
    made = kernels.group_norm(x, weight, bias, shift, groups=32, eps=1e-5, silu=True)
    moved = x.double() + shift.double()[:, :, None, None]
    meant = functional.group_norm(moved, 32, weight.double(), bias.double(), 1e-5)
    assert (made - functional.silu(meant)).abs().max() < 1e-2


def test_unsupported_input_is_refused() -> None:
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
    refused(x, groups=0)
    refused(x[:0])


@pytest.mark.parametrize("programs", [12, 3])
@pytest.mark.parametrize("images", [1, 2])
def test_groups_span_several_tiles_or_part_of_one(
    programs: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at 64 by 64: a part has a second tile. Of parts that are not there, nothing is summed."""
    monkeypatch.setattr(kernels, "HELD", 0)
    monkeypatch.setattr(kernels, "PROGRAMS", programs)
    monkeypatch.setattr(
        torch, "empty", lambda *size, **kwargs: torch.full(size, torch.nan, **kwargs)
    )
    torch.manual_seed(0)
    x = torch.randn(images, 320, 19, 23, device=DEVICE).to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(320, device=DEVICE), torch.zeros(320, device=DEVICE)
    made = kernels.group_norm(x, ones, zeros, None, groups=32, eps=1e-5, silu=False)
    assert (made - functional.group_norm(x.double(), 32)).abs().max() < 2e-5


class Noting:
    """A kernel, and how often it was launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, 0

    def __getitem__(self, grid: Any) -> Any:
        self.launches += 1
        return self.kernel[grid]


@pytest.mark.parametrize(("channels", "held"), [(640, True), (1280, False)])
def test_largest_supported_group(
    channels: int, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting = Noting(kernels._group_norm_held)
    monkeypatch.setattr(kernels, "_group_norm_held", noting)
    torch.manual_seed(0)
    x = torch.randn(1, channels, 32, 32, device=DEVICE).to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(channels, device=DEVICE), torch.zeros(channels, device=DEVICE)
    made = kernels.group_norm(x, ones, zeros, None, groups=32, eps=1e-5, silu=False)
    assert (made - functional.group_norm(x.double(), 32)).abs().max() < 2e-5
    assert noting.launches == held


def test_values_far_from_zero_keep_their_digits() -> None:
    """Its variance is of differences from the mean, and no difference of squares."""
    torch.manual_seed(0)
    x = 1000 + torch.randn(2, 320, 8, 8, device=DEVICE)
    x = x.to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(320, device=DEVICE), torch.zeros(320, device=DEVICE)
    made = kernels.group_norm(x, ones, zeros, None, groups=32, eps=1e-5, silu=False)
    assert (made - functional.group_norm(x.double(), 32)).abs().max() < 2e-3


@pytest.mark.parametrize("held", HELD)
def test_shift_that_cancels_the_mean_keeps_float16_digits(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a convolution's bias does: before it is added, a channel can be far from zero."""
    monkeypatch.setattr(kernels, "HELD", held)
    torch.manual_seed(0)
    far = 1000 * torch.randn(1, 320, device=DEVICE)
    x = torch.randn(2, 320, 8, 8, device=DEVICE) - far[:, :, None, None]
    x = x.to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(320, device=DEVICE), torch.zeros(320, device=DEVICE)
    made = kernels.group_norm(x, ones, zeros, far, groups=32, eps=1e-5, silu=False)
    meant = functional.group_norm((x + far[:, :, None, None]).double(), 32)
    assert (made - meant).abs().max() < 1e-3


@pytest.mark.parametrize("held", HELD)
def test_constant_is_normalized_to_zero(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variance is 0, of which rounding can leave less, as of this one."""
    monkeypatch.setattr(kernels, "HELD", held)
    x = torch.full((1, 320, 8, 8), 33.3, device=DEVICE).to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(320, device=DEVICE), torch.zeros(320, device=DEVICE)
    made = kernels.group_norm(x, ones, zeros, None, groups=32, eps=1e-5, silu=False)
    assert made.abs().max() < 0.02


@pytest.mark.parametrize("held", HELD)
def test_overflow_stays_infinite(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "HELD", held)
    x = torch.randn(1, 320, 8, 8, device=DEVICE).to(memory_format=torch.channels_last)
    x[0, 0, 0, 0] = torch.inf
    ones, zeros = torch.ones(320, device=DEVICE), torch.zeros(320, device=DEVICE)
    # In the interpreter NumPy computes, and warns of the difference of two infinities.
    with np.errstate(invalid="ignore"):
        made = kernels.group_norm(x, ones, zeros, None, groups=32, eps=1e-5, silu=False)
    assert made[:, :10].isnan().all()
    assert made[:, 10:].isfinite().all()
