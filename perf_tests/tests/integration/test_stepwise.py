"""Cases compared with their reference step by step, on tiny pipelines of two families."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_perf.catalog.declarations import Tolerances
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.noise import drawn_on_host
from diffusers_perf.measurement.stepwise import CannotFollow, Trajectory, follow, record
from diffusers_perf.optimizations import tolerances
from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB, StepDistances
from perf_tests.tests import tiny

STEPS = 4


def limit_db(allowed: Tolerances) -> float:
    assert allowed.seeded is not None
    assert allowed.seeded.step_db is not None
    return allowed.seeded.step_db


LIMIT_DB = limit_db(tolerances.BFLOAT16)
BLOCKS = {"flux": "transformer_blocks.1", "wan": "blocks.1"}


@pytest.fixture(autouse=True)
def _noise() -> Iterator[None]:
    with drawn_on_host():
        yield


def pipeline_of(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    pipeline = tiny.builder(name)(dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    generation = Generation(pipeline, tiny.workload(name, steps=STEPS).changed(**changes))
    _ = generation.anatomy
    return pipeline, generation


@pytest.fixture(scope="module", params=["flux", "wan"])
def reference(request: pytest.FixtureRequest) -> tuple[str, Trajectory]:
    with drawn_on_host():
        pipeline, generation = pipeline_of(request.param)
        return request.param, record(generation, pipeline)


def followed(
    reference: tuple[str, Trajectory],
    change: Callable[[Any], None] = lambda pipeline: None,
    **changes: Any,
) -> tuple[StepDistances, float]:
    """The steps' distances, and the image's in dB."""
    name, trajectory = reference
    pipeline, generation = pipeline_of(name, **changes)
    change(pipeline)
    before = denoisers(pipeline)
    distances, images, unknown = follow(generation, pipeline, trajectory)
    assert denoisers(pipeline) == before
    assert unknown == ""
    return distances, pixels.distance(images, trajectory.images).psnr_db


def test_same_pipeline_is_identical_in_each_step(reference: tuple[str, Trajectory]) -> None:
    steps, image_db = followed(reference)
    assert steps.inputs_db == steps.predictions_db == (IDENTICAL_DB,) * STEPS
    assert {block.db for block in steps.blocks.values()} == {IDENTICAL_DB}
    assert image_db == IDENTICAL_DB


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float16, tolerances.FLOAT16), (torch.bfloat16, tolerances.BFLOAT16)],
)
def test_half_precision_is_within_its_tolerance(
    reference: tuple[str, Trajectory], dtype: torch.dtype, allowed: Tolerances
) -> None:
    steps, _ = followed(reference, dtype=dtype)
    lowest = min(*steps.inputs_db, *steps.predictions_db)
    assert limit_db(allowed) < lowest < IDENTICAL_DB


def test_lost_prompt_shows_in_the_first_steps_inputs(reference: tuple[str, Trajectory]) -> None:
    steps, _ = followed(reference, prompt="z")
    assert steps.inputs_db[0] < LIMIT_DB
    assert steps.predictions_db == (IDENTICAL_DB,) * STEPS


def test_damaged_block_is_named(reference: tuple[str, Trajectory]) -> None:
    damaged = BLOCKS[reference[0]]

    def halve(pipeline: Any) -> None:
        (module,) = denoisers(pipeline).values()
        for parameter in module.get_submodule(damaged).parameters():
            parameter.data *= 0.5

    steps, image_db = followed(reference, halve)
    assert max(steps.predictions_db) < LIMIT_DB
    # The next step starts where the reference stood.
    assert steps.inputs_db == (IDENTICAL_DB,) * STEPS
    assert image_db == IDENTICAL_DB
    (far,) = (name for name, block in steps.blocks.items() if block.db < IDENTICAL_DB)
    assert far.endswith(f".{damaged}")


def test_other_scheduler_shows_in_the_second_steps_inputs(
    reference: tuple[str, Trajectory],
) -> None:
    def shift(pipeline: Any) -> None:
        step = pipeline.scheduler.step
        pipeline.scheduler.step = lambda output, *args, **kwargs: step(
            0.5 * output, *args, **kwargs
        )

    steps, image_db = followed(reference, shift)
    assert steps.inputs_db[0] == IDENTICAL_DB
    assert steps.inputs_db[1] < 30
    assert image_db < 30


def test_fewer_calls_cannot_be_followed(reference: tuple[str, Trajectory]) -> None:
    with pytest.raises(CannotFollow, match="is called"):
        followed(reference, steps=STEPS - 1)


def test_modules_whose_hooks_are_set_anew_after_each_call_are_followed(
    reference: tuple[str, Trajectory],
) -> None:
    """As model offload does: accelerate takes its hooks off each module and puts them on again."""

    def hooked(pipeline: Any) -> None:
        pipeline.enable_model_cpu_offload(device="cpu")

    steps, image_db = followed(reference, hooked)
    assert steps.predictions_db == (IDENTICAL_DB,) * STEPS
    assert image_db == IDENTICAL_DB


TEST_FILE = """
from typing import Any

from diffusers_perf import Workload, measure, optimization, tolerances
from diffusers_perf import test_generation as test_generation
from diffusers_perf.measurement.discovery import denoisers
from perf_tests.tests import tiny


def nothing(pipeline: Any) -> None: ...


@optimization(tolerance=tolerances.SAME_ARITHMETIC, applied=nothing)
def unchanged(build: Any) -> None:
    \"\"\"Nothing.\"\"\"


@optimization(tolerance=tolerances.SAME_ARITHMETIC, applied=nothing)
def damaged(build: Any) -> None:
    \"\"\"One block halved.\"\"\"

    @build.then
    def _(pipeline: Any) -> None:
        for parameter in pipeline.transformer.transformer_blocks[1].parameters():
            parameter.data *= 0.5


FLUX = Workload(
    name="flux",
    model="perf_tests.tests.tiny:flux",
    call=tiny.CALLS["flux"],
    steps=3,
    step_wise=True,
)
measure(FLUX, "unchanged", "damaged", suite="served")
"""


def test_main_job_names_the_first_step_and_the_block(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    pytester.makepyfile(test_served=TEST_FILE)
    pytester.makeini("[pytest]\n")
    done = pytester.runpytest_subprocess("--benchmark-only", "--device=cpu", "--rounds=1", "-q")
    done.stdout.fnmatch_lines(
        [
            "*worse image: flux-damaged: step 1: the denoiser's prediction differs from *",
            "*measured* dB in block transformer.transformer_blocks.1 alone*",
        ]
    )
    done.assert_outcomes(passed=2, failed=1)


def test_reference_that_calls_no_denoiser_cannot_be_followed() -> None:
    """A whole step that is replayed, for one, calls none."""
    pipeline, generation = pipeline_of("flux")
    trajectory = Trajectory(
        calls={"transformer": []}, blocks={}, middle=0, images=generation.images()
    )
    with pytest.raises(CannotFollow, match="is called 4 times, the reference's 0 times"):
        follow(generation, pipeline, trajectory)
