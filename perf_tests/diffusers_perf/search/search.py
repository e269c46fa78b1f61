"""Looks for the fastest stack of optimizations. Pure: it asks for a stack to be tried and decides
by what comes back.

Most optimizations help. So the search first tries all that can be combined. If they are slightly
slower, it tries them with compilation, and else each half. Then it tries alternatives in the places
of those in the stack, and drops what gains nothing. Those that compile come last. An eager pipeline
waits for its host, which hides what the GPU saves: GPU busy time counts as much as the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf

from msgspec import structs

from diffusers_perf.catalog.declarations import Optimization, Slot
from diffusers_perf.messages import explore as messages
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.search.attempt import (
    HOPELESS,
    IN_FULL,
    NOISE,
    OBVIOUS,
    SEVERAL,
    Adopted,
    Ask,
    Gain,
    Rejected,
    Stack,
    Stopped,
    TooLong,
    Tried,
    change_of,
    excess,
    gain,
    held_to,
)
from diffusers_perf.search.combining import Combining


@dataclass(kw_only=True)
class Search:
    """One search. Whenever it ends, what it found stands in its fields."""

    candidates: Sequence[Optimization]
    """In the order in which they stand in a stack."""
    attempt: Callable[[Ask], Tried]
    """Tries a stack; may raise `Stopped`, or `TooLong` where others can still be tried."""
    tell: Callable[[str], None]
    memory_bytes: float | None = None
    """The most that a stack may take."""
    steps: list[Adopted] = field(default_factory=list)
    """From the reference to the best so far."""
    rejected: dict[str, Rejected] = field(default_factory=dict)
    left_out: str = ""
    """Why something was not tried that would have taken longer than what was left; empty if nothing
    was."""
    is_confirmed: bool = False
    """Whether the best was measured in full."""
    _latest: Measurement | None = None
    """Of the best: what the next is compared with, since a machine drifts."""
    _settled: Stack | None = None
    """The stack of which nothing is needless."""
    _tried: set[Stack] = field(default_factory=set)
    _stacks: Combining = field(init=False)

    def __post_init__(self) -> None:
        self._stacks = Combining(self.candidates)

    @property
    def stack(self) -> Stack:
        """The best so far."""
        return self.steps[-1].stack

    @property
    def untried(self) -> list[str]:
        """Those that the search did not come to."""
        known = {*self.rejected, *(name for step in self.steps for name in step.stack)}
        return [o.name for o in self.candidates if o.name not in known]

    def run(self) -> None:
        """Search until nothing is left to try. `Stopped` where the reference cannot be measured."""
        first = self._reference(IN_FULL)
        if first.others_are_shorter:
            self._reference(messages.IN_FEW_STEPS)
        quick = [o for o in self.candidates if not o.compiles]
        slow = [o for o in self.candidates if o.compiles]
        names = [o.name for o in (*quick, *slow)]
        # The limit first, then what all others compute in.
        self._add_each(o.name for o in quick if o.aim == "memory")
        self._add_each(o.name for o in quick if Slot.DTYPE in o.decides)
        for group in (quick, slow):
            hopeful = [o.name for o in group if o.aim == "speed" and o.name not in self.rejected]
            together = self._stacks.compatible(self.stack, hopeful)
            compilers = [o.name for o in slow if o.aim == "speed" and group is quick]
            self._add_together(together, compilers=compilers)
            for optimization in group:
                if len(self._stacks.displaced(self.stack, optimization.name)) < 2:
                    self._add_each([optimization.name])
        self._drop_needless()
        # What takes the place of several does what they do in another way.
        self._add_each(names)
        self._add_again(names)
        self._drop_needless()

    def _reference(self, why: str) -> Tried:
        tried = self._try(Ask(stack=(), change="reference", why=why))
        if tried.measured is None or tried.refused:
            raise Stopped(messages.reference_fails(tried.refused))
        self.steps.append(Adopted(change="reference", stack=(), measured=tried.measured))
        self._latest = tried.measured
        return tried

    def _add_together(self, names: Sequence[str], *, compilers: Sequence[str] = ()) -> None:
        """Keep all of these if that is faster under the limits, or is once compilers stand around
        them, and else what of each half is.
        """
        left = [name for name in names if name not in self.stack]
        if len(left) < 2:
            self._add_each(left)
            return
        rejected = None
        with self._others_go_on():
            rejected = self._keep_all(left)
        if rejected and rejected.nearly and compilers:
            rejected = self._compiled_as_well(left, compilers, rejected)
        if rejected:
            self.tell(messages.in_halves(rejected.reason))
            self._add_together(left[: len(left) // 2])
            self._add_together(left[len(left) // 2 :])

    def _compiled_as_well(
        self, names: Sequence[str], compilers: Sequence[str], rejected: Rejected
    ) -> Rejected | None:
        """Keep these if they are faster with compilers around them; else why they are out."""
        others = self._stacks.compatible(self._stacks.added(self.stack, *names), compilers)
        if not others:
            return rejected
        self.tell(messages.compiled_next(rejected.reason))
        after: Rejected | None = rejected
        with self._others_go_on():
            after = self._keep_all([*names, *others])
            if not after:
                # Some of them gain nothing, which is worth more than what is in their place.
                self._drop_needless()
                return None
        # What was not timed again is still to be tried by itself.
        for name in {*names, *others} - {*self.stack}:
            self.rejected.pop(name, None)
        return after

    def _keep_all(self, names: Sequence[str]) -> Rejected | None:
        stack = self._stacks.added(self.stack, *names)
        return self._keep(stack, gone=messages.replaced_by("+".join(names)))

    def _add_each(self, names: Iterable[str]) -> None:
        """Keep each that is faster, of those that were not tried yet."""
        for name in names:
            if name not in self.rejected:
                self._add(name)

    def _may_help_now(self, name: str) -> bool:
        """Whether it was tried on another stack than the best, and did not fail there."""
        before = self.rejected.get(name)
        return before is not None and before.again and before.on != self.stack

    def take_up(self, earlier: Mapping[Ask, Measurement]) -> None:
        """Go over to the fastest stack that earlier searches measured and this one did not come to,
        where it is better than the best.
        """
        for ask, measured in sorted(earlier.items(), key=lambda item: item[1].latency_s):
            stack, best = ask.stack, self.steps[-1].measured
            if stack in self._tried or stack != self._stacks.in_order(stack):
                continue
            if not self.fits(measured):
                continue
            if self.fits(best) and gain(measured, best).by_the_clock <= 1:
                continue
            change = messages.of_earlier_search(change_of(self.stack, stack))
            if self._try(replace(ask, change=change)).refused:
                continue
            gained = self._gain(stack, measured, change)
            if gained.by_the_clock > 1 or not self.fits(best):
                self._step(change, stack, measured, gone=messages.FOUND_EARLIER)
            else:
                self.tell(messages.not_kept(gained.text()))
            return

    def _add_again(self, names: Sequence[str]) -> None:
        """Those that another stack could have made useful.

        The last in a stack first: they stand around what is compiled and change nothing in it.
        """
        for name in reversed(names):
            if self._may_help_now(name):
                self._add(name, by_the_clock=True)

    def _add(self, name: str, *, by_the_clock: bool = False) -> None:
        """Keep it if that is faster under the limits."""
        stack = self._stacks.added(self.stack, name)
        if stack == self.stack:
            return
        needed = self._stacks.by_name[name].needs.optimization
        if needed in self.rejected and self._stacks.displaced(self.stack, needed):
            # In favor of one that is in the stack now.
            self._reject(name, messages.needs_what_lost(needed), again=True)
            return
        if self._stacks.by_name[name].aim == "memory" and self.fits(self.steps[-1].measured):
            self._reject(name, messages.FITS_WITHOUT, again=True)
            return
        with self._others_go_on():
            rejected = self._keep(stack, gone=messages.replaced_by(name), by_the_clock=by_the_clock)
            if rejected:
                self._reject(name, rejected.reason, again=rejected.again)

    @contextmanager
    def _others_go_on(self) -> Iterator[None]:
        """Where this takes too long for the budget."""
        try:
            yield
        except TooLong as reason:
            self.left_out = self.left_out or str(reason)

    def _keep(self, stack: Stack, *, gone: str, by_the_clock: bool = False) -> Rejected | None:
        """Make this stack the best if it is faster under the limits; if it is not, why not.

        `gone` says why what it no longer has is out.
        """
        on, change = self.stack, change_of(self.stack, stack)
        tried = self._try(self._against_best(stack, change))
        on_gpu = self.steps[-1].measured.gpu_busy_s is not None
        if tried.too_slow_s is not None:
            ratio = tried.too_slow_s / self._best_s
            return Rejected(reason=messages.too_slow(ratio), on=on, again=on_gpu)
        if tried.measured is None or tried.refused:
            return Rejected(reason=tried.refused, on=on, again=False)
        over, before = self._over(tried.measured), self._over(self.steps[-1].measured)
        if over > before * (1 + NOISE):
            taken = tried.measured.peak_memory_bytes or 0
            return Rejected(reason=messages.too_much_memory(taken), on=on, again=True)
        try:
            gained = self._gain(stack, tried.measured, change)
        except Stopped:
            for name in (n for n in stack if n not in on):
                self._reject(name, messages.NO_TIME_LEFT, again=True)
            # Measured all the same: `take_up` may go over to it.
            self._tried.discard(stack)
            raise
        better = gained.by_the_clock if by_the_clock else gained.total
        if better > 1 or over < before * (1 - NOISE):
            self._step(change, stack, tried.measured, gone=gone)
            return None
        # What helps the host may cost the GPU a little, and shows once the host is in the way.
        hopeful = gained.busy > HOPELESS if on_gpu else gained.latency >= 1
        return Rejected(reason=gained.text(), on=on, again=hopeful, nearly=hopeful)

    def _drop_needless(self) -> None:
        """Leave out what costs nothing to leave out, the oldest first."""
        if self.stack == self._settled:
            return
        for name in dict.fromkeys(name for step in self.steps for name in step.stack):
            if name not in self.stack:
                continue
            stack = self._stacks.in_order([n for n in self.stack if n != name])
            if len(self.steps) > 1 and stack == self.steps[-2].stack:
                continue  # what it was just added to
            change = change_of(self.stack, stack)
            with self._others_go_on():
                self._drop(name, stack, change)
        self._settled = self.stack

    def _drop(self, name: str, stack: Stack, change: str) -> None:
        tried = self._try(self._against_best(stack, change))
        if tried.too_slow_s is not None:
            self.tell(messages.not_kept(messages.is_worth_its_place(name)))
        if tried.measured is None or tried.refused:
            return
        over, before = self._over(tried.measured), self._over(self.steps[-1].measured)
        if over > before * (1 + NOISE):
            return
        gained = self._gain(stack, tried.measured, change)
        # A latency that drifts must not cost what the GPU gains.
        if (gained.by_the_clock >= 1 and gained.busy >= 1) or over < before * (1 - NOISE):
            self._step(change, stack, tried.measured, gone=messages.FREE_TO_LEAVE_OUT)
        else:
            self.tell(messages.not_kept(messages.is_worth_its_place(name)))

    @property
    def _best_s(self) -> float:
        return (self._latest or self.steps[-1].measured).latency_s

    def _against_best(self, stack: Stack, change: str) -> Ask:
        # What takes less memory may take any time where the best takes too much.
        limit_s = SEVERAL * self._best_s if self.fits(self.steps[-1].measured) else inf
        why, best = held_to(self.stack), self.stack
        return Ask(stack=stack, change=change, why=why, limit_s=limit_s, best=best)

    def _try(self, ask: Ask) -> Tried:
        tried = self.attempt(ask)
        self._tried.add(ask.stack)
        return tried

    def _gain(self, stack: Stack, new: Measurement, change: str) -> Gain:
        """Over the best so far. Where the clock alone decides, both are timed once more, in turn: a
        machine that drifts makes one as uncertain as the other. Not beside a GPU where the clock
        speaks for keeping what is left out.
        """
        best = self.steps[-1]
        gained = gain(new, self._latest or best.measured)
        on_gpu = new.gpu_busy_s is not None
        if gained.latency <= 1 / OBVIOUS:
            return gained
        by_clock = gained.busy == 1 and gained.latency != 1
        keeps = set(stack) < set(best.stack) and gained.latency < 1
        if on_gpu and (keeps or not by_clock or gained.latency >= OBVIOUS):
            return gained
        beside, held = f"beside {'+'.join(stack)}", f"{held_to(best.stack)}, again"
        on = Ask(stack=best.stack, change=f"again before {change}", why=beside, best=best.stack)
        again = Ask(stack=stack, change=f"again {change}", why=held, best=best.stack)
        old, newer = (self.attempt(ask).measured for ask in (on, again))
        if old is None or newer is None:
            return gained
        self._latest = old
        return gain(structs.replace(new, rounds_s=(*new.rounds_s, *newer.rounds_s)), old)

    def fits(self, measured: Measurement) -> bool:
        """Whether it is within the limit on memory."""
        return self._over(measured) == 0

    def _over(self, measured: Measurement) -> float:
        return excess(measured, self.memory_bytes)

    def _step(self, change: str, stack: Stack, measured: Measurement, *, gone: str) -> None:
        """Make this the best; `gone` says why what it no longer has is out."""
        before = self.stack
        self.steps.append(Adopted(change=change, stack=stack, measured=measured))
        self._latest = measured
        for name in before:
            if name not in stack:
                # What was only replaced was not judged without what replaced it.
                on = stack if set(stack) < set(before) else before
                self.rejected[name] = Rejected(reason=gone, on=on, again=True)
        for name in stack:
            self.rejected.pop(name, None)
        self.tell(f"kept: {change}")

    def _reject(self, name: str, reason: str, *, again: bool) -> None:
        self.rejected[name] = Rejected(reason=reason, on=self.stack, again=again)
        self.tell(f"not kept: {reason}")
