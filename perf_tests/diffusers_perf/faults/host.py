"""Python that takes its time while the GPU waits."""

from __future__ import annotations

import time
from typing import Any

import torch

from diffusers_perf.faults.injection import CannotInject, Injection, fault
from diffusers_perf.faults.places import (
    COUNTED,
    REPEATED,
    TIMED,
    TIMED_DISTILLED,
    around_denoisers,
    called,
    in_step,
)
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.messages import faults as messages


@fault(detected_by="counter", setting=COUNTED, source="diffusers #7576")
def peft_walk(injection: Injection) -> None:
    """Every layer of the denoiser is visited before and after each call, in search of adapters."""

    def walk(pipeline: Any) -> None:
        for root in denoisers(pipeline).values():
            for module in root.modules():
                isinstance(module, torch.nn.Linear)

    def then(pipeline: Any) -> None:
        for root in denoisers(pipeline).values():
            root.register_forward_pre_hook(lambda *_: walk(pipeline))
            root.register_forward_hook(lambda *_: walk(pipeline))

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED, source="Qwen-Image's modulate_index")
def index_rebuilt(injection: Injection) -> None:
    """Each call of the denoiser builds an index from a Python list, always of the same numbers."""

    def rebuilding(forward: Any, *args: Any, **kwargs: Any) -> Any:
        states = kwargs["encoder_hidden_states"]
        torch.tensor([[0] * states.shape[1]] * len(states), device=states.device)
        return forward(*args, **kwargs)

    around_denoisers(injection, rebuilding)


@fault(detected_by="counter", setting=COUNTED)
def hooks_left_on(injection: Injection) -> None:
    """A profiler left a hook on every layer."""

    def nothing(*_: object) -> None: ...

    def then(pipeline: Any) -> None:
        for root in denoisers(pipeline).values():
            for module in root.modules():
                module.register_forward_hook(nothing)

    injection.then(then)


@fault(detected_by="counter", setting=COUNTED, source="transformers #46315")
def tokenizer_in_python(injection: Injection) -> None:
    """Each look-up of a token rebuilds the table of added tokens."""
    table = {f"<{number}>": number for number in range(300)}

    def rebuilt(_: Any) -> None:
        for _token in range(77):
            sorted(table.items(), key=lambda item: item[1])

    _around_tokenizers(injection, rebuilt)


@fault(detected_by="host time", setting=COUNTED, source="transformers #46315")
def tokenizer_in_c(injection: Injection) -> None:
    """The tokenizer takes 60 ms longer, in code in which Python counts nothing."""
    _around_tokenizers(injection, lambda _: time.sleep(0.06))


def _around_tokenizers(injection: Injection, act: Any) -> None:
    """Do this in each call of a tokenizer."""

    def then(pipeline: Any) -> None:
        found = {n: t for n, t in pipeline.components.items() if n.startswith("tokenizer") and t}
        if not found:
            raise CannotInject(messages.lacks(pipeline, messages.NO_TOKENIZER))
        for tokenizer in found.values():
            own = type(tokenizer)

            def call(self: Any, *args: Any, _own: Any = own, **kwargs: Any) -> Any:
                act(self)
                return _own.__call__(self, *args, **kwargs)

            tokenizer.__class__ = type(own.__name__, (own,), {"__call__": call})

    injection.then(then)


@fault(detected_by="latency", setting=TIMED, unit="% of a step", sizes=(100, 50, 30, 20, 15, 10, 5))
def sleep_in_step(injection: Injection) -> None:
    """The host sleeps in each step."""
    seconds = (injection.size or 0) / 100 * injection.step_s
    in_step(injection, lambda pipeline, noise: time.sleep(seconds))


@fault(detected_by="latency", setting=TIMED_DISTILLED)
def slow(injection: Injection) -> None:
    """The denoiser of one case takes five times as long."""

    # Then the case takes three to four times as long, and is to be seen where the limit of one or
    # two clean runs is twice as long and neighbours are busy. Thrice was at 2.3 times, and missed.
    def five_times(forward: Any, *args: Any, **kwargs: Any) -> Any:
        for _ in range(4):
            forward(*args, **kwargs)
        return forward(*args, **kwargs)

    around_denoisers(injection, five_times, only="distilled_unet")


@fault(detected_by="latency", setting=TIMED, source="torchvision #8669")
def pil_slow(injection: Injection) -> None:
    """Converting to PIL images, which users get by default, takes half a second longer."""
    from diffusers.image_processor import VaeImageProcessor

    convert: Any = VaeImageProcessor.numpy_to_pil

    def slow(images: Any) -> Any:
        time.sleep(0.5)
        return convert(images)

    injection.put(VaeImageProcessor, "numpy_to_pil", staticmethod(slow))


@fault(detected_by="image", setting=REPEATED)
def generator_ignored(injection: Injection) -> None:
    """The pipeline drops its generator, and draws its noise from torch's global one."""

    def dropped(pipeline: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"generator": None}

    called(injection, dropped)
