"""Injects a fault of the catalogue in a real run, to see the suite turn red: a plugin.

python -m pytest perf_tests --benchmark-only -p diffusers_perf.faults.plugin --inject black
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch

from diffusers_perf.faults.injection import FAULTS, Fault, Injection
from diffusers_perf.faults.trials import building
from diffusers_perf.measurement import bench
from diffusers_perf.measurement.build import flag
from diffusers_perf.plugin.collection import cases_of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--inject", required=True, metavar="FAULT", help="its name in faults/")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a fault that is not there, or not on this device, before anything runs."""
    _asked(session.config)


def _asked(config: pytest.Config) -> tuple[Fault, str]:
    """The fault and the device. `pytest.UsageError` where they do not go together."""
    name = config.getoption("--inject")
    if name not in FAULTS:
        raise pytest.UsageError(f"--inject {name}: known are {', '.join(FAULTS)}")
    device = config.getoption("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    if not FAULTS[name].runs_on(device):
        raise pytest.UsageError(f"--inject {name}: cannot be injected on {device}")
    return FAULTS[name], device


@pytest.fixture(scope="session", autouse=True)
def injected(request: pytest.FixtureRequest) -> Iterator[None]:
    """Injection the fault in every pipeline that is built, once its optimizations are applied."""
    fault, device = _asked(request.config)
    size = fault.sizes[0] if fault.sizes else None
    # Nothing was measured before, so a step counts as a tenth of a second.
    injection = fault.injected(Injection(device=device, size=size, step_s=0.1, gpu_step_s=0.01))
    wanted = {only for only, _ in injection.changes}
    cases = {case.name for case in cases_of(request.session.items)}
    if None not in wanted and not wanted & cases and not injection.contexts:
        names = ", ".join(sorted(name for name in wanted if name))
        pytest.exit(
            f"--inject {fault.name}: changes {names}, which is not among the selected cases",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    with ExitStack() as contexts:
        for context in injection.contexts:
            contexts.enter_context(context)
        contexts.enter_context(flag(bench, "built", building(injection)))
        yield
