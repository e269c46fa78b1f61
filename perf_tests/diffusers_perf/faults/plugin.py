"""Injects a fault of the catalogue in a real run, to see the suite turn red: a plugin.

python -m pytest perf_tests --benchmark-only -p diffusers_perf.faults.plugin --inject black
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from diffusers_perf import faults
from diffusers_perf.faults.building import injecting
from diffusers_perf.faults.injection import Fault, Injection
from diffusers_perf.messages import faults as messages
from diffusers_perf.plugin.collection import SESSION
from diffusers_perf.plugin.selection import cases_of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--inject", required=True, metavar="FAULT", help="its name in faults/")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a fault that is not there, or not on this device, before anything runs."""
    _asked(session.config)


def _asked(config: pytest.Config) -> tuple[Fault, str]:
    """The fault and the device. `pytest.UsageError` where they do not go together."""
    name = config.getoption("--inject")
    known = faults.declared()
    if name not in known:
        raise pytest.UsageError(f"--inject: {messages.unknown(name, known)}")
    device = config.getoption("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    if not known[name].runs_on(device):
        raise pytest.UsageError(messages.cannot_inject(name, device))
    return known[name], device


def pytest_collection_finish(session: pytest.Session) -> None:
    """Inject the fault in every pipeline that is built, once its optimizations are applied."""
    if SESSION not in session.config.stash or session.config.option.collectonly:
        return
    fault, device = _asked(session.config)
    size = fault.sizes[0] if fault.sizes else None
    # Nothing was measured before, so a step counts as a tenth of a second.
    injection = fault.injected(Injection(device=device, size=size, step_s=0.1, gpu_step_s=0.01))
    if injection.imported_first:
        # Here all is imported already.
        raise pytest.UsageError(messages.in_own_process(fault.name))
    wanted = {only for only, _ in injection.changes}
    cases = {case.name for case in cases_of(session.items)}
    if None not in wanted and not wanted & cases and not injection.contexts:
        raise pytest.UsageError(
            messages.not_selected(fault.name, sorted(name for name in wanted if name))
        )
    bench = session.config.stash[SESSION].bench
    bench.build = injecting(injection)
    bench.stopwatch = injection.stopwatch or bench.stopwatch
    contexts = ExitStack()
    session.config.add_cleanup(contexts.close)
    for context in injection.contexts:
        contexts.enter_context(context)
