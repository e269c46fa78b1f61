"""Controls: what no rule may take for a regression."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.faults.injection import CannotInject, Injection, Setting, control
from diffusers_perf.faults.places import (
    COUNTED,
    COUNTED_HALF,
    SEEN,
    SEEN_HALF,
    TIMED,
    TIMED_DISTILLED,
    around_call,
    decoded,
    encoded,
    in_step,
    unet_of,
)
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.messages import faults as messages

PROMPTS_KEPT = 4
"""Of a cache with a bound."""


@control(setting=TIMED)
def rerun(injection: Injection) -> None:
    """Nothing at all."""


@control(setting=COUNTED_HALF)
def rerun_half(injection: Injection) -> None:
    """Nothing at all, in half precision."""


@control(setting=TIMED_DISTILLED)
def rerun_distilled(injection: Injection) -> None:
    """Nothing at all, four images, the distilled UNet against the full one."""


@control(setting=Setting(steps=6, changes={"seed": 1}))
def another_seed(injection: Injection) -> None:
    """Another seed, on both sides."""


@control(setting=Setting(steps=6, changes={"prompt": "a small yellow star on a green background"}))
def another_prompt(injection: Injection) -> None:
    """Another prompt, on both sides."""


# In emulated float16 it takes five times as long, and in bfloat16 a rounding is a visible change.
@control(
    setting=Setting(base=("fp16", "naive_attention"), base_on_cpu=("naive_attention",), steps=4),
    source="diffusers #902",
)
def attention_rewritten(injection: Injection) -> None:
    """The scores are scaled within the queries: other roundings, no other work."""

    def then(pipeline: Any) -> None:
        for module in unet_of(pipeline).modules():
            if hasattr(module, "get_attention_scores"):
                module.to_q.weight.data.mul_(module.scale)
                module.scale = 1.0

    injection.then(then)


@control(setting=SEEN_HALF)
def rounding_noise(injection: Injection) -> None:
    """Noise of the size that float16 makes, 60 dB, in half precision."""
    decoded(injection, lambda sample: sample + 2e-3 * torch.sin(1e4 * sample))


@control(setting=COUNTED)
def imports_reordered(injection: Injection) -> None:
    """The schedulers are imported anew, the last one first."""
    injection.during(_imported_anew("diffusers.schedulers."))


@contextmanager
def _imported_anew(prefix: str) -> Iterator[None]:
    before = {name: module for name, module in sys.modules.items() if name.startswith(prefix)}
    for name in before:
        del sys.modules[name]
    try:
        for name in sorted(before, reverse=True):
            importlib.import_module(name)
        yield
    finally:
        sys.modules.update(before)


@control(setting=TIMED)
def garbage(injection: Injection) -> None:
    """Each step leaves thousands of objects behind, and the collector runs all the time."""

    @contextmanager
    def often() -> Iterator[None]:
        before = gc.get_threshold()
        gc.set_threshold(100, 2, 2)
        try:
            yield
        finally:
            gc.set_threshold(*before)

    def litter(pipeline: Any, noise: torch.Tensor) -> None:
        for _ in range(1000):
            circle: list[Any] = []
            circle.append(circle)

    injection.during(often())
    in_step(injection, litter)


@control(setting=TIMED)
def busy_cpu(injection: Injection) -> None:
    """Other processes keep every CPU busy."""
    if not Path("/proc/self/schedstat").exists():
        raise CannotInject(messages.NO_WAITING_TIME)

    @contextmanager
    def busy() -> Iterator[None]:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        spinning = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * cores)
        ]
        try:
            yield
        finally:
            for process in spinning:
                process.kill()
                process.wait()

    injection.during(busy())


@control(setting=COUNTED, where="cpu")
def another_malloc(injection: Injection) -> None:
    """The C library takes every larger allocation from the kernel and gives it back at once."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        raise CannotInject(messages.NO_MALLOPT)
    threshold, ours, default = -3, 65_536, 131_072  # M_MMAP_THRESHOLD of malloc.h

    @contextmanager
    def other() -> Iterator[None]:
        libc.mallopt(threshold, ours)
        try:
            yield
        finally:
            libc.mallopt(threshold, default)

    injection.during(other())


@control(setting=COUNTED_HALF, where="cuda")
def another_allocator_setting(injection: Injection) -> None:
    """PyTorch's allocator gives unused blocks back before it is full."""

    @contextmanager
    def other() -> Iterator[None]:
        try:
            torch.cuda.memory._set_allocator_settings("garbage_collection_threshold:0.5")
        except (AttributeError, RuntimeError):
            raise CannotInject(messages.FIXED_ALLOCATOR) from None
        try:
            yield
        finally:
            torch.cuda.memory._set_allocator_settings("garbage_collection_threshold:0.99")

    injection.during(other())


@control(setting=SEEN)
def another_thread_count(injection: Injection) -> None:
    """PyTorch runs with another number of threads on the host."""

    @contextmanager
    def other() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    injection.during(other())


@control(setting=COUNTED_HALF, where="cuda")
def another_gpu(injection: Injection) -> None:
    """Another GPU of the same kind."""
    same = [
        index
        for index in range(1, torch.cuda.device_count())
        if torch.cuda.get_device_name(index) == torch.cuda.get_device_name(0)
    ]
    if not same:
        raise CannotInject(messages.ONE_GPU)
    injection.during(torch.cuda.device(same[0]))


@control(setting=COUNTED)
def a_hook_that_does_nothing(injection: Injection) -> None:
    """One forward hook on the UNet."""

    def then(pipeline: Any) -> None:
        for module in denoisers(pipeline).values():
            module.register_forward_hook(lambda *_: None)

    injection.then(then)


@control(setting=SEEN)
def global_seed(injection: Injection) -> None:
    """Other code draws from PyTorch's global generator."""

    def then(pipeline: Any) -> None:
        torch.manual_seed(12345)

    injection.then(then)


@control(setting=COUNTED, source="a preview in a user interface")
def last_image_kept(injection: Injection) -> None:
    """The pipeline keeps its last images alone."""

    def keep(call: Any, pipeline: Any, arguments: dict[str, Any]) -> Any:
        made = call(**arguments)
        pipeline.last_images = made.images
        return made

    around_call(injection, keep)


@control(setting=COUNTED)
def bounded_cache(injection: Injection) -> None:
    """The embeddings of the latest prompts are kept, in a cache with a bound."""
    kept: dict[str, Any] = {}

    def cached(encode: Any, *args: Any, **kwargs: Any) -> Any:
        made = encode(*args, **kwargs)
        kept[repr((args, kwargs))] = made
        while len(kept) > PROMPTS_KEPT:
            del kept[next(iter(kept))]
        return made

    encoded(injection, cached)
