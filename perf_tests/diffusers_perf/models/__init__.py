"""Where weights come from: three sources behind one interface (`harness.pipelines.Source`).

checkpoint.py       a folder or a Hub id in diffusers' format
seeded.py           weights drawn from a seed on the real architectures of architectures.py
embedded/           the embedded model, small and trained; loaded like any checkpoint
recipe/             trains it
clip_bpe/           CLIP's byte pair merges, with their licence, for the seeded model's tokenizer
"""

from __future__ import annotations

import logging
import os
import warnings

from diffusers_perf.measurement.pipelines import BadModel, Source
from diffusers_perf.models.checkpoint import EMBEDDED, Checkpoint
from diffusers_perf.models.seeded import Seeded

__all__ = ["BadModel", "default_model", "open_source", "options_for", "quiet_libraries"]

NAMED = ("sd15", "small", "embedded")


def open_source(model: str) -> Source:
    """The source for ``sd15`` or ``small`` (seeded), ``embedded``, a local folder, or a Hub id.

    `BadModel`, in one sentence, where there is none. From here on no progress bar of the process
    has a thread of its own.
    """
    from tqdm import tqdm

    # It wakes amid rounds though the bar is off, and Python 3.12 counts its calls with theirs.
    tqdm.monitor_interval = 0
    if model == "sd15":
        return Seeded("sd15", scale="full")
    if model == "small":
        return Seeded("small", scale="small")
    if model == "embedded":
        return Checkpoint(str(EMBEDDED), kind="embedded")
    # Path.is_dir raises for a name that is too long.
    if os.path.isdir(model) or model.count("/") == 1:  # noqa: PTH112
        return Checkpoint(model)
    raise BadModel(
        f"--model {model:.200}: no folder of that name here, and known by name are "
        f"{', '.join(NAMED)}; a Hub id is written owner/name"
    )


def default_model(device: str) -> str:
    """The model of a run on ``cuda`` or ``cpu`` that names none."""
    return "sd15" if device == "cuda" else "embedded"


def options_for(device: str, model: str) -> tuple[str, ...]:
    """What a command line must say beside the defaults to run on this device with this model.

    The CPU is named wherever it ran: where the command is repeated, there may be a GPU.
    """
    # As one argument: pytest takes the second of two for a test path as long as it does not know
    # the option, and would run the code that it finds there.
    named = (f"--model={model}",) if model != default_model(device) else ()
    return (*(("--device", "cpu") if device == "cpu" else ()), *named)


def quiet_libraries() -> None:
    """Keep what diffusers and transformers remark on loading out of a command's output."""
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    warnings.simplefilter("ignore")
