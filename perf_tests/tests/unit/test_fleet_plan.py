"""How `fleet` cuts a list of cases: every case once, in order, and as early done as can be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from diffusers_perf.fleet.plan import (
    SHARD_MOST_S,
    Durations,
    ListedCase,
    PlannedShard,
    finish_s,
    plan,
)
from perf_tests.tests import scaling
from perf_tests.tests.unit.recorded import parsed, process, session, write


def drawn(seed: int, *, count: int) -> tuple[list[ListedCase], Durations]:
    """Cases of a few workloads, each with a reference, and what they take."""
    draw = random.Random(seed)
    cases: list[ListedCase] = []
    while len(cases) < count:
        workload = f"w{len(cases)}"
        reference = f"{workload}-reference"
        cases.append(ListedCase(id=reference, against=()))
        cases += [
            ListedCase(id=f"{workload}-{number}", against=(reference,))
            for number in range(draw.randrange(8))
        ]
    cases = cases[:count]
    seconds = {case.id: draw.uniform(1, 120) for case in cases}
    return cases, Durations(cases=seconds, start_s=draw.uniform(0, 30))


def places(shards: Sequence[PlannedShard]) -> list[int]:
    in_order = sorted(shards, key=lambda shard: shard.index)
    return [place for shard in in_order for place in range(shard.first, shard.last + 1)]


@pytest.mark.parametrize("seed", range(4))
def test_each_case_is_in_one_shard(seed: int) -> None:
    cases, durations = drawn(seed, count=random.Random(seed).randrange(1, 60))
    for gpus in (1, 2, 7, 64):
        planned = plan({"": cases}, durations, gpus=gpus)
        assert places(planned.shards) == list(range(1, len(cases) + 1))
        assert {shard.count for shard in planned.shards} == {len(planned.shards)}
        assert sorted(s.seconds for s in planned.shards)[::-1] == [
            s.seconds for s in planned.shards
        ]
        assert planned.finish_s == finish_s([s.seconds for s in planned.shards], gpus)
        assert 0 < planned.efficiency <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_more_gpus_are_done_no_later(seed: int) -> None:
    cases, durations = drawn(seed, count=40)
    times = [plan({"": cases}, durations, gpus=gpus).finish_s for gpus in (1, 2, 4, 8, 16, 64)]
    assert all(later <= earlier * 1.02 for earlier, later in pairwise(times))
    longest = max(durations.shard_s([case]) for case in cases)
    assert times[-1] >= longest


@pytest.mark.parametrize("seed", range(4))
def test_plan_is_better_than_equal_parts(seed: int) -> None:
    cases, durations = drawn(seed, count=40)
    bounds = [len(cases) * part // 8 for part in range(9)]
    equal = [durations.shard_s(cases[a:b]) for a, b in pairwise(bounds)]
    assert plan({"": cases}, durations, gpus=8).finish_s <= max(equal) * 1.001


def test_shard_measures_the_references_of_its_cases() -> None:
    cases = [
        ListedCase(id="w-reference", against=()),
        ListedCase(id="w-naive", against=("w-reference",)),
        ListedCase(id="w-sdpa", against=("w-naive", "w-reference")),
    ]
    seconds = {"w-reference": 100.0, "w-naive": 10.0, "w-sdpa": 1.0}
    durations = Durations(cases=seconds, start_s=5)
    assert durations.shard_s(cases) == 116
    assert durations.shard_s(cases[2:]) == 116
    assert durations.shard_s(cases[1:2]) == 115
    # Nothing is gained from a second GPU, so it is left alone.
    assert len(plan({"": cases}, durations, gpus=2).shards) == 1


def test_lists_share_the_gpus() -> None:
    """Each list has shards of its own, which count for themselves."""
    large, small = drawn(1, count=30)[0], drawn(2, count=3)[0]
    planned = plan({"large": large, "small": small}, Durations(cases={}), gpus=4)
    by_group = {name: [s for s in planned.shards if s.group == name] for name in ("large", "small")}
    assert places(by_group["large"]) == list(range(1, 31))
    assert places(by_group["small"]) == [1, 2, 3]
    assert len(by_group["small"]) < len(by_group["large"])


def test_interruption_loses_a_part_on_one_gpu_too() -> None:
    cases = [ListedCase(id=str(number), against=()) for number in range(100)]
    durations = Durations(cases={case.id: 60.0 for case in cases}, start_s=20)
    planned = plan({"": cases}, durations, gpus=1)
    assert max(shard.seconds for shard in planned.shards) <= SHARD_MOST_S
    assert planned.efficiency > 0.95


def test_simulation_names_where_a_plan_stops_scaling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = process("recorded")
    session(content)["durations_s"] = dict.fromkeys(session(content)["expected"], 60.0)
    (path,) = write([content], tmp_path, "run")
    for models, most in ((1, 4), (7, 32)):
        monkeypatch.setattr("sys.argv", ["scaling", str(path), f"--models={models}"])
        scaling.main()
        said = capsys.readouterr().out
        assert f"stops scaling at {most} GPUs" in said
        assert "| 64 |" in said


def test_unknown_case_takes_as_long_as_most() -> None:
    durations = Durations(cases={"a": 1.0, "b": 2.0, "c": 90.0}, start_s=0)
    assert durations.of("new") == 2.0


def test_durations_come_from_the_last_run_that_has_a_case() -> None:
    contents = [process("one"), process("two")]
    session(contents[0])["durations_s"] = {"a": 1.0, "b": 2.0}
    session(contents[1])["durations_s"] = {"b": 3.0}
    session(contents[1])["placements"] = [
        {"shard": 1, "host": "here", "gpu_uuid": None, "seconds": 9.0, "start_s": start_s}
        for start_s in (4.0, 6.0)
    ]
    durations = Durations.recorded_in(parsed(contents, "run"))
    assert durations.cases == {"a": 1.0, "b": 3.0}
    assert durations.start_s == 5.0
    assert durations.times(10).shard_s([ListedCase(id="a", against=())]) == 60.0
