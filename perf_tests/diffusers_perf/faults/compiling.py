"""What was compiled or captured, and is again, or no longer is."""

from __future__ import annotations

from typing import Any

import torch

from diffusers_perf.faults.injection import Injection, fault
from diffusers_perf.faults.places import COUNTED, COUNTED_HALF, encoded, unet_of
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.techniques.cuda_graphs import Graphed


def compile_one_block(pipeline: Any) -> None:
    """Compile a small part of the UNet."""
    _compile(unet_of(pipeline).mid_block.resnets[0])


def compile_middle(pipeline: Any) -> None:
    """Compile as much of the UNet as takes longer to trace than a round of a few steps to run."""
    _compile(unet_of(pipeline).mid_block)


def _compile(block: torch.nn.Module) -> None:
    """Traced, and run as it is: its graphs are what matters."""
    torch.compiler.reset()
    eager = block.forward
    compiled = torch.compile(eager, backend="eager", dynamic=False)

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # What is counted without data is counted as written.
        return (eager if x.is_meta else compiled)(x, *args, **kwargs)

    block.forward = forward


@fault(detected_by="counter", setting=COUNTED, source="diffusers #4305")
def graph_break(injection: Injection) -> None:
    """A compiled block breaks into two graphs."""
    injection.given(compile_one_block)

    def then(pipeline: Any) -> None:
        act = unet_of(pipeline).mid_block.resnets[0].nonlinearity
        forward = act.forward

        def broken(x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            y: torch.Tensor = forward(x)
            return y

        act.forward = broken

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED, source="torch #174575")
def compiled_again(injection: Injection) -> None:
    """What was compiled is forgotten between images, and compiled again."""
    injection.given(compile_one_block)

    def forgetful(encode: Any, *args: Any, **kwargs: Any) -> Any:
        torch.compiler.reset()
        return encode(*args, **kwargs)

    encoded(injection, forgetful)


def _graphed(pipeline: Any) -> None:
    for module in denoisers(pipeline).values():
        module.forward = Graphed(module.forward)


@fault(detected_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_off(injection: Injection) -> None:
    """The denoiser's CUDA graph is silently off: every kernel is launched on its own."""
    injection.given(_graphed)

    def then(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.forward = module.forward.function

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_recorded_again(injection: Injection) -> None:
    """The denoiser's CUDA graph is recorded again for each image."""
    injection.given(_graphed)

    def then(pipeline: Any) -> None:
        encode = pipeline.encode_prompt

        def forgetful(*args: Any, **kwargs: Any) -> Any:
            for module in denoisers(pipeline).values():
                module.forward = Graphed(module.forward.function)
            return encode(*args, **kwargs)

        pipeline.encode_prompt = forgetful

    injection.then(then)
