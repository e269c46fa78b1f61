"""Which optimizations can stand beside each other in a stack, and which would take whose place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from diffusers_perf.catalog.declarations import Optimization
from diffusers_perf.search.attempt import Stack


@dataclass(frozen=True)
class Combining:
    """Makes stacks of these optimizations."""

    candidates: Sequence[Optimization]
    """In the order in which they stand in a stack."""
    by_name: dict[str, Optimization] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.by_name.update({o.name: o for o in self.candidates})

    def needed(self, names: Iterable[str]) -> set[str]:
        """These and what they need, and what that needs."""
        found: set[str] = set()
        for name in names:
            needed: str | None = name
            # What is not among the candidates is in the workload's base.
            while needed in self.by_name:
                found.add(needed)
                needed = self.by_name[needed].needs.optimization
        return found

    def in_order(self, names: Iterable[str]) -> Stack:
        """A stack of these, without those that need what is not there."""
        wanted = set(names)
        stack: list[str] = []
        for optimization in self.candidates:
            needed = optimization.needs.optimization
            if optimization.name in wanted and (needed not in self.by_name or needed in stack):
                stack.append(optimization.name)
        return tuple(stack)

    def added(self, stack: Stack, *names: str) -> Stack:
        """The stack with these and what they need, without what is in their place."""
        new = self.needed(names)
        decided = {what for n in new for what in self.by_name[n].decides}
        kept = [n for n in stack if n in new or not decided & set(self.by_name[n].decides)]
        return self.in_order({*new, *kept})

    def displaced(self, stack: Stack, name: str) -> set[str]:
        """What would have to leave the stack for it, and not only because it needs another that
        would.
        """
        gone = {*stack} - {*self.added(stack, name)}
        return {n for n in gone if self.by_name[n].needs.optimization not in gone}

    def compatible(self, stack: Stack, names: Iterable[str]) -> list[str]:
        """Those that can stand beside the stack and each other, the first ones first."""
        found: list[str] = []
        for name in names:
            together = {*stack, *self.needed([*found, name])}
            decided = [what for n in together for what in self.by_name[n].decides]
            if name not in stack and len(decided) == len(set(decided)):
                found.append(name)
        return found
