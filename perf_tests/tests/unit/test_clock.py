"""How latencies are read in a comparison, and that it halves what five pairs detect."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import pytest
from msgspec import structs

from diffusers_perf.catalog.metrics import GPU_BUSY, LATENCY
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.clock import STEADY, Clock, Hosts
from diffusers_perf.judge.messages import comparison as messages
from diffusers_perf.judge.weighing import weigh
from diffusers_perf.records.measurement import Interference, Measurement
from perf_tests.tests import estimators
from perf_tests.tests.unit.factories import FP16

HOSTS = Hosts(loops_s=(0.010, 0.020))


def timed(
    *rounds_s: float,
    loops_s: tuple[float, ...],
    gpu_busy_s: float | None = 0.5,
    peak_memory_bytes: int | None = 2_000,
) -> Measurement:
    return structs.replace(
        FP16,
        rounds_s=rounds_s,
        gpu_busy_s=gpu_busy_s,
        peak_memory_bytes=peak_memory_bytes,
        interference=Interference(cpu_loops_s=loops_s),
    )


def test_idle_part_of_a_round_is_that_of_the_quickest_core() -> None:
    seen = timed(2.5, 1.7, loops_s=(0.020, 0.024, 0.011, 0.010))
    clock = Clock.of([[seen]], HOSTS)
    # The quicker loop of each round counts: 0.5 + 2.0 / 2, and 0.5 + 1.2 / 1.
    assert clock.latency_s(seen) == pytest.approx(1.5)
    for loops_s in ((0.024, 0.020), (0.020, 0.024)):
        assert clock.latency_s(timed(2.5, loops_s=loops_s)) == pytest.approx(1.5)
    # The second: 0.5 + 4.0 / 2, and 0.5 + 1.2 / 1.
    assert clock.latency_s(timed(4.5, 1.7, loops_s=(0.020, 0.024, 0.011, 0.010))) == 1.7
    assert clock.noise_field(LATENCY) == STEADY
    assert clock.of_metric(GPU_BUSY, seen) == 0.5
    assert clock.noise_field(GPU_BUSY) == "gpu_busy_s"


def test_copies_that_the_gpu_makes_do_not_follow_a_core() -> None:
    """An offloaded case's: of 2.5 s, the GPU copies for 1.5 s and waits for the host for 0.5 s."""
    seen = structs.replace(timed(2.5, loops_s=(0.020, 0.020)), host_copies_s=1.5)
    assert seen.idle_share == pytest.approx(0.2)
    assert Clock.of([[seen]], HOSTS).latency_s(seen) == pytest.approx(2.25)


def test_clock_says_how_it_reads_latencies_alone() -> None:
    host_bound, gpu_bound, loopless = (
        Clock.of([[timed(seconds, loops_s=loops_s)]], HOSTS)
        for seconds, loops_s in ((2.5, (0.01, 0.01)), (0.54, (0.01, 0.01)), (2.5, ()))
    )
    assert host_bound.read_as(LATENCY) == messages.AT_ONE_SPEED
    assert gpu_bound.read_as(LATENCY) == messages.LEAST_ROUND
    assert loopless.read_as(LATENCY) == host_bound.read_as(GPU_BUSY) == ""


def test_round_that_is_shorter_than_the_gpus_work_is_not_adjusted() -> None:
    seen = timed(2.5, 0.4, 2.5, loops_s=(0.020,) * 6)
    assert Clock.of([[seen]], HOSTS).latency_s(seen) == 0.4


@pytest.mark.parametrize(
    ("ratio", "explained"),
    [(0.66, False), (1 / 1.5, True), (1.0, True), (3.0, True), (3.01, False), (4.0, False)],
)
def test_speed_of_the_host_explains_up_to_the_threshold(ratio: float, explained: bool) -> None:
    """Head's cores take twice as long; half as long mirrors it."""
    seen = [timed(1.0, loops_s=(), gpu_busy_s=None, peak_memory_bytes=None)]
    slower, faster = (Hosts(loops_s=(), slower=slower) for slower in (2.0, 0.5))
    assert slower.explain(ratio, seen, threshold=0.5) is explained
    if ratio not in (1 / 1.5, 3.0):
        assert faster.explain(1 / ratio, seen, threshold=0.5) is explained


def test_hosts_of_one_speed_explain_nothing() -> None:
    seen = [timed(1.0, loops_s=(), gpu_busy_s=None, peak_memory_bytes=None)]
    assert not Hosts(loops_s=()).explain(1.0, seen, threshold=0.5)


def test_speed_of_the_host_explains_the_idle_part_of_a_latency() -> None:
    hosts = Hosts(loops_s=(), slower=2.0)
    half_idle, unknown = (timed(1.0, loops_s=(), gpu_busy_s=busy) for busy in (0.5, None))
    assert hosts.explain(1.5, [half_idle], threshold=0.03)
    assert not hosts.explain(2.0, [half_idle], threshold=0.03)
    # There is a GPU, and how long it works is unknown.
    assert not hosts.explain(1.0, [unknown], threshold=0.03)


def test_what_the_gpu_sets_the_pace_of_is_not_adjusted() -> None:
    seen = timed(0.54, 0.53, loops_s=(0.020, 0.020, 0.010, 0.010))
    assert Clock.of([[seen]], HOSTS).latency_s(seen) == 0.53


def test_cpu_is_not_adjusted() -> None:
    seen = timed(0.9, 0.8, loops_s=(0.020, 0.020, 0.010, 0.010), gpu_busy_s=None)
    assert Clock.of([[seen]], HOSTS).latency_s(seen) == 0.8


@pytest.mark.parametrize("loops_s", [(), (0.01, 0.01), (0.01,) * 5])
def test_median_counts_where_loops_are_unknown(loops_s: tuple[float, ...]) -> None:
    without, seen = timed(2.0, 1.0, loops_s=loops_s), timed(2.0, 1.0, loops_s=(0.01,) * 4)
    clock = Clock.of([[without, seen]], HOSTS)
    assert (clock.latency_s(without), clock.latency_s(seen)) == (1.5, 1.5)
    assert not clock.host_bound
    assert clock.noise_field(LATENCY) == "latency_s"


def test_detectable_effect_is_halved_on_both_recorded_machines() -> None:
    by_machine = estimators.noise()
    assert len(by_machine) == 3
    for where, by_name in by_machine.items():
        before = estimators.detectable_before(by_name[estimators.BEFORE])
        now = estimators.detectable_now(by_name[estimators.NOW])
        assert now / before < 0.5, where


def test_recorded_processes_of_one_commit_are_not_slower() -> None:
    """In the order in which they ran, and in one of 200 at most of all other deals to two sides."""
    deals, wrong = 0, 0
    for found in estimators.recorded():
        loops = tuple(s for seen in found.processes for s in seen.interference.cpu_loops_s)
        clock = Clock.of([found.processes], Hosts(loops_s=loops))
        values = [clock.latency_s(seen) for seen in found.processes]
        size = len(values) // 2

        def status(head: Sequence[int], base: Sequence[int], values: Sequence[float]) -> Status:
            over, under = ([values[i] for i in side] for side in (head, base))
            return weigh(LATENCY, over, under, known=0.0, of=len(over)).status

        turns = [(2 * i + i % 2, 2 * i + (i + 1) % 2) for i in range(size)]
        one, other = zip(*turns, strict=True)
        for sides in ((one, other), (other, one)):
            assert status(*sides, values) in (Status.SAME, Status.INCONCLUSIVE)
        for base in combinations(range(len(values)), size):
            rest = [i for i in range(len(values)) if i not in base]
            for head in combinations(rest, size):
                wrong += status(head, base, values) == Status.SLOWER
                deals += 1
    assert deals == 4 * (comb(7, 3) * comb(4, 3) + comb(6, 3)) + 6 * comb(4, 2)
    assert wrong / deals <= 0.005
