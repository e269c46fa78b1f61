"""Is the machine quiet: no foreign process, no slowdown, clocks that stay, a free CPU of one speed.

The GPU is asked through NVML, the CPU through Linux's run queue and by a loop that is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.measurement import core
from diffusers_perf.measurement.machine import cores
from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import Interference

WAIT_BUDGET_S = 20.0
"""A case waits this long in all for its rounds to find the machine quiet."""
WAIT_STEP_S = 0.5

CLOCK_SHARE_MIN = 0.9
"""A round whose SM clock is below this share of the case's highest ran on moved clocks."""
CAPPED_CLOCK_SHARE_MIN = 0.75
"""The same of one that ended at the card's power limit, where the work itself sets the clock from
moment to moment: an H200 that ran FLUX.1-dev, compiled, was read at 1,500 to 1,920 MHz after rounds
of one length, within 0.7 %, and is at 1,980 MHz after a pause, a share of 0.76."""
# nvml.h: nvmlClocksEventReasonSwPowerCap.
POWER_CAP = 0x04

CPU_WAIT_SHARE_MAX = 0.05
"""Of the rounds' time, in which a thread of this process was ready and had no CPU to run on."""
CPU_OWN_SHARE = 0.95
"""A process that fills its cores to this share waits for itself only."""

# nvml.h: nvmlClocksEventReasons. Idle, application clocks and the power cap are not here: the
# first two are settings, and a card at its power limit is a card at work.
SLOWDOWNS = {
    0x08: messages.SLOWDOWN,
    0x20: messages.SOFTWARE_THERMAL,
    0x40: messages.HARDWARE_THERMAL,
    0x80: messages.POWER_BRAKE,
}


@dataclass(kw_only=True)
class Watch:
    """Watches one case's rounds. Without NVML it says so and calls every machine quiet."""

    device: torch.device
    waited_s: float = 0.0
    clocks_mhz: list[int] = field(default_factory=list)
    capped_clocks_mhz: list[int] = field(default_factory=list)
    """Of rounds that ended at the card's power limit."""
    reasons: dict[str, None] = field(default_factory=dict)
    unknowns: dict[str, None] = field(default_factory=dict)
    """What could not be asked, in words."""
    rounds_s: float = 0.0
    """Wall clock of the rounds, as far as they were watched."""
    cpu_waits_s: float = 0.0
    """Of the thread that waited longest for a CPU in each."""
    cpu_own_s: float = 0.0
    """CPU time of this process's threads, all together."""
    loops_s: list[float] = field(default_factory=list)
    """CPU time of the same loop, before and after each round."""
    _handle: Any = None
    _started: tuple[float, float, dict[str, float]] | None = None

    def __post_init__(self) -> None:
        if self.device.type != "cuda":
            return
        try:
            import pynvml
        except ImportError:
            self.unknowns[messages.unknown(messages.CLOCKS, messages.NO_NVML)] = None
            return
        try:
            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(0).uuid
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError as error:
            why = messages.nvml_says(error)
            self.unknowns[messages.unknown(messages.CLOCKS, why)] = None

    def before_round(self) -> None:
        """Wait for a quiet machine within the budget; note what still disturbs it after that."""
        disturbance = self._disturbance(self._limits())
        while disturbance and self.waited_s < WAIT_BUDGET_S:
            time.sleep(WAIT_STEP_S)
            self.waited_s += WAIT_STEP_S
            disturbance = self._disturbance(self._limits())
        if disturbance:
            self.reasons[disturbance] = None
        self._time_loop()
        self._started = time.perf_counter(), time.process_time(), _cpu_waits_s()

    def after_round(self) -> None:
        """Note what the round waited for, and then the GPU."""
        if self._started is not None:
            started, own, waits = self._started
            self.rounds_s += time.perf_counter() - started
            self.cpu_own_s += time.process_time() - own
            now = _cpu_waits_s()
            self.cpu_waits_s += max((now[t] - waits.get(t, 0.0) for t in now), default=0.0)
            self._started = None
        self.note_gpu()
        self._time_loop()

    def note_gpu(self) -> None:
        """Note the clock while the GPU is still warm from its work, and what came up meanwhile."""
        if self._handle is None:
            return
        import pynvml

        clock = self._ask("clocks", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)
        limits = self._limits()
        if clock is not None:
            (self.capped_clocks_mhz if limits & POWER_CAP else self.clocks_mhz).append(clock)
        if disturbance := self._disturbance(limits):
            self.reasons[disturbance] = None

    def gpu_interference(self) -> tuple[str, ...]:
        """Why this case's times say nothing, in words; empty on a quiet machine."""
        found = list(self.reasons)
        highest = max((*self.clocks_mhz, *self.capped_clocks_mhz), default=0)
        low = [
            clock
            for clocks, share in (
                (self.clocks_mhz, CLOCK_SHARE_MIN),
                (self.capped_clocks_mhz, CAPPED_CLOCK_SHARE_MIN),
            )
            for clock in clocks
            if clock < share * highest
        ]
        if low:
            found.append(messages.clock_moved(min(low), highest))
        return tuple(found)

    def host_interference(self) -> tuple[str, ...]:
        """Why this case's wall clock says nothing, while what the GPU did still counts."""
        if self.cpu_waits_s <= CPU_WAIT_SHARE_MAX * self.rounds_s:
            return ()
        if self.cpu_own_s >= CPU_OWN_SHARE * self.rounds_s * cores():
            # More threads than cores is a property of the case, not a disturbance.
            return ()
        share = self.cpu_waits_s / self.rounds_s
        return (messages.waited_for_cpu(share),)

    def interference(self) -> Interference:
        """All that was seen, as a run records it."""
        return Interference(
            gpu=self.gpu_interference(),
            host=self.host_interference(),
            waited_s=self.waited_s,
            sm_clocks_mhz=tuple(self.clocks_mhz),
            power_capped_sm_clocks_mhz=tuple(self.capped_clocks_mhz),
            cpu_wait_share=self.cpu_waits_s / self.rounds_s if self.rounds_s else None,
            cpu_loops_s=tuple(self.loops_s),
            unknown="; ".join(self.unknowns) or None,
        )

    def _time_loop(self) -> None:
        if (seconds := core.loop_s()) > 0:
            self.loops_s.append(seconds)

    def _disturbance(self, limits: int) -> str | None:
        """What disturbs the GPU now, whose clocks are held down by these."""
        if self._handle is None:
            return None
        import pynvml

        for bit, name in SLOWDOWNS.items():
            if limits & bit:
                return name
        processes = self._ask("other processes", pynvml.nvmlDeviceGetComputeRunningProcesses)
        # One of them is this process; its number differs inside a container, so count.
        others = len(processes or [0]) - 1
        if others > 0:
            return messages.other_processes(others)
        return None

    def _limits(self) -> int:
        """What holds the GPU's clocks down, as the bits of `nvmlClocksEventReasons`."""
        if self._handle is None:
            return 0
        import pynvml

        return self._ask("slowdowns", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0

    def _ask(self, what: str, question: Callable[..., Any], *more: int) -> Any:
        """NVML's answer; empty for what it does not report of this card, as of a virtual one."""
        import pynvml

        try:
            return question(self._handle, *more)
        except pynvml.NVMLError as error:
            self.unknowns[messages.unknown(what, messages.nvml_says(error))] = None
            return None


def _cpu_waits_s() -> dict[str, float]:
    """Seconds for which each thread of this process was ready to run and another ran instead.

    Empty where the system does not say: it is Linux's run queue that is asked.
    """
    waits = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waits[thread.parent.name] = int(thread.read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            continue  # a thread that has ended, or a kernel that keeps no such account
    return waits
