"""A pipeline that a function of the user's builds: ``module:function``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from diffusers_perf.catalog import mistakes
from diffusers_perf.catalog.declarations import WeightsKind
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Scale
from diffusers_perf.measurement.dataless import HOST
from diffusers_perf.measurement.raising import raised
from diffusers_perf.messages import models as messages
from diffusers_perf.models import identity
from diffusers_perf.models.checkpoint import with_scheduler


class UserBuilder:
    """Calls the function with a dtype and a device for each pipeline that is wanted; the host's
    where it is offloaded.

    `Refusal` where it cannot be imported, raises, or gives something that is not a pipeline.
    """

    kind: WeightsKind = "checkpoint"
    scale: Scale = "full"
    variants: frozenset[str] = frozenset()

    def __init__(self, model: str) -> None:
        self.name = self.family = model
        self.weights = ""
        self._build = _imported(model)

    def load(
        self,
        *,
        scheduler: str | None,
        variants: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device,
        offloaded: bool = False,
    ) -> Any:
        """See `Source.load`."""
        failure = ""
        try:
            pipeline = self._build(dtype=dtype, device=HOST if offloaded else device)
        except torch.OutOfMemoryError:
            raise
        except (Exception, SystemExit) as error:
            # Theirs, which may raise what it likes.
            failure = raised(error)
        if failure:
            raise Refusal(messages.of(self.name, failure))
        built = type(pipeline).__name__
        if not callable(pipeline) or not hasattr(pipeline, "components"):
            raise Refusal(messages.no_pipeline(self.name, built))
        if not isinstance(pipeline.components, Mapping):
            what = type(pipeline.components).__name__
            raise Refusal(messages.components_not_by_name(self.name, built, what))
        with_scheduler(pipeline, scheduler)
        self.weights = identity.of_built(pipeline, self.name)
        return pipeline


def _imported(model: str) -> Callable[..., Any]:
    module, _, name = model.partition(":")
    try:
        imported = import_module(module)
    except (Exception, SystemExit) as error:
        said = mistakes.in_module(module, error)
        if not said and isinstance(error, ModuleNotFoundError):
            raise Refusal(messages.no_module(model, error.name)) from None
        raise Refusal(messages.of(model, said or f"{type(error).__name__}: {error}")) from None
    function: Any = getattr(imported, name, None)
    if not callable(function):
        raise Refusal(messages.no_function(model, module, name))
    built: Callable[..., Any] = function
    return built
