"""Triton kernels, imported where they are launched: Triton comes with PyTorch for GPUs alone."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

HELD = 32768
"""Numbers that a program holds in its registers at most; what is larger is read twice."""
A_THREAD = 64
"""Numbers that one of its threads takes."""


def group_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    shift: torch.Tensor | None,
    *,
    groups: int,
    eps: float,
    silu: bool,
) -> torch.Tensor:
    """Group normalization of ``x + shift``, and SiLU, in one launch.

    `x` is (pictures, channels, height, width) and lies channels last, `shift` is (pictures or 1,
    channels). Statistics are in float32.
    """
    pictures, channels, height, width = x.shape
    pixels, each = height * width, channels // groups
    wide = triton.next_power_of_2(each)
    rows = min(triton.next_power_of_2(pixels), max(1, HELD // wide))
    out = torch.empty_like(x)
    _group_norm[(groups, pictures)](
        x, out, weight, bias, shift, pixels,
        0 if shift is None or shift.shape[0] == 1 else shift.stride(0), eps,
        CHANNELS=channels, EACH=each, WIDE=wide, ROWS=rows, HELD=pixels <= rows,
        SHIFTED=shift is not None, SILU=silu,
        num_warps=min(32, max(4, rows * wide // (32 * A_THREAD))),
    )  # fmt: skip
    return out


@triton.jit
def _group_norm(
    x, out, weight, bias, shift, pixels, shift_stride, eps,
    CHANNELS: tl.constexpr, EACH: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    HELD: tl.constexpr, SHIFTED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    # A program takes one group of one picture: a tile of `ROWS` pixels by `WIDE` channels at a
    # time, of which `EACH` are the group's.
    column = tl.arange(0, WIDE)
    channel = tl.program_id(0) * EACH + column
    inside = column < EACH
    row = tl.arange(0, ROWS)
    first = tl.program_id(1).to(tl.int64) * pixels * CHANNELS
    at = first + row[:, None] * CHANNELS + channel[None, :]
    moved = tl.zeros([WIDE], tl.float32)
    if SHIFTED:
        held = shift + tl.program_id(1) * shift_stride + channel
        moved = tl.load(held, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if HELD:
        seen = (row < pixels)[:, None] & inside[None, :]
        tile = tl.load(x + at, mask=seen, other=0.0)
        total, squares = _sums(tile, moved, seen, SHIFTED)
    else:
        total = 0.0
        squares = 0.0
        for start in range(0, pixels, ROWS):
            seen = (start + row < pixels)[:, None] & inside[None, :]
            tile = tl.load(x + start * CHANNELS + at, mask=seen, other=0.0)
            more, more_squares = _sums(tile, moved, seen, SHIFTED)
            total += more
            squares += more_squares
    count = pixels * EACH
    mean = total / count
    # Rounding can leave less than nothing of a constant.
    variance = tl.maximum(squares / count - mean * mean, 0.0)
    factor *= 1 / tl.sqrt(variance + eps)
    offset += (moved - mean) * factor
    if HELD:
        tl.store(out + at, _scaled(tile, factor, offset, SILU).to(out.dtype.element_ty), mask=seen)
    else:
        for start in range(0, pixels, ROWS):
            seen = (start + row < pixels)[:, None] & inside[None, :]
            tile = tl.load(x + start * CHANNELS + at, mask=seen, other=0.0)
            made = _scaled(tile, factor, offset, SILU).to(out.dtype.element_ty)
            tl.store(out + start * CHANNELS + at, made, mask=seen)


@triton.jit
def _sums(tile, moved, seen, SHIFTED: tl.constexpr):
    """Of a tile's numbers, and of their squares."""
    tile = tile.to(tl.float32)
    if SHIFTED:
        tile = tl.where(seen, tile + moved[None, :], 0.0)
    return tl.sum(tl.sum(tile, 1), 0), tl.sum(tl.sum(tile * tile, 1), 0)


@triton.jit
def _scaled(tile, factor, offset, SILU: tl.constexpr):
    made = tile.to(tl.float32) * factor[None, :] + offset[None, :]
    if SILU:
        made = made / (1 + tl.exp(-made))
    return made
