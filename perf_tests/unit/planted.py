"""Plants a fault of the catalogue in a real run, to see the suite turn red: a plugin.

python -m pytest perf_tests --benchmark-only -p perf_tests.unit.planted --plant black
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from perf_tests.harness.planting import Plant


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plant", required=True, metavar="FAULT", help="its name in faults.py")


@pytest.fixture(scope="session", autouse=True)
def planted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Plant the fault in every pipeline that is built, once its optimizations are applied."""
    # Here, since they import torch.
    import torch

    from perf_tests import faults  # noqa: F401
    from perf_tests.harness import bench
    from perf_tests.harness.build import flag
    from perf_tests.harness.planting import FAULTS
    from perf_tests.harness.trials import building

    name = request.config.getoption("--plant")
    if name not in FAULTS:
        raise pytest.UsageError(f"--plant {name}: known are {', '.join(FAULTS)}")
    fault = FAULTS[name]
    size = fault.sizes[0] if fault.sizes else None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Nothing was measured before, so a step counts as a tenth of a second.
    plant = fault.planted(Plant(device=device, size=size, step_s=0.1, gpu_step_s=0.01))
    with ExitStack() as contexts:
        for context in plant.contexts:
            contexts.enter_context(context)
        contexts.enter_context(flag(bench, "built", building(plant)))
        yield
