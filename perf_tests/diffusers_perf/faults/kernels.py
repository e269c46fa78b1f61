"""Layouts turned there and back, slower kernels, and one kernel more."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.faults.injection import Injection, fault
from diffusers_perf.faults.places import COUNTED, COUNTED_HALF, in_step


@fault(detected_by="counter", setting=COUNTED)
def layout_there_and_back(injection: Injection) -> None:
    """Every residual block turns its input channels last, and back."""
    from diffusers.models.resnet import ResnetBlock2D

    forward = ResnetBlock2D.forward

    def turned(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        x = x.contiguous(memory_format=torch.channels_last).contiguous()
        return forward(self, x, *args, **kwargs)

    injection.put(ResnetBlock2D, "forward", turned)


@fault(detected_by="GPU busy", setting=COUNTED_HALF, where="cuda")
def cudnn_off(injection: Injection) -> None:
    """cuDNN does not load, and convolutions run as matrix products."""
    injection.put(torch.backends.cudnn, "enabled", False)


@fault(
    detected_by="GPU busy",
    setting=COUNTED_HALF,
    where="cuda",
    unit="% of a step's GPU work",
    sizes=(20, 10, 5, 3, 2, 1),
)
def more_gpu_work(injection: Injection) -> None:
    """One kernel more in each step, and nothing else."""
    # Not larger: a case is also judged by its peak of memory.
    side, inner = 2048, 1024
    result = torch.empty(side, side, device=injection.device)
    wanted_s = (injection.size or 0) / 100 * injection.gpu_step_s
    # The work of a product grows with its inner side, and a larger one is done at a higher rate.
    for _ in range(3):
        inner = max(8, round(inner * wanted_s / _product_s(side, inner, result) / 8) * 8)
    factor = _factor(side, inner, result)
    in_step(injection, lambda pipeline, noise: torch.mm(factor, factor.T, out=result))


def _factor(side: int, inner: int, result: torch.Tensor) -> torch.Tensor:
    """Of numbers that differ: a product of ones takes less power, and a GPU at its power limit does
    the rest of the step at a higher clock meanwhile.
    """
    drawn = torch.Generator(result.device).manual_seed(0)
    return torch.randn(side, inner, device=result.device, generator=drawn)


def _product_s(side: int, inner: int, result: torch.Tensor) -> float:
    """How long the GPU takes for such a product."""
    left = _factor(side, inner, result)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        start.record()
        torch.mm(left, left.T, out=result)
        end.record()
    torch.cuda.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1e3
