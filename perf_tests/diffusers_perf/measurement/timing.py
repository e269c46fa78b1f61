"""Warm-up and timed rounds. The clock waits for the device on both sides of a round."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffusers_perf.measurement.clock import synchronized_clock

if TYPE_CHECKING:
    from diffusers_perf.measurement.generation import Generation

WARM_UP_ROUNDS_MAX = 3
WARM_UP_AGREEMENT = 0.05


class Rounds(Protocol):
    """Times `generate` this often, calling `before_round` (untimed) ahead of each; seconds."""

    def __call__(
        self, generate: Generation, *, before_round: Callable[[], None], rounds: int
    ) -> Sequence[float]: ...


@dataclass(frozen=True, kw_only=True)
class Stopwatch:
    """Warms up and times generations."""

    clock: Callable[[], float] = synchronized_clock

    def warm_up(
        self,
        generate: Callable[[], object],
        *,
        on_round: Callable[[float], None],
        times: int | None = None,
    ) -> None:
        """Generate until two consecutive rounds agree within 5 %, at most three times; where
        `times` is given, so many times whatever they take.

        `on_round` gets each one's seconds.
        """
        seconds: list[float] = []
        while len(seconds) < (times or WARM_UP_ROUNDS_MAX):
            start = self.clock()
            generate()
            seconds.append(self.clock() - start)
            on_round(seconds[-1])
            if times is None and len(seconds) > 1:
                before, last = seconds[-2:]
                if abs(last - before) <= WARM_UP_AGREEMENT * before:
                    break

    def rounds(
        self,
        generate: Callable[[], object],
        *,
        before_round: Callable[[], None],
        rounds: int,
        after_first: Callable[[float], None] = lambda _: None,
    ) -> Sequence[float]:
        """The loop of `benchmark.pedantic`, for what is timed outside of a test of its own.

        `after_first` gets the first one's seconds.
        """
        seconds = []
        for _ in range(rounds):
            before_round()
            gc.disable()
            try:
                start = self.clock()
                generate()
                seconds.append(self.clock() - start)
            finally:
                gc.enable()
            if len(seconds) == 1:
                after_first(seconds[0])
        return seconds
