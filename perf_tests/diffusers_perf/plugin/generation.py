"""The test: each case is built, timed, looked at and judged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from diffusers_perf.catalog.declarations import Case
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.plugin.session import PerfSession
    from diffusers_perf.records.measurement import Measurement


@pytest.mark.diffusers_perf
def test_generation(
    perf_case: Case,
    perf_reference: Measurement | None,
    perf_bench: Bench,
    perf_session: PerfSession,
    benchmark: Any,
    request: pytest.FixtureRequest,
) -> None:
    """A case is as much faster than its reference as it should be, and its image as close."""

    def timed(
        generate: Callable[[], None], *, before_round: Callable[[], None], rounds: int
    ) -> Sequence[float]:
        benchmark.pedantic(generate, setup=before_round, rounds=rounds, iterations=1)
        seconds: list[float] = benchmark.stats.stats.data
        return seconds

    # Until there is a verdict beside them, these times must not become a baseline.
    benchmark.has_error = True
    with perf_session.recording(perf_case):
        measured = perf_bench.measure(perf_case, timed)
        verdict = perf_session.judging.judge(
            perf_case, measured, perf_reference, perf_session.cases
        )
    benchmark.extra_info.update(
        perf_session.judged(perf_case, verdict, measured=measured, reference=perf_reference)
    )
    benchmark.has_error = False
    # For --junitxml, which otherwise says nothing about passing tests.
    request.node.user_properties.append(("verdict", verdict.sentence or verdict.status))
    if verdict.status.warns:
        warnings.warn(verdict.sentence, stacklevel=1)
    if not verdict.passes:
        pytest.fail(verdict.text(), pytrace=False)
