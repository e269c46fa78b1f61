"""Builds a case's pipeline on the device, one at a time, and takes it away again."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Case, Optimization, WeightsKind
from diffusers_perf.catalog.workload import Scale, Workload
from diffusers_perf.measurement import loading
from diffusers_perf.measurement.discovery import Anatomy, know
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.noise import drawn_on_host
from diffusers_perf.messages import measurement as messages


class DoesNotFit(Exception):
    """An optimization cannot apply to this pipeline; one sentence says which and why."""


class Source(Protocol):
    """Where a model's weights come from. Each file of `models/` gives one."""

    name: str
    """The model, as a person calls it (``sd15``)."""
    weights: str
    """Which weights it holds; with the name and workload, what a baseline is keyed by. Empty where
    a function has to build a pipeline first."""
    kind: WeightsKind
    family: str
    """Class of its pipelines: what runs with one model of a family runs with another."""
    scale: Scale
    variants: frozenset[str]
    """Modules that it has beside its own: ``distilled_unet``, ``tiny_vae``."""

    def load(
        self,
        *,
        scheduler: str | None,
        variants: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Any:
        """A fresh diffusers pipeline with all its modules on the device in this dtype.

        `scheduler` names the class to take instead of the model's own. `variants` maps a module's
        place (``unet``) to the variant that takes it. `Refusal` where the weights cannot be
        loaded.
        """


class Builder(Protocol):
    """Makes a case's pipeline, as `built` does."""

    def __call__(
        self, case: Case, source: Source, device: torch.device
    ) -> AbstractContextManager[Any]: ...


class Opened(Protocol):
    """Gives each workload its source."""

    def runs(self, workload: Workload) -> bool:
        """Whether the session runs this workload."""

    def scale_of(self, workloads: Iterable[Workload]) -> Scale:
        """``small`` if all of these are that the session runs."""

    def of(self, workload: Workload) -> Source:
        """`Refusal` where it cannot be opened."""


@contextmanager
def built(case: Case, source: Source, device: torch.device) -> Iterator[Any]:
    """The case's pipeline, on the device for as long as the context is open.

    `DoesNotFit` where an optimization of its stack cannot apply to such a pipeline.
    """
    build = Build(dtype=torch.float32, workload=case.workload)
    for optimization in case.stack:
        optimization.apply(build)
    with ExitStack() as contexts:
        for context in build.contexts:
            contexts.enter_context(context)
        began = loading.Loading()
        pipeline = source.load(
            scheduler=case.workload.scheduler,
            variants=build.variants,
            dtype=build.dtype,
            device=device,
        )
        loading.note(pipeline, source, began)
        if hasattr(pipeline, "set_progress_bar_config"):
            pipeline.set_progress_bar_config(disable=True)
        contexts.enter_context(drawn_on_host())
        know(pipeline, _anatomy(pipeline, case.workload, source, build.variants))
        for optimization in case.stack:
            if reason := misfit(optimization, pipeline):
                raise DoesNotFit(reason)
        for change in build.changes:
            change(pipeline)
        try:
            yield pipeline
        finally:
            del pipeline
    if device.type == "cuda":
        # cuBLAS keeps its workspace, 32 MiB on an H100, for each stream that ever ran a product:
        # one more for each that a graph was recorded on, in the peak of whatever comes next.
        torch._C._cuda_clearCublasWorkspaces()
    collect(device)


def misfit(optimization: Optimization, pipeline: Any) -> str | None:
    """Why the optimization cannot apply to this pipeline, as it was loaded; None if it can."""
    reason = optimization.needs.fits(pipeline) if optimization.needs.fits else None
    kind = type(pipeline).__name__
    return messages.does_not_fit(optimization.name, kind, reason) if reason else None


_ANATOMIES: WeakKeyDictionary[Source, dict[object, Anatomy]] = WeakKeyDictionary()
"""By source, what was found out about its pipelines: it is the same for each case of a workload."""


def _anatomy(
    pipeline: Any, workload: Workload, source: Source, variants: Mapping[str, str]
) -> Anatomy:
    # As loaded: what is compiled, captured or cached later may call its modules no more.
    known = _ANATOMIES.setdefault(source, {})
    key = (workload.name, workload.scheduler, *sorted(variants.items()))
    if key not in known:
        known[key] = Generation(pipeline, workload).anatomy
    return known[key]


def collect(device: torch.device) -> None:
    """Give back what the last pipeline held, so that the next one starts from nothing."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
