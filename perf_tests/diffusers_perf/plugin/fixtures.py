"""Fixtures of the library's test. Their names begin with `perf_`, so that they hide no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from diffusers_perf.plugin.collection import SESSION

if TYPE_CHECKING:
    from diffusers_perf.catalog.declarations import Case
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.plugin.session import PerfSession
    from diffusers_perf.records.measurement import Measurement


@pytest.fixture
def perf_session(request: pytest.FixtureRequest) -> PerfSession:
    """What this session knows of all its cases."""
    return request.config.stash[SESSION]


@pytest.fixture
def perf_reference(perf_case: Case, perf_session: PerfSession) -> Measurement | None:
    """What the case is compared with, measured now if it was not before."""
    with perf_session.recording(perf_case):
        return perf_session.judging.reference_of(perf_case, perf_session.cases)


@pytest.fixture
def perf_bench(
    perf_case: Case, perf_reference: Measurement | None, perf_session: PerfSession
) -> Iterator[Bench]:
    """The bench with the case's pipeline standing on it, alone on the device and proven."""
    with perf_session.recording(perf_case):
        perf_session.bench.open(perf_case)
    yield perf_session.bench
    perf_session.bench.close()
