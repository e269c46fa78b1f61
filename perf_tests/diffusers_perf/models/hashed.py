"""Numbers computed from a seed and their own place: the same bits on every device and version.

A generator's numbers depend on the device that it draws on, on a GPU even on how many processors it
has. Integers do not: here each number is a hash of its place, so that billions of weights are made
on the GPU for each case, and a CPU makes the same ones.
"""

from __future__ import annotations

import torch

GOLDEN = 0x9E3779B1
MIXED = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))
"""Murmur3's finalizer: shifts and factors, before a last shift by 16."""
CHUNK = 2**26
"""Numbers that are made at once: what is in between takes memory as well."""


def fill_uniform(tensor: torch.Tensor, *, seed: int, bound: float) -> None:
    """Fill a contiguous tensor with numbers from [-bound, bound), 24 bits each."""
    flat = tensor.detach().view(-1)
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        places = torch.arange(start, start + part.numel(), dtype=torch.int32, device=part.device)
        signed = hashed(places, seed) >> 8
        part.copy_(signed.to(torch.float32).mul_(bound / 2**23))


def hashed(places: torch.Tensor, seed: int) -> torch.Tensor:
    """Hashes of 32-bit integers, in place; int32, of which all 32 bits count."""
    value = places.mul_(_signed(GOLDEN)).add_(_signed(seed))
    for shift, factor in MIXED:
        value.bitwise_xor_(_shifted(value, shift)).mul_(_signed(factor))
    return value.bitwise_xor_(_shifted(value, 16))


def _shifted(value: torch.Tensor, by: int) -> torch.Tensor:
    # Torch's shift to the right repeats the sign; here zeros come from the left.
    return (value >> by).bitwise_and_(2 ** (32 - by) - 1)


def _signed(number: int) -> int:
    """A number of 32 bits as torch's int32 holds it."""
    number &= 2**32 - 1
    return number - 2**32 if number >= 2**31 else number
