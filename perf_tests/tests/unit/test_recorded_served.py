"""What is said of SDXL and FLUX.1-dev in full size, as processes on H200s measured them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from diffusers_perf.catalog.status import Status
from diffusers_perf.cli.gate import Standards, judged
from diffusers_perf.judge.comparison import Comparison
from diffusers_perf.judge.limits import accepted_of
from diffusers_perf.judge.pairs import compare
from diffusers_perf.records.baselines import MachineBaseline
from diffusers_perf.records.run import Run
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.unit.recorded import (
    DIFFERING,
    clean,
    more_work,
    served,
    slow_host,
    three_rounds,
    two_percent,
)

MODELS = ("sdxl", "flux1-dev")


def slowed(run: Run, share: float) -> Run:
    """The same with as much more work of the GPU in each case."""
    cases = {}
    for key, case in run.cases.items():
        seen = case.measurement
        assert seen.gpu_busy_s
        more = share * seen.gpu_busy_s
        rounds = tuple(seconds + more for seconds in seen.rounds_s)
        measured = structs.replace(seen, rounds_s=rounds, gpu_busy_s=seen.gpu_busy_s + more)
        cases[key] = structs.replace(case, measurement=measured)
    return replace(run, cases=cases)


NEAR = (0.045, 0.048, 0.051, 0.047, 0.052)
"""Shares of a latency in which the GPU is idle, about that from which on a host sets the pace."""


def edited(run: Run, *, longer: float = 1.0, idle: float | None = None) -> Run:
    """The same with longer rounds, or with the GPU idle for this share of them."""
    ((key, case),) = run.cases.items()
    seen = case.measurement
    rounds = tuple(longer * seconds for seconds in seen.rounds_s)
    busy_s = seen.gpu_busy_s if idle is None else (1 - idle) * seen.latency_s
    measured = structs.replace(seen, rounds_s=rounds, gpu_busy_s=busy_s)
    return replace(run, cases={key: structs.replace(case, measurement=measured)})


def accepted(runs: Sequence[Run], folder: Path) -> Standards:
    """What these processes are accepted as, but for images."""
    cases = {}
    for key, case in runs[0].cases.items():
        if case.image_only:
            continue
        each = [run.cases[key] for run in runs]
        cases[key] = accepted_of(
            [(o.measurement, None if o.is_reference else o.compared_with) for o in each],
            accepted="2026-11-30",
            versions=runs[0].machine.versions,
            workload=case.workload,
            device="cuda",
        )
    return Standards(
        store=BaselineStore(folder),
        name="",
        baseline=MachineBaseline(machine=runs[0].machine.name, cases=cases),
        portable={},
        operators={},
    )


def slower(found: Comparison) -> set[str]:
    return {change.metric for change in found.changes if change.status == Status.SLOWER}


@pytest.mark.parametrize("model", MODELS)
def test_one_process_against_another_gives_no_false_alarm(model: str) -> None:
    """Starting took up to 2.3 times as long in one process as in another. One pair leaves latencies
    open, so that this is about starts, stages and counters.
    """
    changes = [
        change
        for base, head in permutations(served(model), 2)
        for change in compare([base], [head]).changes
    ]
    assert len(changes) > 100
    assert [c for c in changes if not (c.status.passes or c.status.warns)] == []


@pytest.mark.parametrize(
    ("model", "judged"),
    [("sd15", 140), ("flux1-schnell", 20), ("sdxl", 180), ("flux1-dev", 180), ("flux1", 60)],
)
def test_processes_of_one_commit_give_no_false_alarm(model: str, judged: int) -> None:
    """With all of a case's metrics. Waiting for the host, latencies differed by a third, and a
    stage on a core at half of its speed took twice as long.
    """
    changes = [
        change
        for base, head in permutations(clean(model), 2)
        for change in compare([base], [head]).changes
    ]
    assert len(changes) > judged
    assert [c for c in changes if not (c.status.passes or c.status.warns)] == []


@pytest.mark.parametrize(("part", "cases"), [("flux", 6), ("sd15", 14)])
def test_process_holds_what_the_others_of_its_commit_are_accepted_as(
    part: str, cases: int, tmp_path: Path
) -> None:
    """The case of one had a first round of 1.6 times the others, and a short call of 1.5 times."""
    runs = three_rounds(part)
    seen = {
        (run.path.name, row.id, finding.metric): finding.status
        for run in runs
        for standards in [accepted([other for other in runs if other is not run], tmp_path)]
        for row in run.cases.values()
        for finding in judged(run, row, standards).findings
    }
    assert len({(name, case) for name, case, _ in seen}) == 3 * cases
    assert {k: s for k, s in seen.items() if not (s.passes or s.warns)} == {}
    invalid = {k for k, s in seen.items() if s == Status.INVALID}
    uneven = {
        ("guide_3", "ddim50-fp16+sdpa", "warm-up"),
        ("guide_3", "ddim50-fp16+sdpa", "default call"),
    }
    assert invalid == (uneven if part == "sd15" else set())


@pytest.mark.parametrize("processes", [clean("flux1"), three_rounds("flux"), three_rounds("sd15")])
def test_gpu_busy_time_of_processes_is_within_half_a_percent(processes: list[Run]) -> None:
    """At the GPU's power limit, where all steps are profiled: FLUX in bfloat16, compiled, and in
    float32. And below it.
    """
    compared = 0
    for key, case in processes[0].cases.items():
        if not case.image_only:
            busy = [run.cases[key].measurement.gpu_busy_s or 0 for run in processes]
            assert 0 < max(busy) <= 1.005 * min(busy), key
            compared += 1
    assert compared in (6, 11)


@pytest.mark.parametrize(
    ("model", "metrics"), [("sdxl", {"GPU busy"}), ("flux1-dev", {"GPU busy", "latency"})]
)
def test_two_percent_more_work_of_the_gpu_is_slower(model: str, metrics: set[str]) -> None:
    """FLUX's latency shows it too: the GPU sets its pace. SDXL waits for the host."""
    base = served(model)
    others = [*base[1:], base[0]]
    assert slower(compare(base, others)) == set()
    assert slower(compare(base, [slowed(run, 0.02) for run in others])) == metrics


def test_more_work_in_each_step_shows_in_latency_and_gpu_busy() -> None:
    """Measured, not computed: as much more as the threshold is, and not nothing."""
    base, head = more_work()
    found = {c.metric: c for c in compare(base, head).changes if c.ratio}
    for metric in ("latency", "GPU busy"):
        ratio = found[metric].ratio
        assert ratio
        assert 1.005 < ratio.low < ratio.mid < ratio.high < 1.025, metric
    assert slower(compare(base[:3], base[2:])) == set()


@pytest.mark.parametrize(("model", "metric"), [("flux1-dev", "latency"), ("sdxl", "GPU busy")])
def test_two_percent_that_was_measured_is_slower_and_base_again_is_not(
    model: str, metric: str
) -> None:
    """In turns, as `ab` measures; base again right after it, which is harder than in turns."""
    runs = two_percent(model)
    assert slower(compare(runs["base"], runs["head"])) == {metric}
    changes = compare(runs["base"], runs["again"]).changes
    assert {"latency", "GPU busy", "default call"} <= {c.metric for c in changes if c.ratio}
    assert {c.status for c in changes} <= {Status.SAME, Status.INCONCLUSIVE}


def test_two_percent_of_numbers_that_differ_slows_the_gpu_as_much_as_the_clock() -> None:
    """A product of ones takes less power, which the GPU spends on a higher clock for the rest."""
    runs = two_percent(DIFFERING)
    assert slower(compare(runs["base"], runs["head"])) == {"latency", "GPU busy"}


def test_core_at_half_of_its_speed_makes_no_pair_where_the_gpu_sets_the_pace() -> None:
    """The GPU waited for it, and did its work at a higher clock, in 4 % less time."""
    base, head = more_work()
    changes = {c.metric: c for c in compare(base, head).changes}
    for metric in ("latency", "GPU busy"):
        assert [pair is not None for pair in changes[metric].by_pair] == [*[True] * 4, False]
        assert "waited for the host 6 % of the time" in changes[metric].sentence
    assert all(changes["default call"].by_pair)


@pytest.mark.parametrize("stalled", [2, 3])
def test_host_that_waits_on_a_quick_core_leaves_nothing_out(stalled: int) -> None:
    """Some processes of head take a fifth longer: what waits is head's code, and not the core."""
    base = more_work()[0]
    head = [edited(run, longer=1.2 if number < stalled else 1.0) for number, run in enumerate(base)]
    (latency,) = (c for c in compare(base, head).changes if c.metric == "latency")
    assert all(latency.by_pair)
    assert latency.status == Status.INCONCLUSIVE


def test_more_work_is_slower_where_the_gpu_is_idle_as_often_as_not() -> None:
    base = [edited(run, idle=idle) for run, idle in zip(more_work()[0], NEAR, strict=True)]
    head = [slowed(run, 0.05) for run in (*base[1:], base[0])]
    assert slower(compare(base, head)) >= {"GPU busy"}


def test_core_at_half_of_its_speed_makes_no_stage_slower_than_accepted(tmp_path: Path) -> None:
    """Its text stage took 2.1 times as long. Only the accepted loop tells: all of its own took as
    long.
    """
    run = more_work()[1][-1]
    (case,) = run.cases.values()
    accepted = accepted_of(
        [(other.cases[case.key].measurement, None) for other in served("flux1-dev")],
        accepted="2026-11-29",
        versions=run.machine.versions,
        workload=case.workload,
        device="cuda",
    )

    def findings(loop_s: float | None) -> dict[str, Status]:
        line = structs.replace(accepted, cpu_loop_s=loop_s)
        standards = Standards(
            store=BaselineStore(tmp_path),
            name="",
            baseline=MachineBaseline(machine="NVIDIA H200", cases={case.key: line}),
            portable={},
            operators={},
        )
        verdict = judged(run, case, standards)
        return {finding.metric: finding.status for finding in verdict.findings}

    assert accepted.cpu_loop_s == 0.010992
    assert findings(None)["text stage"] == Status.SLOWER
    assert findings(accepted.cpu_loop_s)["text stage"] == Status.INVALID
    # A core that is as slow as accepted explains nothing.
    assert findings(0.022)["text stage"] == Status.SLOWER


def findings_on_slow_host(name: str, folder: Path, **changes: Any) -> dict[str, Status]:
    """By metric, of the process of this name with these changes to what it measured."""
    before, runs = slow_host()
    ((key, case),) = runs[name].cases.items()
    measured = structs.replace(case.measurement, **changes)
    run = replace(runs[name], cases={key: structs.replace(case, measurement=measured)})
    findings = judged(run, run.cases[key], accepted(before, folder)).findings
    return {finding.metric: finding.status for finding in findings}


def test_core_that_was_slow_beside_all_rounds_makes_no_latency_slower(tmp_path: Path) -> None:
    """The GPU was as busy as accepted, and idle for 24 % of the time, where it had been for 6 %."""
    found = findings_on_slow_host("sd_1", tmp_path)
    assert {found["latency"], found["import time"]} == {Status.INVALID}
    assert {m: s for m, s in found.items() if not (s.passes or s.warns)} == {}


def test_core_that_was_slow_during_the_import_makes_it_no_slower(tmp_path: Path) -> None:
    """It took 1.36 times as long, and the rounds ran on a core at its best, which that run alone
    recorded.
    """
    ((_, case),) = slow_host()[1]["guide_3b"].cases.items()
    seen = case.measurement.interference
    quick = (3.0, 0.0092), (3.3, 0.0095)
    for parts, status in (
        ((), Status.SLOWER),
        (quick, Status.SLOWER),
        # One loop alone, beside little of it.
        ((*quick, (0.3, 0.0149)), Status.SLOWER),
        ((*quick, (4.0, 0.0149)), Status.INVALID),
    ):
        interference = structs.replace(seen, import_parts={"import_s": parts} if parts else {})
        found = findings_on_slow_host("guide_3b", tmp_path, interference=interference)
        assert found["import time"] == status
        assert {s for m, s in found.items() if m != "import time"} == {Status.SAME}


@pytest.mark.parametrize("at_best", [0, 2], ids=["even", "uneven"])
@pytest.mark.parametrize("core", [1.2, 1.3, 1.5])
@pytest.mark.parametrize("sleep_s", [0.6, 1.0, 1.4])
def test_sleep_on_a_slow_core_is_slower_where_the_gpu_sets_the_pace(
    core: float, sleep_s: float, at_best: int, tmp_path: Path
) -> None:
    """While it sleeps the GPU is idle, as beside a slow core: for up to a fifth of the time."""
    runs = three_rounds("flux")
    standards = accepted(runs, tmp_path)
    key = "dev28/flux1-dev/seeded-2023/reference"
    assert standards.baseline
    loop_s = standards.baseline.cases[key].cpu_loop_s
    assert loop_s
    case = runs[0].cases[key]
    seen = case.measurement
    slept = structs.replace(
        seen,
        rounds_s=tuple(seconds + sleep_s for seconds in seen.rounds_s),
        interference=structs.replace(
            seen.interference,
            cpu_loops_s=(loop_s,) * at_best + (core * loop_s,) * (6 - at_best),
        ),
    )
    run = replace(runs[0], cases={key: structs.replace(case, measurement=slept)})
    found = {f.metric: f.status for f in judged(run, run.cases[key], standards).findings}
    assert found["latency"] == Status.SLOWER


@pytest.mark.parametrize(
    ("rounds", "busy", "slower"),
    [
        (1.0, 1.03, {"GPU busy"}),
        # A bit more than 1.48 times what the host took when it was accepted.
        (1.2, 1.2 * 1.18, {"GPU busy", "latency"}),
        # What sleeps, longer than the core explains.
        (1.5, 1.0, {"latency"}),
    ],
)
def test_regression_on_a_slow_core_is_slower(
    rounds: float, busy: float, slower: set[str], tmp_path: Path
) -> None:
    ((_, case),) = slow_host()[1]["sd_1"].cases.items()
    seen = case.measurement
    assert seen.gpu_busy_s
    found = findings_on_slow_host(
        "sd_1",
        tmp_path,
        rounds_s=tuple(rounds * seconds for seconds in seen.rounds_s),
        gpu_busy_s=busy * seen.gpu_busy_s,
    )
    assert {metric for metric, status in found.items() if status == Status.SLOWER} == slower
