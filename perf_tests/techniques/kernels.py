"""Triton kernels, imported where they are launched: Triton comes with PyTorch for GPUs alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

SLICES = 4
"""That the groups of a picture are dealt into: as many programs go through its pixels side by side,
each with whole groups in rows that are still long enough to be read well."""
TILE = 16384
"""Numbers that a program of `group_norm` holds at once."""


@cache
def _arrivals(device: torch.device) -> torch.Tensor:
    """Where the programs of a launch count themselves in; launches of one stream follow another."""
    return torch.zeros(1, dtype=torch.int32, device=device)


def _programs(device: torch.device) -> int:
    """As many as run at once, however large they are."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def group_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    shift: torch.Tensor | None,
    *,
    groups: int,
    eps: float,
    silu: bool,
    programs: int | None = None,
) -> torch.Tensor:
    """Group normalization of ``x + shift``, and SiLU, in one launch.

    `x` is (pictures, channels, height, width) and lies channels last, `shift` is (pictures or 1,
    channels). Statistics are in float32. `programs` is how many may wait for each other; `SLICES`
    has to divide `groups`.
    """
    pictures, channels, height, width = x.shape
    pixels = height * width
    wide = triton.next_power_of_2(channels // SLICES)
    rows = max(1, TILE // wide)
    at_once = programs or _programs(x.device)
    parts = max(1, min(at_once // (pictures * SLICES), triton.cdiv(pixels, rows)))
    out = torch.empty_like(x)
    sums = torch.empty(
        pictures * SLICES * parts * 2 * groups // SLICES, dtype=torch.float32, device=x.device
    )
    items = pictures * SLICES * parts
    options: dict[str, Any] = {"num_warps": 16}
    if x.is_cuda:  # all of them run at once, or none: they wait for each other
        options["launch_cooperative_grid"] = True
    _group_norm[(min(items, at_once),)](
        x, out, weight, bias, shift, sums, _arrivals(x.device), items, pixels,
        triton.cdiv(pixels, parts), eps,
        shift.stride(0) if shift is not None and shift.shape[0] > 1 else 0,
        PARTS=parts, PARTS_WIDE=triton.next_power_of_2(parts), SLICES=SLICES,
        GROUPS=groups // SLICES, CHANNELS=channels // SLICES, WIDE=wide, ROWS=rows,
        SHIFTED=shift is not None, SILU=silu, **options,
    )  # fmt: skip
    return out


@triton.jit
def _group_norm(
    x, out, weight, bias, shift, sums, arrived, items, pixels, rows_a_part, eps, shift_stride,
    PARTS: tl.constexpr, PARTS_WIDE: tl.constexpr, SLICES: tl.constexpr, GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
    SHIFTED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    # A program takes a part of the pixels of a slice of the channels of a picture: an item.
    column = tl.arange(0, WIDE)
    row = tl.arange(0, ROWS)
    group = tl.arange(0, GROUPS)
    each: tl.constexpr = CHANNELS // GROUPS
    of_group = (column // each)[None, :] == group[:, None]
    there = column < CHANNELS
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        picture = item // (SLICES * PARTS)
        channel = (item // PARTS) % SLICES * CHANNELS + column
        first = item % PARTS * rows_a_part
        last = tl.minimum(first + rows_a_part, pixels)
        if SHIFTED:
            moved = tl.load(shift + picture * shift_stride + channel, mask=there, other=0.0)
            moved = moved.to(tl.float32)
        total = tl.zeros([WIDE], tl.float32)
        squares = tl.zeros([WIDE], tl.float32)
        for start in range(first, last, ROWS):
            pixel = start + row
            seen = (pixel < last)[:, None] & there[None, :]
            at = (picture * pixels + pixel)[:, None] * (CHANNELS * SLICES) + channel[None, :]
            tile = tl.load(x + at, mask=seen, other=0.0).to(tl.float32)
            if SHIFTED:
                tile = tl.where(seen, tile + moved[None, :], 0.0)
            total += tl.sum(tile, 0)
            squares += tl.sum(tile * tile, 0)
        own = sums + item * 2 * GROUPS + group
        tl.store(own, tl.sum(tl.where(of_group, total[None, :], 0.0), 1))
        tl.store(own + GROUPS, tl.sum(tl.where(of_group, squares[None, :], 0.0), 1))
    _wait_for_all(arrived)
    part = tl.arange(0, PARTS_WIDE)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        picture = item // (SLICES * PARTS)
        channel = (item // PARTS) % SLICES * CHANNELS + column
        first = item % PARTS * rows_a_part
        last = tl.minimum(first + rows_a_part, pixels)
        # In the same order by each program: no two runs differ.
        held = sums + (item // PARTS * PARTS + part)[:, None] * 2 * GROUPS + group[None, :]
        known = (part < PARTS)[:, None] & (group < GROUPS)[None, :]
        count = pixels * each
        mean = tl.sum(tl.load(held, mask=known, other=0.0, cache_modifier=".cg"), 0) / count
        square = tl.sum(tl.load(held + GROUPS, mask=known, other=0.0, cache_modifier=".cg"), 0)
        spread = 1 / tl.sqrt(square / count - mean * mean + eps)
        factor = tl.sum(tl.where(of_group, spread[:, None], 0.0), 0)
        factor *= tl.load(weight + channel, mask=there, other=0.0).to(tl.float32)
        offset = -tl.sum(tl.where(of_group, mean[:, None], 0.0), 0)
        if SHIFTED:
            moved = tl.load(shift + picture * shift_stride + channel, mask=there, other=0.0)
            offset += moved.to(tl.float32)
        offset = offset * factor + tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)
        for start in range(first, last, ROWS):
            pixel = start + row
            seen = (pixel < last)[:, None] & there[None, :]
            at = (picture * pixels + pixel)[:, None] * (CHANNELS * SLICES) + channel[None, :]
            made = tl.load(x + at, mask=seen, other=0.0).to(tl.float32)
            made = made * factor[None, :] + offset[None, :]
            if SILU:
                made = made / (1 + tl.exp(-made))
            tl.store(out + at, made.to(out.dtype.element_ty), mask=seen)


@triton.jit
def _wait_for_all(arrived):
    """Until every program of the launch is here, and what it wrote can be read."""
    tl.debug_barrier()
    # The highest bit turns over when all have arrived, whatever was counted in other launches: the
    # first program adds what the others leave of it.
    others = tl.num_programs(0) - 1
    own = tl.where(tl.program_id(0) == 0, 2147483647 - others + 1, 1)
    before = tl.atomic_add(arrived, own, sem="release")
    while (tl.atomic_add(arrived, 0, sem="acquire") ^ before) >= 0:
        pass
    tl.debug_barrier()


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
    result = value * (0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476)))
    at = token[:, None] * out + column[None, :]
    there = (token < tokens)[:, None] & (column < out)[None, :]
    tl.store(made + at, result.to(made.dtype.element_ty), mask=there)
