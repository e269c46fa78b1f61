"""Operators of the UNet that a compiler makes several kernels of, each in one launch.

torch 2.11's compiler makes three kernels of a group normalization, as its sums go through all of a
picture, and none of its kernels begins inside a matrix product. On a CPU both are PyTorch's own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional

from torch.utils._python_dispatch import TorchDispatchMode

from perf_tests.harness.proofs import NotApplied, Proof, forward_once


@torch.library.custom_op("perf_tests::group_norm", mutates_args=(), device_types="cuda")
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

    `x` is (pictures, channels, height, width), `shift` (pictures or 1, channels).
    """
    from perf_tests.techniques import kernels

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


@torch.library.custom_op("perf_tests::geglu", mutates_args=(), device_types="cuda")
def geglu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``value * gelu(gate)`` of the halves of ``x @ weight.T + bias``; shape (…, out)."""
    from perf_tests.techniques import kernels

    return kernels.geglu(x.contiguous(), weight, bias)


@geglu.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0] // 2)


@geglu.register_kernel("cpu")
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    value, gate = functional.linear(x, weight, bias).chunk(2, dim=-1)
    return value * functional.gelu(gate)


def fuse_group_norms(unet: torch.nn.Module) -> None:
    """Let each of the UNet's group normalizations be one launch, with what stands around it.

    In a residual block that is the bias of the convolution before, the timestep's share and SiLU.
    `ValueError` for a residual block that does more than Stable Diffusion's.
    """
    from diffusers.models.resnet import ResnetBlock2D

    for module in list(unet.modules()):
        if isinstance(module, ResnetBlock2D):
            timed = module.time_emb_proj is not None
            plain = module.time_embedding_norm == "default" and not module.skip_time_act
            if (timed and not plain) or module.upsample or module.downsample:
                raise ValueError("only a plain residual block's normalizations are fused")
            module.forward = partial(_residual_block, module)  # type: ignore[method-assign]
        elif isinstance(module, torch.nn.GroupNorm):
            module.forward = partial(_normalized, module)  # type: ignore[method-assign]


def _normalized(
    norm: torch.nn.GroupNorm, x: torch.Tensor, *, shift: torch.Tensor | None = None, silu: bool = False
) -> torch.Tensor:
    made: torch.Tensor = group_norm(
        x, norm.weight, norm.bias, shift, norm.num_groups, norm.eps, silu
    )
    return made


def _residual_block(block: Any, x: torch.Tensor, temb: torch.Tensor | None = None) -> torch.Tensor:
    hidden = _normalized(block.norm1, x, silu=True)
    # Without its bias, which a library would add in a kernel of its own.
    hidden = block.conv1._conv_forward(hidden, block.conv1.weight, None)
    shift = block.conv1.bias[None]
    if block.time_emb_proj is not None:
        shift = shift + block.time_emb_proj(block.nonlinearity(temb))
    hidden = _normalized(block.norm2, hidden, shift=shift, silu=True)
    hidden = block.conv2(hidden)
    if block.conv_shortcut is not None:
        x = block.conv_shortcut(x)
    made: torch.Tensor = (x + hidden) / block.output_scale_factor
    return made


def fuse_gated_layers(unet: torch.nn.Module) -> None:
    """Let a feed-forward's first layer and its gate be one launch."""
    for layer in gated_layers(unet):
        layer.forward = partial(_gated, layer)


def gated_layers(unet: torch.nn.Module) -> list[Any]:
    """The first layers of the UNet's feed-forwards."""
    from diffusers.models.activations import GEGLU

    return [module for module in unet.modules() if isinstance(module, GEGLU)]


def _gated(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = geglu(hidden, layer.proj.weight, layer.proj.bias)
    return made


def runs_instead(operator: str, *, of: str) -> Proof:
    """A forward of the UNet runs this operator (``perf_tests::geglu``), and one not any more."""

    def check(pipeline: Any) -> None:
        with _Seen() as seen:
            forward_once(pipeline)
        if operator not in seen.names:
            raise NotApplied(f"the UNet never runs {operator}")
        if of in seen.names:
            raise NotApplied(f"the UNet still runs {of}")

    return check


class _Seen(TorchDispatchMode):
    """Notes the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.add(operator.name())
        return operator(*args, **(kwargs or {}))
