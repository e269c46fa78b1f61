"""Performance regression tests for diffusion inference with Hugging Face diffusers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "diffusers_perf":
    raise ImportError(f"import diffusers_perf, not {__name__}: as two modules it would differ")

if TYPE_CHECKING:
    from diffusers_perf.catalog.declarations import Needs, Slot
    from diffusers_perf.catalog.recording import measure, optimization, stack
    from diffusers_perf.catalog.workload import Workload
    from diffusers_perf.optimizations import tolerances
    from diffusers_perf.plugin.generation import test_generation

__all__ = [
    "Needs",
    "Slot",
    "Workload",
    "measure",
    "optimization",
    "stack",
    "test_generation",
    "tolerances",
]

_FROM = {
    "Needs": "catalog.declarations",
    "Slot": "catalog.declarations",
    "Workload": "catalog.workload",
    "measure": "catalog.recording",
    "optimization": "catalog.recording",
    "stack": "catalog.recording",
    "test_generation": "plugin.generation",
    "tolerances": "optimizations",
}


def __getattr__(name: str) -> Any:
    """Import on demand: pytest loads this package in every repository where it is installed."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "tolerances":
        return import_module("diffusers_perf.optimizations.tolerances")
    return getattr(import_module(f"{__name__}.{_FROM[name]}"), name)
