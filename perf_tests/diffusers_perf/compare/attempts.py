"""Tries stacks of optimizations for `explore`, within a budget.

Each is measured briefly, to be compared with others: in few steps where a generation takes long.
The best is measured in full at the end, as the main job would, and time is kept back for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from diffusers_perf.catalog.declarations import REFERENCE, Case, Tolerance
from diffusers_perf.catalog.metrics import GPU_BUSY, IMAGE_DISTANCE, cells
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.status import Status
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.compare.explored import Entry, Folder, asked
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.messages import common
from diffusers_perf.messages import explore as messages
from diffusers_perf.plugin.screen import image
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.search.attempt import IN_FULL, Ask, Stack, Stopped, TooLong, Tried

if TYPE_CHECKING:
    from diffusers_perf.measurement.bench import Bench
    from diffusers_perf.measurement.observing import Observer

ROUNDS_S = 2.5
"""Of timed rounds for a stack as fast as the fastest so far, within these numbers of them: what is
fast differs by little."""
ROUNDS_LEAST, ROUNDS_MOST = 3, 8
SLOW_S = 1.0
"""Where a generation of the reference takes longer, stacks are timed in few steps."""
COMPILING_S = 90.0
"""What a stack is expected to take longer that is the first to be compiled in its way."""
BEGUN_MOST = 2
"""A stack in which the process ended so often is not tried again."""

Way = tuple[Stack, bool]
"""What the time of an attempt depends on: what is compiled, and whether all its steps are alike."""


@dataclass(kw_only=True)
class Attempts:
    """Tries stacks on a bench, and keeps what came out."""

    bench: Bench
    catalog: Catalog
    workload: Workload
    tolerance: Tolerance
    folder: Folder
    budget_s: float
    number: int = 0
    with_interference: int = 0
    """While it was measured, beside other work on the machine."""
    _few: Workload | None = None
    """What stands in for the workload where stacks are timed in few steps."""
    _started: float = field(default_factory=lambda: monotonic())
    _observer: Observer = field(init=False)
    """Of what is measured in full."""

    def __post_init__(self) -> None:
        self._observer = self.bench.observer

    def __call__(self, ask: Ask) -> Tried:
        """As it was tried before, or now. `Stopped` where no time is left for it."""
        self.number += 1
        tried = self.folder.tried
        entry = tried.get(ask.key)
        if entry and entry.too_slow_s is not None and entry.too_slow_s <= ask.limit_s:
            entry = None  # of a search that needed no more than the speed
        if ask.in_full and ask.best and replace(ask, stack=ask.best).key not in tried:
            entry = None  # of a search that came no further, on a machine as it was then
        print(f"[{self.number:3}] {ask.change}", end=" … ", flush=True)
        case = self._case(ask)
        if entry is None:
            begun = self.folder.begun.get(ask.key, 0)
            if begun >= BEGUN_MOST:
                refused = messages.ended_in_it(begun)
                print(refused)
                return Tried(measured=None, refused=refused)
            try:
                self._afford(ask, case)
                self._make_reference(case)
            except Stopped:
                print(messages.NOT_TRIED)
                raise
            entry = self._run(ask, case)
            seconds: float | None = entry.seconds
        else:
            seconds = None
        seen = Tried(measured=entry.measured, refused=entry.failed, too_slow_s=entry.too_slow_s)
        seen = self._judged(case, seen)
        print(self._line(seen, seconds), flush=True)
        self._see_that_it_works()
        if ask.stack or not ask.in_full or seen.measured is None:
            return seen
        self._few = self._in_few_steps(seen.measured)
        return replace(seen, others_are_shorter=self._few is not None)

    def few_steps(self, measured: Measurement) -> str:
        """From how many steps its times are extrapolated, in words; empty if they are not."""
        if self._few is None or measured.workload != self._few.name:
            return ""
        return messages.from_few(self._few.steps, self.workload.steps)

    def _case(self, ask: Ask) -> Case:
        """What is run: in few steps where that stands for all of them."""
        case = self.catalog.case(self.workload, "+".join(ask.stack) or REFERENCE)
        if self._few is None or ask.in_full or not case.alike:
            return case
        return replace(case, workload=self._few)

    def _in_few_steps(self, reference: Measurement) -> Workload | None:
        from diffusers_perf.measurement.few_steps import in_few_steps

        # From an init image, fewer steps are taken than are asked for.
        if reference.latency_s <= SLOW_S or reference.steps != self.workload.steps:
            return None
        return in_few_steps(self.workload)

    def _afford(self, ask: Ask, case: Case) -> None:
        """`Stopped` where the time that is left is too short, or `TooLong` where it is too short
        for this stack and may suffice for another.
        """
        left_s = self.budget_s - (monotonic() - self._started)
        way, plain_s = self._way(case), self._took.get(((), True), 0.0)
        # By the clock, the best is timed beside the reference.
        times = 2 if self.bench.device.type == "cpu" else 1
        if ask.in_full:
            needed_s = least_s = self._in_full_s(way) * (1 if ask.stack else times)
        else:
            best_s = self._in_full_s(self._way(self._case(replace(ask, stack=ask.best))))
            needed_s = self._expected_s(way) + times * max(best_s, self._in_full_s(way))
            least_s = plain_s + times * best_s
        said = messages.out_of_budget(left_s, self.budget_s, needed_s, in_full=ask.in_full)
        if left_s <= 0 or least_s > left_s:
            raise Stopped(said)
        if needed_s > left_s:
            raise TooLong(said)

    def _expected_s(self, way: Way) -> float:
        """Of an attempt; 0 where nothing is known of any."""
        took, (compilers, alike) = self._took, way
        if way in took:
            return took[way]
        if known := [
            seconds
            for (others, also), seconds in took.items()
            if compilers and also == alike and {*compilers} <= {*others}
        ]:
            return min(known)
        plain_s = took.get(((), True), 0.0)
        if self._few and not alike:
            plain_s = took.get(((), False), self._in_full_s(((), True)))
        return plain_s + COMPILING_S * bool(compilers)

    def _in_full_s(self, way: Way) -> float:
        """Of measuring a stack as the main job would, as far as it is known."""
        reference = self.folder.tried.get(Ask(stack=(), change="", why=IN_FULL).key)
        if reference is None:
            return 0.0
        took = self._took
        plain_s = took.get(((), True), 0.0)
        return reference.seconds + max(0.0, took.get(way, plain_s) - plain_s)

    @property
    def _took(self) -> dict[Way, float]:
        """Seconds of the last attempt of each way: what was compiled before makes the next one
        shorter. One that failed did so late or early.
        """
        took: dict[Way, float] = {}
        for key, entry in self.folder.tried.items():
            if not (ask := asked(key)).in_full:
                way = self._way(self._case(ask))
                least_s = took.get(way, 0.0) if entry.measured is None else 0.0
                took[way] = max(least_s, entry.seconds)
        return took

    def _way(self, case: Case) -> Way:
        return tuple(o.name for o in case.stack if o.compiles), case.alike

    def _make_reference(self, case: Case) -> None:
        """Its images are not in the folder."""
        reference = replace(self.catalog.case(self.workload, REFERENCE), workload=case.workload)
        if case.name != REFERENCE and reference.id not in self.bench.measurements:
            _, failed = self._measure(reference, in_full=False, rounds=1)
            if failed:
                raise Stopped(messages.reference_fails(failed))

    def _run(self, ask: Ask, case: Case) -> Entry:
        from diffusers_perf.measurement.few_steps import TooSlow

        started = monotonic()
        entry: Entry | None = None
        self.folder.begin(ask.key)
        fastest_s = min(
            (seen.latency_s for entry in self.folder.tried.values() if (seen := entry.measured)),
            default=ROUNDS_S,
        )
        rounds = max(ROUNDS_LEAST, min(ROUNDS_MOST, round(ROUNDS_S / fastest_s)))
        too_slow_s: float | None = None
        try:
            try:
                measured, failed = self._measure(
                    case, in_full=ask.in_full, rounds=rounds, limit_s=ask.limit_s
                )
            except TooSlow as reason:
                measured, failed, too_slow_s = None, "", reason.latency_s
            seconds = round(monotonic() - started, 1)
            entry = Entry(seconds=seconds, measured=measured, failed=failed, too_slow_s=too_slow_s)
        finally:
            # A reference that fails is not a result: the next run tries it again.
            kept = ask.stack or (entry and entry.measured)
            self.folder.end(ask.key, entry if kept else None)
        return entry

    def _measure(
        self, case: Case, *, in_full: bool, rounds: int, limit_s: float = inf
    ) -> tuple[Measurement | None, str]:
        """The measurement, or why there is none. `TooSlow`."""
        from diffusers_perf.measurement.failing import CaseError
        from diffusers_perf.measurement.few_steps import Timing, TooSlow, with_whole_gpu_time
        from diffusers_perf.measurement.observing import ObservingGpu
        from diffusers_perf.plugin.crash import in_a_line

        bench = self.bench
        bench.quick, bench.rounds = not in_full, rounds
        bench.observer = self._observer if in_full else ObservingGpu()
        few = case.workload is self._few
        timed = Timing(
            stopwatch=bench.stopwatch, steps=self.workload.steps, few=few, limit_s=limit_s
        )
        try:
            try:
                bench.open(case)
                measured = bench.measure(case, timed)
                if few:
                    measured = with_whole_gpu_time(measured, steps=self.workload.steps)
                return measured, ""
            finally:
                bench.clear()
        except TooSlow:
            raise
        except CaseError as error:
            return None, str(error).removeprefix(f"{case.id}: ")
        except Exception as error:
            # A combination can break anything in three libraries, and the others have to go on.
            return None, in_a_line(error)

    def _judged(self, case: Case, tried: Tried) -> Tried:
        """By the rule of a test, with what was asked for as the tolerance."""
        measured = tried.measured
        from diffusers_perf.plugin.judging import Judging

        if measured is None:
            return tried
        if measured.interference.reasons(wall_clock=True):
            self.with_interference += 1
        is_reference = case.name == REFERENCE
        reference = self.bench.measurements.get(f"{case.workload.name}-{REFERENCE}", measured)
        judging = Judging(bench=self.bench)
        question = judging.question(case, measured, None if is_reference else reference)
        if not is_reference:
            question = replace(question, tolerance=self.tolerance)
        failing = [
            found
            for found in judge(question).findings
            # An image that could not be compared proves nothing of a stack.
            if not found.status.passes
            or (found.status == Status.INCONCLUSIVE and found.metric == IMAGE_DISTANCE.name)
        ]
        if not failing:
            return tried
        what = failing[0].what.removeprefix(f"{case.id}: ")
        return replace(tried, refused=f"{what} ({failing[0].measured})")

    def _see_that_it_works(self) -> None:
        """`Stopped` where what failed took the GPU's context along, as a bad access does."""
        if self.bench.device.type == "cpu":
            return
        import torch

        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # refuses after a capture that did not end
        except RuntimeError as error:
            raise Stopped(messages.lost_gpu(common.last_line(str(error)))) from None

    def _line(self, tried: Tried, seconds: float | None) -> str:
        """One attempt; what was measured, then what is wrong with it."""
        parts = []
        if tried.measured is not None:
            *_, seen = cells_of("", tried.measured, tried.measured)
            shown = cells(tried.measured, None)
            busy = GPU_BUSY.column
            shown[busy] = shown[busy] and f"{busy} {shown[busy]}"
            parts = [*filter(None, (*shown.values(), seen, self.few_steps(tried.measured)))]
        elif tried.too_slow_s is not None:
            parts = [messages.dropped(tried.too_slow_s)]
        elif tried.refused:
            parts = [messages.failed(tried.refused)]
        what = ", ".join(parts)
        return messages.earlier(what) if seconds is None else messages.took(what, seconds)


def cells_of(name: str, seen: Measurement, reference: Measurement) -> tuple[str, ...]:
    """Name, metrics, image; of a step-wise workload also the step that is the farthest."""
    return (
        name,
        *cells(seen, reference).values(),
        # The reference's own image_distance is to the accepted image, and no part of this.
        "" if seen.case == REFERENCE else image(seen),
    )
