"""Triton kernels, imported where they are launched: Triton comes with PyTorch for GPUs alone."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

NARROWEST = 80
"""Channels that a program goes through side by side: fewer are read badly, in short rows."""
TILE = 8192
"""Numbers that a program of `group_norm` holds at once."""
WARPS = 8
PROGRAMS = 512
"""That a group normalization is dealt out to: a few on each processor of a large GPU, and still so
few that each can add up what all of them summed."""


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
    channels). Statistics are in float32.
    """
    pictures, channels, height, width = x.shape
    pixels = height * width
    slices = next(n for n in (4, 2, 1) if n == 1 or channels // n >= NARROWEST and groups % n == 0)
    wide = triton.next_power_of_2(channels // slices)
    rows = max(1, TILE // wide)
    parts = max(1, min(PROGRAMS // (pictures * slices), triton.cdiv(pixels, rows)))
    sums = torch.empty(
        pictures * slices * parts, 2, groups // slices, dtype=torch.float32, device=x.device
    )
    out = torch.empty_like(x)
    grid = (parts, slices, pictures)
    moved = 0 if shift is None or shift.shape[0] == 1 else shift.stride(0)
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
    _group_sums[grid](x, shift, sums, pixels, share, moved, **options)
    _group_norm[grid](
        x, out, weight, bias, shift, sums, pixels, share, moved, eps,
        PARTS=triton.next_power_of_2(parts), SILU=silu, **options,
    )  # fmt: skip
    return out


# A program of either takes a part of the pixels of a slice of the channels of a picture: a tile of
# `ROWS` pixels by `WIDE` channels at a time, of which those beyond the slice are left out.


@triton.jit
def _group_sums(
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
        pixel = start + row
        at = (picture * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
        seen = (pixel < last)[:, None] & inside[None, :]
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
        pixel = start + row
        at = (picture * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
        seen = (pixel < last)[:, None] & inside[None, :]
        made = tl.load(x + at, mask=seen, other=0.0).to(tl.float32)
        made = made * factor[None, :] + offset[None, :]
        if SILU:
            made = made / (1 + tl.exp(-made))
        tl.store(out + at, made.to(out.dtype.element_ty), mask=seen)


def geglu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``value * gelu(gate)`` of ``x @ weight.T + bias``, whose halves they are, in one launch.

    `x` is (…, width) and contiguous, `weight` (2 · out, width); the result is (…, out).
    """
    width, out = x.shape[-1], weight.shape[0] // 2
    tokens = x.numel() // width
    made = torch.empty(*x.shape[:-1], out, dtype=x.dtype, device=x.device)
    tile = GEGLU_TILES[tokens > 4096]

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(tokens, meta["TOKENS"]) * triton.cdiv(out, meta["OUT"]),)

    _geglu_gemm[grid](x, weight, bias, made, tokens, width, out, **tile)
    return made


# Chosen on a Hopper GPU.
GEGLU_TILES = {
    True: {"TOKENS": 128, "OUT": 128, "WIDTH": 64, "BAND": 8, "num_warps": 8, "num_stages": 4},
    False: {"TOKENS": 128, "OUT": 64, "WIDTH": 64, "BAND": 8, "num_warps": 4, "num_stages": 4},
}


@triton.jit
def _geglu_gemm(
    x, weight, bias, made, tokens, width, out,
    TOKENS: tl.constexpr, OUT: tl.constexpr, WIDTH: tl.constexpr, BAND: tl.constexpr,
):  # fmt: skip
    # Tiles that run at once share rows of x and of the weight: bands of `BAND` tiles of tokens.
    number = tl.program_id(0)
    across, down = tl.cdiv(out, OUT), tl.cdiv(tokens, TOKENS)
    band = number // (BAND * across)
    high = tl.minimum(down - band * BAND, BAND)
    token = (band * BAND + number % (BAND * across) % high) * TOKENS + tl.arange(0, TOKENS)
    column = number % (BAND * across) // high * OUT + tl.arange(0, OUT)
    deep = tl.arange(0, WIDTH)
    given = x + (token % tokens)[:, None] * width + deep[None, :]
    of_value = weight + (column % out)[None, :] * width + deep[:, None]
    of_gate = of_value + out * width
    value = tl.zeros([TOKENS, OUT], tl.float32)
    gate = tl.zeros([TOKENS, OUT], tl.float32)
    for start in range(0, width, WIDTH):
        left = (start + deep) < width
        states = tl.load(given + start, mask=left[None, :], other=0.0)
        # Of float32 no bits are dropped.
        value = tl.dot(
            states, tl.load(of_value + start, mask=left[:, None], other=0.0), value,
            input_precision="ieee",
        )  # fmt: skip
        gate = tl.dot(
            states, tl.load(of_gate + start, mask=left[:, None], other=0.0), gate,
            input_precision="ieee",
        )  # fmt: skip
    value += tl.load(bias + column, mask=column < out, other=0.0).to(tl.float32)[None, :]
    gate += tl.load(bias + out + column, mask=column < out, other=0.0).to(tl.float32)[None, :]
    result = value * gate * _normal_cdf(gate)
    at = token[:, None] * out + column[None, :]
    there = (token < tokens)[:, None] & (column < out)[None, :]
    tl.store(made + at, result.to(made.dtype.element_ty), mask=there)


@triton.jit
def _normal_cdf(x):
    """The share of a normal distribution below x, to 8e-8; a third of what erf costs.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    z = tl.abs(x) * 0.7071067811865476
    t = 1 / (1 + 0.3275911 * z)
    sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    above = 0.5 * sum * tl.exp(-z * z)
    return tl.where(x < 0, above, 1 - above)
