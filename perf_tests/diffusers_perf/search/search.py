"""Looks for the fastest stack of optimizations, greedily. Pure: it asks for a stack to be tried and
decides by what comes back.

Each optimization is tried on the best stack so far, with what it needs and in the place of those it
cannot stand beside; what only compiles comes last. An eager pipeline waits for its host, so that
the wall clock hides what the GPU no longer does: the time in which the GPU is busy counts as much,
and what takes launches off the host comes first as soon as the host holds the best back.
What a later one made useless is left out again, and what gained nothing gets a second chance on the
stack that has grown since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from diffusers_perf.catalog.declarations import Optimization
from diffusers_perf.messages import explore as messages
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.search.attempt import (
    NOISE,
    Adopted,
    Ask,
    Gain,
    Rejected,
    Stack,
    Stopped,
    Tried,
    gain,
)

OBVIOUS = 2.0
"""A latency this many times as long needs no second look; beside a GPU, nor does a shorter one."""
HOPELESS = 0.9
"""What has the GPU work so much longer is not tried on another stack."""


@dataclass(kw_only=True)
class Search:
    """One search. Whenever it ends, what it found stands in its fields."""

    candidates: Sequence[Optimization]
    """In the order in which they stand in a stack."""
    attempt: Callable[[Ask], Tried]
    """Tries a stack; may raise `Stopped`."""
    tell: Callable[[str], None]
    memory_bytes: float | None = None
    """The most that a stack may take."""
    steps: list[Adopted] = field(default_factory=list)
    """From the reference to the best so far."""
    rejected: dict[str, Rejected] = field(default_factory=dict)
    _latest: Measurement | None = None
    """Of the best: what the next is compared with, since a machine drifts."""
    _settled: Stack | None = None
    """The stack of which nothing is needless."""
    _tried: set[Stack] = field(default_factory=set)

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
        first = self._try(Ask(stack=(), change="reference"))
        if first.measured is None or first.refused:
            raise Stopped(messages.reference_fails(first.refused))
        self.steps.append(Adopted(change="reference", stack=(), measured=first.measured))
        self._latest = first.measured
        quick = [o for o in self.candidates if not o.compiles]
        slow = [o for o in self.candidates if o.compiles]
        left = names = [o.name for o in (*quick, *slow)]
        while left:
            name = self._next(left)
            left = [n for n in left if n != name]
            self._add(name)
        self._drop_needless()
        self._add_again(names)
        self._drop_needless()

    def _next(self, left: Sequence[str]) -> str:
        """The first, but where the host holds the best back one that takes launches off it: behind
        that all others are tried sooner, and the clock sees what the GPU gains.
        """
        if self.steps[-1].measured.bottleneck == "host":
            for optimization in self.candidates:
                name = optimization.name
                takes_off = optimization.hides_operators and not optimization.compiles
                # Not what was replaced: in turn with what replaced it, it could come for ever.
                before = self.rejected.get(name)
                retried = before is not None and not before.replaced and self._may_help_now(name)
                if takes_off and (name in left or retried):
                    return name
        return left[0]

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
            if stack in self._tried or stack != self._consistent(stack) or not self.fits(measured):
                continue
            if self.fits(best) and gain(measured, best).by_the_clock <= 1:
                continue
            change = messages.of_earlier_search(_change(self.stack, stack))
            if self._try(replace(ask, change=change)).refused:
                continue
            gained = self._gain(stack, measured, change)
            if gained.by_the_clock > 1 or not self.fits(best):
                self._step(change, stack, measured, gone=messages.FOUND_EARLIER)
            else:
                self.tell(messages.not_kept(gained.text()))
            return

    def confirm(self) -> None:
        """Time reference and best once more, in turn, where only the clock differs: the
        whole search lies between the two.
        """
        ends = (self.steps[0], self.steps[-1])
        if len(self.steps) == 1 or ends[1].measured.gpu_busy_s is not None:
            return
        for index, step in zip((0, -1), ends, strict=True):
            change = messages.timed_again(step.stack)
            why = messages.beside(ends[1].stack)
            again = self.attempt(Ask(stack=step.stack, change=change, why=why)).measured
            if again is not None:
                self.steps[index] = replace(step, measured=again)

    def _add_again(self, names: Sequence[str]) -> None:
        """Those that another stack could have made useful.

        The last in a stack first: they stand around what is compiled and change nothing in it.
        """
        for name in reversed(names):
            if self._may_help_now(name):
                self._add(name, by_the_clock=True)

    def _add(self, name: str, *, by_the_clock: bool = False) -> None:
        """Keep it if that is faster under the limits."""
        on, stack = self.stack, self._with(name)
        if stack == on:
            return
        needed = self._by_name[name].needs.optimization
        if needed and self._lost_its_place(needed):
            self._reject(name, messages.needs_what_lost(needed), again=True)
            return
        change = _change(on, stack)
        tried = self._try(Ask(stack=stack, change=change, why=_held_to(on)))
        if tried.measured is None or tried.refused:
            self._reject(name, tried.refused, again=False)
            return
        excess, before = self._excess(tried.measured), self._excess(self.steps[-1].measured)
        if excess > before * (1 + NOISE):
            taken = tried.measured.peak_memory_bytes or 0
            self._reject(name, messages.too_much_memory(taken), again=True)
            return
        try:
            gained = self._gain(stack, tried.measured, change)
        except Stopped:
            self._reject(name, messages.NO_TIME_LEFT, again=True)
            self._tried.discard(stack)
            raise
        better = gained.by_the_clock if by_the_clock else gained.total
        if better > 1 or excess < before * (1 - NOISE):
            self._step(change, stack, tried.measured, gone=messages.replaced_by(name))
            return
        # What helps the host may cost the GPU a little, and shows once the host is in the way.
        on_gpu = tried.measured.gpu_busy_s is not None
        hopeful = gained.busy > HOPELESS if on_gpu else gained.latency >= 1
        self._reject(name, gained.text(), again=hopeful)

    def _drop_needless(self) -> None:
        """Leave out what costs nothing to leave out, the oldest first."""
        if self.stack == self._settled:
            return
        for name in dict.fromkeys(name for step in self.steps for name in step.stack):
            if name not in self.stack:
                continue
            stack = self._consistent([n for n in self.stack if n != name])
            if len(self.steps) > 1 and stack == self.steps[-2].stack:
                continue  # what it was just added to
            change = _change(self.stack, stack)
            tried = self._try(Ask(stack=stack, change=change, why=_held_to(self.stack)))
            if tried.measured is None or tried.refused:
                continue
            if self._excess(tried.measured) > self._excess(self.steps[-1].measured) * (1 + NOISE):
                continue
            gained = self._gain(stack, tried.measured, change)
            # A latency that drifts must not cost what the GPU gains.
            if gained.by_the_clock >= 1 and gained.busy >= 1:
                self._step(change, stack, tried.measured, gone=messages.FREE_TO_LEAVE_OUT)
            else:
                self.tell(messages.not_kept(messages.is_worth_its_place(name)))
        self._settled = self.stack

    def _try(self, ask: Ask) -> Tried:
        tried = self.attempt(ask)
        self._tried.add(ask.stack)
        return tried

    def _gain(self, stack: Stack, new: Measurement, change: str) -> Gain:
        """Over the best so far. Where the clock alone decides, both are timed once more, in turn: a
        machine that drifts makes one as uncertain as the other.
        """
        best = self.steps[-1]
        gained = gain(new, self._latest or best.measured)
        on_gpu = new.gpu_busy_s is not None
        if gained.latency <= 1 / OBVIOUS:
            return gained
        if on_gpu and (gained.busy != 1 or gained.latency == 1 or gained.latency >= OBVIOUS):
            return gained
        on = Ask(stack=best.stack, change=f"again before {change}", why=f"beside {'+'.join(stack)}")
        again = Ask(stack=stack, change=f"again {change}", why=f"{_held_to(best.stack)}, again")
        old, newer = (self.attempt(ask).measured for ask in (on, again))
        if old is None or newer is None:
            return gained
        self._latest = old
        return gain(structs.replace(new, rounds_s=(*new.rounds_s, *newer.rounds_s)), old)

    def fits(self, measured: Measurement) -> bool:
        """Whether it is within the limit on memory."""
        return self._excess(measured) == 0

    def _excess(self, measured: Measurement) -> float:
        """Bytes above the limit on memory."""
        if self.memory_bytes is None or measured.peak_memory_bytes is None:
            return 0.0
        return max(0.0, measured.peak_memory_bytes - self.memory_bytes)

    def _with(self, name: str) -> Stack:
        """The best stack with this one and what it needs, without what is in its place."""
        added = [name]
        while needed := self._by_name[added[-1]].needs.optimization:
            added.append(needed)
        decided = {what for n in added for what in self._by_name[n].decides}
        kept = [n for n in self.stack if n in added or not decided & set(self._by_name[n].decides)]
        return self._consistent({*added, *kept})

    def _lost_its_place(self, name: str) -> bool:
        """Whether it was rejected in favor of an optimization that is in the stack now."""
        return name in self.rejected and not set(self.stack) <= set(self._with(name))

    def _consistent(self, names: Iterable[str]) -> Stack:
        """In order, without those that need what is not there."""
        wanted = set(names)
        stack: list[str] = []
        for optimization in self.candidates:
            needed = optimization.needs.optimization
            if optimization.name in wanted and (needed is None or needed in stack):
                stack.append(optimization.name)
        return tuple(stack)

    @property
    def _by_name(self) -> Mapping[str, Optimization]:
        return {o.name: o for o in self.candidates}

    def _step(self, change: str, stack: Stack, measured: Measurement, *, gone: str) -> None:
        """Make this the best; `gone` says why what it no longer has is out."""
        before = self.stack
        self.steps.append(Adopted(change=change, stack=stack, measured=measured))
        self._latest = measured
        for name in before:
            if name not in stack:
                # What was only replaced was not judged without what replaced it.
                on = stack if set(stack) < set(before) else before
                self.rejected[name] = Rejected(reason=gone, on=on, again=True, replaced=True)
        for name in stack:
            self.rejected.pop(name, None)
        self.tell(f"kept: {change}")

    def _reject(self, name: str, reason: str, *, again: bool) -> None:
        self.rejected[name] = Rejected(reason=reason, on=self.stack, again=again)
        self.tell(f"not kept: {reason}")


def _held_to(stack: Stack) -> str:
    return f"against {'+'.join(stack) or 'the reference'}"


def _change(before: Stack, after: Stack) -> str:
    """``+ what came - what went``."""
    came = [f"+ {name}" for name in after if name not in before]
    gone = [f"- {name}" for name in before if name not in after]
    return " ".join([*came, *gone])
