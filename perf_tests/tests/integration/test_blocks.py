"""Blocks compared with the reference's one by one, on tiny pipelines of two families."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusers_perf import models
from diffusers_perf.catalog.declarations import WeightsKind
from diffusers_perf.faults.places import scale_a_head
from diffusers_perf.judge.outlier import outlier_of
from diffusers_perf.measurement import blocks
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.noise import drawn_on_host
from diffusers_perf.measurement.pipelines import built
from diffusers_perf.measurement.stepwise import Followed, Steps, Trajectory, follow, record
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import IDENTICAL_DB, Measurement
from perf_tests.tests import tiny
from perf_tests.tests.unit.catalogs import ours
from perf_tests.tests.unit.factories import FP16

STEPS = 2
BLOCKS = {"flux": 4, "sdxl": 12}

Change = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _noise() -> Iterator[None]:
    with drawn_on_host():
        yield


def pipeline_of(name: str, dtype: torch.dtype = torch.float32) -> Any:
    pipeline = tiny.builder(name)(dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    generation = Generation(pipeline, tiny.workload(name, steps=STEPS))
    _ = generation.anatomy
    return pipeline, generation


@pytest.fixture(scope="module", params=BLOCKS)
def reference(request: pytest.FixtureRequest) -> tuple[str, Trajectory]:
    with drawn_on_host():
        pipeline, generation = pipeline_of(request.param)
        return request.param, record(generation, pipeline)


def followed(
    reference: tuple[str, Trajectory], *changes: Change, dtype: torch.dtype = torch.float32
) -> Followed:
    name, trajectory = reference
    pipeline, generation = pipeline_of(name, dtype)
    for change in changes:
        change(pipeline)
    # As in a session, where what is compiled has run before.
    generation.images()
    return follow(generation, pipeline, trajectory)


def denoiser_of(pipeline: Any) -> Any:
    (module,) = denoisers(pipeline).values()
    return module


def blocks_in(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [m for m in module.modules() if "TransformerBlock" in type(m).__name__]


def fuse(pipeline: Any) -> None:
    denoiser_of(pipeline).fuse_qkv_projections()


def compile_blocks(pipeline: Any) -> None:
    for block in blocks_in(denoiser_of(pipeline)):
        block.compile(backend="eager", fullgraph=True)


@pytest.mark.parametrize("change", [fuse, compile_blocks])
def test_head_that_is_off_stands_out(reference: tuple[str, Trajectory], change: Change) -> None:
    names = []
    seen = followed(reference, lambda pipeline: names.append(scale_a_head(pipeline)), change)
    found = outlier_of(seen.distances.blocks)
    assert found is not None
    assert [found.name.partition(".")[2]] == names
    others = {block.db for name, block in seen.distances.blocks.items() if name != found.name}
    assert others == {IDENTICAL_DB}


@pytest.mark.parametrize("change", [fuse, compile_blocks])
def test_every_block_of_the_same_arithmetic_is_identical(
    reference: tuple[str, Trajectory], change: Change
) -> None:
    seen = followed(reference, change)
    assert [block.db for block in seen.distances.blocks.values()] == [IDENTICAL_DB] * BLOCKS[
        reference[0]
    ]
    assert not seen.blocks_unknown


def test_rounding_of_all_blocks_alike_is_no_outlier(reference: tuple[str, Trajectory]) -> None:
    seen = followed(reference, dtype=torch.bfloat16)
    assert max(block.db for block in seen.distances.blocks.values()) < IDENTICAL_DB
    assert outlier_of(seen.distances.blocks) is None


def test_denoiser_goes_on_as_if_its_blocks_were_called_once(
    reference: tuple[str, Trajectory],
) -> None:
    seen = followed(reference)
    assert seen.distances.inputs_db == seen.distances.predictions_db == (IDENTICAL_DB,) * STEPS


def test_replayed_blocks_are_not_compared(reference: tuple[str, Trajectory]) -> None:
    def replayed(pipeline: Any) -> None:
        module = denoiser_of(pipeline)
        inside: list[Any] = []

        def forward(*args: Any, own: Any = module.forward, **kwargs: Any) -> Any:
            inside[:] = inside or [own(*args, **kwargs)]
            return inside[0]

        module.forward = forward

    seen = followed(reference, replayed)
    assert seen.distances.blocks == {}
    number = BLOCKS[reference[0]]
    said = messages.blocks_left_out(number, number, messages.BLOCK_NOT_CALLED)
    assert seen.blocks_unknown == said


def test_block_that_is_called_otherwise_is_not_compared(
    reference: tuple[str, Trajectory],
) -> None:
    name, trajectory = reference
    ((component, recorded),) = trajectory.blocks.items()
    first, *_ = recorded
    inputs = {place: tensor[:, :1] for place, tensor in (recorded[first].inputs or {}).items()}
    changed = replace(recorded[first], inputs=inputs)
    trajectory = replace(trajectory, blocks={component: {**recorded, first: changed}})
    seen = followed((name, trajectory))
    assert f"{component}.{first}" not in seen.distances.blocks
    assert len(seen.distances.blocks) == len(recorded) - 1
    said = messages.blocks_left_out(1, len(recorded), messages.OTHER_ARGUMENTS)
    assert seen.blocks_unknown == said


def test_block_that_fails_by_itself_is_not_compared(reference: tuple[str, Trajectory]) -> None:
    def once(pipeline: Any) -> None:
        first, *_ = blocks_in(denoiser_of(pipeline))
        calls = []

        def called(*_: Any) -> None:
            calls.append(1)
            if len(calls) == STEPS + STEPS // 2 + 2:
                raise RuntimeError("only once")

        first.register_forward_pre_hook(called)

    seen = followed(reference, once)
    assert len(seen.distances.blocks) == BLOCKS[reference[0]] - 1
    assert "1 of" in seen.blocks_unknown
    assert "RuntimeError: only once" in seen.blocks_unknown


def test_blocks_are_recorded_where_fewer_steps_are_made_than_asked_for() -> None:
    pipeline, generation = pipeline_of("sd_img2img")
    trajectory = record(generation, pipeline)
    assert [len(calls) for calls in trajectory.calls.values()] == [1]
    assert [len(found) for found in trajectory.blocks.values()] == [6]


@pytest.fixture
def compared() -> Callable[..., Measurement]:
    """Compare a case of a workload, all of one pipeline, as a session does."""
    steps = Steps()
    pipeline, generation = pipeline_of("flux")

    def compare(
        workload: str,
        *,
        is_reference: bool = False,
        alike: bool = True,
        kind: WeightsKind = "embedded",
    ) -> Measurement:
        case: Any = SimpleNamespace(
            workload=SimpleNamespace(name=workload), is_reference=is_reference, alike=alike, id="it"
        )
        measured, images = steps.compare(case, FP16, generation, pipeline, kind=kind)
        assert images is not None
        return measured

    return compare


def blocks_in_record(measured: Measurement) -> int:
    assert measured.step_distances
    return len(measured.step_distances.blocks)


def test_blocks_of_a_workload_are_dropped_with_the_next_reference(
    compared: Callable[..., Measurement],
) -> None:
    compared("first", is_reference=True)
    own = compared("first")
    uneven = compared("first", alike=False)
    compared("second", is_reference=True)
    late = compared("first")
    assert [*map(blocks_in_record, (own, uneven, late))] == [4, 0, 0]
    reasons = [seen.step_distances.blocks_unknown for seen in (own, uneven, late)]  # type: ignore[union-attr]
    assert reasons == ["", messages.UNEVEN_STEPS, messages.NO_BLOCK_RECORDED]
    # Not the reason why a metric of it is missing.
    assert own.notes == uneven.notes == late.notes == ()


def test_blocks_of_a_users_weights_may_differ(compared: Callable[..., Measurement]) -> None:
    compared("first", is_reference=True)
    alike = []
    for kind in ("seeded", "embedded", "checkpoint"):
        distances = compared("first", kind=kind).step_distances
        assert distances
        alike.append(distances.alike_blocks)
    assert alike == [True, True, False]


def test_no_more_blocks_are_kept_than_the_host_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, generation = pipeline_of("flux")
    (whole,) = record(generation, pipeline).blocks.values()
    first, *_ = whole.values()
    size = sum(tensor.nbytes for tensor in (first.inputs or {}).values())
    monkeypatch.setattr(blocks, "KEPT_BYTES", size)
    trajectory = record(generation, pipeline)
    (few,) = trajectory.blocks.values()
    assert [block.inputs is not None for block in few.values()] == [True, False, False, False]
    seen = follow(generation, pipeline, trajectory)
    assert len(seen.distances.blocks) == 1
    assert seen.blocks_unknown == messages.blocks_left_out(3, len(whole), messages.TOO_LARGE)


def test_what_a_block_passes_on_beside_numbers_is_not_compared() -> None:
    numbers, mask = torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.int64)
    own, wanted = blocks.Output.of((numbers, mask)), blocks.Output.of(numbers)
    assert own.distance_db(wanted) == IDENTICAL_DB
    assert own.energy == wanted.energy


def test_block_of_a_reference_that_is_not_finite_is_not_compared(
    reference: tuple[str, Trajectory],
) -> None:
    name, trajectory = reference
    ((component, recorded),) = trajectory.blocks.items()
    first, *_ = recorded
    broken = replace(recorded[first], output=replace(recorded[first].output, energy=float("nan")))
    changed = replace(trajectory, blocks={component: {**recorded, first: broken}})
    seen = followed((name, changed))
    assert f"{component}.{first}" not in seen.distances.blocks
    assert seen.blocks_unknown == messages.blocks_left_out(1, len(recorded), messages.NOT_FINITE)


def test_timestep_may_be_a_number_or_one_of_a_batch() -> None:
    """A UNet whose scheduler is on the device is given its timestep in another shape."""
    sdxl = tiny.workload("sdxl", steps=STEPS)
    source = models.open_source(sdxl.model)
    with built(ours().case(sdxl, "reference"), source, torch.device("cpu")) as pipeline:
        trajectory = record(Generation(pipeline, sdxl), pipeline)
    with built(ours().case(sdxl, "device_steps"), source, torch.device("cpu")) as pipeline:
        generation = Generation(pipeline, sdxl)
        generation.images()
        seen = follow(generation, pipeline, trajectory)
    assert min(*seen.distances.inputs_db, *seen.distances.predictions_db) > 100
    assert not seen.blocks_unknown
