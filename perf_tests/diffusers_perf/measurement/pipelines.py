"""Builds a case's pipeline on the device, one at a time, and takes it away again."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Case, Optimization, WeightsKind
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import FIELDS, SET_BY_THE_LIBRARY, Scale, Workload
from diffusers_perf.measurement import loading
from diffusers_perf.measurement.counting import undone
from diffusers_perf.measurement.discovery import Anatomy, know
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.housekeeping import Peaks
from diffusers_perf.measurement.noise import drawn_on_host
from diffusers_perf.messages import declarations
from diffusers_perf.messages import measurement as messages

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""Kinds of parameters that a call can give by name."""
TRUSTED = ("torch", "diffusers")
"""Packages whose wrappers of a call take no argument for themselves."""


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
        offloaded: bool = False,
    ) -> Any:
        """A fresh diffusers pipeline with all its modules on the device in this dtype; where it is
        `offloaded`, in the host's memory, and no two of its weights were on the device at once.

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

    def import_builder(self, workload: Workload) -> None:
        """Import the user's function that builds the workload's pipelines, if one does."""

    def scale_of(self, workloads: Iterable[Workload]) -> Scale:
        """``small`` if all of these are that the session runs."""

    def of(self, workload: Workload) -> Source:
        """`Refusal` where it cannot be opened."""


@contextmanager
def built(case: Case, source: Source, device: torch.device) -> Iterator[Any]:
    """The case's pipeline, on the device for as long as the context is open.

    `DoesNotFit` where an optimization of its stack cannot apply to such a pipeline. `Refusal` where
    the pipeline does not take an argument of the workload's call.
    """
    offloading = [optimization for optimization in case.stack if optimization.offloads]
    build = Build(
        dtype=torch.float32, device=device, workload=case.workload, offloaded=bool(offloading)
    )
    for optimization in case.stack:
        if optimization not in offloading:
            optimization.apply(build)
    changes, build.changes = build.changes, []
    for optimization in offloading:
        optimization.apply(build)
    offload = build.changes
    with ExitStack() as contexts:
        for context in build.contexts:
            contexts.enter_context(context)
        # Whoever had the last pipeline may have let go of it just now, and it can hold itself.
        gc.collect()
        peaks = Peaks(device) if device.type == "cuda" else None
        began = loading.Loading()
        pipeline = source.load(
            scheduler=case.workload.scheduler,
            variants=build.variants,
            dtype=build.dtype,
            device=device,
            offloaded=build.offloaded,
        )
        loading.note(pipeline, source, began)
        check_arguments(pipeline, case.workload)
        if hasattr(pipeline, "set_progress_bar_config"):
            pipeline.set_progress_bar_config(disable=True)
        contexts.enter_context(drawn_on_host())
        # First those that finding out what it is made of already needs.
        _refuse_misfit(offloading, pipeline)
        loaded_bytes = peaks.gpu_bytes() if peaks else None
        know(pipeline, _anatomy(pipeline, case.workload, source, build.variants, offload))
        _refuse_misfit(case.stack, pipeline)
        if peaks:
            # Not what was generated to find that out, which the first case of a workload does.
            _clear_workspaces()
            collect(device)
            peaks = Peaks(device)
        for change in (*build.rewrites, *changes, *offload):
            change(pipeline)
        if peaks:
            loading.note_peak(pipeline, loaded_bytes, peaks.gpu_bytes())
        try:
            yield pipeline
        finally:
            del pipeline
    if device.type == "cuda":
        _clear_workspaces()
    collect(device)


def _clear_workspaces() -> None:
    # cuBLAS keeps one, 32 MiB on an H100, for each stream that ever ran a product: one more for
    # each that a graph was recorded on, in the peak of whatever comes next.
    torch._C._cuda_clearCublasWorkspaces()


def check_arguments(pipeline: Any, workload: Workload) -> None:
    """`Refusal` for an argument in the workload's `call`, `inputs` or `sensitive_to`, or its number
    of steps, that the pipeline, as it was loaded, is known not to take; and for one that it needs.
    """
    inputs = workload.inputs()
    if not isinstance(inputs, Mapping):
        raise Refusal(declarations.no_inputs(workload.name, inputs))
    changes = (name for change in workload.sensitive_to.values() for name in change)
    given = dict.fromkeys([*workload.call, *inputs, *(n for n in changes if n not in FIELDS)])
    call = inspect.unwrap(type(pipeline).__call__, stop=lambda f: _package(f) not in TRUSTED)
    try:
        parameters = inspect.signature(call, follow_wrapped=False).parameters
    except ValueError:
        # A function that is written in C may not name its arguments.
        return
    kind, taken = type(pipeline).__name__, {*parameters}
    takes_others = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    # A user's may hand them on, and a modular pipeline names none.
    is_open = _package(call) != "diffusers" or "num_inference_steps" not in parameters
    if takes_others and not is_open:
        # It takes a few old ones out of them by name.
        taken |= {name for name in call.__code__.co_consts if isinstance(name, str)}
    if not (takes_others and is_open):
        for name in given:
            if name not in taken:
                raise Refusal(messages.unknown_argument(kind, name, parameters))
        if "num_inference_steps" not in taken:
            raise Refusal(messages.takes_no_steps(kind))
    known = {*workload.call, *inputs, *SET_BY_THE_LIBRARY}
    # The first one is the pipeline itself.
    for needed in list(parameters.values())[1:]:
        if needed.default is needed.empty and needed.kind in BY_NAME and needed.name not in known:
            raise Refusal(messages.lacking_argument(kind, needed.name))


def _package(function: Any) -> str:
    """The package that defines a function. A wrapper's `__module__` names the wrapped one's."""
    name: str = getattr(function, "__globals__", {}).get("__name__", "")
    return name.partition(".")[0]


def _refuse_misfit(stack: Iterable[Optimization], pipeline: Any) -> None:
    for optimization in stack:
        if reason := misfit(optimization, pipeline):
            raise DoesNotFit(reason)


def misfit(optimization: Optimization, pipeline: Any) -> str | None:
    """Why the optimization cannot apply to this pipeline, as it was loaded; None if it can."""
    reason = optimization.needs.fits(pipeline) if optimization.needs.fits else None
    kind = type(pipeline).__name__
    return messages.does_not_fit(optimization.name, kind, reason) if reason else None


_ANATOMIES: WeakKeyDictionary[Source, dict[object, tuple[Workload, Anatomy]]] = WeakKeyDictionary()
"""By source, what was found out about its pipelines, and the workload that it was found out with:
it is the same for each case of a workload, and for others of the same call."""


def _anatomy(
    pipeline: Any,
    workload: Workload,
    source: Source,
    variants: Mapping[str, str],
    offload: Sequence[Callable[[Any], None]],
) -> Anatomy:
    # As loaded, but for what offloads it, which the device may not hold otherwise: what is
    # compiled, captured or cached later may call its modules no more.
    known = _ANATOMIES.setdefault(source, {})
    # Not its name, steps, seed and base, which say nothing of the parts.
    key = (
        _identity(workload.call),
        id(workload.inputs),
        workload.scheduler,
        *sorted(variants.items()),
    )
    if key not in known:
        with undone(pipeline) if offload else nullcontext():
            for change in offload:
                change(pipeline)
            # With the workload, whose arguments' identities are free again once it is gone.
            known[key] = workload, Generation(pipeline, workload).anatomy
    return known[key][1]


def _identity(argument: Any) -> object:
    """What tells an argument from others: a number or a text itself, and which object it is of a
    callback or a tensor, of which two may look alike.
    """
    if argument is None or isinstance(argument, str | int | float | bool):
        return repr(argument)
    if isinstance(argument, list | tuple):
        return tuple(_identity(item) for item in argument)
    if isinstance(argument, Mapping):
        return tuple((name, _identity(item)) for name, item in argument.items())
    return id(argument)


def collect(device: torch.device) -> None:
    """Give back what the last pipeline held, so that the next one starts from nothing."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
