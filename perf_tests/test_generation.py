"""The test: each case is built, timed, looked at and judged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from perf_tests.harness.timing import synchronized_clock
from perf_tests.harness.verdicts import WARNING

if TYPE_CHECKING:
    from conftest import Suite
    from perf_tests.harness.bench import Bench
    from perf_tests.harness.catalog import Case
    from perf_tests.harness.records import Measurement


@pytest.mark.benchmark(timer=synchronized_clock, disable_gc=True)
def test_generation(
    case: Case,
    reference: Measurement | None,
    bench: Bench,
    suite: Suite,
    benchmark: Any,
    request: pytest.FixtureRequest,
) -> None:
    """A case is as much faster than its reference as it should be, and its picture as close."""

    def timed(
        generate: Callable[[], None], *, before_round: Callable[[], None], rounds: int
    ) -> Sequence[float]:
        benchmark.pedantic(generate, setup=before_round, rounds=rounds, iterations=1)
        seconds: list[float] = benchmark.stats.stats.data
        return seconds

    # Until there is a verdict beside them, these times are nobody's baseline.
    benchmark.has_error = True
    with suite.recording(case):
        measured = bench.measure(case, timed)
        verdict = bench.judge(case, measured, reference, suite.cases)
    benchmark.extra_info.update(suite.judged(case, verdict, measured=measured, reference=reference))
    benchmark.has_error = False
    # For --junitxml, which else says nothing of what passes.
    request.node.user_properties.append(("verdict", verdict.sentence or verdict.status))
    if verdict.status in WARNING:
        warnings.warn(verdict.sentence, stacklevel=1)
    if not verdict.passes:
        pytest.fail(verdict.text(), pytrace=False)
