"""What is done around what is measured, so that nothing of before it shows in it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import torch

from diffusers_perf.catalog.metrics import PEAK_HOST_MEMORY


@cache
def settle() -> None:
    """Once, when no pipeline stands: what the libraries hold lives on, and walking through it ahead
    of every round takes longer than many a round.
    """
    import_libraries()
    gc.collect()
    gc.freeze()


LIBRARIES = ("diffusers", "transformers", "diffusers.pipelines.pipeline_utils")
"""What every pipeline is made of."""


def import_libraries(after_each: Callable[[], object] = lambda: None) -> None:
    """Each once, also where modules are forgotten meanwhile."""
    for name in LIBRARIES:
        _import_once(name)
        after_each()


@cache
def _import_once(name: str) -> None:
    import_module(name)


def tidy() -> None:
    """No garbage from before a round is left to be collected in it."""
    gc.collect()


def cache_was(before: tuple[int, int], after: tuple[int, int]) -> str | None:
    taken, made = (now - then for now, then in zip(after, before, strict=True))
    if not made:
        return "warm" if taken else None
    return "partly warm" if taken else "cold"


class Peaks:
    """The most memory in use since this was made. Both accounts are kept anyhow, and reading them
    costs no round anything.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._host_is_known = False
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            # Else what was freed before, in holes between what lives on, counts as in use.
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)
            # Linux: "5" resets the peak resident set size to the current one.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
                self._host_is_known = True

    def gpu_bytes(self) -> int | None:
        """Bytes of tensors, and those that CUDA graphs keep: a replay asks the allocator for
        nothing. None without a GPU.
        """
        if not self._on_gpu:
            return None
        kept: list[int] = [
            segment["total_size"] - segment["allocated_size"]
            for segment in torch.cuda.memory_snapshot()
            if tuple(segment["segment_pool_id"]) != (0, 0)
        ]
        return torch.cuda.max_memory_allocated() + sum(kept)

    def host(self) -> dict[str, float]:
        """The process's peak resident set size, by `Metric.field`; empty where it is unknown, and
        beside a GPU, where it says nothing of the model.
        """
        if not self._host_is_known:
            return {}
        status = Path("/proc/self/status").read_text().splitlines()
        (kibibytes,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
        return {PEAK_HOST_MEMORY.field: 1024.0 * int(kibibytes)}
