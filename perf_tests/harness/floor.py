"""The least a case could take: its floating point operations at the GPU's own matmul rate."""

from __future__ import annotations

from functools import cache
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from perf_tests.harness.pipelines import Generation
from perf_tests.harness.timing import synchronized_clock

SIDE = 8192
"""Of the square matrices that measure the rate: large enough to fill a GPU."""
REPEATS = 10

STEPS = 2
"""Operations are exact: the second step speaks for all further ones."""


@cache
def matmul_rate() -> float:
    """FLOP/s that this GPU reaches on large float16 products of random numbers; the median."""
    a, b = (torch.randn(SIDE, SIDE, dtype=torch.float16, device="cuda") for _ in range(2))
    seconds = []
    for _ in range(REPEATS + 3):
        start = synchronized_clock()
        a @ b
        seconds.append(synchronized_clock() - start)
    return 2 * SIDE**3 / median(seconds[3:])


def flops(generation: Generation, *, steps: int) -> float:
    """Floating point operations of a generation of this many steps: matmuls, convolutions and
    attention, as PyTorch's counter knows them (a third-party attention kernel is not in it).
    """
    seen: list[int] = []
    with FlopCounterMode(display=False) as counter:
        generation.pictures(steps=STEPS, after_step=lambda: seen.append(counter.get_total_flops()))
    total: int = counter.get_total_flops()
    return total + (steps - STEPS) * (seen[1] - seen[0])
