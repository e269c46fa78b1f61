"""Where pipelines come from, behind one interface (`measurement.pipelines.Source`).

checkpoint.py       a folder or a Hub id in diffusers' format
builder.py          a function of the user's
identity.py         which weights they are
seeded.py           weights drawn from a seed on the real architectures of architectures.py
embedded/           the embedded model, a small trained UNet; loaded like any checkpoint
embedded_flux/      the embedded transformer, a small trained Flux
clip_bpe/           CLIP's byte pair merges, with their licence, for the seeded model's tokenizer
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Scale, Workload
from diffusers_perf.measurement.pipelines import Source
from diffusers_perf.messages import models as messages
from diffusers_perf.models.builder import UserBuilder
from diffusers_perf.models.checkpoint import EMBEDDED, EMBEDDED_FLUX, Checkpoint
from diffusers_perf.models.seeded import Seeded
from diffusers_perf.models.served import FAMILIES, Served

__all__ = [
    "Sources",
    "open_source",
    "options_for",
    "quiet_libraries",
]

NAMED = {
    **dict.fromkeys(("sd15", *FAMILIES), "cuda"),
    **dict.fromkeys(("small", "embedded", "embedded-flux"), "cpu"),
}
"""The library's own models, and the device on which their workloads run where no model is named."""


def open_source(model: str) -> Source:
    """The source for ``sd15`` or ``small`` (seeded), ``embedded``, ``embedded-flux``, a local
    folder, a Hub id, or ``module:function``.

    `Refusal`, in one sentence, where there is none. From here on no progress bar of the process
    has a thread of its own.
    """
    from tqdm import tqdm

    # It wakes amid rounds though the bar is off, and Python 3.12 counts its calls with theirs.
    tqdm.monitor_interval = 0
    if model == "sd15":
        return Seeded("sd15", scale="full")
    if model == "small":
        return Seeded("small", scale="small")
    if model in FAMILIES:
        return Served(model)
    if model == "embedded":
        return Checkpoint(str(EMBEDDED), kind="embedded")
    if model == "embedded-flux":
        return Checkpoint(str(EMBEDDED_FLUX), kind="embedded", name=model)
    # Path.is_dir raises for a name that is too long.
    is_folder = os.path.isdir(model)  # noqa: PTH112
    if not is_folder and re.fullmatch(r"[\w.]+:\w+", model):
        return UserBuilder(model)
    if is_folder or model.count("/") == 1:
        return Checkpoint(model)
    raise Refusal(messages.unknown(model, [*NAMED]))


class Sources:
    """Where the models of a session's workloads come from; each is opened when it is needed."""

    def __init__(self, *, device: str, model: str | None = None) -> None:
        """With `model`, it takes the place of every workload's own. `Refusal` if there is none."""
        self._device = device
        self._model = model
        self._open: dict[str, Source] = {}
        self.named = None if model is None else self._source(model)

    def runs(self, workload: Workload) -> bool:
        """Whether the session runs this workload.

        With a model named: its own workloads, and those of other weights of its family. Without:
        all, but of the library's own models those that are made for this device.
        """
        if self.named is None:
            return NAMED.get(workload.model, self._device) == self._device
        if workload.model == self._model:
            return True
        if {workload.model, self._model} <= set(FAMILIES):
            # FLUX's two models have workloads of their own.
            return False
        try:
            declared = self._source(workload.model)
        except Refusal:
            return False
        return (declared.family, declared.scale) == (self.named.family, self.named.scale)

    def of(self, workload: Workload) -> Source:
        """The workload's source. `Refusal` where it cannot be opened."""
        return self.named or self._source(workload.model)

    def import_builder(self, workload: Workload) -> None:
        """Import the user's function that builds the workload's pipelines, if one does. What cannot
        be imported is said where a source is asked for.
        """
        if self.named is None and ":" in workload.model:
            with suppress(Refusal):
                self._source(workload.model)

    def scale_of(self, workloads: Iterable[Workload]) -> Scale:
        """``small`` if all of these are that the session runs."""
        if self.named is not None:
            return self.named.scale
        scales = {workload.scale for workload in workloads if self.runs(workload)}
        return "small" if scales == {"small"} else "full"

    def _source(self, model: str) -> Source:
        if model not in self._open:
            self._open[model] = open_source(model)
        return self._open[model]


def options_for(device: str, model: str | None) -> tuple[str, ...]:
    """What a command line must say beside the defaults to run on this device with this model.

    The CPU is named wherever it ran: where the command is repeated, there may be a GPU.
    """
    # As one argument: pytest takes the second of two for a test path as long as it does not know
    # the option, and would run the code that it finds there.
    named = () if model is None else (f"--model={model}",)
    return (*(("--device", "cpu") if device == "cpu" else ()), *named)


def quiet_libraries() -> None:
    """Keep what diffusers and transformers remark on loading out of a command's output."""
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    warnings.simplefilter("ignore")
