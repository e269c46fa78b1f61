"""One stack that a search tries, what became of it, and what it gains over another."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from diffusers_perf.catalog.metrics import GPU_BUSY, LATENCY
from diffusers_perf.judge.stats import ratio_interval
from diffusers_perf.messages import explore as messages
from diffusers_perf.records.measurement import Measurement

Stack = tuple[str, ...]
"""Names of optimizations beyond the workload's base, in the order of the catalogue."""

CONFIDENCE = 0.95
"""What a search believes wrongly costs it a detour, and what it misses a gain."""
NOISE = 0.005
"""A difference in latency or GPU busy below this share is none: three processes on a GPU agree to
0.3 to 0.9 % about GPU busy, and what gains less than that is not looked for."""


OBVIOUS = 2.0
"""A latency this many times as long needs no second look; beside a GPU, nor does a shorter one."""
HOPELESS = 0.9
"""What has the GPU work so much longer is not tried on another stack."""

IN_FULL = "in full"


class Stopped(Exception):
    """No further stack may be tried; the text says why."""


class TooLong(Stopped):
    """This stack may take longer than what is left of the budget, and others may not."""


SEVERAL = 4.0
"""What takes so many times as long as the best is not measured further. Beside a GPU, it would have
to save as much of the GPU's time."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One stack to be tried."""

    stack: Stack
    change: str
    """What it differs in from the best so far, as a person reads it."""
    why: str = ""
    """What it is compared with; the same stack is tried once for each, since a machine drifts.
    Begins with `IN_FULL` where it is measured as the main job would."""
    limit_s: float = inf
    """A latency that is longer is hopeless, and need not be measured."""
    best: Stack = ()
    """The best stack so far, for which time to measure it in full is kept back."""

    @property
    def in_full(self) -> bool:
        """Whether it is measured as the main job would, and not to be compared with others."""
        return self.why.startswith(IN_FULL)

    @property
    def key(self) -> str:
        """The same for what need not be tried twice."""
        return f"{'+'.join(self.stack)} | {self.why}"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of a stack."""

    measured: Measurement | None
    refused: str = ""
    """Why it is out, whatever its speed: it cannot run, or its image is not what was asked for.
    Empty if it is not."""
    too_slow_s: float | None = None
    """Its latency by one generation, where that was hopeless and nothing was measured."""
    others_are_shorter: bool = False
    """Of a reference: stacks are timed in few steps, as it has to be to be compared with them."""


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A stack that became the best, and what was changed for it."""

    change: str
    stack: Stack
    measured: Measurement


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """Why an optimization is not in the stack."""

    reason: str
    on: Stack
    """The stack that it was tried on."""
    again: bool
    """Whether another stack could change that."""
    nearly: bool = False
    """Whether it takes hardly longer than the best, within the limits, which a compiler could
    change."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How many times less a stack takes than another; 1 where the noise is larger."""

    latency: float
    busy: float

    @property
    def total(self) -> float:
        """What counts on the way, where the host may hide what the GPU gains."""
        return self.latency * self.busy

    @property
    def by_the_clock(self) -> float:
        """What counts in the end: the GPU's time only where the clock sees no difference."""
        return self.busy if self.latency == 1 else self.latency

    def text(self) -> str:
        """In words, if it gains nothing."""
        slower = [
            messages.as_long(name, 1 / ratio)
            for name, ratio in ((LATENCY.name, self.latency), (GPU_BUSY.name, self.busy))
            if ratio != 1
        ]
        return messages.slower(slower) if slower else messages.GAINS_NOTHING


def gain(new: Measurement, old: Measurement) -> Gain:
    """What the new one gains over the old one, as far as that is certain."""
    interval = ratio_interval(old.rounds_s, new.rounds_s, confidence=CONFIDENCE)
    # Other work on the machine only ever adds to a round, so the fastest ones must agree.
    fastest = min(old.rounds_s) / min(new.rounds_s)
    latency = min(interval.mid, fastest, key=lambda ratio: abs(ratio - 1))
    certain = not interval.low <= 1 <= interval.high and (interval.mid > 1) == (fastest > 1)
    busy = 1.0
    if old.gpu_busy_s is not None and new.gpu_busy_s is not None:
        busy = old.gpu_busy_s / new.gpu_busy_s
    return Gain(
        latency=latency if certain and abs(latency - 1) > NOISE else 1.0,
        busy=busy if abs(busy - 1) > NOISE else 1.0,
    )


def excess(measured: Measurement, memory_bytes: float | None) -> float:
    """Bytes above the limit on memory, if there is one."""
    if memory_bytes is None or measured.peak_memory_bytes is None:
        return 0.0
    return max(0.0, measured.peak_memory_bytes - memory_bytes)


def held_to(stack: Stack) -> str:
    return f"against {'+'.join(stack) or 'the reference'}"


def change_of(before: Stack, after: Stack) -> str:
    """``+ what came - what went``."""
    came = [f"+ {name}" for name in after if name not in before]
    gone = [f"- {name}" for name in before if name not in after]
    return " ".join([*came, *gone])
