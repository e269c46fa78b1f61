"""The feed-forward of transformer blocks with fewer passes through memory.

torch.compile leaves a product to cuBLAS, and GELU to a kernel that reads and writes once more what
the product made: 113 MB each way in a block of FLUX.1-dev at 1024 by 1024. cuBLAS can compute GELU
before it writes. A single-stream block of FLUX then copies that once more, to join it with the
attention's output for one last product; the sum of two products needs no copy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.replay import replay
from diffusers_perf.measurement.trace import kernels_of
from diffusers_perf.techniques.fused import Seen, replace_forward

LINEAR_GELU = "perf_tests::linear_gelu"
LINEAR_OF_TWO = "perf_tests::linear_of_two"


# Operators of our own, so that the compiler takes neither apart.


@torch.library.custom_op(LINEAR_GELU, mutates_args=())
def linear_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A linear layer followed by GELU, approximated by tanh; `x` is (..., channels)."""
    return functional.gelu(functional.linear(x, weight, bias), approximate="tanh")


@linear_gelu.register_kernel("cuda")
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    # Private, and the one call that hands GELU to cuBLAS. Elsewhere it computes another GELU, by
    # erf, for which the kernel above stands.
    made: torch.Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    return made.view(*x.shape[:-1], -1)


@linear_gelu.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op(LINEAR_OF_TWO, mutates_args=())
def linear_of_two(
    one: torch.Tensor, other: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """A linear layer of two inputs, whose channels it would take joined."""
    width = one.shape[-1]
    made = torch.addmm(bias, one.flatten(0, -2), weight[:, :width].t())
    # In place, where cuBLAS adds to what is there: out of it, that would be copied first.
    made.addmm_(other.flatten(0, -2), weight[:, width:].t())
    return made.view(*one.shape[:-1], -1)


@linear_of_two.register_fake
def _(
    one: torch.Tensor, other: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    return one.new_empty(*one.shape[:-1], weight.shape[0])


@register_flop_formula(torch.ops.perf_tests.linear_gelu)
def _(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return _work(x, weight)


@register_flop_formula(torch.ops.perf_tests.linear_of_two)
def _(one: Sequence[int], other: Any, weight: Sequence[int], *_: Any, **__: Any) -> int:
    return _work(one, weight)


def fuse_mlps(root: torch.nn.Module) -> None:
    """Let cuBLAS compute the GELUs of the blocks below, and FLUX's single-stream blocks join
    nothing.

    `DoesNotFit` for a layer that is wrapped already.
    """
    fuse_gelus(root)
    split_projections(root)


def fuse_gelus(root: torch.nn.Module) -> None:
    """The first half of it, of any feed-forward whose GELU is approximated by tanh."""
    for linear, activation in [*_with_gelu(root)]:
        replace_forward(linear, _linear_gelu)
        replace_forward(activation, _given if isinstance(activation, torch.nn.GELU) else _projected)


def split_projections(root: torch.nn.Module) -> None:
    """The second half, of FLUX's single-stream blocks."""
    for block in _joining(root):
        replace_forward(block.proj_out, _linear_of_two)
        replace_forward(block, _single_block)


def _with_gelu(root: torch.nn.Module) -> Iterator[tuple[Any, Any]]:
    """Each linear layer that only a GELU by tanh follows, and the module that computes it."""
    from diffusers.models.activations import GELU

    for module in root.modules():
        activation = getattr(module, "act_mlp", None)
        if isinstance(module, GELU) and module.approximate == "tanh":
            yield module.proj, module
        elif isinstance(activation, torch.nn.GELU) and activation.approximate == "tanh":
            yield module.proj_mlp, activation


def _joining(root: torch.nn.Module) -> list[Any]:
    """FLUX's single-stream blocks; those of a class made from it may call another forward."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

    return [block for block in root.modules() if type(block) is FluxSingleTransformerBlock]


def _linear_gelu(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = linear_gelu(*_autocast(x, layer.weight, layer.bias))
    return made


def _linear_of_two(layer: torch.nn.Linear, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = linear_of_two(*_autocast(one, other, layer.weight, layer.bias))
    return made


def _autocast(x: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What `functional.linear` would compute with: torch.autocast knows no operators of ours."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return x, *others
    dtype = torch.get_autocast_dtype(x.device.type)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in (x, *others))


def _given(activation: torch.nn.GELU, x: torch.Tensor) -> torch.Tensor:
    return x


def _projected(activation: Any, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = activation.proj(x)
    return made


def _single_block(
    block: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    temb: torch.Tensor,
    image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    joint_attention_kwargs: dict[str, Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """diffusers' own, whose last product takes two inputs."""
    words = encoder_hidden_states.shape[1]
    joined = torch.cat([encoder_hidden_states, hidden_states], dim=1)
    normed, gate = block.norm(joined, emb=temb)
    attended = block.attn(
        hidden_states=normed, image_rotary_emb=image_rotary_emb, **(joint_attention_kwargs or {})
    )
    joined = joined + gate.unsqueeze(1) * block.proj_out(
        attended, block.act_mlp(block.proj_mlp(normed))
    )
    if joined.dtype == torch.float16:
        joined = joined.clip(-65504, 65504)
    return joined[:, :words], joined[:, words:]


def why_mlps_do_not_fuse(pipeline: Any) -> str | None:
    """Why the feed-forward of its denoisers cannot be fused, or None."""
    for name, module in denoisers(pipeline).items():
        if getattr(module, "peft_config", None):
            return f"its {name} has adapters, which a fused feed-forward leaves out"
        layers = [linear for linear, _ in _with_gelu(module)]
        if not layers:
            return f"no feed-forward of its {name} ({type(module).__name__}) has a GELU by tanh"
        layers += [block.proj_out for block in _joining(module)]
        for layer in layers:
            plain = type(layer) is torch.nn.Linear and type(layer.weight) is torch.nn.Parameter
            if not plain or layer.bias is None:
                path = next(path for path, own in module.named_modules() if own is layer)
                return f"{path} of its {name} is not a plain linear layer with a bias"
    return None


def mlps_are_fused(pipeline: Any) -> None:
    """A call of each denoiser runs our product for each GELU, and for each single-stream block; on
    a GPU, PyTorch runs no kernel of its own for the GELU of the largest.
    """
    with _SeenGelus() as seen:
        replay(pipeline)
    roots = denoisers(pipeline).values()
    gelus = sum(1 for root in roots for _ in _with_gelu(root))
    joining = sum(len(_joining(root)) for root in roots)
    if not gelus or seen.names[LINEAR_GELU] < gelus:
        raise NotApplied(f"{seen.names[LINEAR_GELU]} of the denoiser's {gelus} GELUs are fused")
    if seen.names[LINEAR_OF_TWO] < joining:
        raise NotApplied(
            f"{seen.names[LINEAR_OF_TWO]} of the denoiser's {joining} single-stream blocks "
            "join nothing"
        )
    if seen.largest is not None and runs_gelu_apart(kernels_of_gelu(*seen.largest)):
        raise NotApplied(
            "PyTorch runs a kernel of its own for the GELU after the product, so cuBLAS does not "
            "compute it; is DISABLE_ADDMM_CUDA_LT set?"
        )


class _SeenGelus(Seen):
    """Keeps as well what our largest product with GELU was given."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: tuple[torch.Size, torch.Size, torch.dtype, torch.device] | None = None

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operator.name() == LINEAR_GELU:
            x, weight = args[:2]
            before = self.largest
            if before is None or _work(x.shape, weight.shape) > _work(*before[:2]):
                self.largest = x.shape, weight.shape, x.dtype, x.device
        return super().__torch_dispatch__(operator, types, args, kwargs)


def _work(x: Sequence[int], weight: Sequence[int]) -> int:
    return 2 * math.prod(x[:-1]) * math.prod(weight)


@cache
def kernels_of_gelu(
    x: torch.Size, weight: torch.Size, dtype: torch.dtype, device: torch.device
) -> tuple[str, ...]:
    """What our product with GELU runs on a GPU, by inputs' shapes; asked once in a process."""
    if device.type != "cuda":
        return ()
    given = [torch.zeros(*shape, dtype=dtype, device=device) for shape in (x, weight, weight[:1])]
    return tuple(kernels_of(lambda: linear_gelu(*given)))


def runs_gelu_apart(kernels: Iterable[str]) -> bool:
    """Whether one of these is PyTorch's own for GELU. A product's may be named after it as well."""
    return any(re.search("elementwise_kernel<.*gelu", name, re.IGNORECASE) for name in kernels)
