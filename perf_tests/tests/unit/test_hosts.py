"""Head and base on hosts of one name: which speed of the CPU makes latencies incomparable."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.judge.clock import Hosts
from diffusers_perf.judge.comparison import Comparison
from diffusers_perf.judge.interference import CORE_SLOWED
from diffusers_perf.judge.pairs import compare
from perf_tests.tests.unit.recorded import (
    Content,
    cases,
    drop,
    machine,
    measured,
    parsed,
    session,
    settle,
    side,
    write,
)

LOOP_S = 0.0056
FP16 = "ddim50-fp16"
Edit = Callable[[Content], object]


def host(content: Content, name: str, *, latency: float = 1.0, loops: float = 1.0) -> Content:
    """The run on a host whose calibration loop takes this many times as long, and its rounds."""
    draw = random.Random(name)
    for one in cases(content):
        seen = one["measurement"]
        seen["rounds_s"] = [
            latency * seconds * (1 + draw.gauss(0, 0.001)) for seconds in seen["rounds_s"]
        ]
        seen["interference"]["cpu_loops_s"] = [
            LOOP_S * loops * (1 + draw.gauss(0, 0.003)) for _ in range(2 * len(seen["rounds_s"]))
        ]
    return settle(content)


def on_a_cpu(content: Content) -> Content:
    """The same, measured without a GPU."""
    machine(content).update(device="cpu", name="AMD EPYC (2 cores)", compute_capability=None)
    machine(content).update(memory_bytes=None, driver=None, cuda=None, gpu_uuid=None, threads=1)
    for one in cases(content):
        one["measurement"].update(gpu_busy_s=None, peak_memory_bytes=None)
    return settle(content)


def compared(
    *, latency: float = 1.0, loops: float = 1.0, cpu: bool = True, edit: Edit | None = None
) -> Comparison:
    base, head = (
        [host(content, f"{name}{number}") for number, content in enumerate(side(name))]
        if name == "base"
        else [
            host(content, f"{name}{number}", latency=latency, loops=loops)
            for number, content in enumerate(side(name))
        ]
        for name in ("base", "head")
    )
    for content in head:
        if edit:
            edit(content)
    if cpu:
        base, head = ([on_a_cpu(content) for content in contents] for contents in (base, head))
    return compare(parsed(base, "base"), parsed(head, "head"))


def latencies(found: Comparison) -> set[str]:
    return {str(change.status) for change in found.changes if change.metric == "latency"}


def test_same_host_holds() -> None:
    assert latencies(compared()) == {"same"}
    found = compared(latency=1.2)
    assert latencies(found) == {"slower"}
    (change,) = [c for c in found.changes if (c.case, c.metric) == (FP16, "latency")]
    assert "of the least rounds" in change.measured
    assert "at one speed of the CPU" not in change.measured


def test_slow_core_of_one_process_is_not_what_head_did() -> None:
    """Two of head's processes ran on a core that was 1.8 times slower, as a shared host's are."""

    def on_slow_cores(contents: list[Content]) -> list[Content]:
        for content in contents[:2]:
            for one in cases(content):
                seen = one["measurement"]
                busy = seen["gpu_busy_s"] or 0.0
                seen["rounds_s"] = [busy + 1.8 * (s - busy) for s in seen["rounds_s"]]
                loops = seen["interference"]["cpu_loops_s"]
                seen["interference"]["cpu_loops_s"] = [1.8 * s for s in loops]
            settle(content)
        return contents

    base, head = (
        [host(content, f"{name}{n}") for n, content in enumerate(side(name))]
        for name in ("base", "head")
    )
    found = compare(parsed(base, "base"), parsed(on_slow_cores(head), "head"))
    (change,) = [c for c in found.changes if (c.case, c.metric) == (FP16, "latency")]
    assert change.status == "same"
    assert "at one speed of the CPU" in change.measured


@pytest.mark.parametrize(
    ("was", "now", "slower"),
    [
        ((1.0, 1.02), (1.04, 1.06), 1.05 / 1.01),
        ((1.04, 1.06), (1.0, 1.02), 1.01 / 1.05),
        # They touch, or overlap.
        ((1.0, 1.02), (1.02, 1.04), 1.0),
        ((1.02, 1.04), (1.0, 1.02), 1.0),
        ((1.0, 1.03), (1.02, 1.04), 1.0),
    ],
)
def test_sides_that_overlap_are_of_one_speed(
    was: tuple[float, ...], now: tuple[float, ...], slower: float
) -> None:
    base, head = (
        [
            parsed([with_loops(content, seconds)], name)[0]
            for content, seconds in zip(side(name, count=2), loops_s, strict=True)
        ]
        for name, loops_s in (("base", was), ("head", now))
    )
    assert Hosts.of(base, head).slower == pytest.approx(slower)


def with_loops(content: Content, seconds: float) -> Content:
    """The run with calibration loops that all took so long."""
    for one in cases(content):
        loops = [seconds] * (2 * len(one["measurement"]["rounds_s"]))
        one["measurement"]["interference"]["cpu_loops_s"] = loops
    return content


@pytest.mark.parametrize(("share", "other"), [(1.0, False), (1.001, True)])
def test_host_is_another_beyond_the_usual_spread_of_cores(share: float, other: bool) -> None:
    slow_s = share * CORE_SLOWED * LOOP_S
    base, head = (
        parsed([with_loops(content, seconds) for content in side(name, count=2)], name)
        for name, seconds in (("base", LOOP_S), ("head", slow_s))
    )
    assert bool(Hosts.of(base, head).other) is other
    assert bool(Hosts.of(head, base).other) is other


def test_speeds_of_two_hosts_are_given() -> None:
    base, head = (
        parsed([with_loops(content, seconds) for content in side(name, count=1)], name)
        for name, seconds in (("base", 0.5), ("head", 1.0))
    )
    assert "500.0 ms and 1000.0 ms" in Hosts.of(base, head).other


def test_one_cpu_on_both_sides_is_compared() -> None:
    def known(contents: list[Content]) -> list[Content]:
        for content in contents:
            machine(content)["cpu"] = "AMD EPYC"
        return contents

    found = compare(parsed(known(side("base")), "base"), parsed(known(side("head")), "head"))
    assert "invalid" not in latencies(found)


@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("factor", [1.2, 1 / 1.2, 1.5])
def test_other_host_of_the_same_name_is_invalid(factor: float, cpu: bool) -> None:
    found = compared(latency=factor, loops=factor, cpu=cpu)
    assert latencies(found) == {"invalid"}
    assert found.exit_code == 2


@pytest.mark.parametrize("factor", [1.08, 1 / 1.08])
def test_host_that_is_a_little_slower_explains_as_much(factor: float) -> None:
    assert latencies(compared(latency=factor, loops=factor)) == {"invalid"}
    # A regression that is larger than what the host explains.
    assert latencies(compared(latency=1.3, loops=1.08)) == {"slower"}


def test_host_that_is_hardly_slower_makes_no_regression_of_all_cases() -> None:
    assert "slower" in latencies(compared(latency=1.025))
    assert latencies(compared(latency=1.025, loops=1.025)) <= {"same", "inconclusive"}


def test_speed_of_the_host_explains_nothing_that_the_gpu_does() -> None:
    def gpu_bound(content: Content) -> None:
        for one in cases(content):
            seen = one["measurement"]
            seen["gpu_busy_s"] = 0.99 * min(seen["rounds_s"])

    found = compared(latency=1.1, loops=1.1, cpu=False, edit=gpu_bound)
    assert {change.status for change in found.changes if change.metric == "GPU busy"} >= {"slower"}


def test_another_cpu_is_invalid_on_a_gpu_and_refused_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def another(content: Content) -> None:
        machine(content)["cpu"] = "Intel Xeon"

    def mine(content: Content) -> None:
        machine(content)["cpu"] = "AMD EPYC"

    base, head = side("base"), side("head")
    for content in base:
        mine(content)
    for content in head:
        another(content)
    found = compare(parsed(base, "base"), parsed(head, "head"))
    assert latencies(found) == {"invalid"}
    assert {c.status for c in found.changes if c.metric in ("GPU busy", "counters")} == {"same"}
    for content in head:
        on_a_cpu(content)["machine_info"]["diffusers_perf"]["name"] = "Intel Xeon (2 cores)"
    for content in base:
        on_a_cpu(content)
    arguments = ["compare", "--base", *map(str, write(base, tmp_path, "base"))]
    assert command.main([*arguments, "--head", *map(str, write(head, tmp_path, "head"))]) == 2
    assert "different hardware (machine)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("python", "status"), [("3.13.1", "same"), ("3.13.3", "same"), ("3.12.9", "invalid")]
)
def test_loops_of_two_pythons_say_nothing(python: str, status: str) -> None:
    """Of another minor version; patches have the same interpreter."""

    def other_python(content: Content) -> None:
        machine(content)["python"] = python

    assert latencies(compared(loops=1.3, edit=other_python)) == {status}


def test_edited_runs_are_missing_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def renamed(content: Content) -> None:
        measured(content, FP16)["case"] = "fp16_new"

    assert compared(edit=renamed).verdicts[FP16] == "missing"
    assert compared(edit=lambda content: drop(content, FP16)).verdicts[FP16] == "missing"
    base, head = write(side("base"), tmp_path, "base"), write(side("head"), tmp_path, "head")
    content = json.loads(head[0].read_text())
    cases(content)[0]["measurement"]["rounds_s"][0] = float("nan")
    head[0].write_text(json.dumps(content))
    assert command.main(["compare", "--base", *map(str, base), "--head", *map(str, head)]) == 2
    assert "head-0.json: not valid JSON" in capsys.readouterr().err
    assert session(content)["schema"] == 2
