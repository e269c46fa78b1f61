"""The least a case could take: its arithmetic at the GPU's own matmul rate, or its weights at the
rate of its memory, whichever takes longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffusers_perf.measurement.clock import synchronized_clock
from diffusers_perf.measurement.discovery import modules
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.replay import uncompiled

SIDE = 8192
"""Of the square matrices that measure the rate: large enough to fill a GPU."""
COPIED = 2**30
"""Bytes that are copied to measure the bandwidth: many times what a cache holds."""
REPEATS = 10

STEPS = 2
"""Operations are exact: where all steps do the same, the second speaks for all further ones."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a generation cannot do without, whatever the precision and the kernels."""

    flops: float
    """Of matmuls, convolutions and attention, as PyTorch's counter knows them (a third-party
    attention kernel is not in it)."""
    parameters: float
    """Read: those of a layer count as often as it is called."""

    def roofline(self, *, bytes_per_parameter: float) -> tuple[float, str]:
        """Seconds that this GPU cannot go below, and what of it says so."""
        arithmetic = self.flops / matmul_rate()
        memory = self.parameters * bytes_per_parameter / bandwidth()
        return max((arithmetic, "arithmetic"), (memory, "memory"))


@cache
def matmul_rate() -> float:
    """FLOP/s that this GPU reaches on large float16 products of random numbers; the median."""
    a, b = (torch.randn(SIDE, SIDE, dtype=torch.float16, device="cuda") for _ in range(2))
    return 2 * SIDE**3 / _seconds(lambda: a @ b)


@cache
def bandwidth() -> float:
    """Bytes a second that this GPU reads and writes in a copy; the median."""
    a, b = (torch.empty(COPIED, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * COPIED / _seconds(lambda: b.copy_(a))


def _seconds(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS + 3):
        start = synchronized_clock()
        work()
        seconds.append(synchronized_clock() - start)
    return median(seconds[3:])


def count_work(generation: Generation, pipeline: Any, *, steps: int, alike: bool = True) -> Work:
    """The work of a generation of this many steps, run operator by operator.

    Where its steps are not alike, all of them are run.
    """
    run = min(steps, generation.asking_for(STEPS)) if alike else steps
    read = 0
    after_step: list[tuple[float, float]] = []

    def reading(layer: torch.nn.Module, *_: object) -> None:
        nonlocal read
        read += sum(p.numel() for p in layer.parameters(recurse=False))

    hooks = [
        layer.register_forward_pre_hook(reading)
        for module in modules(pipeline).values()
        for layer in module.modules()
        if any(True for _ in layer.parameters(recurse=False))
    ]
    try:
        with uncompiled(), FlopCounterMode(display=False) as counter:
            generation.images(
                steps=run, after_step=lambda: after_step.append((counter.get_total_flops(), read))
            )
    finally:
        for hook in hooks:
            hook.remove()
    flops: float = counter.get_total_flops()
    further = generation.turns(steps) - generation.turns(run)
    if not further:
        return Work(flops=flops, parameters=read)
    (flops_1, read_1), (flops_2, read_2) = after_step[:2]
    return Work(
        flops=flops + further * (flops_2 - flops_1), parameters=read + further * (read_2 - read_1)
    )
