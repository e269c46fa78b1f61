"""What guidance's two halves have in common, computed for one of them.

Guidance runs the UNet on the same latents twice, with the prompt and without. Until the first
cross-attention, which is where the prompt comes in, both are the same: the first convolution, the
first residual block and the first self-attention, over as many tokens as the latents have pixels.
"""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.techniques.device_steps import DeviceSteps, StepKind


class Once(torch.nn.Module):
    """Runs a module on the first half of a batch whose halves are the same, and repeats it."""

    halves = False
    """Whether the batch is such a one."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Of the module's own arguments, those with a batch of this size are halved too."""
        batch = hidden.shape[0]
        if not self.halves or batch % 2:
            whole: torch.Tensor = self.module(hidden, *args, **kwargs)
            return whole
        rest = [
            a[: batch // 2] if isinstance(a, torch.Tensor) and a.shape[0] == batch else a
            for a in args
        ]
        made = self.module(hidden[: batch // 2], *rest, **kwargs)
        return torch.cat([made, made])


def share_prefix(pipeline: Any) -> None:
    """Let a `DeviceSteps` pipeline compute what both halves of guidance have in common once.

    `ValueError` for any other, which does not say which of its steps are guided.
    """
    if not isinstance(pipeline, DeviceSteps):
        raise ValueError("a prefix is shared by device_steps, which has to come before")
    unet = pipeline.components["unet"]
    first = unet.down_blocks[0]
    transformer = first.attentions[0]
    block = transformer.transformer_blocks[0]
    places = (
        (unet, "conv_in"),
        (first.resnets, "0"),
        (transformer, "norm"),
        (transformer, "proj_in"),
        (block, "norm1"),
        (block, "attn1"),
    )
    shared = []
    for holder, name in places:
        once = Once(getattr(holder, name))
        setattr(holder, name, once)
        shared.append(once)
    before = pipeline.plan.before

    def halved(kind: StepKind) -> None:
        before(kind)
        for once in shared:
            once.halves = kind.guided

    pipeline.plan.before = halved


def prefix_is_shared(pipeline: Any) -> None:
    """The UNet's first layers run on one half of a guided batch."""
    if not any(isinstance(module, Once) for module in pipeline.unet.modules()):
        raise NotApplied("both halves of a guided batch run through all of the UNet")
