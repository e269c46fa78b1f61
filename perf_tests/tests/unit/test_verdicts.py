"""The judge: numbers in, verdict out. Each rule at its limit, and its message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.metrics import COUNTERS, STRICT
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge import verdicts
from diffusers_perf.judge.finding import Finding, Verdict
from diffusers_perf.judge.messages.commands import Accept, AcceptImages, Rerun, RunAgain
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.messages.measurement import (
    image_not_saved,
    no_counters,
    no_structure,
    not_comparable,
    not_judged,
)
from diffusers_perf.plugin.judging import Judging
from diffusers_perf.records.baselines import Bound
from diffusers_perf.records.main_job import MainJob
from diffusers_perf.records.measurement import (
    Bits,
    Count,
    Distance,
    Interference,
    Look,
    Measurement,
)
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.unit.factories import FP16, GENERATES, REFERENCE, baseline_of, question
from perf_tests.tests.unit.recorded import parsed, process


def test_sound_run_passes() -> None:
    verdict = judge(question())
    assert verdict.status == "same"
    assert verdict.passes
    assert verdict.text() == ""


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"look": Look(finite=False, mean=0.5, std=0.2)}, "not finite"),
        ({"look": Look(finite=True, mean=0.01, std=0.2)}, "black"),
        ({"look": Look(finite=True, mean=0.5, std=0.01)}, "uniform"),
        ({"image_distance": Distance(psnr_db=39.9, ssim=0.99)}, "worse image"),
        ({"image_distance": Distance(psnr_db=60, ssim=0.96)}, "worse image"),
        ({"repeat_psnr_db": 50.0}, "worse image"),
        ({"gpu_busy_s": 0.8 * 1.015}, "same"),
        ({"gpu_busy_s": 0.8 * 1.025}, "slower"),
        ({"gpu_busy_s": 0.7}, "faster"),
        ({"rounds_s": (1.2, 1.21, 1.19, 1.2, 1.22)}, "slower"),
        ({"rounds_s": (1.0, 1.6, 0.9, 1.3, 1.2)}, "inconclusive"),
        ({"peak_memory_bytes": 2_030}, "same"),
        ({"peak_memory_bytes": 2_050}, "more memory"),
        ({"counters": {"host_syncs": Count(fixed=4, per_step=6)}}, "more work"),
        ({"counters": {"host_syncs": Count(fixed=3, per_step=5)}}, "less work"),
    ],
)
def test_each_rule_fails_beyond_its_limit(change: dict[str, Any], status: str) -> None:
    if "counters" in change:
        change = {"counters": {**FP16.counters, **change["counters"]}}
    assert judge(question(structs.replace(FP16, **change))).status == status


def test_other_threads_are_named_where_a_time_is_beyond_its_limit() -> None:
    """A pipeline may set their number; by itself, as in the control `another_thread_count`, that
    says nothing.
    """
    baseline = baseline_of(structs.replace(FP16, flags={"threads": "32"}), REFERENCE)

    def verdict(**changes: Any) -> Verdict:
        return judge(question(structs.replace(FP16, **changes), baseline=baseline))

    slow: dict[str, Any] = {"rounds_s": (3.0, 3.01, 2.99)}
    named = verdict(**slow, flags={"threads": "1"})
    assert named.status == "slower"
    assert named.sentence.endswith(", torch's threads 32 → 1")
    assert "threads" not in verdict(**slow, flags={"threads": "32"}).text()
    assert "threads" not in verdict(gpu_busy_s=0.9, flags={"threads": "1"}).text()
    alone = verdict(flags={"threads": "33"})
    assert (alone.status, alone.messages) == ("same", ())


@pytest.mark.parametrize(
    "change",
    [{"gpu_busy_s": None}, {"counters": {"kernels": Count(fixed=300, per_step=1000)}}],
)
def test_unmeasured_metric_with_a_limit_is_inconclusive(change: dict[str, Any]) -> None:
    why = no_counters("no CUPTI")
    verdict = judge(question(structs.replace(FP16, notes=(why,), **change)))
    assert verdict.status == "inconclusive"
    (finding,) = verdict.messages
    assert finding.measured == why
    roofline = {"gpu_speedup": Bound(at_least=1.2)}
    blind = structs.replace(FP16, gpu_busy_s=None)
    assert judge(question(blind, baseline=None, portable=roofline)).status == "inconclusive"


def test_only_notes_about_what_was_not_measured_say_why() -> None:
    others = (
        not_judged(["load time", "first image time"], "no counters of GPU busy are why"),
        image_not_saved(FP16.id, "no space left on device"),
        no_structure("it depends on data"),
    )
    traced, followed = no_counters("no CUPTI"), not_comparable(FP16.id, "it is replayed")
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "GPU busy": (traced, {"gpu_busy_s": None}),
        "counters": (traced, {"counters": {}}),
        "image distance": (followed, {"image_distance": None}),
        "peak memory": ("", {"peak_memory_bytes": None}),
    }
    for metric, (why, change) in asked.items():
        seen = structs.replace(FP16, notes=(*others, traced, followed), **change)
        verdict = judge(question(seen))
        assert {f.metric: f.measured for f in verdict.messages}[metric] == why, metric
        verdict = judge(question(structs.replace(seen, notes=others)))
        assert {f.metric: f.measured for f in verdict.messages}[metric] == "", metric


def test_ratio_is_not_known_where_one_of_its_two_cases_was_not_measured() -> None:
    theirs, own = no_counters("no CUPTI"), no_counters("it raised")
    blind = structs.replace(REFERENCE, gpu_busy_s=None, notes=(theirs,))
    # A note on what was measured all the same is beside the point.
    case, lost = (structs.replace(FP16, gpu_busy_s=s, notes=(own,)) for s in (1.0, None))
    bound = {"gpu_speedup": Bound(at_least=1.2)}
    for measured, reference, said in (
        (case, blind, f"the reference has no GPU busy ({theirs})"),
        (lost, REFERENCE, f"fp16 has no GPU busy ({own})"),
        (lost, blind, f"fp16 has no GPU busy ({own}); the reference has no GPU busy ({theirs})"),
        (case, structs.replace(blind, notes=()), "the reference has no GPU busy"),
    ):
        (found,) = judge(
            question(measured, reference=reference, baseline=None, portable=bound)
        ).messages
        assert (found.metric, found.measured) == ("GPU busy speedup", said)


def test_slower_reference_does_not_hide_a_slower_case() -> None:
    both = structs.replace(FP16, gpu_busy_s=1.0)
    slower = structs.replace(REFERENCE, gpu_busy_s=2.5)
    assert judge(question(both, reference=slower)).status == "slower"
    assert judge(question(slower)).status == "slower"


def test_reference_image_is_compared_with_the_accepted_one() -> None:
    lost = structs.replace(REFERENCE, image_distance=Distance(psnr_db=21.8, ssim=0.8))
    verdict = judge(question(lost))
    assert verdict.status == "worse image"
    (finding,) = verdict.messages
    assert finding.metric == "image distance"
    assert "--images-only" in finding.next


@pytest.mark.parametrize(
    ("bits", "psnr_db", "status"),
    [(8, 59.0, "same"), (16, 74.0, "worse image"), (16, 107.0, "same"), (None, 59.0, "same")],
)
def test_accepted_image_in_16_bits_shows_a_small_drift(
    bits: Bits | None, psnr_db: float, status: str
) -> None:
    close = Distance(psnr_db=psnr_db, ssim=0.9999)
    measured = structs.replace(REFERENCE, image_distance=close, accepted_bits=bits)
    image = [f for f in judge(question(measured)).findings if f.metric.startswith("image")]
    assert [finding.status for finding in image] == [status]


@pytest.mark.parametrize(
    ("accepted", "psnr_db", "status"),
    [
        (51.0, 48.1, None),
        (51.0, 47.9, "worse image"),
        (79.0, 60.1, None),
        (79.0, 59.9, "worse image"),
    ],
)
def test_accepted_distance_limits_an_image_within_its_tolerance(
    accepted: float, psnr_db: float, status: str | None
) -> None:
    def at(decibels: float) -> Measurement:
        return structs.replace(FP16, image_distance=Distance(psnr_db=decibels, ssim=0.999))

    baseline = baseline_of(at(accepted), REFERENCE)
    verdict = judge(question(at(psnr_db), baseline=baseline))
    found = [f.status for f in verdict.findings if f.metric == "image PSNR"]
    assert found == ([status] if status else [])


def test_case_without_a_baseline_is_new_and_its_image_is_judged() -> None:
    assert judge(question(baseline=None)).status == "new"
    black = structs.replace(FP16, look=Look(finite=True, mean=0, std=0))
    assert judge(question(black, baseline=None)).status == "black"


def test_portable_bounds_apply_without_a_baseline() -> None:
    roofline = {"gpu_speedup": Bound(at_least=1.2)}
    slow = structs.replace(FP16, gpu_busy_s=1.8)
    assert judge(question(baseline=None, portable=roofline)).status == "new"
    assert judge(question(slow, baseline=None, portable=roofline)).status == "slower"
    hungry = {"memory_ratio": Bound(at_most=0.4)}
    assert judge(question(baseline=None, portable=hungry)).status == "more memory"


def test_stack_with_a_memory_bound_stays_below_it() -> None:
    fits = {"memory_gib": Bound(at_most=4.0)}
    small = structs.replace(FP16, peak_memory_bytes=4 * 2**30)
    assert judge(question(small, baseline=None, portable=fits)).status == "new"
    large = judge(
        question(structs.replace(FP16, peak_memory_bytes=4 * 2**30 + 2**20), portable=fits)
    )
    assert large.status == "more memory"
    finding = large.messages[-1]
    assert (finding.metric, finding.measured) == ("peak memory", "4,097 MiB")
    assert finding.limit == "at most 4,096 MiB"
    unseen = judge(question(structs.replace(FP16, peak_memory_bytes=None), portable=fits))
    assert [f.metric for f in unseen.messages] == ["peak memory"] * 2


def test_outdated_warning_is_reported_and_passes() -> None:
    verdict = judge(question(portable={"gpu_speedup": Bound(at_most=1.0)}))
    assert verdict.status == "faster"
    (finding,) = verdict.messages
    assert (finding.metric, finding.measured) == ("GPU busy speedup", "2.500x")


@pytest.mark.parametrize(
    ("own", "theirs", "said"),
    [
        (True, False, "(hardware slowdown)"),
        (False, True, "(the reference: hardware slowdown)"),
        (True, True, "(hardware slowdown)"),
    ],
)
def test_interference_is_invalid_and_not_slower(own: bool, theirs: bool, said: str) -> None:
    def with_interference(measured: Measurement) -> Measurement:
        interference = Interference(gpu=("hardware slowdown",))
        return structs.replace(measured, interference=interference)

    slow = structs.replace(FP16, rounds_s=(3.0, 3.01, 2.99))
    slow = with_interference(slow) if own else slow
    reference = with_interference(REFERENCE) if theirs else REFERENCE
    verdict = judge(question(slow, reference=reference))
    assert verdict.status == "invalid"
    assert verdict.passes
    assert verdict.sentence.endswith(said)


def test_interference_in_the_reference_leaves_other_metrics_valid() -> None:
    affected = structs.replace(REFERENCE, interference=Interference(gpu=("hardware slowdown",)))
    verdict = judge(question(structs.replace(FP16, gpu_busy_s=1.6), reference=affected))
    statuses = {finding.metric: finding.status for finding in verdict.findings}
    assert statuses["GPU busy"] == "slower"
    assert statuses["GPU busy speedup"] == "invalid"
    assert not verdict.passes


@pytest.mark.parametrize(
    ("drift", "status"),
    [
        (1.0, "slower"),
        # A first time that was too long flattered the case.
        (0.9, "slower"),
        # The machine became slower, and not by as much as the case is too slow.
        (1.05, "slower"),
        (1.1, "invalid"),
    ],
)
def test_drift_excuses_no_more_than_itself(drift: float, status: str) -> None:
    asked = question(structs.replace(FP16, rounds_s=(1.2, 1.21, 1.19, 1.2, 1.22)))
    verdict = judge(replace(asked, drift=drift))
    assert verdict.status == status
    assert (f"drift: {drift:.2f}x" in verdict.sentence) == (status == "invalid")


@pytest.mark.parametrize(
    ("own", "theirs", "printed"),
    [
        ((0.012, 0.012), (0.01, 0.01), "1.20x"),
        ((0.018, 0.01, 0.012), (0.02, 0.02, 0.01), None),
        # A quiet core's loops differ too.
        ((0.0114, 0.0114), (0.01, 0.01), None),
        ((0.0116, 0.0116), (0.01, 0.01), "1.16x"),
        # At its best beside its own rounds.
        ((0.01, 0.0118, 0.0118), (0.0105, 0.0105), "1.18x"),
        # The core became slower, and not by as much as the case is too slow.
        ((0.0106, 0.0106), (0.01, 0.01), None),
        # One loop that something came between is not the core.
        ((0.01, 0.01, 0.06), (0.01,), None),
        # Its reference ran on the same core.
        ((0.012, 0.012), (0.012, 0.012), None),
        ((0.010, 0.013, 0.014, 0.013, 0.015), (0.010, 0.013, 0.014, 0.013, 0.015), None),
        ((0.01,), (), None),
        ((), (), None),
    ],
)
def test_slow_core_excuses_no_more_than_itself(
    own: tuple[float, ...], theirs: tuple[float, ...], printed: str | None
) -> None:
    # On a CPU, where all of it is the host's.
    slow = structs.replace(
        FP16,
        rounds_s=(1.2, 1.21, 1.19, 1.2, 1.22),
        gpu_busy_s=None,
        peak_memory_bytes=None,
        interference=Interference(cpu_loops_s=own),
    )
    reference = structs.replace(
        REFERENCE,
        gpu_busy_s=None,
        peak_memory_bytes=None,
        interference=Interference(cpu_loops_s=theirs),
    )
    verdict = judge(question(slow, reference=reference))
    assert verdict.status == ("invalid" if printed else "slower")
    assert (f"slow CPU core: {printed}" in verdict.text()) == (printed is not None)


@pytest.mark.parametrize(("core", "status"), [(1.2, "slower"), (1.9, "invalid")])
def test_slow_core_excuses_the_hosts_share_only(core: float, status: str) -> None:
    # The GPU works for 0.8 s of 1.2: a core of 1.2 times makes 1.06 of it, one of 1.9 times 1.19.
    loops = Interference(cpu_loops_s=(0.01 * core, 0.01 * core))
    slow = structs.replace(FP16, rounds_s=(1.2, 1.21, 1.19, 1.2, 1.22), interference=loops)
    quick = structs.replace(REFERENCE, interference=Interference(cpu_loops_s=(0.01, 0.01)))
    assert judge(question(slow, reference=quick)).status == status
    # Without access to the GPU it is unknown.
    assert (
        judge(question(structs.replace(slow, gpu_busy_s=None), reference=quick)).status == "slower"
    )


def test_slow_core_excuses_a_reference_by_its_best() -> None:
    slow = structs.replace(REFERENCE, rounds_s=(3.0,) * 5, gpu_busy_s=None, peak_memory_bytes=None)
    assert judge(question(slow)).status == "slower"
    for loops, status in (((0.01, 0.02, 0.02), "invalid"), ((0.02, 0.02, 0.02), "slower")):
        asked = question(structs.replace(slow, interference=Interference(cpu_loops_s=loops)))
        assert judge(asked).status == status


def test_noise_beyond_a_limit_is_inconclusive_on_a_slow_core() -> None:
    loops = Interference(cpu_loops_s=(0.01, 0.03, 0.03))
    noisy = structs.replace(FP16, rounds_s=(1.0, 1.5, 1.0, 1.6, 1.5), interference=loops)
    assert judge(question(noisy)).status == "inconclusive"


def test_slow_core_does_not_excuse_the_gpu() -> None:
    slow = structs.replace(
        FP16, gpu_busy_s=0.85, interference=Interference(cpu_loops_s=(0.01, 0.03, 0.03))
    )
    verdict = judge(question(slow))
    assert verdict.status == "slower"
    assert "GPU busy" in verdict.sentence


def test_image_that_could_not_be_compared_is_inconclusive() -> None:
    verdict = judge(question(structs.replace(FP16, image_distance=None)))
    assert verdict.status == "inconclusive"
    assert (
        judge(replace(question(structs.replace(FP16, image_distance=None)), tolerance=None)).status
        == "same"
    )


def test_memory_that_could_not_be_measured_is_inconclusive() -> None:
    verdict = judge(question(structs.replace(FP16, peak_memory_bytes=None)))
    assert verdict.status == "inconclusive"
    assert [f.metric for f in verdict.messages] == ["peak memory"]


def test_fewer_fixed_syncs_do_not_offset_one_more_per_step() -> None:
    was = structs.replace(REFERENCE, counters={"host_syncs": Count(fixed=100, per_step=6)})
    now = structs.replace(REFERENCE, counters={"host_syncs": Count(fixed=40, per_step=7)})
    verdict = judge(question(now, baseline=baseline_of(was, was)))
    assert verdict.status == "more work"
    assert "host syncs 400 → 390 (+1 in each of 50 steps and -60 fixed)" in verdict.sentence


def test_unaccepted_counter_is_new_and_a_varying_one_is_not_judged() -> None:
    asked = question()
    assert asked.baseline is not None
    counters = {**FP16.counters, "casts": Count(fixed=4, per_step=0)}
    more = structs.replace(FP16, counters=counters)
    verdict = judge(question(more))
    assert verdict.status == "new"
    assert "casts" in verdict.sentence
    assert judge(question(more, baseline=structs.replace(asked.baseline, moving=("casts",)))).passes
    # Counted in the code, where there is no GPU.
    bare = structs.replace(
        asked.baseline,
        limits={n: v for n, v in asked.baseline.limits.items() if n != "gpu_busy_s_max"},
    )
    assert judge(question(structs.replace(more, gpu_busy_s=None), baseline=bare)).status == "same"


def test_baseline_of_another_workload_is_invalid() -> None:
    half = structs.replace(FP16, steps=25, rounds_s=(0.5,) * 5, gpu_busy_s=0.4)
    verdict = judge(question(half, workload={**GENERATES, "steps": 25}))
    assert verdict.status == "invalid"
    (finding,) = verdict.messages
    assert finding.metric == "workload"
    assert "steps was 50 and is now 25" in finding.what
    assert {f.status for f in verdict.findings} == {"same", "invalid"}
    assert judge(question(workload={**GENERATES, "eta": 0.0})).status == "invalid"
    assert judge(question(workload={}, baseline=None)).status == "new"


def test_shortest_generation_of_other_steps_is_not_compared() -> None:
    """A pipeline that newly refuses few steps is not called slower for it."""
    short = {"default_call_s": 1.0, "denoising_stage_s": 1.0, "decoder_stage_s": 1.0}
    three_times = short | {"default_call_s": 3.0, "denoising_stage_s": 3.0}

    def found(was: int | None, now: int | None, seconds: dict[str, float]) -> dict[str, Status]:
        accepted = structs.replace(FP16, fewest_steps=was, metrics=short)
        measured = structs.replace(FP16, fewest_steps=now, metrics=seconds)
        verdict = judge(question(measured, baseline=baseline_of(accepted, REFERENCE)))
        return {finding.metric: finding.status for finding in verdict.messages}

    assert found(1, 3, three_times) == {"denoising stage": Status.INVALID}
    slower = {"default call": Status.SLOWER, "denoising stage": Status.SLOWER}
    # Of the same steps, and where nothing says of how many: as before.
    for was, now in ((1, 1), (None, 3), (1, None)):
        assert found(was, now, three_times) == slower
    # A decoder's time does not follow from the steps.
    assert found(1, 3, {**short, "decoder_stage_s": 3.0}) == {
        "denoising stage": Status.INVALID,
        "decoder stage": Status.SLOWER,
    }


def test_busy_cpu_invalidates_latency_and_not_gpu_time() -> None:
    busy = Interference(host=("the host waited for a CPU for 40 % of the rounds",))
    slow = structs.replace(FP16, rounds_s=(4.0, 4.1, 3.9, 4.0, 4.1), interference=busy)
    verdict = judge(question(slow))
    assert verdict.status == "invalid"
    assert "waited for a CPU" in verdict.sentence
    assert judge(question(structs.replace(slow, gpu_busy_s=1.6))).status == "slower"


def test_cold_first_round_is_invalid() -> None:
    verdict = judge(question(structs.replace(FP16, rounds_s=(1.6, 1.01, 0.99, 1.02, 0.98))))
    assert [(f.status, f.metric) for f in verdict.messages] == [("invalid", "warm-up")]
    assert judge(question(structs.replace(FP16, rounds_s=(1.4, 1.01, 0.99, 1.02, 0.98)))).passes


def test_timer_that_does_not_wait_is_invalid() -> None:
    verdict = judge(question(structs.replace(FP16, rounds_s=(0.70, 0.71, 0.69))))
    assert verdict.status == "invalid"
    assert "timer" in [f.metric for f in verdict.messages]


def test_leak_is_more_memory() -> None:
    def keeping(number: int) -> Measurement:
        return structs.replace(
            FP16,
            counters={**FP16.counters, "kept_bytes": Count(fixed=number, per_step=0)},
            fewest_steps=1,
        )

    assert judge(question(keeping(4096))).status == "same"
    verdict = judge(question(keeping(786_432), baseline=None))
    assert verdict.status == "more memory"
    (finding,) = verdict.messages
    assert (finding.metric, finding.measured) == ("kept bytes", "786,432 bytes")
    assert "each generation of 1 step leaves 786,432 bytes of tensors behind" in verdict.sentence


@pytest.mark.parametrize("counter", [name for name in COUNTERS if name not in STRICT])
def test_launches_may_grow_by_one_per_cent(counter: str) -> None:
    was = structs.replace(FP16, counters={counter: Count(fixed=0, per_step=1000)})
    for calls, status in ((1010, "same"), (1011, "more work")):
        now = structs.replace(FP16, counters={counter: Count(fixed=0, per_step=calls)})
        assert judge(question(now, baseline=baseline_of(was, REFERENCE))).status == status


def test_graph_in_place_of_its_kernels_is_not_more_work() -> None:
    def launching(kernels: int, graphs: int) -> Measurement:
        launched = {"kernel_launches": kernels, "graph_launches": graphs}
        return structs.replace(
            FP16, counters={n: Count(fixed=c, per_step=0) for n, c in launched.items()}
        )

    accepted = baseline_of(launching(85, 53), REFERENCE)
    assert judge(question(launching(1, 54), baseline=accepted)).status == "less work"
    assert judge(question(launching(1085, 33), baseline=accepted)).status == "more work"


def test_image_only_case_judges_the_image_only() -> None:
    slow = structs.replace(FP16, rounds_s=(9.0,), gpu_busy_s=None)
    assert judge(question(slow, image_only=True)).status == "same"


def test_message_has_five_parts() -> None:
    finding = judge(question(structs.replace(FP16, gpu_busy_s=1.6))).messages[0]
    assert finding.sentence.startswith("slower: ddim50-fp16: GPU busy")
    parts = (finding.measured, finding.expected, finding.limit, finding.next)
    assert all(parts)
    lines = finding.text().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["measured", "expected", "limit", "next"]
    assert "(baselines/gpu.json, accepted 2026-11-22)" in finding.expected


def test_next_command_repeats_the_runs_options() -> None:
    options = ("--device", "cpu", "--model", "a folder")
    text = judge(
        question(structs.replace(FP16, gpu_busy_s=1.6), job=MainJob(options=options))
    ).text()
    assert "[ddim50-fp16]\" --device cpu --model 'a folder'\n" in f"{text}\n"


def test_versions_that_differ_from_the_baselines_are_named() -> None:
    text = judge(
        question(
            structs.replace(FP16, gpu_busy_s=1.6),
            versions={"torch": "2.13.0", "diffusers": "0.42.1"},
        )
    ).text()
    assert "made with torch 2.11.0, now 2.13.0" in text


def test_session_asks_about_its_own_card(tmp_path: Path) -> None:
    (run,) = parsed([process("own-card")], "own-card")
    bench: Any = SimpleNamespace(
        machine=structs.replace(run.machine, gpu_uuid="GPU-a"),
        store=BaselineStore(tmp_path),
        sources=SimpleNamespace(of=lambda workload: SimpleNamespace(kind="seeded")),
    )
    case = declared_in("perf_tests.cases").cases[0]
    asked = Judging(bench=bench).question(case, FP16, None)
    assert asked.card == bench.machine.card
    assert asked.card


def test_status_is_that_of_the_worst_finding() -> None:
    findings = tuple(
        Finding(status=s, metric="m", what=s) for s in (Status.SAME, Status.BLACK, Status.FASTER)
    )
    assert Verdict(findings=findings).status == "black"
    assert Verdict(findings=()).status == "same"


def test_judge_needs_no_torch() -> None:
    """The judging half is imported by machines that have none."""
    import subprocess
    import sys

    root = Path(verdicts.__file__).parents[1]
    names = [
        ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for package in ("judge", "records", "catalog")
        for path in (root / package).rglob("*.py")
    ]
    assert len(names) > 15
    code = "import sys\n" + "".join(f"import {name}\n" for name in names)
    code += "assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


# Next commands

JOB = MainJob(
    tests=("my perf",),
    selected=("-m", "lossless or lossy", "-k", "fp16"),
    baselines="kept",
    options=("--device=cpu",),
)
CALL = "pytest 'my perf' --benchmark-only"
SELECTED = "-m 'lossless or lossy' -k fp16 --device=cpu --baselines=kept"
ACCEPT = "diffusers-perf accept"
REASON = '--baselines=kept --reason "why"'


def test_commands_repeat_files_selection_and_baselines() -> None:
    assert Rerun(job=JOB).of("w-a", "w-b") == (
        f'{CALL} -k "[w-a] or [w-b]" --device=cpu --baselines=kept'
    )
    assert RunAgain(job=JOB).of() == f"{CALL} {SELECTED}"
    assert Accept(job=JOB).of("w-a") == (
        f"for n in 1 2 3; do {CALL} --benchmark-json runs/$n.json {SELECTED}; done; "
        f"{ACCEPT} runs/1.json runs/2.json runs/3.json {REASON}"
    )
    images = f"{ACCEPT} runs/1.json --images-only {REASON}"
    run = f"{CALL} --benchmark-json runs/1.json"
    # What -k selects need not hold the references.
    assert AcceptImages(job=JOB).of("w-reference") == (
        f'{run} -k "[w-reference]" --device=cpu --baselines=kept; {images}'
    )
    by_suite = structs.replace(JOB, selected=JOB.selected[:2])
    assert AcceptImages(job=by_suite).of("w-reference") == (
        f"{run} -m 'lossless or lossy' --device=cpu --baselines=kept; {images}"
    )


def test_settings_say_where_the_tests_are_if_the_command_line_did_not() -> None:
    assert Rerun(job=MainJob(tests=())).of("w-a") == 'pytest --benchmark-only -k "[w-a]"'
