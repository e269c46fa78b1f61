"""The limits that follow from accepted processes."""

from __future__ import annotations

import pytest
from msgspec import structs

from diffusers_perf.catalog.metric import PROCESSES_FEW
from diffusers_perf.catalog.metrics import BY_LEAST
from diffusers_perf.judge.limits import accepted_of, limits_of
from diffusers_perf.records.baselines import Calibration
from diffusers_perf.records.measurement import Count, Measurement
from perf_tests.tests.unit.factories import FP16, GENERATES, REFERENCE


def calibrated(noise: float) -> Calibration:
    return Calibration(
        calibrated="2026-11-22",
        processes=5,
        noise={"gpu_busy_s": noise},
        detectable={"gpu_busy_s": 0.1},
    )


@pytest.mark.parametrize(
    ("values", "most"),
    [
        # 10 % beyond the worst; the spread where it is more, and never more than half.
        ((1.0, 1.0, 1.0), 1.1),
        ((1.0, 1.05, 1.0), 1.05 * 1.1),
        ((1.0, 1.2, 1.1), 1.2 * (1 + 0.2 / 1.1)),
        ((1.0, 2.0, 1.5), 2.0 * 1.5),
        # Two processes do not show how they differ.
        ((1.0, 1.0), 1.5),
        ((1.0,), 1.5),
    ],
)
def test_latency_of_a_reference(values: tuple[float, ...], most: float) -> None:
    limits = limits_of({"latency_s": values})
    assert limits == {"latency_s_max": pytest.approx(most, rel=1e-4)}


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ((2.0, 2.0, 2.0), 1.8),
        ((2.0, 1.9, 2.1), 1.9 * 0.9),
        ((2.0, 1.5, 2.5), 1.5 * 0.5),
        ((2.0, 2.0), 1.0),
    ],
)
def test_latency_speedup_of_a_case(values: tuple[float, ...], least: float) -> None:
    limits = limits_of({"latency_s": (1.0,) * len(values), "latency_speedup": values})
    assert limits == {"latency_speedup_min": pytest.approx(least, rel=1e-4)}


@pytest.mark.parametrize(
    ("values", "noise", "most"),
    [
        # 2 % beyond the median, or three times the noise.
        ((1.0, 1.0, 1.0), None, 1.02),
        ((1.0, 1.005, 0.999), None, 1.0 * 1.02),
        ((1.0, 1.02, 0.99), None, 1.0 * (1 + 3 * 0.03)),
        ((1.0, 1.1, 0.9), None, 1.5),
        # As calibrated, whatever these processes show.
        ((1.0, 1.1, 0.9), 0.005, 1.02),
        ((1.0, 1.0, 1.0), 0.05, 1.15),
        ((1.0, 1.0, 1.0), 0.2, 1.5),
        # Two processes are held as tightly.
        ((1.0, 1.0), None, 1.02),
    ],
)
def test_gpu_busy(values: tuple[float, ...], noise: float | None, most: float) -> None:
    calibration = None if noise is None else calibrated(noise)
    limits = limits_of({"gpu_busy_s": values}, calibration)
    assert limits == {"gpu_busy_s_max": pytest.approx(most, rel=1e-4)}


@pytest.mark.parametrize(
    ("values", "most"),
    [
        # As accepted of FLUX.1-dev's batch of four, the third on a slow host.
        ((7.5827, 7.6097, 10.758), 1.2 * 7.6097 + 1),
        ((10.758, 7.5827, 7.6097), 1.2 * 7.6097 + 1),
        # Within the limit that the others give.
        ((7.5827, 7.6097, 10.13), 1.2 * 10.13 + 1),
        # Two slow hosts, or one of two, may be what this machine is like.
        ((7.6, 10.758, 10.8), 1.2 * 10.8 + 1),
        ((7.6, 10.758), 1.2 * 10.758 + 1),
        ((10.758,), 1.2 * 10.758 + 1),
    ],
)
def test_start_on_a_slow_host_does_not_widen_its_limit(
    values: tuple[float, ...], most: float
) -> None:
    for field in ("import_s", "cold_import_s", "load_s", "first_image_s"):
        limits = limits_of({field: values})
        assert limits == {f"{field}_max": pytest.approx(most, rel=1e-4)}


def test_slow_stage_widens_its_limit() -> None:
    limits = limits_of({"denoising_stage_s": (0.065, 0.129, 0.068)})
    assert limits == {"denoising_stage_s_max": pytest.approx(1.5 * 0.129 + 0.02, rel=1e-4)}


def test_gpu_speedup_and_memory_have_a_fixed_slack() -> None:
    assert limits_of({"gpu_speedup": (3.0, 2.9, 2.0)}) == {"gpu_speedup_min": 1.94}
    assert limits_of({"peak_memory_bytes": (1000, 900)}) == {"peak_memory_bytes_max": 1020}


def test_calibration_widens_no_other_limit() -> None:
    measured = {"latency_s": (1.0, 1.0, 1.0), "gpu_busy_s": (1.0, 1.0, 1.0)}
    known = Calibration(
        calibrated="", processes=5, noise={"latency_s": 0.3, "gpu_busy_s": 0.01}, detectable={}
    )
    assert limits_of(measured, known) == {"latency_s_max": 1.1, "gpu_busy_s_max": 1.03}


def accept(*processes: Measurement, device: str = "cuda") -> tuple[set[str], set[str]]:
    """The counters that are kept, and those that moved."""
    baseline = accepted_of(
        [(one, REFERENCE) for one in processes],
        accepted="2026-11-22",
        versions={},
        workload=GENERATES,
        device=device,
    )
    return set(baseline.counters), set(baseline.moving)


def with_counters(**counters: int) -> Measurement:
    counts = {name: Count(fixed=0, per_step=number) for name, number in counters.items()}
    return structs.replace(FP16, counters=counts)


def test_judged_counters_are_kept_where_every_process_has_the_same() -> None:
    one = with_counters(host_syncs=1, kernels=7, casts=2, allocations=3)
    other = with_counters(host_syncs=1, kernels=8, allocations=3)
    assert accept(one, one) == ({"host_syncs", "kernels", "casts"}, set())
    assert accept(one, other) == ({"host_syncs"}, {"kernels"})
    # Without a GPU, what was counted in the code is limited elsewhere.
    on_cpu = with_counters(casts=2, operators=9, python_calls=3)
    assert accept(on_cpu, device="cpu") == ({"python_calls"}, set())


def test_most_is_kept_of_counts_that_differ_by_less_than_may_be_added() -> None:
    def kept(*python_calls: int) -> Count | None:
        baseline = accepted_of(
            [(with_counters(python_calls=number), REFERENCE) for number in python_calls],
            accepted="2026-11-22",
            versions={},
            workload=GENERATES,
            device="cuda",
        )
        return baseline.counters.get("python_calls")

    assert kept(1000, 1010, 1005) == Count(fixed=0, per_step=1010)
    assert kept(1000, 1011, 1005) is None
    assert kept(0, 0) == Count(fixed=0, per_step=0)
    assert accept(with_counters(host_syncs=1000), with_counters(host_syncs=1001)) == (
        set(),
        {"host_syncs"},
    )


def test_measured_values_are_kept_of_the_processes_that_have_them() -> None:
    blind = structs.replace(FP16, gpu_busy_s=None)
    baseline = accepted_of(
        [(FP16, REFERENCE), (blind, REFERENCE)],
        accepted="2026-11-22",
        versions={},
        workload=GENERATES,
        device="cuda",
    )
    assert baseline.measured == {
        "latency_s": (1.0, 1.0),
        "latency_speedup": (2.0, 2.0),
        "gpu_busy_s": (0.8,),
        "gpu_speedup": (2.5,),
        "peak_memory_bytes": (2000, 2000),
        "image_psnr_db": (60.0, 60.0),
    }


@pytest.mark.parametrize(("processes", "kept"), [((2, 1), 1), ((None, 3), 3), ((None, None), None)])
def test_steps_of_the_shortest_generation_are_kept(
    processes: tuple[int | None, ...], kept: int | None
) -> None:
    baseline = accepted_of(
        [(structs.replace(FP16, fewest_steps=steps), REFERENCE) for steps in processes],
        accepted="2026-11-22",
        versions={},
        workload=GENERATES,
        device="cuda",
    )
    assert baseline.fewest_steps == kept


def test_flags_are_kept_that_every_process_has() -> None:
    one, other = (
        structs.replace(FP16, flags={"matmul TF32": "on", "default dtype": dtype})
        for dtype in ("float32", "float16")
    )
    baseline = accepted_of(
        [(one, REFERENCE), (other, REFERENCE)],
        accepted="2026-11-22",
        versions={},
        workload=GENERATES,
        device="cuda",
    )
    assert baseline.flags == {"matmul TF32": "on"}


def test_limit_of_a_metric_with_a_margin_is_beyond_its_slack() -> None:
    metric = next(metric for metric in BY_LEAST if metric.wall_clock)
    assert metric.limit
    limits = limits_of({metric.field: (2.0,) * PROCESSES_FEW})
    expected = 2.0 * (1 + metric.limit.slack) + metric.margin
    assert limits[metric.limit_name] == pytest.approx(expected)
