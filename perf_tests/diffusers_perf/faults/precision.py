"""Numbers of another precision than was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from diffusers_perf.faults.injection import CannotInject, Injection, Setting, fault
from diffusers_perf.faults.places import (
    COUNTED,
    COUNTED_HALF,
    SEEN,
    SEEN_FP16,
    around_decode,
    around_denoisers,
)
from diffusers_perf.measurement.discovery import decoders, denoisers
from diffusers_perf.messages import faults as messages

OVERFLOWING = 3e4
"""Of a layer's weights: products of them are beyond float16."""


@fault(detected_by="counter", setting=COUNTED_HALF, source="diffusers #511", where="cuda")
def autocast_around_fp16(injection: Injection) -> None:
    """torch.autocast around the denoiser of a pipeline that is in half precision already."""

    def under(forward: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cuda", dtype=forward.__self__.dtype):
            return forward(*args, **kwargs)

    around_denoisers(injection, under)


@fault(detected_by="counter", setting=COUNTED_HALF, source="diffusers #371")
def upcast_norms(injection: Injection) -> None:
    """Every normalization computes in float32 and casts back."""

    def grouped(self: torch.nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (p if p is None else p.float() for p in (self.weight, self.bias))
        normed = torch.nn.functional.group_norm(x.float(), self.num_groups, weight, bias, self.eps)
        return normed.to(x.dtype)

    def layered(self: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (p if p is None else p.float() for p in (self.weight, self.bias))
        shape = self.normalized_shape
        normed = torch.nn.functional.layer_norm(x.float(), shape, weight, bias, self.eps)
        return normed.to(x.dtype)

    def rooted(self: torch.nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight if self.weight is None else self.weight.float()
        normed = torch.nn.functional.rms_norm(x.float(), self.normalized_shape, weight, self.eps)
        return normed.to(x.dtype)

    injection.put(torch.nn.GroupNorm, "forward", grouped)
    injection.put(torch.nn.LayerNorm, "forward", layered)
    injection.put(torch.nn.RMSNorm, "forward", rooted)


@fault(detected_by="counter", setting=COUNTED_HALF, where="cpu")
def upcast_step(injection: Injection) -> None:
    """The scheduler's step computes in float32 and casts back."""
    # Three launches of a thousand in a step: a GPU's kernels may grow by more than that.

    def then(pipeline: Any) -> None:
        step = pipeline.scheduler.step

        def upcasting(noise: torch.Tensor, t: Any, sample: torch.Tensor, **kwargs: Any) -> Any:
            (result, *rest) = step(noise.float(), t, sample.float(), **kwargs)
            return (result.to(noise.dtype), *rest)

        pipeline.scheduler.step = upcasting

    injection.then(then)


@fault(
    detected_by="counter", setting=COUNTED_HALF, source="the upcast of SDXL's decoder", where="cpu"
)
def upcast_decoder(injection: Injection) -> None:
    """The decoder is moved to float32 for each image and back."""
    around_decode(injection, _upcasting)


def _upcasting(decode: Any, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    vae = decode.__self__
    torch.nn.Module.to(vae, dtype=torch.float32)
    try:
        sample, *rest = decode(latents.float(), *args, **kwargs)
    finally:
        torch.nn.Module.to(vae, dtype=latents.dtype)
    return (sample.to(latents.dtype), *rest)


@fault(detected_by="image", setting=SEEN_FP16, source="the upcast of SDXL's decoder")
def upcast_lost(injection: Injection) -> None:
    """A decoder whose activations overflow float16 stays in float16."""

    def given(pipeline: Any) -> None:
        for vae in decoders(pipeline).values():
            layer = getattr(getattr(vae, "decoder", None), "conv_in", None)
            if layer is None or layer.weight.dtype is not torch.float16:
                raise CannotInject(messages.lacks(vae, messages.NOT_FLOAT16))
            # As large as SDXL's: the normalizations behind it take the scale away.
            for parameter in layer.parameters():
                parameter.data.mul_(OVERFLOWING / float(parameter.abs().max()))
            vae.decode = partial(_upcasting, vae.decode)

    def then(pipeline: Any) -> None:
        for vae in decoders(pipeline).values():
            (vae.decode,) = vae.decode.args

    injection.given(given)
    injection.then(then)


@fault(detected_by="applied check", setting=COUNTED_HALF, source="diffusers #775")
def dtype_not_applied(injection: Injection) -> None:
    """Half precision was requested by a misspelled argument, and the pipeline is in float32."""
    injection.then(lambda pipeline: pipeline.to(torch.float32))


@fault(detected_by="image", setting=SEEN)
def float8_weights(injection: Injection) -> None:
    """The denoiser's weights went through 8 bits on their way."""

    def then(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            for parameter in module.parameters():
                parameter.data = parameter.data.to(torch.float8_e4m3fn).to(parameter.dtype)

    injection.then(then)


@fault(
    detected_by="applied check",
    setting=Setting(base=("tf32",), steps=6),
    source="torch 1.12, which switched TF32 off for matrix products",
    where="cuda",
)
def tf32_reset(injection: Injection) -> None:
    """TF32 for matrix products is switched off again after the case switched it on."""

    def then(pipeline: Any) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False

    injection.then(then)


@fault(detected_by="GPU busy", setting=COUNTED, source="torch 1.12, for convolutions", where="cuda")
def tf32_convolutions_off(injection: Injection) -> None:
    """cuDNN's TF32, on by default, is off, for the reference too."""
    injection.put(torch.backends.cudnn, "allow_tf32", False)


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@fault(detected_by="counter", setting=COUNTED, source="torch #117081")
def determinism_left_on(injection: Injection) -> None:
    """Deterministic algorithms are on for the whole process, and fill every new tensor."""
    injection.during(_deterministic())
