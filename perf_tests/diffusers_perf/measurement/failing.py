"""What can go wrong with a case, as one sentence and a status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from diffusers_perf.catalog.declarations import Case, Optimization
from diffusers_perf.catalog.status import Status
from diffusers_perf.measurement import applied
from diffusers_perf.measurement.discovery import Unknown
from diffusers_perf.measurement.generation import BadOutput
from diffusers_perf.measurement.pipelines import BadModel, DoesNotFit, collect
from diffusers_perf.records.baselines import BadBaseline


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
            raise applied.NotApplied(f"{optimization.name} did not take effect: {error}") from None


@contextmanager
def failing(case: Case, device: torch.device) -> Iterator[None]:
    """Turns what can go wrong with a case into one `CaseError` that says it."""
    failure: CaseError | None = None
    try:
        yield
    except applied.NotApplied as error:
        failure = CaseError(Status.NOT_APPLIED, f"{case.id}: {error}")
    except (torch.OutOfMemoryError, MemoryError) as error:
        failure = CaseError(Status.ERROR, f"{case.id}: out of memory. {_first_sentences(error)}")
    except DoesNotFit as error:
        failure = CaseError(Status.SKIPPED, str(error))
    except (BadBaseline, BadModel, BadOutput, Unknown) as error:
        failure = CaseError(Status.ERROR, f"{case.id}: {error}")
    if failure is not None:
        # Raised out here, where nothing holds the failed frames and their pipeline any more.
        collect(device)
        raise failure


def _first_sentences(error: BaseException) -> str:
    return ". ".join(str(error).split(". ")[:3])
