"""What several test files stand on."""

from __future__ import annotations

import gc
import shutil
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from pytest_benchmark import plugin

from diffusers_perf.compare import sides

COMMITTED = Path(__file__).parents[3] / "baselines"

# What test files import is millions of objects, none of them garbage.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _settled() -> None:
    # Not with this file: the process that only hands out the tests of `-n` would wait for it all.
    # pytester forgets what a suite in this process imported first. A second copy of the bench would
    # not see what a test patched in the first, and dynamo registers operators, which works once.
    # The others would be imported anew by each suite.
    import torch._dynamo
    from skimage.metrics import structural_similarity  # noqa: F401

    from diffusers_perf.measurement import bench, measuring  # noqa: F401
    from diffusers_perf.measurement.housekeeping import import_libraries
    from diffusers_perf.plugin import (  # noqa: F401
        document,
        generation,
        judging,
        running,
        session,
        summary,
    )

    with warnings.catch_warnings():
        # Theirs, such as of an escape sequence when a file is compiled, are no errors of ours.
        warnings.simplefilter("ignore")
        with suppress(ImportError):
            import torchao  # noqa: F401  (optional; diffusers imports it where it is installed)
        import_libraries()
    # Small tensors: threads would only wait for each other, most of all on a shared machine.
    torch.set_num_threads(1)
    # The suite and pytest collect garbage often: let them pass by the millions of objects that the
    # libraries hold.
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_look_at_the_machine() -> Iterator[None]:
    # pytest-benchmark looks at its CPU for each JSON, which takes longer than the rest of such a
    # test, the suite reads the long descriptions of two packages for their versions, and `ab` reads
    # all code of this checkout.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sides, "code_digest", cache(sides.code_digest))
        patch.setattr(plugin, "get_cpu_info", cache(plugin.get_cpu_info))
        patch.setattr(metadata, "version", cache(metadata.version))
        yield


@pytest.fixture(scope="session", autouse=True)
def _a_core_of_one_speed(_settled: None) -> Iterator[None]:
    # Whatever else runs here; and in a run of a tenth of a second its loops would take the most.
    from diffusers_perf.measurement import core

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "loop_s", lambda: 0.01)
        yield


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process of `-n`, pytest-benchmark would turn itself off in the runs that a test makes.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture
def no_baselines(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The working directory's folder of baselines, in which nothing is accepted yet."""
    if "pytester" in request.fixturenames:
        here: Path = request.getfixturevalue("pytester").path
    else:
        here = tmp_path
        monkeypatch.chdir(here)
    return _without_baselines(here / "baselines")


def _without_baselines(folder: Path) -> Path:
    folder.mkdir()
    for name in ("portable.json", "published.json"):
        shutil.copy(COMMITTED / name, folder)
    return folder


@pytest.fixture(scope="session")
def _accepted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from perf_tests.tests.unit.recorded import accept, process

    folder = _without_baselines(tmp_path_factory.mktemp("accepted") / "baselines")
    assert accept([process(f"accepted-{number}") for number in range(3)], folder) == 0
    return folder


@pytest.fixture
def accepted(no_baselines: Path, _accepted_once: Path) -> Path:
    """The same, with three recorded processes as their machine's baseline."""
    shutil.copytree(_accepted_once, no_baselines, dirs_exist_ok=True)
    return no_baselines
