"""What can go wrong with a case, as one sentence and a status."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from diffusers_perf.catalog.declarations import Case, Optimization
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import Status
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.dataless import NotCountable
from diffusers_perf.measurement.discovery import NotDiscovered
from diffusers_perf.measurement.generation import BadOutput
from diffusers_perf.measurement.pipelines import DoesNotFit, collect
from diffusers_perf.measurement.raising import raised
from diffusers_perf.messages import applied as messages
from diffusers_perf.messages.common import OUT_OF_MEMORY
from diffusers_perf.records.pixels import NotComparable


class CaseError(Exception):
    """A case that gave no measurement; the status says which kind, the text why."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


def check_applied(stack: Sequence[Optimization], pipeline: Any) -> None:
    """`applied.NotApplied`, naming the optimization, for the first that does not show."""
    for optimization in stack:
        try:
            optimization.applied(pipeline)
        except applied.NotApplied as error:
            raise applied.NotApplied(messages.not_applied(optimization.name, error)) from None


BROKEN = (Refusal, BadOutput, NotComparable, NotDiscovered, NotCountable)
"""What ends one case with a sentence, and not the others."""


@contextmanager
def failing(case: Case, device: torch.device) -> Iterator[None]:
    """Turns what can go wrong with a case into one `CaseError` that says it."""
    failure: CaseError | None = None
    try:
        yield
    except applied.NotApplied as error:
        failure = CaseError(Status.NOT_APPLIED, f"{case.id}: {error}")
    except DoesNotFit as error:
        failure = CaseError(Status.SKIPPED, str(error))
    except (RuntimeError, MemoryError, OSError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        failure = CaseError(Status.ERROR, f"{case.id}: {OUT_OF_MEMORY}{_first_sentences(error)}")
    except BROKEN as error:
        failure = CaseError(Status.ERROR, f"{case.id}: {error}")
    except SystemExit as error:
        # A pipeline's sys.exit(), for which neither a command nor pytest would go on.
        failure = CaseError(Status.ERROR, f"{case.id}: {raised(error)}")
    if failure is not None:
        # Raised out here, where nothing holds the failed frames and their pipeline any more.
        collect(device)
        raise failure


NO_MEMORY = re.compile(
    r"not enough memory|cannot allocate memory|bad_alloc|failed to map segment|start new thread",
    re.IGNORECASE,
)
"""As torch, C++ and the loader of libraries say it, each with an error of another type."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the machine's or the GPU's memory did not suffice, in whatever words."""
    # Libraries make errors of their own of it.
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_sentences(error: BaseException) -> str:
    text = ". ".join(str(error).split(". ")[:3])
    return f". {text}" if text else ""
