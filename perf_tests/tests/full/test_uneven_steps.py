"""Each scheduler's steps are counted exactly, however few."""

from __future__ import annotations

import pytest

from perf_tests.tests import tiny, uneven


@pytest.mark.parametrize("scheduler", uneven.SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 9, 13])
def test_counts_are_those_of_all_steps(scheduler: str, steps: int) -> None:
    uneven.assert_exact(uneven.pipeline_with(scheduler), tiny.workload("sd", steps=steps))
