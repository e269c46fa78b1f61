"""Each rule of a verdict on both sides of its limit, and exactly on it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from diffusers_perf.catalog.declarations import Tolerance
from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.metrics import (
    BY_LEAST,
    COLD_IMPORT,
    DECODER_STAGE,
    DEFAULT_CALL,
    DENOISING_STAGE,
    GPU_BUSY,
    GPU_SPEEDUP,
    IMAGE_PSNR,
    IMPORT,
    IMPORT_IDLE,
    LATENCY,
    LATENCY_SPEEDUP,
    LOAD,
    TEXT_STAGE,
)
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import structure_verdicts
from diffusers_perf.judge.claims import claims
from diffusers_perf.judge.drift import drift_of, drift_text
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.judge.interference import excuses
from diffusers_perf.judge.measured import interval_of
from diffusers_perf.judge.messages.commands import Literal
from diffusers_perf.judge.question import Question
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.records.baselines import Bound, Claim, OperatorBaseline
from diffusers_perf.records.measurement import (
    BlockDistance,
    Count,
    Distance,
    Interference,
    Look,
    Measurement,
    StepDistances,
)
from diffusers_perf.records.operators import Occurrence, OperatorCount, OperatorCounts, Place
from diffusers_perf.records.run import Drift
from perf_tests.tests.unit.factories import FP16, REFERENCE, baseline_of, question


def of(metric: str, asked: Question) -> Status | None:
    """The worst status of a metric; None where nothing was found of it."""
    found = [finding.status for finding in judge(asked).findings if finding.metric == metric]
    return max(found, key=lambda status: status.severity, default=None)


def fp16(**changes: Any) -> Question:
    return question(structs.replace(FP16, **changes))


def stepped(inputs_db: float, prediction_db: float) -> Question:
    """A step-wise workload's case, of which every step must be at 30 dB."""
    distances = StepDistances(inputs_db=(60, inputs_db), predictions_db=(60, prediction_db))
    asked = fp16(step_distances=distances)
    return dataclasses.replace(asked, tolerance=Tolerance(psnr_db=40, step_db=30))


@pytest.mark.parametrize(
    ("inputs_db", "prediction_db", "status"),
    [(30.0, 30.0, None), (29.9, 60.0, "worse image"), (60.0, 29.9, "worse image")],
)
def test_step_is_judged_at_its_limit(
    inputs_db: float, prediction_db: float, status: Status | None
) -> None:
    assert of("image distance", stepped(inputs_db, prediction_db)) == status


def blocks_of(*distances_db: float, kind: str = "Block 8x4") -> dict[str, BlockDistance]:
    return {
        f"{kind} {index}": BlockDistance(kind=kind, db=db) for index, db in enumerate(distances_db)
    }


def with_blocks(
    blocks: dict[str, BlockDistance], *, prediction_db: float = 60.0, alike: bool = True
) -> Question:
    asked = stepped(60, prediction_db)
    distances = StepDistances(
        inputs_db=(60,), predictions_db=(prediction_db,), blocks=blocks, alike_blocks=alike
    )
    return dataclasses.replace(
        asked, measured=structs.replace(asked.measured, step_distances=distances)
    )


@pytest.mark.parametrize(
    ("blocks", "status"),
    [
        (blocks_of(60.0, 60.0, 46.1), None),
        (blocks_of(60.0, 60.0, 46.0), "worse image"),
        # However the arithmetic differs, it differs in all alike.
        (blocks_of(20.0, 21.0, 22.0), None),
        # Beyond what rounding makes, the others count for no more.
        (blocks_of(120.0, 120.0, 71.1), None),
        (blocks_of(120.0, 120.0, 71.0), "worse image"),
        # Of another kind, which may be farther as a whole.
        (blocks_of(60.0, 60.0) | blocks_of(46.0, 45.0, kind="Other 8x4"), None),
        (blocks_of(60.0, 60.0, 60.0) | blocks_of(30.0, kind="Single"), None),
        ({}, None),
    ],
)
def test_block_is_judged_beside_its_kind(
    blocks: dict[str, BlockDistance], status: Status | None
) -> None:
    assert of("image distance", with_blocks(blocks)) == status


def test_blocks_of_a_users_weights_are_not_judged() -> None:
    """They may differ in how much they add, and so in what they round."""
    asked = with_blocks(blocks_of(60.0, 60.0, 30.0), alike=False)
    assert of("image distance", asked) is None


def test_outlier_is_the_block_that_is_the_farthest_from_its_kind() -> None:
    blocks = blocks_of(60.0, 60.0, 60.0, 41.0) | blocks_of(40.0, 40.0, 24.0, kind="Other")
    (found,) = (f for f in judge(with_blocks(blocks)).findings if f.metric == "image distance")
    assert "block Block 8x4 3 differs" in found.what


def test_step_beyond_the_limit_names_the_outlier() -> None:
    asked = with_blocks(blocks_of(60.0, 60.0, 15.0), prediction_db=29.9, alike=False)
    (found,) = (f for f in judge(asked).findings if f.metric == "image distance")
    assert "the denoiser's prediction differs" in found.what
    assert found.measured.endswith("29.9 dB, 15.0 dB in block Block 8x4 2 alone")


def test_step_without_a_limit_is_inconclusive() -> None:
    asked = dataclasses.replace(stepped(10, 10), tolerance=Tolerance(psnr_db=40))
    assert of("image distance", asked) == "inconclusive"


def look(*, mean: float = 0.5, std: float = 0.2) -> dict[str, Look]:
    return {"look": Look(finite=True, mean=mean, std=std)}


def distance(psnr_db: float, ssim: float = 1.0) -> dict[str, Distance]:
    return {"image_distance": Distance(psnr_db=psnr_db, ssim=ssim)}


def counter(name: str, *, fixed: int = 0, per_step: int = 0) -> dict[str, Any]:
    return {"counters": {**FP16.counters, name: Count(fixed=fixed, per_step=per_step)}}


@pytest.mark.parametrize(
    ("metric", "changes", "status"),
    [
        ("image", look(mean=0.019), "black"),
        ("image", look(mean=0.02), "same"),
        ("image", look(mean=0.021), "same"),
        ("image", look(std=0.019), "uniform"),
        ("image", look(std=0.02), "same"),
        ("image", look(std=0.021), "same"),
        ("repeat", {"repeat_psnr_db": 59.9}, "worse image"),
        ("repeat", {"repeat_psnr_db": 60.0}, None),
        # The first and the last round have a seed that was used before.
        ("repeat", {"rounds_s": (1.0, 1.0, 1.0, 1.0, 0.2)}, None),
        ("repeat", {"rounds_s": (1.0, 1.0, 1.0, 1.0, 0.19)}, "error"),
        ("repeat", {"rounds_s": (0.19, 1.0, 1.0, 1.0, 1.0)}, "error"),
        ("repeat", {"rounds_s": (1.0, 0.1, 1.0, 1.0, 1.0)}, None),
        ("repeat", {"rounds_s": (1.0, 0.02)}, None),
        ("repeat", {"rounds_s": (1.0, 0.019)}, "error"),
        ("repeat", {"rounds_s": (0.1, 1.0)}, None),
        ("repeat", {"rounds_s": (0.1,)}, None),
        ("repeat", {"ignored": ("seed",)}, "error"),
        ("repeat", {"ignored": ("prompt",)}, "worse image"),
        ("repeat", {"ignored": ("generator",), "repeat_psnr_db": 20.0}, "error"),
        ("image distance", {"alone_psnr_db": 55.0}, None),
        ("image distance", {"alone_psnr_db": 54.9}, "worse image"),
        ("image distance", {"default_psnr_db": 50.0}, None),
        ("image distance", {"default_psnr_db": 49.9}, "worse image"),
        # A tolerance of 40 dB and 0.97.
        ("image distance", distance(39.9), "worse image"),
        ("image distance", distance(40.0), None),
        ("image distance", distance(60, 0.969), "worse image"),
        ("image distance", distance(60, 0.97), None),
        # Accepted at 0.8 s: 2 % more is allowed.
        ("GPU busy", {"gpu_busy_s": 0.816}, "same"),
        ("GPU busy", {"gpu_busy_s": 0.8161}, "slower"),
        # 3 % less asks for a new baseline.
        ("GPU busy", {"gpu_busy_s": 0.777}, "same"),
        ("GPU busy", {"gpu_busy_s": 0.776}, "faster"),
        # Accepted at 2.5 times: 3 % less is allowed.
        ("GPU busy speedup", {"gpu_busy_s": 2.0 / 2.425}, "same"),
        ("GPU busy speedup", {"gpu_busy_s": 2.0 / 2.424}, "slower"),
        # Accepted at 2 times: 10 % less is allowed.
        ("latency speedup", {"rounds_s": (1.11,) * 5}, "same"),
        ("latency speedup", {"rounds_s": (1.14,) * 5}, "slower"),
        ("peak memory", {"peak_memory_bytes": 2_040}, None),
        ("peak memory", {"peak_memory_bytes": 2_041}, "more memory"),
        ("kept bytes", counter("kept_bytes", fixed=4_096), None),
        ("kept bytes", counter("kept_bytes", fixed=4_097), "more memory"),
        ("host growth", counter("host_growth_bytes", fixed=8_192), None),
        ("host growth", counter("host_growth_bytes", fixed=8_193), "more memory"),
        ("GPU growth", counter("gpu_growth_bytes", fixed=4_096), None),
        ("GPU growth", counter("gpu_growth_bytes", fixed=4_097), "more memory"),
        ("host_syncs", counter("host_syncs", fixed=3, per_step=6), None),
        ("host_syncs", counter("host_syncs", fixed=4, per_step=6), "more work"),
        ("host_syncs", counter("host_syncs", fixed=2, per_step=6), "less work"),
        # Accepted: 50,300 kernels, of which 1 % more or less is allowed.
        ("kernels", counter("kernels", fixed=50_803), None),
        ("kernels", counter("kernels", fixed=50_804), "more work"),
        ("kernels", counter("kernels", fixed=49_802), None),
        ("kernels", counter("kernels", fixed=49_801), "less work"),
        ("warm-up", {"rounds_s": (1.5, 1.0, 1.0)}, None),
        ("warm-up", {"rounds_s": (1.51, 1.0, 1.0)}, "invalid"),
        ("warm-up", {"rounds_s": (1.51, 1.0, 1.0, 1.0)}, "invalid"),
        # Of two rounds, neither shows what is usual.
        ("warm-up", {"rounds_s": (9.0, 1.0)}, None),
        ("warm-up", {"rounds_s": (9.0,)}, None),
        ("roofline", {"roofline_s": 0.9, "rounds_s": (1.0, 0.9, 1.0)}, None),
        ("roofline", {"roofline_s": 0.9, "rounds_s": (1.0, 0.899, 1.0)}, "error"),
        # Without an accepted value, against torch's own.
        ("torch flags", {"flags": {"deterministic algorithms": "off", "matmul TF32": "on"}}, None),
        ("torch flags", {"flags": {"deterministic algorithms": "on"}}, "more work"),
        ("torch flags", {"flags": {"default dtype": "float16"}}, "new"),
        # GPU busy for 0.8 s: a latency below nine tenths of it is impossible.
        ("timer", {"rounds_s": (0.9 * 0.8,) * 5}, None),
        ("timer", {"rounds_s": (0.719,) * 5}, "invalid"),
    ],
)
def test_case_at_a_limit(metric: str, changes: dict[str, Any], status: str | None) -> None:
    assert of(metric, fp16(**changes)) == status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        (distance(34.9), "worse image"),
        (distance(35.0), None),
        (distance(60, 0.949), "worse image"),
        (distance(60, 0.95), None),
    ],
)
def test_reference_image_without_a_tolerance_of_its_weights(
    changes: dict[str, Any], status: str | None
) -> None:
    asked = question(structs.replace(REFERENCE, **changes), tolerance=None)
    assert of("image distance", asked) == status
    own = question(structs.replace(REFERENCE, **changes), tolerance=Tolerance(psnr_db=10, ssim=0.1))
    assert of("image distance", own) is None


@pytest.mark.parametrize(
    ("tolerance", "limit_db"), [(Tolerance(psnr_db=45.0, ssim=0.95), 103.0), (None, 90.0)]
)
def test_reference_image_of_sixteen_bits(tolerance: Tolerance | None, limit_db: float) -> None:
    for psnr_db, status in ((limit_db - 0.1, "worse image"), (limit_db, None)):
        measured = structs.replace(REFERENCE, accepted_bits=16, **distance(psnr_db))
        assert of("image distance", question(measured, tolerance=tolerance)) == status


def test_image_alone_in_half_precision() -> None:
    for psnr_db, status in ((39.9, "worse image"), (40.0, None)):
        asked = question(structs.replace(FP16, alone_psnr_db=psnr_db), workload={"base": ["fp16"]})
        assert of("image distance", asked) == status


def test_accepted_distance_is_a_limit_where_it_is_known() -> None:
    asked = fp16(**distance(0.5))
    assert asked.baseline
    for limits, status in (
        ({}, "same"),
        ({IMAGE_PSNR.limit_name: 0.5}, "same"),
        ({IMAGE_PSNR.limit_name: 0.51}, "worse image"),
    ):
        baseline = structs.replace(asked.baseline, limits=limits)
        found = judge(dataclasses.replace(asked, tolerance=None, baseline=baseline)).findings
        assert {f.status for f in found if f.metric in ("image", IMAGE_PSNR.name)} == {status}


def test_round_that_was_not_computed_is_limited_by_the_others() -> None:
    (found,) = (f for f in judge(fp16(rounds_s=(2.0, 2.0, 0.1))).findings if f.metric == "repeat")
    assert found.measured == "0.1000 s, with a new seed 2.0000 s"
    assert found.limit == "at least 20 % of a round with a new seed, 0.4000 s"


def test_improvement_that_asks_for_a_new_baseline_is_beyond_its_share() -> None:
    asked = fp16(gpu_busy_s=0.8)
    assert asked.baseline
    for share, status in ((1.0, "same"), (1.0001, "faster")):
        least = share * (0.8 * GPU_BUSY.improves)
        measured = {**asked.baseline.measured, GPU_BUSY.field: (least,)}
        baseline = structs.replace(asked.baseline, measured=measured)
        assert of("GPU busy", dataclasses.replace(asked, baseline=baseline)) == status


@pytest.mark.parametrize(
    ("rounds_s", "status"),
    [
        # Accepted at 2 s: 10 % more is allowed.
        ((2.2, 2.2, 2.2), "same"),
        ((2.21, 2.21, 2.21), "slower"),
        # The whole interval must lie beyond the limit.
        ((2.3, 2.301, 2.299), "slower"),
        ((2.3, 2.5, 2.1), "inconclusive"),
        ((9.0,), "inconclusive"),
    ],
)
def test_latency_of_a_reference(rounds_s: tuple[float, ...], status: str) -> None:
    assert of("latency", question(structs.replace(REFERENCE, rounds_s=rounds_s))) == status


@pytest.mark.parametrize(
    ("bounds", "metric", "status"),
    [
        # GPU busy 2.5 times, latency 2 times faster than the reference, half of its memory.
        ({"gpu_speedup": Bound(at_least=2.5)}, "GPU busy speedup", "same"),
        ({"gpu_speedup": Bound(at_least=2.51)}, "GPU busy speedup", "slower"),
        ({"gpu_speedup": Bound(at_most=2.5)}, "GPU busy speedup", None),
        ({"gpu_speedup": Bound(at_most=2.49)}, "GPU busy speedup", "faster"),
        ({"latency_speedup": Bound(at_least=1.99)}, "latency speedup", "same"),
        ({"latency_speedup": Bound(at_least=2.1)}, "latency speedup", "slower"),
        ({"memory_ratio": Bound(at_most=0.5)}, "memory ratio", None),
        ({"memory_ratio": Bound(at_most=0.49)}, "memory ratio", "more memory"),
    ],
)
def test_portable_bound(bounds: dict[str, Bound], metric: str, status: str | None) -> None:
    assert of(metric, question(baseline=None, portable=bounds)) == status


def test_portable_memory_is_in_gib() -> None:
    bounds = {"memory_gib": Bound(at_most=4.0)}
    for extra, status in ((0, None), (1, "more memory")):
        measured = structs.replace(FP16, peak_memory_bytes=4 * 2**30 + extra)
        asked = question(measured, baseline=None, portable=bounds)
        assert of("peak memory", asked) == status


SLOW = (1.2, 1.2, 1.2)
"""A speedup of 1.67 times, of which 1.8 are required: 0.926 of the limit."""


@pytest.mark.parametrize(
    ("drift", "status"), [(1.0, "slower"), (1.079, "slower"), (1.081, "invalid")]
)
def test_drift_excuses_what_it_explains(drift: float, status: str) -> None:
    measured = structs.replace(FP16, rounds_s=SLOW)
    reference = structs.replace(REFERENCE, rounds_s=(2.0, 2.0, 2.0))
    asked = question(measured, reference=reference, drift=drift)
    assert of("latency speedup", asked) == status


def on_cpu(measured: Measurement, loops: tuple[float, ...], **changes: Any) -> Measurement:
    blind = {"gpu_busy_s": None, "peak_memory_bytes": None}
    interference = Interference(cpu_loops_s=loops)
    return structs.replace(measured, interference=interference, **blind, **changes)


@pytest.mark.parametrize(
    ("core", "status"),
    [
        # Explains it, and differs no more than cores of a quiet machine.
        (1.15, "slower"),
        (1.16, "invalid"),
    ],
)
def test_slow_core_excuses_beyond_its_usual_spread(core: float, status: str) -> None:
    asked = question(
        on_cpu(FP16, (0.01 * core,) * 2, rounds_s=SLOW),
        reference=on_cpu(REFERENCE, (0.01, 0.01), rounds_s=(2.0, 2.0, 2.0)),
    )
    assert of("latency speedup", asked) == status


@pytest.mark.parametrize(("core", "status"), [(1.2, "slower"), (1.22, "invalid")])
def test_slow_core_excuses_a_latency_by_no_more_than_it_differs(core: float, status: str) -> None:
    # 2.67 s, of which 2.2 are allowed: 1.21 times. One loop at its best is beside these rounds.
    slow = on_cpu(REFERENCE, (0.01, 0.01 * core, 0.01 * core), rounds_s=(2.67,) * 3)
    assert of("latency", question(slow)) == status


def test_slow_core_excuses_nothing_where_gpu_busy_is_unknown() -> None:
    def unknown(measured: Measurement, loops: tuple[float, ...], **changes: Any) -> Measurement:
        return structs.replace(on_cpu(measured, loops, **changes), peak_memory_bytes=2_000)

    asked = question(
        unknown(FP16, (0.010, 0.012, 0.012), rounds_s=SLOW),
        reference=unknown(REFERENCE, (0.03,) * 3, rounds_s=(2.0, 2.0, 2.0)),
    )
    assert of("latency speedup", asked) == "slower"


@pytest.mark.parametrize(("share", "excused"), [(0.5, True), (0.499, False)])
def test_what_slows_by_as_much_as_is_lacking_excuses_it(share: float, excused: bool) -> None:
    """A reference that is half as fast in the end, and cores that are half as fast."""
    assert bool(excuses(question(drift=2.0), LATENCY, share)) is excused
    assert bool(excuses(question(on_cpu(FP16, (0.01, 0.02, 0.02))), LATENCY, share)) is excused


@pytest.mark.parametrize(
    ("accepted_s", "python", "excused"),
    [(0.01, "3.12.9", True), (0.0101, "3.12.9", False), (0.01, "3.11.2", False), (None, "", False)],
)
def test_core_that_is_slower_than_accepted_excuses_starts_and_stages(
    accepted_s: float | None, python: str, excused: bool
) -> None:
    """All of it, whatever the GPU does meanwhile. Another Python takes another time for a loop."""
    slow = structs.replace(FP16, interference=Interference(cpu_loops_s=(0.03, 0.02)))
    line = structs.replace(
        baseline_of(FP16, REFERENCE), cpu_loop_s=accepted_s, versions={"python": "3.12.3"}
    )
    asked = question(slow, baseline=line, versions={"python": python})
    for metric in (TEXT_STAGE, LOAD):
        assert bool(excuses(asked, metric, 0.5)) is excused
        assert not excuses(asked, metric, 0.49)
    # What sleeps, or waits for a GPU, takes no longer on a slow core.
    for metric in (IMPORT_IDLE, DECODER_STAGE):
        assert not excuses(asked, metric, 0.6)


HALF = Interference(cpu_loops_s=(0.02, 0.02))
"""A core that was at half of its accepted speed in all rounds."""


STAGES = {"text_stage_s": 0.1, "denoising_stage_s": 0.02, "decoder_stage_s": 0.1}
"""Of a short generation of two steps: in 50 the host can have taken 0.7 s."""
NO_GPU = {"gpu_busy_s": None, "peak_memory_bytes": None}


@pytest.mark.parametrize(
    ("metric", "changes", "share", "excused"),
    [
        (LATENCY, {"rounds_s": (1.39,)}, 0.51, True),
        (LATENCY, {"rounds_s": (1.41,)}, 0.51, False),
        (LATENCY, {"rounds_s": (1.39,)}, 0.49, False),
        # Whatever the GPU did meanwhile, and where that is not known.
        (LATENCY, {"rounds_s": (1.39,), "gpu_busy_s": 1.38}, 0.51, True),
        (LATENCY, {"rounds_s": (1.39,), "gpu_busy_s": None}, 0.51, True),
        (LATENCY, {"rounds_s": (1.41,), "gpu_busy_s": 0.1}, 0.51, False),
        (LATENCY, {"rounds_s": (1.41,), "gpu_busy_s": None}, 0.51, False),
        (LATENCY, {"rounds_s": (1.41,), "peak_memory_bytes": None}, 0.51, False),
        # Without a GPU all of it is the host's.
        (LATENCY, {"rounds_s": (1.41,), **NO_GPU}, 0.51, True),
        (LATENCY, {"rounds_s": (1.41,), **NO_GPU}, 0.49, False),
        (DEFAULT_CALL, {"metrics": {"default_call_s": 0.59}}, 0.51, True),
        (DEFAULT_CALL, {"metrics": {"default_call_s": 0.61}}, 0.51, False),
        (DEFAULT_CALL, {"metrics": {"default_call_s": 0.61}, **NO_GPU}, 0.51, True),
        (TEXT_STAGE, {}, 0.51, True),
        # How long the host takes of them, and waits for the GPU, is not known.
        (DENOISING_STAGE, {}, 0.99, False),
        (DECODER_STAGE, {}, 0.99, False),
        # Its reference ran on the same core, the GPU's work on none, and what slept on none.
        (LATENCY_SPEEDUP, {}, 0.99, False),
        (GPU_BUSY, {}, 0.99, False),
        (IMPORT_IDLE, {}, 0.99, False),
    ],
)
def test_core_that_is_slower_than_accepted_excuses_what_it_can_have_caused(
    metric: Metric, changes: dict[str, Any], share: float, excused: bool
) -> None:
    accepted = structs.replace(FP16, metrics={**STAGES, "default_call_s": 0.3}, fewest_steps=2)
    slow = structs.replace(accepted, interference=HALF, **changes)
    reference = structs.replace(REFERENCE, interference=HALF)
    line = structs.replace(baseline_of(accepted, REFERENCE), cpu_loop_s=0.01)
    asked = question(slow, reference=reference, baseline=line)
    assert bool(excuses(asked, metric, share)) is excused


# In 50 steps the host can have taken 0.7 s of it, twice as much on a core of half the speed.
@pytest.mark.parametrize(
    ("seen_s", "accepted_s", "busy_s", "loops_s", "excused"),
    [
        (1.39, 1.3, 0.1, (0.02, 0.01, 0.02), True),
        (1.41, 1.0, 0.9, (0.02, 0.01, 0.02), False),
        # The host set the pace.
        (1.41, 1.0, 0.75, (0.02, 0.01, 0.02), True),
        (1.41, 1.0, 0.76, (0.02, 0.01, 0.02), False),
        # Neither core was as fast as the accepted ones.
        (2.79, 2.0, 1.9, (0.04, 0.02, 0.04), True),
        (2.81, 2.0, 1.9, (0.04, 0.02, 0.04), False),
        # Without a GPU all of it is the host's.
        (1.41, 1.0, None, (0.02, 0.01, 0.02), True),
        # It did not vary.
        (1.39, 1.3, 1.2, (0.01, 0.01, 0.01), False),
    ],
)
def test_uneven_core_excuses_what_the_host_can_have_decided(
    seen_s: float,
    accepted_s: float,
    busy_s: float | None,
    loops_s: tuple[float, ...],
    excused: bool,
) -> None:
    accepted = structs.replace(
        REFERENCE, metrics=STAGES, fewest_steps=2, rounds_s=(accepted_s,), gpu_busy_s=busy_s
    )
    gpu: dict[str, Any] = NO_GPU if busy_s is None else {"gpu_busy_s": 0.0}
    # With the GPU idle all the time, so that the core's share of it is all of it.
    seen = structs.replace(
        accepted, rounds_s=(seen_s,), interference=Interference(cpu_loops_s=loops_s), **gpu
    )
    line = structs.replace(baseline_of(accepted, accepted), cpu_loop_s=0.01)
    asked = question(seen, reference=seen, baseline=line)
    # By the core within the run alone: another rule looks at all rounds.
    reasons = [reason for reason in excuses(asked, LATENCY, 0.9) if "accepted" not in reason]
    assert bool(reasons) is excused


def test_steps_that_are_not_taken_count_for_no_host() -> None:
    """From an init image, 30 of 50 steps are taken, and one of two in a short generation."""
    stages = {**STAGES, "denoising_stage_s": 0.04}
    accepted = structs.replace(
        REFERENCE, metrics=stages, fewest_steps=2, steps=30, rounds_s=(1.5,), gpu_busy_s=1.4
    )
    seen = structs.replace(accepted, rounds_s=(2.7,), gpu_busy_s=0.0, interference=HALF)
    line = structs.replace(baseline_of(accepted, accepted), cpu_loop_s=0.01)
    asked = question(seen, reference=seen, baseline=line)
    assert asked.workload["steps"] == 50
    assert excuses(asked, LATENCY, 0.55)
    assert not excuses(replace(asked, workload={"steps": 30}), LATENCY, 0.55)


# dev4 of FLUX.1-dev on a second H200: the same kernels, GPU busy 0.797 s where 0.778 s was accepted
# and 0.794 s allowed, in calls of 0.823 s where 0.826 s was accepted.
@pytest.mark.parametrize(
    ("changes", "excused"),
    [
        ({}, True),
        ({"seen_s": 0.826, "busy_s": 0.809}, True),
        ({"busy_s": 0.81}, False),
        # With more work, the call takes longer, and on another card with the same work.
        ({"seen_s": 0.827}, False),
        ({"seen_s": 0.9, "cards": ("beef",)}, True),
        ({"seen_s": 0.9, "cards": ("beef", "cafe")}, True),
        ({"seen_s": 0.9, "cards": ()}, True),
        ({"seen_s": 0.9, "card": ""}, True),
        ({"seen_s": 0.9, "cards": ("beef",), "busy_s": 0.81}, False),
        ({"seen_s": 0.9, "cards": ("beef",), "capped": (1950, 1740), "free": (1980, 1980)}, False),
        ({"seen_s": 0.9, "cards": ("beef",), "accepted_busy_s": 0.743, "busy_s": 0.77}, False),
        ({"capped": (1950, 1740), "free": (1980, 1980)}, False),
        ({"capped": (), "free": ()}, False),
        ({"metric": GPU_SPEEDUP}, False),
        ({"metric": LATENCY}, False),
        # Where the GPU waits for its host, it has room for more work in calls as long.
        ({"accepted_busy_s": 0.744, "busy_s": 0.77}, True),
        ({"accepted_busy_s": 0.743, "busy_s": 0.77}, False),
        ({"accepted_busy_s": 0.443, "busy_s": 0.45, "copies_s": 0.301}, True),
        ({"lacking": "latency_s"}, False),
        ({"lacking": "gpu_busy_s"}, False),
    ],
)
def test_card_at_its_power_limit_excuses_kernels_that_took_no_call_longer(
    changes: dict[str, Any], excused: bool
) -> None:
    given: dict[str, Any] = {
        "metric": GPU_BUSY,
        "seen_s": 0.823,
        "busy_s": 0.797,
        "copies_s": 0.0,
        "lacking": "",
        "card": "cafe",
        "cards": ("cafe",),
    }
    given |= {"capped": (1950, 1740, 1875), "free": (1980,), "accepted_busy_s": 0.778} | changes
    watched = Interference(power_capped_sm_clocks_mhz=given["capped"], sm_clocks_mhz=given["free"])
    seen = structs.replace(
        FP16,
        rounds_s=(0.8, given["seen_s"], 0.9),
        gpu_busy_s=given["busy_s"],
        host_copies_s=given["copies_s"],
        interference=watched,
    )
    line = baseline_of(FP16, REFERENCE)
    accepted: dict[str, tuple[float, ...]] = {
        "latency_s": (0.817, 0.826, 0.827),
        "gpu_busy_s": (given["accepted_busy_s"],) * 3,
    }
    accepted.pop(given["lacking"], None)
    line = structs.replace(line, measured=accepted, cards=given["cards"])
    asked = question(seen, baseline=line, card=given["card"])
    assert bool(excuses(asked, given["metric"], 0.996)) is excused


@pytest.mark.parametrize(
    ("latency_s", "throttled", "next_is"),
    # A lower clock of the accepted card, or what else disturbed it, is another at another time.
    [(0.9, (), "accept"), (0.8, (), "pytest"), (0.9, ("throttled",), "pytest")],
)
def test_another_card_is_to_be_accepted_since_it_stays_another(
    latency_s: float, throttled: tuple[str, ...], next_is: str
) -> None:
    accepted = structs.replace(FP16, rounds_s=(0.82,) * 5, gpu_busy_s=0.8)
    line = structs.replace(baseline_of(accepted, REFERENCE), cards=("beef",))
    watched = Interference(power_capped_sm_clocks_mhz=(1740,) * 5, gpu=throttled)
    seen = structs.replace(
        accepted, rounds_s=(latency_s,) * 5, gpu_busy_s=0.825, interference=watched
    )
    verdict = judge(question(seen, baseline=line, card="cafe"))
    (found,) = (f for f in verdict.findings if f.metric == GPU_BUSY.name)
    assert found.status == Status.INVALID
    assert found.command is not None
    is_accept = "diffusers-perf accept" in found.command.of(found.case)
    assert ("accept" if is_accept else "pytest") == next_is
    assert ("to judge this card" in (found.advice or "")) is is_accept


@pytest.mark.parametrize("lacking", [*STAGES, "fewest_steps", "baseline"])
def test_slow_core_excuses_no_latency_whose_accepted_stages_are_unknown(lacking: str) -> None:
    metrics = {name: 10.0 for name in STAGES if name != lacking}
    fewest = None if lacking == "fewest_steps" else 1
    accepted = structs.replace(REFERENCE, metrics=metrics, fewest_steps=fewest)
    slow = structs.replace(accepted, interference=HALF)
    line = structs.replace(baseline_of(accepted, accepted), cpu_loop_s=0.01)
    asked = question(slow, baseline=None if lacking == "baseline" else line)
    assert not excuses(asked, LATENCY, 0.9)


@pytest.mark.parametrize(
    ("parts", "rounds_s", "excused"),
    [
        # All of it on a slow core, whatever the rounds ran on.
        (((1.0, 0.02), (9.0, 0.02)), 0.01, True),
        (((1.0, 0.0199), (9.0, 0.0199)), 0.01, False),
        (((1.0, 0.01), (9.0, 0.01)), 0.02, False),
        # What a part of it took counts, and not how many parts there are.
        (((1.0, 0.019), (9.0, 0.021)), 0.01, True),
        (((9.0, 0.019), (1.0, 0.021)), 0.01, False),
        # A loop that was slow once, beside a part that would have taken half of a second less.
        (((1.0, 0.02), (9.0, 0.01)), 0.01, False),
        # On a core of a third of its speed for half of the time that a quick one would have taken.
        (((3.0, 0.03), (1.0, 0.01)), 0.01, True),
        (((2.9, 0.03), (1.1, 0.01)), 0.01, False),
        # An older run knows of its rounds alone.
        ((), 0.02, True),
        ((), 0.01, False),
    ],
)
def test_import_is_excused_by_the_core_during_its_parts(
    parts: tuple[tuple[float, float], ...], rounds_s: float, excused: bool
) -> None:
    line = structs.replace(baseline_of(REFERENCE, REFERENCE), cpu_loop_s=0.01)
    for metric, other in ((IMPORT, COLD_IMPORT), (COLD_IMPORT, IMPORT)):
        # Another import of the run is another process's, or another time.
        quick = {other.field: ((10.0, 0.01),)}
        own = {metric.field: parts} if parts else {}
        loops = Interference(cpu_loops_s=(rounds_s,) * 2, import_parts={**quick, **own})
        asked = question(structs.replace(REFERENCE, interference=loops), baseline=line)
        assert bool(excuses(asked, metric, 0.5 + 1e-9)) is excused
        assert not excuses(asked, metric, 0.48)
        # A load comes later, and what sleeps takes no longer.
        assert bool(excuses(asked, LOAD, 0.5)) is (rounds_s == 0.02)
        assert not excuses(asked, IMPORT_IDLE, 0.5)


def test_slow_core_is_said_of_the_import_or_of_the_rounds() -> None:
    line = structs.replace(baseline_of(REFERENCE, REFERENCE), cpu_loop_s=0.01)
    parts = {IMPORT.field: ((5.0, 0.016),)}
    loops = Interference(cpu_loops_s=(0.02, 0.02), import_parts=parts)
    asked = question(structs.replace(REFERENCE, interference=loops), baseline=line)
    slow = "slow CPU core: {} the accepted time for the calibration loop {}"
    assert excuses(asked, IMPORT, 0.9) == [slow.format("1.60x", "during the import")]
    assert excuses(asked, LOAD, 0.9) == [slow.format("2.00x", "beside the rounds")]


@pytest.mark.parametrize(("metric", "excused"), [(DEFAULT_CALL, True), (LATENCY, False)])
def test_slow_core_excuses_the_whole_of_a_short_call(metric: Metric, excused: bool) -> None:
    """Of a latency the part in which the GPU is idle: a fifth here."""
    slow = structs.replace(FP16, interference=Interference(cpu_loops_s=(0.01, 0.02, 0.02)))
    assert bool(excuses(question(slow), metric, 0.5)) is excused


@pytest.mark.parametrize(
    ("longest_s", "share", "excused"),
    [(1.6, 0.625, True), (1.6, 0.624, False), (1.51, 0.7, True), (1.5, 0.7, False)],
)
def test_uneven_rounds_excuse_a_default_call_by_as_much(
    longest_s: float, share: float, excused: bool
) -> None:
    """Whichever of them was the long one. Rounds have an interval, and of a stage the least counts,
    which one disturbance does not lengthen.
    """
    for rounds_s in ((longest_s, 1.0, 1.0), (1.0, 1.0, longest_s)):
        asked = question(structs.replace(FP16, rounds_s=rounds_s))
        assert bool(excuses(asked, DEFAULT_CALL, share)) is excused
        for metric in (LATENCY, TEXT_STAGE, DECODER_STAGE):
            assert not excuses(asked, metric, share)


def test_of_two_rounds_neither_excuses() -> None:
    asked = question(structs.replace(FP16, rounds_s=(1.0, 4.0)))
    assert not excuses(asked, DEFAULT_CALL, 0.9)


@pytest.mark.parametrize("metric", [LATENCY, LATENCY_SPEEDUP, DEFAULT_CALL])
@pytest.mark.parametrize(
    ("waited", "share", "excused"),
    [(0.1, 0.45, True), (0.1, 0.449, False), (0.5, 0.25, True), (None, 0.01, True)],
)
def test_busy_host_excuses_no_more_than_others_can_cause(
    metric: Metric, waited: float | None, share: float, excused: bool
) -> None:
    busy = Interference(host=("the host waited",), cpu_wait_share=waited)
    found = excuses(question(structs.replace(FP16, interference=busy)), metric, share)
    assert found == (["the host waited"] if excused else [])


@pytest.mark.parametrize(
    ("waited", "share", "excused"),
    [(0.25, 0.75, True), (0.25, 0.74, False), (None, 1.0, True), (None, 0.99, False)],
)
def test_busy_host_excuses_the_least_by_what_it_waited(
    waited: float | None, share: float, excused: bool
) -> None:
    busy = Interference(host=("the host waited",), cpu_wait_share=waited)
    metric = next(metric for metric in BY_LEAST if metric.wall_clock)
    found = excuses(question(structs.replace(FP16, interference=busy)), metric, share)
    assert found == (["the host waited"] if excused else [])


def test_interval_that_ends_at_the_limit_is_inconclusive() -> None:
    asked = question(structs.replace(REFERENCE, rounds_s=(2.3, 2.5, 2.1)))
    seen = interval_of(LATENCY, asked)
    assert seen
    assert asked.baseline
    for limit, status in ((seen.low, "inconclusive"), (0.999 * seen.low, "slower")):
        baseline = structs.replace(asked.baseline, limits={LATENCY.limit_name: limit})
        assert of("latency", dataclasses.replace(asked, baseline=baseline)) == status


@pytest.mark.parametrize(
    ("again_s", "significant"),
    [
        ((1.2, 1.201, 1.199), True),
        ((0.8, 0.801, 0.799), True),
        # Certain and small, either way; large and within the noise.
        ((1.04, 1.041, 1.039), False),
        ((0.96, 0.961, 0.959), False),
        ((1.2, 1.25, 1.13), False),
    ],
)
def test_drift_is_certain_and_larger_than_its_share(
    again_s: tuple[float, ...], significant: bool
) -> None:
    drift = drift_of(again_s, (1.0, 1.001, 0.999))
    assert drift.significant is significant
    assert drift.ratio == pytest.approx(again_s[0], rel=0.05)


@pytest.mark.parametrize(
    ("ratio", "significant", "ends"),
    [
        (1.26, True, "unreliable"),
        (1.26, False, "variation of its rounds"),
        (0.94, False, "variation of its rounds"),
        (1.04, False, "its first timing"),
        (0.96, False, "its first timing"),
    ],
)
def test_drift_in_words(ratio: float, significant: bool, ends: str) -> None:
    assert drift_text(Drift(ratio=ratio, significant=significant)).endswith(ends)


def test_claims_are_those_of_cases_with_a_reference() -> None:
    small = structs.replace(FP16, parameters=600, rounds_s=(1.5,))
    published = {"fp16": Claim(smaller=0.5, faster=0.3)}
    (line,) = claims([(REFERENCE, REFERENCE), (small, None), (small, REFERENCE)], published)
    assert line.startswith("fp16: 40% fewer parameters in the whole pipeline, 25% lower latency")
    assert " and 60% less GPU time." in line
    (blind,) = claims([(structs.replace(small, gpu_busy_s=None), REFERENCE)], published)
    assert "GPU time" not in blind


def test_interference_counts_for_the_reference_of_a_ratio_alone() -> None:
    busy = Interference(gpu=("1 other process on the GPU",))
    reference = structs.replace(REFERENCE, interference=busy)
    slow = structs.replace(FP16, gpu_busy_s=0.9, rounds_s=SLOW)
    asked = question(slow, reference=reference)
    assert of("GPU busy speedup", asked) == "invalid"
    assert of("latency speedup", asked) == "invalid"
    assert of("GPU busy", asked) == "slower"
    # Memory is what it is on any machine.
    heavy = structs.replace(FP16, peak_memory_bytes=3_000, interference=busy)
    assert of("peak memory", question(heavy)) == "more memory"


def test_host_interference_does_not_excuse_the_gpu() -> None:
    busy = Interference(host=("the host waited for a CPU",))
    slow = structs.replace(FP16, gpu_busy_s=0.9, rounds_s=SLOW, interference=busy)
    assert of("latency speedup", question(slow)) == "invalid"
    assert of("GPU busy", question(slow)) == "slower"
    assert of("GPU busy speedup", question(slow)) == "slower"


def test_counter_that_rose_per_step_and_fell_in_all() -> None:
    was = structs.replace(FP16, counters={"host_syncs": Count(fixed=100, per_step=6)})
    now = structs.replace(FP16, counters={"host_syncs": Count(fixed=0, per_step=7)})
    asked = question(now, baseline=baseline_of(was, REFERENCE))
    assert of("host_syncs", asked) == "more work"
    # Launches are judged in all.
    was = structs.replace(FP16, counters={"kernels": Count(fixed=100, per_step=6)})
    now = structs.replace(FP16, counters={"kernels": Count(fixed=0, per_step=7)})
    asked = question(now, baseline=baseline_of(was, REFERENCE))
    assert of("kernels", asked) == "less work"


def test_counter_that_is_lost_hides_none_after_it() -> None:
    counts = {"casts": Count(fixed=1, per_step=0), "host_syncs": Count(fixed=1, per_step=0)}
    was = structs.replace(FP16, counters=counts)
    now = structs.replace(FP16, counters={"host_syncs": Count(fixed=2, per_step=0)})
    asked = question(now, baseline=baseline_of(was, REFERENCE))
    assert of("host_syncs", asked) == "more work"
    assert of("counters", asked) == "inconclusive"


def test_bound_that_cannot_be_judged_hides_none_after_it() -> None:
    bounds = {"gpu_speedup": Bound(at_least=1.2), "latency_speedup": Bound(at_least=2.5)}
    blind = structs.replace(FP16, gpu_busy_s=None)
    asked = question(blind, baseline=None, portable=bounds)
    assert of("GPU busy speedup", asked) == "inconclusive"
    assert of("latency speedup", asked) == "slower"


def test_limit_that_cannot_be_judged_hides_none_after_it() -> None:
    blind = structs.replace(FP16, gpu_busy_s=None, peak_memory_bytes=3_000)
    assert of("GPU busy", question(blind)) == "inconclusive"
    # Said once, and not of the ratio as well.
    assert of("GPU busy speedup", question(blind)) is None
    assert of("peak memory", question(blind)) == "more memory"


def test_sentence_is_that_of_the_worst_finding_wherever_it_stands() -> None:
    slower, black = (
        Finding(status=status, metric="", what=status) for status in (Status.SLOWER, Status.BLACK)
    )
    silent = dataclasses.replace(black, what="")
    for findings in ((slower, black), (black, slower), (silent, slower, black)):
        assert Verdict(findings=findings).sentence == "black: black"


@pytest.mark.parametrize(
    ("lost", "words"),
    [(("casts",), "but has a limit"), (("casts", "host_syncs"), "but have limits")],
)
def test_counters_that_were_not_counted_are_named(lost: tuple[str, ...], words: str) -> None:
    counters = {name: Count(fixed=1, per_step=0) for name in ("casts", "host_syncs")}
    was = structs.replace(FP16, counters=counters)
    now = structs.replace(FP16, counters={n: c for n, c in counters.items() if n not in lost})
    asked = question(now, baseline=baseline_of(was, REFERENCE))
    (found,) = (f for f in judge(asked).findings if f.metric == "counters")
    assert found.what.endswith(words)


def test_sentence_is_that_of_the_worst_finding() -> None:
    counted = {**FP16.counters, "host_syncs": Count(fixed=9, per_step=9)}
    slower = judge(fp16(counters=counted, gpu_busy_s=10.0, repeat_psnr_db=10.0))
    assert slower.status == "worse image"
    assert slower.sentence.startswith("worse image: ")
    found = {finding.status for finding in slower.findings if finding.what}
    assert found >= {"slower", "more work", "worse image"}


@pytest.mark.parametrize(
    ("now", "status"), [(101, None), (102, Status.MORE_WORK), (99, Status.LESS_WORK)]
)
def test_operators_against_their_accepted_counts(now: int, status: Status | None) -> None:
    casts, floats = (
        {name: Count(fixed=count, per_step=0)} for name, count in (("casts", 4), ("operators", now))
    )
    found = judged_operators({**casts, **floats}, {"casts": 4, "operators": 100, "recompiles": 0})
    assert found.pop("recompiles") == Status.INCONCLUSIVE
    assert found == ({"operators": status} if status else {})


def test_operators_after_one_that_is_the_same_or_new_are_judged() -> None:
    now = {name: Count(fixed=5, per_step=0) for name in ("casts", "host_syncs", "device_reads")}
    found = judged_operators(now, {"host_syncs": 5, "device_reads": 4})
    assert found == {"casts": Status.NEW, "device_reads": Status.MORE_WORK}


def judged_operators(now: dict[str, Count], was: dict[str, int]) -> dict[str, Status]:
    """The status of each counter that is not the same."""

    class Seen:
        counters = now

        def where(self) -> dict[str, dict[str, Count]]:
            return {}

        def sites(self) -> dict[str, dict[Any, Count]]:
            return {}

    accepted = {
        name: OperatorCount(total=Count(fixed=count, per_step=0)) for name, count in was.items()
    }
    findings = structure_verdicts.judge(
        "ddim50-fp16",
        Seen(),
        OperatorBaseline(accepted="", reason="", versions={}, counters=accepted),
        steps=20,
        versions={},
        rerun=Literal(text=""),
        accept=Literal(text=""),
        file="",
    )
    return {finding.metric: finding.status for finding in findings}


@pytest.mark.parametrize(("rise", "shown"), [(1, True), (-1, True), (0, False)])
def test_kinds_of_a_counter_that_changed_by_one_are_named(rise: int, shown: bool) -> None:
    """``float16 → float32`` in two classes, of which one changed."""
    up = "float16 → float32 in Linear in GroupNorm"

    def counts(number: int) -> OperatorCounts:
        kinds = {up: number, "float32 → float16 in Conv2d": 5}
        return OperatorCounts(
            operators={},
            occurrences={
                Occurrence("casts", kind.rsplit(" in ", 1)[0], Place("unet", kind.split()[-1])): (
                    Count(fixed=count, per_step=0)
                )
                for kind, count in kinds.items()
            },
        )

    findings = structure_verdicts.judge(
        "ddim50-fp16",
        counts(3 + rise),
        OperatorBaseline(
            accepted="", reason="", versions={}, counters={"casts": counts(3).accepted()["casts"]}
        ),
        steps=20,
        versions={},
        rerun=Literal(text=""),
        accept=Literal(text=""),
        file="",
    )
    named = "all float16 → float32 in Linear, in GroupNorm"
    assert any(named in finding.what for finding in findings) == shown


@pytest.mark.parametrize(
    ("python", "torch", "calls", "found"),
    [
        ("3.11.7", "2.13.0", 10_100, []),
        ("3.11.7", "2.13.0", 10_101, [("python_calls", "more work")]),
        ("3.11.9", "2.13.0", 10_101, [("python_calls", "more work")]),
        ("3.11.7", "2.13.0", 9_800, [("python_calls", "less work")]),
        # Other code makes other calls.
        ("3.12.1", "2.13.0", 20_000, []),
        ("3.11.7", "2.14.0", 20_000, []),
    ],
)
def test_python_calls_are_judged_by_those_of_the_same_versions(
    python: str, torch: str, calls: int, found: list[tuple[str, str]]
) -> None:
    libraries = {"diffusers": "0.42.1", "transformers": "5.17.0"}
    findings = structure_verdicts.judge(
        "ddim50-reference",
        OperatorCounts(operators={}, occurrences={}),
        OperatorBaseline(
            accepted="",
            reason="",
            versions={"python": "3.11.7", "torch": "2.13.0", **libraries},
            counters=OperatorCounts(operators={}, occurrences={}).accepted(),
            python_calls=Count(fixed=0, per_step=500),
        ),
        steps=20,
        versions={"python": python, "torch": torch, **libraries},
        rerun=Literal(text=""),
        accept=Literal(text=""),
        file="",
        python_calls=Count(fixed=calls, per_step=0),
    )
    assert [(finding.metric, finding.status) for finding in findings] == found
