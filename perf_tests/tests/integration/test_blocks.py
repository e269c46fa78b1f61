"""Blocks compared with the reference's one by one, on tiny pipelines of two families."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusers_perf.faults.places import scale_a_head
from diffusers_perf.judge.outlier import outlier_of
from diffusers_perf.measurement.discovery import denoisers
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.noise import drawn_on_host
from diffusers_perf.measurement.stepwise import Steps, Trajectory, follow, record
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import IDENTICAL_DB, StepDistances
from perf_tests.tests import tiny
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
) -> StepDistances:
    name, trajectory = reference
    pipeline, generation = pipeline_of(name, dtype)
    for change in changes:
        change(pipeline)
    # As in a session, where what is compiled has run before.
    generation.images()
    distances, _ = follow(generation, pipeline, trajectory)
    return distances


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
    distances = followed(reference, lambda pipeline: names.append(scale_a_head(pipeline)), change)
    found = outlier_of(distances.blocks)
    assert found is not None
    assert [found.name.partition(".")[2]] == names
    others = {block.db for name, block in distances.blocks.items() if name != found.name}
    assert others == {IDENTICAL_DB}


@pytest.mark.parametrize("change", [fuse, compile_blocks])
def test_every_block_of_the_same_arithmetic_is_identical(
    reference: tuple[str, Trajectory], change: Change
) -> None:
    distances = followed(reference, change)
    assert [block.db for block in distances.blocks.values()] == [IDENTICAL_DB] * BLOCKS[
        reference[0]
    ]
    assert distances.blocks_unknown is None


def test_rounding_of_all_blocks_alike_is_no_outlier(reference: tuple[str, Trajectory]) -> None:
    distances = followed(reference, dtype=torch.bfloat16)
    assert max(block.db for block in distances.blocks.values()) < IDENTICAL_DB
    assert outlier_of(distances.blocks) is None


def test_denoiser_goes_on_as_if_its_blocks_were_called_once(
    reference: tuple[str, Trajectory],
) -> None:
    distances = followed(reference)
    assert distances.inputs_db == distances.predictions_db == (IDENTICAL_DB,) * STEPS


def test_replayed_blocks_are_not_compared(reference: tuple[str, Trajectory]) -> None:
    def replayed(pipeline: Any) -> None:
        module = denoiser_of(pipeline)
        inside: list[Any] = []

        def forward(*args: Any, own: Any = module.forward, **kwargs: Any) -> Any:
            inside[:] = inside or [own(*args, **kwargs)]
            return inside[0]

        module.forward = forward

    distances = followed(reference, replayed)
    assert distances.blocks == {}
    number = BLOCKS[reference[0]]
    said = messages.blocks_left_out(number, number, messages.BLOCK_NOT_CALLED)
    assert distances.blocks_unknown == said


def test_block_that_is_called_otherwise_is_not_compared(
    reference: tuple[str, Trajectory],
) -> None:
    name, trajectory = reference
    ((component, blocks),) = trajectory.blocks.items()
    first, *_ = blocks
    inputs = {place: tensor[:, :1] for place, tensor in blocks[first].inputs.items()}
    changed = replace(blocks[first], inputs=inputs)
    trajectory = replace(trajectory, blocks={component: {**blocks, first: changed}})
    distances = followed((name, trajectory))
    assert f"{component}.{first}" not in distances.blocks
    assert len(distances.blocks) == len(blocks) - 1
    said = messages.blocks_left_out(1, len(blocks), messages.OTHER_ARGUMENTS)
    assert distances.blocks_unknown == said


def test_block_that_fails_by_itself_is_not_compared(reference: tuple[str, Trajectory]) -> None:
    def once(pipeline: Any) -> None:
        first, *_ = blocks_in(denoiser_of(pipeline))
        calls = []

        def called(*_: Any) -> None:
            calls.append(1)
            if len(calls) == STEPS + STEPS // 2 + 2:
                raise RuntimeError("only once")

        first.register_forward_pre_hook(called)

    distances = followed(reference, once)
    assert len(distances.blocks) == BLOCKS[reference[0]] - 1
    assert "1 of" in str(distances.blocks_unknown)
    assert "RuntimeError: only once" in str(distances.blocks_unknown)


def test_blocks_are_recorded_where_fewer_steps_are_made_than_asked_for() -> None:
    pipeline, generation = pipeline_of("sd_img2img")
    trajectory = record(generation, pipeline)
    assert [len(calls) for calls in trajectory.calls.values()] == [1]
    assert [len(blocks) for blocks in trajectory.blocks.values()] == [6]


def test_blocks_of_a_workload_are_dropped_with_the_next_reference() -> None:
    steps = Steps()
    pipeline, generation = pipeline_of("flux")

    def compared(workload: str, *, is_reference: bool, alike: bool = True) -> StepDistances | None:
        case: Any = SimpleNamespace(
            workload=SimpleNamespace(name=workload), is_reference=is_reference, alike=alike, id=""
        )
        measured, images = steps.compare(case, FP16, generation, pipeline)
        assert images is not None
        return measured.step_distances

    compared("first", is_reference=True)
    own = compared("first", is_reference=False)
    uneven = compared("first", is_reference=False, alike=False)
    compared("second", is_reference=True)
    late = compared("first", is_reference=False)
    assert own
    assert uneven
    assert late
    assert [len(own.blocks), len(uneven.blocks), len(late.blocks)] == [4, 0, 0]
    assert own.blocks_unknown is None
    assert uneven.blocks_unknown == messages.UNEVEN_STEPS
    assert late.blocks_unknown == messages.NO_BLOCK_RECORDED
