"""What each status means, as the table of the design says it."""

from __future__ import annotations

import pytest

from diffusers_perf.catalog.status import Status, exit_code, worst

PASSES = {
    Status.SKIPPED,
    Status.SAME,
    Status.FASTER,
    Status.LESS_WORK,
    Status.NEW,
    Status.INCONCLUSIVE,
    Status.INVALID,
}
WARNS = {Status.INCONCLUSIVE, Status.INVALID}


@pytest.mark.parametrize("status", Status)
def test_status_passes_warns_and_exits(status: Status) -> None:
    assert status.passes == (status in PASSES)
    assert status.warns == (status in WARNS)
    assert status.exit_code == (2 if status in WARNS else 0 if status in PASSES else 1)


def test_severity_is_the_declared_order() -> None:
    assert sorted(Status, key=lambda status: status.severity) == list(Status)
    assert worst([Status.FASTER, Status.BLACK, Status.SAME]) == Status.BLACK
    assert worst([]) == Status.SAME


def test_exit_code_prefers_a_regression_to_inconclusive() -> None:
    assert exit_code([]) == 0
    assert exit_code([Status.SAME, Status.LESS_WORK, Status.SKIPPED]) == 0
    assert exit_code([Status.SAME, Status.INVALID]) == 2
    assert exit_code([Status.INVALID, Status.SLOWER]) == 1
