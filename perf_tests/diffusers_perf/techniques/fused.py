"""What torch.compile does not fuse by itself, in the UNet.

torch 2.11 makes three or four kernels of a group normalization, since its sums go through all of a
image, some of them many times slower than memory; and it leaves a linear layer's bias to cuBLAS:
on an H100 the product that leaves self-attention at 64 by 64 takes 10.9 us with it and 6.9 without,
though the bias costs nothing where what follows adds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.pipelines import DoesNotFit
from diffusers_perf.measurement.replay import replay

GROUP_NORM = "perf_tests::group_norm"


@torch.library.custom_op(GROUP_NORM, mutates_args=(), device_types="cuda")
def group_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    shift: torch.Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
) -> torch.Tensor:
    """Group normalization of ``x + shift``, followed by SiLU if `silu`; channels last.

    `x` is (images, channels, height, width), `shift` (images or 1, channels).
    """
    from diffusers_perf.techniques import kernels

    x = x.contiguous(memory_format=torch.channels_last)
    return kernels.group_norm(x, weight, bias, shift, groups=groups, eps=eps, silu=silu)


@group_norm.register_fake
def _(
    x: torch.Tensor, weight: Any, bias: Any, shift: Any, groups: int, eps: float, silu: bool
) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@group_norm.register_kernel("cpu")
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    shift: torch.Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
) -> torch.Tensor:
    moved = x if shift is None else x + shift[:, :, None, None]
    made = functional.group_norm(moved, groups, weight, bias, eps)
    made = functional.silu(made) if silu else made
    return made.clone(memory_format=torch.channels_last)


def fuse_group_norms(unet: torch.nn.Module) -> None:
    """Let each of the UNet's group normalizations be our own, with what stands around it.

    In a residual block that is the bias of the convolution before, the timestep's share and SiLU.
    `DoesNotFit` for a residual block that is not Stable Diffusion's, or that is wrapped already.
    """
    from diffusers.models.resnet import ResnetBlock2D

    for module in list(unet.modules()):
        if isinstance(module, ResnetBlock2D):
            if not _is_plain(module):
                raise DoesNotFit("only a plain residual block's normalizations are fused")
            replace_forward(module, _residual_block)
            replace_forward(module.conv1, _without_bias)
        elif isinstance(module, torch.nn.GroupNorm):
            replace_forward(module, _normalized)


def _is_plain(block: Any) -> bool:
    return (
        block.time_embedding_norm == "default"
        and block.time_emb_proj is not None
        and not (block.skip_time_act or block.upsample or block.downsample)
        and isinstance(block.nonlinearity, torch.nn.SiLU)
    )


def replace_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> None:
    """Let this function stand for a module's forward. `DoesNotFit` where something else does."""
    if "forward" in vars(module):
        raise DoesNotFit(
            f"a {type(module).__name__} of the pipeline is wrapped already, by casting, a cache or "
            "offloading, and its forward cannot be replaced"
        )
    # A method, as dynamo expects: of a `partial` it compiles each block anew.
    module.forward = MethodType(forward, module)


def _normalized(
    norm: torch.nn.GroupNorm,
    x: torch.Tensor,
    *,
    shift: torch.Tensor | None = None,
    silu: bool = False,
) -> torch.Tensor:
    made: torch.Tensor = group_norm(
        x, norm.weight, norm.bias, shift, norm.num_groups, norm.eps, silu
    )
    return made


def _without_bias(convolution: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """For `_residual_block`, which adds the bias to the shift: here it would be a kernel more."""
    made: torch.Tensor = convolution._conv_forward(x, convolution.weight, None)
    return made


def _residual_block(block: Any, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
    hidden = block.conv1(block.norm1(x, silu=True))
    shift = block.conv1.bias + block.time_emb_proj(block.nonlinearity(temb))
    hidden = block.conv2(block.norm2(hidden, shift=shift, silu=True))
    if block.conv_shortcut is not None:
        x = block.conv_shortcut(x)
    made: torch.Tensor = (x + hidden) / block.output_scale_factor
    return made


def group_norms_are_fused(pipeline: Any) -> None:
    """A forward of the UNet runs our group normalization, PyTorch's not any more, and with a
    shift in each residual block.
    """
    from diffusers.models.resnet import ResnetBlock2D

    with Seen() as seen:
        replay(pipeline)
    if GROUP_NORM not in seen.names or "aten::native_group_norm" in seen.names:
        raise NotApplied("the UNet's group normalizations are PyTorch's own")
    blocks = sum(isinstance(module, ResnetBlock2D) for module in pipeline.unet.modules())
    if seen.shifted < blocks:
        raise NotApplied(f"{seen.shifted} of the UNet's {blocks} residual blocks are fused")


class Seen(TorchDispatchMode):
    """Counts the operators that run by their names, and how many of ours took a shift."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()
        self.shifted = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names[operator.name()] += 1
        self.shifted += operator.name() == GROUP_NORM and args[3] is not None
        return operator(*args, **(kwargs or {}))


def add_biases_late(unet: torch.nn.Module) -> None:
    """Let the biases of the transformer blocks' linear layers be additions of their own.

    `DoesNotFit` for a layer that is wrapped already.
    """
    for layer in _biased(unet):
        replace_forward(layer, _bias_after)


def _biased(unet: torch.nn.Module) -> list[torch.nn.Linear]:
    return [
        module
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear)
        and "transformer_blocks" in name
        and module.bias is not None
    ]


def _bias_after(layer: torch.nn.Linear, states: torch.Tensor) -> torch.Tensor:
    return functional.linear(states, layer.weight) + layer.bias


def biases_are_late(pipeline: Any) -> None:
    """No product of the UNet's transformer blocks is asked to add a bias."""
    layers = _biased(pipeline.unet)
    if not layers:
        raise NotApplied("the UNet has no transformer block with a bias")
    for layer in layers:
        if getattr(layer.forward, "__func__", None) is not _bias_after:
            raise NotApplied("the products of the UNet's transformer blocks add their biases")
