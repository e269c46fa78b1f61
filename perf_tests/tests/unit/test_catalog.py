"""What whoever adds a declaration can get wrong is refused as it is read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffusers_perf.catalog import declarations as catalog
from diffusers_perf.measurement.build import Build
from perf_tests.tests.unit.fake import WORKLOAD


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPTIMIZATIONS", "STACKS"):
        monkeypatch.setattr(catalog, name, {})
    monkeypatch.setattr(catalog, "CASES", [])


def sound(build: Build) -> None:
    """It is."""


def blank(build: Build) -> None:
    """ """


def test_an_optimization_says_what_it_is_and_proves_itself() -> None:
    with pytest.raises(ValueError, match="blank has no docstring"):
        catalog.optimization(applied=lambda _: None)(blank)
    with pytest.raises(ValueError, match="sound has no applied check that can be called"):
        catalog.optimization(applied=None)(sound)  # type: ignore[arg-type]
    catalog.optimization(applied=lambda _: None)(sound)
    with pytest.raises(ValueError, match="'sound' is taken"):
        catalog.optimization(applied=lambda _: None)(sound)


def test_two_workloads_have_two_names() -> None:
    catalog.measure(WORKLOAD)
    with pytest.raises(ValueError, match=f"another workload is called '{WORKLOAD.name}'"):
        catalog.measure(replace(WORKLOAD, seed=WORKLOAD.seed + 1))
    # The same at another scale, of which no run has both.
    scale: catalog.Scale = "full" if WORKLOAD.scale == "small" else "small"
    catalog.measure(replace(WORKLOAD, scale=scale))
    catalog.measure(replace(WORKLOAD, name="another"))
    assert len(catalog.CASES) == 3


def test_a_suite_is_one_of_those_that_pytest_knows() -> None:
    with pytest.raises(ValueError, match="'mine' is no suite; there are guide, lossless"):
        catalog.measure(WORKLOAD, suite="mine")  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"size": 63}, {"num_images": 0}, {"steps": 0}, {"size": 0}])
def test_a_workload_can_be_generated(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{WORKLOAD.name}: it takes one step and one image"):
        replace(WORKLOAD, **change)  # type: ignore[arg-type]
