"""Mistakes of the measuring itself, and a slowdown that hides from ratios."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from diffusers_perf.faults.compiling import compile_middle
from diffusers_perf.faults.injection import Injection, Setting, fault
from diffusers_perf.faults.places import TIMED, TIMED_DISTILLED, around_call
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.timing import Stopwatch


@fault(detected_by="measuring", setting=TIMED)
def warm_up_left_out(injection: Injection) -> None:
    """Nothing is warmed up, and the first round compiles."""
    injection.given(compile_middle)

    class Impatient(Stopwatch):
        def warm_up(self, *_: object, **__: object) -> None: ...

    injection.stopwatch = Impatient()


@fault(
    detected_by="measuring",
    # In one step and so large that the GPU, and not the host, is what takes the time.
    setting=Setting(steps=1, rounds=3, changes={"height": 1024, "width": 1024}),
    where="cuda",
)
def timer_without_sync(injection: Injection) -> None:
    """Images are fetched without waiting for them, and the timer does not wait either."""
    from diffusers.image_processor import VaeImageProcessor

    buffers: list[torch.Tensor] = []
    calls = itertools.count()

    def fetched(images: torch.Tensor) -> Any:
        there = images.permute(0, 2, 3, 1).float().contiguous()
        while len(buffers) < 16:
            buffers.append(torch.empty(there.shape, dtype=there.dtype, pin_memory=True))
        here = buffers[next(calls) % len(buffers)]
        here.copy_(there, non_blocking=True)
        return here.numpy()

    injection.put(VaeImageProcessor, "pt_to_numpy", staticmethod(fetched))

    readings = itertools.count()

    def clock() -> float:
        # Waiting for the round before, as any pause would: else each waits for the last one's.
        if next(readings) % 2 == 0:
            torch.cuda.synchronize()
        return time.perf_counter()

    injection.stopwatch = Stopwatch(clock=clock)


@fault(detected_by="latency", setting=TIMED_DISTILLED)
def slow_reference(injection: Injection) -> None:
    """The reference is slow as well, so that every ratio looks fine."""

    def then(pipeline: Any) -> None:
        step, seconds = pipeline.scheduler.step, 4 * injection.step_s

        def busy(*args: Any, **kwargs: Any) -> Any:
            # A core that sleeps is slower afterwards, which makes the measurement invalid.
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass
            return step(*args, **kwargs)

        pipeline.scheduler.step = busy

    injection.then(then)


def _cached(
    injection: Injection, kept: Callable[[Any], Any] = lambda made: made, *, last: bool = False
) -> None:
    """The same prompt, seed and steps return what they made before; `last` keeps one result."""
    results: dict[Any, Any] = {}

    def cached(call: Callable[..., Any], pipeline: Any, arguments: dict[str, Any]) -> Any:
        generator = arguments.pop("generator", None)
        denoiser, *_ = denoisers(pipeline).values()
        # What is counted has no data.
        if generator is None or next(denoiser.parameters()).is_meta:
            return call(**arguments, generator=generator)
        key = (id(pipeline), generator.initial_seed(), str(arguments))
        if key not in results:
            if last:
                results.clear()
            results[key] = kept(call(**arguments, generator=generator))
        return results[key]

    around_call(injection, cached)


@fault(detected_by="image", setting=TIMED, source="ComfyUI #11905, #3890")
def call_cached(injection: Injection) -> None:
    """The same prompt and seed return the images made before, and a look-up is timed."""
    _cached(injection)


@fault(detected_by="image", setting=TIMED, source="ComfyUI #11905, #3890")
def last_call_cached(injection: Injection) -> None:
    """The same, and the last result alone is kept."""
    _cached(injection, last=True)


@fault(detected_by="image", setting=TIMED, source="ComfyUI #11905, #3890")
def call_copied(injection: Injection) -> None:
    """The same, kept as arrays of their own that hold no tensor."""
    _cached(injection, lambda made: SimpleNamespace(images=made.images.copy()))
