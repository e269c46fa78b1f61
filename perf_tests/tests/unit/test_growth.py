"""What generations leave, what they add, and whether they keep activations for a gradient."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_perf.catalog.metrics import DECODER_STAGE, HOST_GROWTH, TEXT_STAGE
from diffusers_perf.measurement import growth, host
from diffusers_perf.measurement.applied import NotApplied
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.gradients import gradients_off
from diffusers_perf.measurement.housekeeping import Peaks
from perf_tests.tests.unit.fake import CLOCK, STEP_S, WORKLOAD, FakePipeline, on_fake_clock

LOG = logging.getLogger(__name__)
OWN_LOG = logging.getLogger(f"{__name__}.own")
# Like diffusers' own: pytest adds its handlers to each that does not propagate.
OWN_LOG.propagate = False
CPU = torch.device("cpu")
WORK_S = 0.5
INPUTS = {"first": {"prompt": "one"}, "second": {"prompt": "three"}}


def observed(change: Callable[[Any], Any], *, ends_early: bool = False) -> growth.Further:
    """Of a pipeline that does this with its images, after a first generation."""
    pipeline = FakePipeline()
    pipeline.changes.append(change)
    generation = Generation(pipeline, WORKLOAD)
    generation.shortest()
    return growth.Growing(generation, pipeline, CPU).further(ends_early=ends_early)


def added(change: Callable[[Any], Any], *, ends_early: bool = False) -> int:
    return observed(change, ends_early=ends_early).growth_bytes[HOST_GROWTH.field]


def keeping(make: Callable[[Any], Any], *, most: int = 10**6) -> Callable[[Any], Any]:
    """Keep something of the latest generations."""
    kept: list[Any] = []

    def keep(images: Any) -> Any:
        kept.append(make(images))
        del kept[:-most]
        return images

    return keep


KINDS: dict[str, Callable[[Any], Any]] = {
    "array": lambda images: np.ones(1_250_000, np.float32),
    "bytes": lambda images: bytearray(20_000),
    "image": lambda images: Image.fromarray((255 * images[0]).astype(np.uint8)),
    "tensor": lambda images: torch.ones(5_000),
}


@pytest.mark.parametrize("ends_early", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_growth_is_noticed_whatever_holds_it(kind: str, ends_early: bool) -> None:
    assert added(keeping(KINDS[kind]), ends_early=ends_early) > HOST_GROWTH.most


@pytest.mark.parametrize("ends_early", [False, True])
@pytest.mark.parametrize("most", [1, 4, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_cache_with_a_bound_does_not_grow(kind: str, most: int, ends_early: bool) -> None:
    assert added(keeping(KINDS[kind], most=most), ends_early=ends_early) <= HOST_GROWTH.most


@pytest.mark.parametrize("ends_early", [False, True])
def test_growth_in_every_second_generation_is_noticed(ends_early: bool) -> None:
    keep, made = keeping(KINDS["array"]), count()
    assert added(lambda i: keep(i) if next(made) % 2 else i, ends_early=ends_early) > (
        HOST_GROWTH.most
    )


class Unprompted(FakePipeline):
    """As diffusers' unconditional pipelines, and those that are given embeddings."""

    def __call__(self, prompt: Any = None, **options: Any) -> Any:
        return super().__call__(["", ""], **options)


@pytest.mark.parametrize("call", [{}, {"prompt": None}])
def test_growth_needs_no_prompt(call: dict[str, Any]) -> None:
    pipeline = Unprompted()
    pipeline.changes.append(keeping(KINDS["array"]))
    sized = {"height": 64, "width": 64, **call}
    generation = Generation(pipeline, replace(WORKLOAD, call=sized))
    generation.shortest()
    further = growth.Growing(generation, pipeline, CPU).further()
    assert further.growth_bytes[HOST_GROWTH.field] > HOST_GROWTH.most


@pytest.mark.parametrize("ends_early", [False, True])
def test_generation_that_keeps_nothing_does_not_grow(ends_early: bool) -> None:
    assert added(lambda images: images, ends_early=ends_early) <= HOST_GROWTH.most


@pytest.mark.parametrize(("ends_early", "generations"), [(False, 7), (True, 4)])
def test_memory_that_stays_ends_it(
    monkeypatch: pytest.MonkeyPatch, ends_early: bool, generations: int
) -> None:
    seen = []

    def noted(images: Any) -> Any:
        seen.append(images.shape)
        return images

    monkeypatch.setattr(growth, "_host_bytes", lambda: lambda: 0)
    observed(noted, ends_early=ends_early)
    # Three find out what the pipeline is made of, and one comes before.
    assert len(seen) == 4 + generations


def test_memory_that_stays_needs_no_generations_beyond_those_of_changed_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(growth, "_host_bytes", lambda: lambda: 0)
    pipeline = FakePipeline()
    generation = Generation(pipeline, replace(WORKLOAD, sensitive_to=INPUTS))
    growing = growth.Growing(generation, pipeline, CPU)
    host.left(generation, CPU, growing=growing)
    calls = pipeline.calls
    assert growing.further(ends_early=True).stages_s
    assert pipeline.calls == calls


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes `WORK_S` by the clock of the stages, for which all else takes no time."""
    passed_s = [0.0]
    monkeypatch.setattr(growth, "running_s", lambda: sum(passed_s))
    return lambda: passed_s.append(WORK_S)


def test_stage_is_timed_under_the_workloads_own_guidance(work: Callable[[], None]) -> None:
    """Work that another argument of the call leaves out is still seen."""

    class Guided(FakePipeline):
        def __call__(self, prompt: list[str], **options: Any) -> Any:
            if options["guidance_scale"] > 1:
                work()
            return super().__call__(prompt, **options)

    inputs: dict[str, dict[str, Any]] = {"guidance": {"guidance_scale": 1.0}, **INPUTS}
    pipeline = Guided()
    generation = Generation(pipeline, replace(WORKLOAD, sensitive_to=inputs))
    growing = growth.Growing(generation, pipeline, CPU)
    host.left(generation, CPU, growing=growing)
    assert growing.further(ends_early=True).stages_s == {TEXT_STAGE.field: WORK_S}


def test_text_stage_is_timed_with_prompts_that_are_new(work: Callable[[], None]) -> None:
    """What is kept of the last prompt makes no text stage that users have for each prompt."""

    class Keeping(FakePipeline):
        last: list[str] | None = None

        def __call__(self, prompt: list[str], **options: Any) -> Any:
            if prompt != self.last:
                work()
            self.last = prompt
            return super().__call__(prompt, **options)

    pipeline = Keeping()
    generation = Generation(pipeline, replace(WORKLOAD, sensitive_to=INPUTS))
    growing = growth.Growing(generation, pipeline, CPU)
    host.left(generation, CPU, growing=growing)
    assert growing.further(ends_early=True).stages_s == {TEXT_STAGE.field: WORK_S}
    # The call as users make it repeats the latest prompt.
    latest = pipeline.last
    host.default_call(generation, briefly=True)
    assert pipeline.last == latest


def slow(images: Any) -> Any:
    CLOCK.sleep(0.6 * STEP_S)
    return images


@pytest.mark.parametrize(
    ("change", "calls", "says_the_same", "steps_s"),
    [
        (lambda images: (255 * images).round() / 255, 1, True, 1.0),
        (lambda images: images / 2, 2, False, 1.0),
        (slow, 2, True, 1.6),
    ],
)
def test_default_call_of_a_large_model_is_made_once_if_it_is_like_the_arrays(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Any], Any],
    calls: int,
    says_the_same: bool,
    steps_s: float,
) -> None:
    class Own(FakePipeline):
        def __call__(self, prompt: list[str], **options: Any) -> Any:
            made = super().__call__(prompt, **options)
            if "output_type" not in options:
                made.images = change(made.images)
            return made

    on_fake_clock(monkeypatch)
    pipeline = Own()
    generation = Generation(pipeline, WORKLOAD)
    generation.shortest()  # finds out what the pipeline is made of, which takes time as well
    generation.keep_short()
    before = pipeline.calls
    seen = host.default_call(generation, briefly=True)
    assert pipeline.calls - before == calls
    assert seen.seconds == pytest.approx(steps_s * STEP_S)
    assert seen.psnr_db is not None
    assert (seen.psnr_db > 50) == says_the_same


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_inputs_add_is_growth(kind: str) -> None:
    """Only the first generation of an input adds to it, as a cache without a bound does."""
    pipeline = FakePipeline()
    keep, known = keeping(KINDS[kind]), set()

    def cache(images: Any) -> Any:
        key = hash(images.tobytes())
        if key not in known:
            known.add(key)
            keep(images)
        return images

    pipeline.changes.append(cache)
    generation = Generation(pipeline, replace(WORKLOAD, sensitive_to=INPUTS))
    growing = growth.Growing(generation, pipeline, CPU)
    host.left(generation, CPU, growing=growing)
    further = growing.further(ends_early=True)
    assert further.growth_bytes[HOST_GROWTH.field] > HOST_GROWTH.most


def logging_to(log: logging.Logger) -> Callable[[Any], Any]:
    """Log another long text in each generation."""
    made = count()

    def change(images: Any) -> Any:
        log.warning("%s", f"{next(made)} {'again ' * 5_000}")
        return images

    return change


@pytest.mark.parametrize("ends_early", [False, True])
@pytest.mark.parametrize("log", [LOG, OWN_LOG])
def test_logs_that_pytest_keeps_are_no_growth(
    caplog: pytest.LogCaptureFixture, log: logging.Logger, ends_early: bool
) -> None:
    assert added(logging_to(log), ends_early=ends_early) <= HOST_GROWTH.most
    caplog.clear()
    log.warning("afterwards")
    assert caplog.messages == ["afterwards"]


def test_logs_that_pytest_keeps_of_changed_inputs_are_no_growth() -> None:
    pipeline = FakePipeline()
    pipeline.changes.append(logging_to(LOG))
    generation = Generation(pipeline, replace(WORKLOAD, sensitive_to=INPUTS))
    growing = growth.Growing(generation, pipeline, CPU)
    host.left(generation, CPU, growing=growing)
    further = growing.further(ends_early=True)
    assert further.growth_bytes[HOST_GROWTH.field] <= HOST_GROWTH.most


@pytest.mark.parametrize("ends_early", [False, True])
def test_logs_that_a_handler_of_the_user_keeps_are_growth(ends_early: bool) -> None:
    class Keeping(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.records: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.records.append(record.getMessage())

    handler = Keeping()
    logging.getLogger().addHandler(handler)
    try:
        assert added(logging_to(LOG), ends_early=ends_early) > HOST_GROWTH.most
    finally:
        logging.getLogger().removeHandler(handler)


def test_median_passes_over_a_table_that_doubles() -> None:
    assert growth.growth_of([0, 10, 20, 500, 510, 520, 530]) == 10
    assert growth.growth_of([0, 0, 100_000, 100_000, 100_000, 90_000]) == 0


def test_each_generation_has_a_prompt_and_a_seed_of_its_own() -> None:
    others = [growth._another(WORKLOAD, number) for number in range(1, growth.GENERATIONS_MOST + 1)]
    assert len({other.seed for other in others}) == len(others)
    assert len({other.prompts[0] for other in others}) == len(others)


def test_last_images_kept_by_the_pipeline_are_not_left_behind() -> None:
    pipeline = FakePipeline()

    class Keeping(FakePipeline):
        def __call__(self, prompt: list[str], **options: Any) -> Any:
            made = super().__call__(prompt, **options)
            self.last = made.images
            return made

    pipeline.__class__ = Keeping
    assert host.left(Generation(pipeline, WORKLOAD), CPU).kept_bytes == 0


def test_resident_memory_stands_in_for_an_unknown_allocator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(growth, "_host_bytes", lambda: growth._resident_bytes)
    assert added(keeping(KINDS["array"])) > HOST_GROWTH.most
    assert added(lambda images: images) == 0


def test_stage_has_the_time_that_is_spent_in_it(work: Callable[[], None]) -> None:
    def slow(images: Any) -> Any:
        work()
        return images

    assert observed(slow).stages_s == {DECODER_STAGE.field: WORK_S}


def test_activations_that_are_kept_are_noticed_in_the_first_step() -> None:
    steps: list[torch.Tensor] = []
    pipeline = FakePipeline()
    pipeline.scheduler = SimpleNamespace(step=steps.append)
    for is_kept in (False, True):
        noise = torch.ones(2, requires_grad=is_kept)
        with gradients_off(pipeline):
            if not is_kept:
                pipeline.scheduler.step(noise)
                continue
            with pytest.raises(NotApplied, match="gradients are not off: the denoiser's output"):
                pipeline.scheduler.step(noise)
            with pytest.raises(NotApplied, match="what the vae decodes"):
                pipeline.vae.decode(noise)  # type: ignore[operator]
    assert len(steps) == 1
    # Nothing of it stays.
    pipeline.scheduler.step(torch.ones(2, requires_grad=True))


def test_peak_leaves_out_what_was_freed_before() -> None:
    blocks = [np.ones(256) for _ in range(50_000)]
    kept = blocks[::500]
    before = Peaks(torch.device("cpu")).host()
    del blocks
    after = Peaks(torch.device("cpu")).host()
    assert len(kept) == 100
    for name, peak in before.items():
        assert after[name] < peak - 50 * 2**20
