"""The models of a session, whose own modules are put down to their line where they break."""

from __future__ import annotations

import os
from importlib import import_module

from diffusers_perf import models
from diffusers_perf.catalog import mistakes
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.pipelines import Source
from diffusers_perf.messages.models import of


class Sources(models.Sources):
    """Says in which line a user's module raises that ``module:function`` names.

    In front of `models`, which is measuring code: what it says would make a new version of that.
    """

    def __init__(self, *, device: str, model: str | None = None) -> None:
        """`Refusal` where there is no such model, or its module cannot be imported."""
        if model is not None:
            _import_builder(model)
        super().__init__(device=device, model=model)

    def of(self, workload: Workload) -> Source:
        """The workload's source. `Refusal` where it cannot be opened."""
        if self.named is None:
            _import_builder(workload.model)
        return super().of(workload)


def _import_builder(model: str) -> None:
    """Import a user's module that builds pipelines, if the model is one. `Refusal` where it raises;
    all else that is wrong with a model is said as it is opened.
    """
    module, colon, _ = model.partition(":")
    if not colon or os.path.isdir(model):  # noqa: PTH112  as `models.open_source`
        return
    try:
        import_module(module)
    except Exception as error:
        if said := mistakes.in_module(module, error):
            raise Refusal(of(model, said)) from None
