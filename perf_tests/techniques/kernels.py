"""Triton kernels, imported where they are launched: Triton comes with PyTorch for GPUs alone."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

NARROWEST = 80
"""Channels that a program goes through side by side at least: fewer are short rows, read badly."""
# The best of 21 settings on an H100, over the shapes of a UNet: the wider a program, the longer its
# threads wait for each other.
TILE = 8192
"""Numbers that a program of `group_norm` holds at once."""
WARPS = 4
"""Of 32 threads each, that share them."""
PROGRAMS = 256
"""Programs that a group normalization is dealt out to: a few on each processor of a large GPU, and
still so few that each can add up what those of its own groups summed."""


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
    """Group normalization of ``x + shift``, and SiLU, in two launches.

    `x` is (pictures, channels, height, width) and lies channels last, `shift` is (pictures or 1,
    channels). Statistics are in float32. `ValueError` for another layout or shape, for what 32 bits
    cannot number, and for groups that are no power of two, which Triton's ranges are.
    """
    pictures, channels, height, width = x.shape
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("group_norm takes what lies channels last")
    if shift is not None and tuple(shift.shape) not in ((1, channels), (pictures, channels)):
        raise ValueError(f"a shift of {tuple(shift.shape)} does not fit {tuple(x.shape)}")
    if x.numel() >= 2**31 or channels % groups or groups & (groups - 1):
        raise ValueError(f"group_norm does not take {tuple(x.shape)} in {groups} groups")
    shift = None if shift is None else shift.contiguous()
    pixels = height * width
    # Side by side, with whole groups each.
    slices = next((n for n in (4, 2) if channels // n >= NARROWEST and groups % n == 0), 1)
    wide = triton.next_power_of_2(channels // slices)
    rows = max(1, TILE // wide)
    parts = max(1, min(PROGRAMS // (pictures * slices), triton.cdiv(pixels, rows)))
    sums = torch.empty(
        pictures * slices * parts, 2, groups // slices, dtype=torch.float32, device=x.device
    )
    out = torch.empty_like(x)
    grid = (parts, slices, pictures)
    shift_stride = 0 if shift is None or shift.shape[0] == 1 else channels
    options: dict[str, Any] = {
        "GROUPS": groups // slices,
        "EACH": channels // groups,
        "CHANNELS": channels,
        "WIDE": wide,
        "ROWS": rows,
        "SHIFTED": shift is not None,
        "num_warps": WARPS,
    }
    share = triton.cdiv(pixels, parts)
    _group_norm_sums[grid](x, shift, sums, pixels, share, shift_stride, **options)
    _group_norm[grid](
        x, out, weight, bias, shift, sums, pixels, share, shift_stride, eps,
        PARTS=triton.next_power_of_2(parts), SILU=silu, **options,
    )  # fmt: skip
    return out


# A program of either takes a part of the pixels of a slice of the channels of a picture: a tile of
# `ROWS` pixels by `WIDE` channels at a time, of which those beyond the slice are left out.


@triton.jit
def _tile(first, pixel, last, channel, inside, CHANNELS: tl.constexpr):
    """Where a tile lies behind the picture's `first` pixel, and what of it is there."""
    at = (first + pixel)[:, None] * CHANNELS + channel[None, :]
    return at, (pixel < last)[:, None] & inside[None, :]


@triton.jit
def _group_norm_sums(
    x, shift, sums, pixels, share, shift_stride,
    GROUPS: tl.constexpr, EACH: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, SHIFTED: tl.constexpr,
):  # fmt: skip
    part, piece, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = tl.arange(0, WIDE)
    channel = piece * (GROUPS * EACH) + column
    inside = column < GROUPS * EACH
    row = tl.arange(0, ROWS)
    last = tl.minimum((part + 1) * share, pixels)
    total = tl.zeros([ROWS, WIDE], tl.float32)
    squares = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(part * share, last, ROWS):
        at, seen = _tile(picture * pixels, start + row, last, channel, inside, CHANNELS)
        tile = tl.load(x + at, mask=seen, other=0.0).to(tl.float32)
        total += tile
        squares += tile * tile
    sum_1 = tl.sum(total, 0)
    sum_2 = tl.sum(squares, 0)
    if SHIFTED:
        moved = tl.load(shift + picture * shift_stride + channel, mask=inside, other=0.0)
        moved = moved.to(tl.float32)
        count = tl.maximum(last - part * share, 0)
        sum_2 += moved * (2 * sum_1 + count * moved)
        sum_1 += count * moved
    group = tl.arange(0, GROUPS)
    member = (column // EACH)[None, :] == group[:, None]
    number = (picture * tl.num_programs(1) + piece) * tl.num_programs(0) + part
    own = sums + number * 2 * GROUPS + group
    tl.store(own, tl.sum(tl.where(member, sum_1[None, :], 0.0), 1))
    tl.store(own + GROUPS, tl.sum(tl.where(member, sum_2[None, :], 0.0), 1))


@triton.jit
def _group_norm(
    x, out, weight, bias, shift, sums, pixels, share, shift_stride, eps,
    GROUPS: tl.constexpr, EACH: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, SHIFTED: tl.constexpr, PARTS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    part, piece, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = tl.arange(0, WIDE)
    channel = piece * (GROUPS * EACH) + column
    inside = column < GROUPS * EACH
    row = tl.arange(0, ROWS)
    last = tl.minimum((part + 1) * share, pixels)
    # All parts' sums, by each program in the same order: no two runs differ.
    group = tl.arange(0, GROUPS)
    other = tl.arange(0, PARTS)
    first = (picture * tl.num_programs(1) + piece) * tl.num_programs(0)
    held = sums + (first + other)[:, None] * 2 * GROUPS + group[None, :]
    known = (other < tl.num_programs(0))[:, None] & (group < GROUPS)[None, :]
    mean = tl.sum(tl.load(held, mask=known, other=0.0), 0) / (pixels * EACH)
    square = tl.sum(tl.load(held + GROUPS, mask=known, other=0.0), 0) / (pixels * EACH)
    spread = 1 / tl.sqrt(tl.maximum(square - mean * mean, 0.0) + eps)
    member = (column // EACH)[None, :] == group[:, None]
    factor = tl.sum(tl.where(member, spread[:, None], 0.0), 0)
    factor *= tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    offset = -tl.sum(tl.where(member, mean[:, None], 0.0), 0)
    if SHIFTED:
        moved = tl.load(shift + picture * shift_stride + channel, mask=inside, other=0.0)
        offset += moved.to(tl.float32)
    offset = offset * factor + tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    for start in range(part * share, last, ROWS):
        at, seen = _tile(picture * pixels, start + row, last, channel, inside, CHANNELS)
        made = tl.load(x + at, mask=seen, other=0.0).to(tl.float32)
        made = made * factor[None, :] + offset[None, :]
        if SILU:
            made = made / (1 + tl.exp(-made))
        tl.store(out + at, made.to(out.dtype.element_ty), mask=seen)
