"""Triton kernels, imported where they are launched: Triton comes with PyTorch for GPUs alone."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

WARPS = 4
"""Of 32 threads each, in a program, at least."""
HELD = 32768
"""Numbers that one program keeps in its registers, each side of its tile filled up to a power of
two: a group up to that size is normalized in one launch. Twice as many would not fit in."""
HELD_A_THREAD = 64
"""Of them, in each of its threads: 16 warps at most."""
# Groups that are larger are dealt out, by the best of 21 settings on an H100 over a UNet's shapes:
# the wider a program, the longer its threads wait for each other.
TILE = 8192
"""Numbers that a program goes through at once."""
NARROWEST = 80
"""Channels that it goes through side by side at least: fewer are short rows, read badly."""
PROGRAMS = 256
"""Programs that a normalization is dealt out to: a few on each processor of a large GPU, and still
so few that each can add up what those of its own groups summed."""


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
    """Group normalization of ``x + shift``, and SiLU, in one launch, or in two where it is large.

    `x` is (images, channels, height, width) and lies channels last, `shift` is (images or 1,
    channels). Statistics are in float32. `ValueError` for another layout or shape, nothing at all,
    what 32 bits cannot number, and groups that are not a power of two, which Triton's ranges are.
    """
    images, channels, height, width = x.shape
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("group_norm takes what lies channels last")
    if shift is not None and tuple(shift.shape) not in ((1, channels), (images, channels)):
        raise ValueError(f"a shift of {tuple(shift.shape)} does not fit {tuple(x.shape)}")
    if not 0 < x.numel() < 2**31 or groups < 1 or channels % groups or groups & (groups - 1):
        raise ValueError(f"group_norm does not take {tuple(x.shape)} in {groups} groups")
    shift = None if shift is None else shift.contiguous()
    out = torch.empty_like(x, memory_format=torch.channels_last)
    pixels, each = height * width, channels // groups
    taken: dict[str, Any] = {
        "pixels": pixels,
        "shift_stride": 0 if shift is None or shift.shape[0] == 1 else channels,
        "CHANNELS": channels,
        "EACH": each,
        "SHIFTED": shift is not None,
    }
    norm = {"weight": weight, "bias": bias, "eps": eps, "SILU": silu}
    wide, rows = triton.next_power_of_2(each), triton.next_power_of_2(pixels)
    if wide * rows <= HELD:
        warps = max(WARPS, wide * rows // (32 * HELD_A_THREAD))
        taken |= {"WIDE": wide, "ROWS": rows, "num_warps": warps}
        _group_norm_held[(groups, images)](x, out, shift=shift, **norm, **taken)
        return out
    # Side by side, with whole groups each.
    slices = next((n for n in (4, 2) if channels // n >= NARROWEST and groups % n == 0), 1)
    wide = triton.next_power_of_2(channels // slices)
    rows = max(1, TILE // wide)
    taken |= {"GROUPS": groups // slices, "WIDE": wide, "ROWS": rows, "num_warps": WARPS}
    parts = max(1, min(PROGRAMS // (images * slices), triton.cdiv(pixels, rows)))
    taken["share"] = triton.cdiv(pixels, parts)
    grid = (parts, slices, images)
    sums = torch.empty(*grid, 2, groups // slices, dtype=torch.float32, device=x.device)
    _group_norm_sums[grid](x, shift=shift, sums=sums, **taken)
    parts = triton.next_power_of_2(parts)
    _group_norm[grid](x, out, shift=shift, sums=sums, PARTS=parts, **norm, **taken)
    return out


@triton.jit
def _tile(first, pixel, last, channel, inside, CHANNELS: tl.constexpr):
    """Where a tile lies behind the image's `first` pixel, and what of it is there."""
    at = (first + pixel)[:, None] * CHANNELS + channel[None, :]
    return at, (pixel < last)[:, None] & inside[None, :]


@triton.jit
def _moved(shift, at, inside, WIDE: tl.constexpr, SHIFTED: tl.constexpr):
    """What is added to each channel before it is normalized."""
    moved = tl.zeros([WIDE], tl.float32)
    if SHIFTED:
        moved += tl.load(shift + at, mask=inside, other=0.0).to(tl.float32)
    return moved


@triton.jit
def _scaled(tile, factor, offset, SILU: tl.constexpr):
    made = tile.to(tl.float32) * factor[None, :] + offset[None, :]
    if SILU:
        made = made / (1 + tl.exp(-made))
    return made


@triton.jit
def _group_norm_held(
    x, out, weight, bias, shift, pixels, shift_stride, eps,
    EACH: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    SHIFTED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    # A program takes one group of an image.
    group, image = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, WIDE)
    channel = group * EACH + column
    inside = column < EACH
    at, seen = _tile(image * pixels, tl.arange(0, ROWS), pixels, channel, inside, CHANNELS)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    tile = tl.load(x + at, mask=seen, other=0.0)
    moved = _moved(shift, image * shift_stride + channel, inside, WIDE, SHIFTED)
    count = pixels * EACH
    mean = tl.sum(tl.where(seen, tile.to(tl.float32) + moved[None, :], 0.0)) / count
    apart = tl.where(seen, tile.to(tl.float32) + (moved - mean)[None, :], 0.0)
    factor /= tl.sqrt(tl.sum(apart * apart) / count + eps)
    made = _scaled(tile, factor, offset + (moved - mean) * factor, SILU)
    tl.store(out + at, made.to(out.dtype.element_ty), mask=seen)


# A program of these takes a part of the pixels of a slice of the channels of an image: a tile of
# `ROWS` pixels by `WIDE` channels at a time, of which those beyond the slice are left out.


@triton.jit
def _group_norm_sums(
    x, shift, sums, pixels, share, shift_stride,
    GROUPS: tl.constexpr, EACH: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, SHIFTED: tl.constexpr,
):  # fmt: skip
    part, piece, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = tl.arange(0, WIDE)
    channel = piece * (GROUPS * EACH) + column
    inside = column < GROUPS * EACH
    row = tl.arange(0, ROWS)
    last = tl.minimum((part + 1) * share, pixels)
    moved = _moved(shift, image * shift_stride + channel, inside, WIDE, SHIFTED)
    total = tl.zeros([ROWS, WIDE], tl.float32)
    squares = tl.zeros([ROWS, WIDE], tl.float32)
    for start in range(part * share, last, ROWS):
        at, seen = _tile(image * pixels, start + row, last, channel, inside, CHANNELS)
        tile = tl.load(x + at, mask=seen, other=0.0).to(tl.float32)
        tile = tl.where(seen, tile + moved[None, :], 0.0)
        total += tile
        squares += tile * tile
    sum_1 = tl.sum(total, 0)
    sum_2 = tl.sum(squares, 0)
    group = tl.arange(0, GROUPS)
    member = (column // EACH)[None, :] == group[:, None]
    number = (image * tl.num_programs(1) + piece) * tl.num_programs(0) + part
    own = sums + number * 2 * GROUPS + group
    tl.store(own, tl.sum(tl.where(member, sum_1[None, :], 0.0), 1))
    tl.store(own + GROUPS, tl.sum(tl.where(member, sum_2[None, :], 0.0), 1))


@triton.jit
def _group_norm(
    x, out, weight, bias, shift, sums, pixels, share, shift_stride, eps,
    GROUPS: tl.constexpr, EACH: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, SHIFTED: tl.constexpr, PARTS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    part, piece, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = tl.arange(0, WIDE)
    channel = piece * (GROUPS * EACH) + column
    inside = column < GROUPS * EACH
    row = tl.arange(0, ROWS)
    last = tl.minimum((part + 1) * share, pixels)
    # All parts' sums, by each program in the same order: no two runs differ.
    group = tl.arange(0, GROUPS)
    other = tl.arange(0, PARTS)
    first = (image * tl.num_programs(1) + piece) * tl.num_programs(0)
    held = sums + (first + other)[:, None] * 2 * GROUPS + group[None, :]
    known = (other < tl.num_programs(0))[:, None] & (group < GROUPS)[None, :]
    mean = tl.sum(tl.load(held, mask=known, other=0.0), 0) / (pixels * EACH)
    square = tl.sum(tl.load(held + GROUPS, mask=known, other=0.0), 0) / (pixels * EACH)
    # Rounding can leave less than nothing of a constant, and an overflow has to stay one.
    variance = tl.maximum(square - mean * mean, 0.0, propagate_nan=tl.PropagateNan.ALL)
    spread = 1 / tl.sqrt(variance + eps)
    member = (column // EACH)[None, :] == group[:, None]
    factor = tl.sum(tl.where(member, spread[:, None], 0.0), 0)
    factor *= tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    offset = _moved(shift, image * shift_stride + channel, inside, WIDE, SHIFTED)
    offset -= tl.sum(tl.where(member, mean[:, None], 0.0), 0)
    offset = offset * factor + tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    for start in range(part * share, last, ROWS):
        at, seen = _tile(image * pixels, start + row, last, channel, inside, CHANNELS)
        made = _scaled(tl.load(x + at, mask=seen, other=0.0), factor, offset, SILU)
        tl.store(out + at, made.to(out.dtype.element_ty), mask=seen)
