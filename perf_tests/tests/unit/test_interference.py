"""What disturbs a case: said of a GPU and of a CPU that are printed what to answer."""

from __future__ import annotations

import cProfile
import itertools
import sys
import time
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import torch

from diffusers_perf.measurement import core, interference

LOOP_S = core.loop_s
"""As it is before the tests run, which all have a core of one speed."""


class Unanswered(Exception):
    """What NVML raises for what it does not know of this card."""


class Card:
    """A GPU whose rounds end at these clocks, each with the bits of its throttling reasons."""

    def __init__(self, *rounds: tuple[int, int | None], processes: int = 1) -> None:
        self.rounds = rounds
        self.processes = processes
        self.now = -1

    def clock(self) -> int:
        """Asked once a round, and first."""
        self.now += 1
        return self.rounds[self.now][0]

    def limits(self) -> int:
        """What holds it down now."""
        limits = self.rounds[self.now][1]
        if limits is None:
            raise Unanswered("Not Supported")
        return limits

    def nvml(self) -> SimpleNamespace:
        """Stands in for pynvml."""
        return SimpleNamespace(
            NVML_CLOCK_SM=1,
            NVMLError=Unanswered,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
            nvmlDeviceGetClockInfo=lambda handle, kind: self.clock(),
            nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: self.limits(),
            nvmlDeviceGetComputeRunningProcesses=lambda handle: [0] * self.processes,
        )


@pytest.mark.parametrize(
    ("card", "affected"),
    [
        (Card((1980, 0), (1965, 0)), ()),
        (Card((1980, 0), (1500, 0)), ("the SM clock moved between 1500 and 1980 MHz",)),
        (Card((1980, 0), (1760, 0)), ("the SM clock moved between 1760 and 1980 MHz",)),
        # A card at its power limit is a card at work; 1965 MHz is after a pause.
        (Card((1695, 0x04), (1740, 0x04), (1965, 0)), ()),
        (Card((1695, 0x04), (1740, 0x04), (1965, 0x04)), ()),
        # Of an H200 at its power limit, after rounds that took as long as one another.
        (Card((1980, 0), (1875, 0x04), (1500, 0x04), (1920, 0x04)), ()),
        (Card((2000, 0x04), (1500, 0x04)), ()),
        (Card((2000, 0x04), (1499, 0x04)), ("the SM clock moved between 1499 and 2000 MHz",)),
        (Card((1980, 0x04), (900, 0x04)), ("the SM clock moved between 900 and 1980 MHz",)),
        (Card((1980, 0), (900, 0x04)), ("the SM clock moved between 900 and 1980 MHz",)),
        (Card((1980, 0x04), (1500, 0)), ("the SM clock moved between 1500 and 1980 MHz",)),
        (Card((1980, 0), (1980, 0x20)), ("software thermal slowdown",)),
        (Card((1980, 0), (1965, 0x40 | 0x04)), ("hardware thermal slowdown",)),
        # Throttled by heat, it is not at its power limit.
        (
            Card((1980, 0), (1700, 0x40)),
            ("hardware thermal slowdown", "the SM clock moved between 1700 and 1980 MHz"),
        ),
        (Card((1980, 0), processes=3), ("2 other processes on the GPU",)),
        (Card((1980, None), (1500, None)), ("the SM clock moved between 1500 and 1980 MHz",)),
    ],
)
def test_gpu_interference_is_reported(
    monkeypatch: pytest.MonkeyPatch, card: Card, affected: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", card.nvml())
    properties = SimpleNamespace(uuid="0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    watch = interference.Watch(device=torch.device("cuda"))
    for _ in card.rounds:
        watch.note_gpu()
    assert watch.gpu_interference() == affected
    printed = watch.interference()
    clocks = (*printed.sm_clocks_mhz, *printed.power_capped_sm_clocks_mhz)
    assert sorted(clocks) == sorted(clock for clock, _ in card.rounds)
    answers = card.rounds[0][1] is not None
    assert printed.unknown == (None if answers else "slowdowns unknown: NVML says Not Supported")


def test_missing_answer_of_a_gpu_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise Unanswered("Not Supported")

    nvml = Card((1980, None)).nvml()
    nvml.nvmlDeviceGetClockInfo = nvml.nvmlDeviceGetComputeRunningProcesses = refused
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = refused
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="0")
    )
    watch = interference.Watch(device=torch.device("cuda"))
    watch.before_round()
    watch.after_round()
    assert watch.gpu_interference() == ()
    assert sorted((watch.interference().unknown or "").split("; ")) == [
        f"{what} unknown: NVML says Not Supported"
        for what in ("clocks", "other processes", "slowdowns")
    ]


def test_waiting_for_a_cpu_is_host_interference(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = iter(({"1": 0.0}, {"1": 10.0, "2": 0.5}, {"1": 10.0}, {"1": 10.0}))
    monkeypatch.setattr(interference, "_cpu_waits_s", lambda: next(waits))
    # Rounds of a second in which this process hardly runs, however many CPUs it may run on.
    seconds = SimpleNamespace(perf_counter=itertools.count().__next__, process_time=lambda: 0)
    monkeypatch.setattr(interference, "time", seconds)
    watch = interference.Watch(device=torch.device("cpu"))
    watch.before_round()
    watch.after_round()
    assert "the host waited for a CPU" in watch.host_interference()[0]
    calm = interference.Watch(device=torch.device("cpu"))
    calm.before_round()
    calm.after_round()
    assert calm.host_interference() == ()
    assert calm.interference().cpu_wait_share == 0


def test_core_speed_is_timed_at_both_ends_of_each_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # CPU time: waiting for another thread or for a lock does not show a slower core.
    seconds = iter((1.0, 1.25, 7.0, 7.5, 8.0, 8.125, 9.0, 9.0))
    noted = []

    def loop() -> float:
        noted.append("CPU")
        return next(seconds)

    monkeypatch.setattr(time, "thread_time", loop)
    monkeypatch.setattr(core, "loop_s", LOOP_S)
    monkeypatch.setattr(interference.Watch, "note_gpu", lambda self: noted.append("GPU"))
    watch = interference.Watch(device=torch.device("cpu"))
    for _ in range(2):
        watch.before_round()
        watch.after_round()
    # The last one too short for a coarse clock.
    assert watch.interference().cpu_loops_s == (0.25, 0.5, 0.125)
    # A GPU's clock falls while it idles.
    assert noted == ["CPU", "CPU", "GPU", "CPU", "CPU"] * 2


def test_tracer_does_not_slow_the_loop() -> None:
    followed: list[str] = []

    def tracer(frame: FrameType, event: str, _: object) -> Any:
        followed.append(event)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        LOOP_S()
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert len(followed) < 100


def test_profiler_does_not_slow_the_loop_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 takes 1.55 times as long for it, even though the loop calls nothing."""
    while_timed: list[object] = []

    def thread_time() -> float:
        while_timed.append(sys.getprofile())
        return float(len(while_timed))

    def profiler(frame: FrameType, event: str, _: object) -> None:
        pass

    monkeypatch.setattr(core, "time", SimpleNamespace(thread_time=thread_time))
    before = sys.getprofile()
    sys.setprofile(profiler)
    try:
        assert LOOP_S() == 1.0
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(before)
    assert while_timed == [None, None]


def test_cprofile_goes_on_after_the_loop() -> None:
    """`sys.getprofile` gives its object on Python 3.11, which cannot be called."""

    def after() -> None:
        pass

    with cProfile.Profile(builtins=False) as profile:
        LOOP_S()
        after()
    entries = profile.getstats()  # type: ignore[attr-defined, unused-ignore]
    assert after.__code__ in {entry.code for entry in entries}
