"""What was compiled or captured, and is again, or no longer is."""

from __future__ import annotations

import functools
from typing import Any

import torch

from perf_tests.faults.places import COUNTED, COUNTED_HALF, encoded
from perf_tests.harness.planting import Plant, fault


def compile_one_block(pipeline: Any) -> None:
    """A small part of the UNet, compiled without a compiler: its graphs are what matters."""
    torch.compiler.reset()
    block = pipeline.unet.mid_block.resnets[0]
    eager = block.forward
    compiled = torch.compile(eager, backend="eager", dynamic=False)

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # What is counted without data is counted as written.
        return (eager if x.is_meta else compiled)(x, *args, **kwargs)

    block.forward = forward


@fault(seen_by="counter", setting=COUNTED, source="diffusers #4305")
def graph_break(plant: Plant) -> None:
    """A compiled block breaks into two graphs."""
    plant.given(compile_one_block)

    def then(pipeline: Any) -> None:
        act = pipeline.unet.mid_block.resnets[0].nonlinearity
        forward = act.forward

        def broken(x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            y: torch.Tensor = forward(x)
            return y

        act.forward = broken

    plant.then(then)


@fault(seen_by="counter", setting=COUNTED, source="torch #174575")
def compiled_again(plant: Plant) -> None:
    """What was compiled is forgotten between pictures, and compiled again."""
    plant.given(compile_one_block)

    def forgetful(encode: Any, *args: Any, **kwargs: Any) -> Any:
        torch.compiler.reset()
        return encode(*args, **kwargs)

    encoded(plant, forgetful)


@functools.cache
def _aside() -> torch.cuda.Stream:
    """The one stream of all graphs' first runs: cuBLAS keeps memory for each that it sees."""
    return torch.cuda.Stream()


class Replayed:
    """A UNet's forward, captured into a CUDA graph at its first call and replayed from then on."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward
        self._graph: Any = None

    def __call__(self, sample: Any, timestep: Any, *rest: Any, **kwargs: Any) -> Any:
        states = kwargs.get("encoder_hidden_states")
        if not isinstance(timestep, torch.Tensor) or states is None:
            return self._forward(sample, timestep, *rest, **kwargs)
        shape = (sample.shape, states.shape)
        if self._graph is None or self._shape != shape:
            self._capture(sample, timestep, states, kwargs)
        for place, value in zip(self._inputs, (sample, timestep, states), strict=True):
            place.copy_(value)
        self._graph.replay()
        return (self._output.clone(),)

    def _capture(self, sample: Any, timestep: Any, states: Any, kwargs: Any) -> None:
        self._shape = (sample.shape, states.shape)
        self._inputs = tuple(t.clone() for t in (sample, timestep, states))
        others = {**kwargs, "encoder_hidden_states": self._inputs[2]}
        aside = _aside()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._forward(*self._inputs[:2], **others)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._forward(*self._inputs[:2], **others)[0]

    def forget(self) -> None:
        self._graph = None


def _graphed(pipeline: Any) -> None:
    pipeline.unet.forward = Replayed(pipeline.unet.forward)


@fault(seen_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_off(plant: Plant) -> None:
    """The UNet's CUDA graph is silently off: every kernel is launched on its own."""
    plant.given(_graphed)

    def then(pipeline: Any) -> None:
        pipeline.unet.forward = pipeline.unet.forward._forward

    plant.then(then)


@fault(seen_by="counter", setting=COUNTED_HALF, source="torch #174575", where="cuda")
def graph_recorded_again(plant: Plant) -> None:
    """The UNet's CUDA graph is recorded again for each picture."""
    plant.given(_graphed)

    def then(pipeline: Any) -> None:
        encode = pipeline.encode_prompt

        def forgetful(*args: Any, **kwargs: Any) -> Any:
            pipeline.unet.forward.forget()
            return encode(*args, **kwargs)

        pipeline.encode_prompt = forgetful

    plant.then(then)
