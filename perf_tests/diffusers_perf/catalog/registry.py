"""The catalog: optimizations, stacks and cases that belong together. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from diffusers_perf.catalog.declarations import DEFAULT_SUITE, REFERENCE, Case, Optimization
from diffusers_perf.catalog.file_name import is_file_name
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.messages import common
from diffusers_perf.messages import declarations as messages


@dataclass(kw_only=True)
class Catalog:
    """What can be stacked, and which cases exist."""

    optimizations: dict[str, Optimization] = field(default_factory=dict)
    """By name, in the order in which a search stacks them."""
    stacks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the optimizations of each stack that has a name of its own."""
    cases: list[Case] = field(default_factory=list)

    def without_cases(self) -> Catalog:
        """A copy that knows the same names and has no case yet."""
        return Catalog(optimizations=dict(self.optimizations), stacks=dict(self.stacks))

    def add(self, optimization: Optimization) -> None:
        """`ValueError` for a name that is taken, or a need that is not declared before."""
        self._refuse_taken(optimization.name)
        needed = optimization.needs.optimization
        if needed is not None and needed not in self.optimizations:
            raise ValueError(messages.needs_declared(optimization.name, needed))
        self.optimizations[optimization.name] = optimization

    def stack(self, name: str, of: str) -> None:
        """Give a stack (names joined by ``+``) a name of its own.

        `ValueError` for a name that is taken or no file's, a stack of another type, an optimization
        that is not declared or named twice, or a wrong combination.
        """
        if not (isinstance(name, str) and is_file_name(name)) or "+" in name:
            raise ValueError(messages.bad_stack_name(name))
        if not isinstance(of, str):
            raise ValueError(messages.bad_stack(name, of))
        self._refuse_taken(name)
        found = self._optimizations(of)
        _check_fit(found)
        self.stacks[name] = tuple(o.name for o in found)

    def add_cases(
        self,
        workload: Workload,
        *stacks: str,
        against: str = REFERENCE,
        image_only: bool = False,
        suite: str = DEFAULT_SUITE,
    ) -> None:
        """Add stacks (names joined by ``+``) as cases on a workload, beside its reference.

        `ValueError` for an argument of another type, an optimization that is not declared or named
        twice, a wrong combination, a case declared twice, another workload's name, an `against`
        that is not declared before, or a `sensitive_to` that changes nothing.
        """
        if not isinstance(workload, Workload):
            raise ValueError(messages.no_workload(workload))
        for stack in stacks:
            if not isinstance(stack, str):
                raise ValueError(messages.no_stack(workload.name, stack))
        if not isinstance(against, str):
            raise ValueError(messages.bad_against(workload.name, against))
        _refuse_inert(workload)
        refuse_namesake(workload, (case.workload for case in self.cases))
        declared = {case.name for case in self.cases if case.workload == workload}
        if REFERENCE not in declared:
            declared.add(REFERENCE)
            self.cases.append(
                replace(self.case(workload, REFERENCE), image_only=image_only, suite=suite)
            )
        if against not in declared:
            raise ValueError(messages.no_case(workload.name, against))
        for name in stacks:
            if name in declared:
                raise ValueError(messages.case_twice(workload.name, name))
            declared.add(name)
            case = self.case(workload, name)
            self.cases.append(replace(case, image_only=image_only, suite=suite, against=against))

    def case(self, workload: Workload, name: str) -> Case:
        """The case of this name against the reference, declared or not: a search tries many.

        `ValueError` for an optimization that is not declared or named twice, or a wrong
        combination.
        """
        names = [*workload.base, *(() if name == REFERENCE else (name,))]
        try:
            # What the base has, a stack on it can name as well, and it is done once.
            stack = tuple(dict.fromkeys(o for part in names for o in self._optimizations(part)))
            _check_fit(stack)
        except ValueError as error:
            raise ValueError(f"{workload.name}: {error}") from None
        return Case(workload=workload, name=name, stack=stack)

    def _optimizations(self, stack: str) -> list[Optimization]:
        """In the order in which the stack names them. `ValueError` for one that is not declared,
        and for one that is named twice.
        """
        parts = [part for name in stack.split("+") for part in self.stacks.get(name, (name,))]
        unknown = next((part for part in parts if part not in self.optimizations), None)
        if unknown is not None:
            known = [*self.optimizations, *self.stacks]
            raise ValueError(messages.no_optimization(unknown, known))
        twice = next((part for part in parts if parts.count(part) > 1), None)
        if twice is not None:
            raise ValueError(f"{stack} names {twice} twice")
        return [self.optimizations[part] for part in parts]

    def _refuse_taken(self, name: str) -> None:
        if name in self.optimizations or name in self.stacks or name == REFERENCE:
            raise ValueError(common.name_taken(name))


def in_order(cases: Iterable[Case]) -> list[Case]:
    """Workload by workload, so that a reference stands before what is compared with it."""
    found = list(cases)
    workloads = dict.fromkeys(case.workload for case in found)
    return [case for workload in workloads for case in found if case.workload == workload]


def refuse_namesake(workload: Workload, others: Iterable[Workload]) -> None:
    """`ValueError` if one of the others has its name and is not the same. Of another scale it may:
    no run has both.
    """
    for other in others:
        alike = other.name == workload.name and other.scale == workload.scale
        if alike and not _are_equal(other, workload):
            raise ValueError(messages.workload_taken(workload.name))


def _are_equal(one: Workload, other: Workload) -> bool:
    try:
        return one == other
    except (RuntimeError, ValueError):
        # Their calls hold two tensors, or two arrays, which have no truth value when compared.
        return False


def _refuse_inert(workload: Workload) -> None:
    """`ValueError` for a change of the call that cannot change the images. Here and not in the
    workload, which makes others of itself that are like it.
    """
    for name, change in workload.sensitive_to.items():
        try:
            changed = workload.changed(**change)
        except ValueError as error:
            raise ValueError(messages.wrong_change(error, name)) from None
        if changed.generates_as(workload):
            raise ValueError(messages.no_change(workload.name, name, dict(change)))


def suites_of(case: Case, cases: Iterable[Case]) -> list[str]:
    """The case's suite; a reference is in all that its workload has cases of."""
    own = [c.suite for c in cases if c.workload == case.workload and case.is_reference]
    return list(dict.fromkeys((case.suite, *own)))


def _check_fit(stack: Sequence[Optimization]) -> None:
    """`ValueError` where one needs another before it, or two decide the same."""
    before: set[str] = set()
    decided: dict[object, str] = {}
    for optimization in stack:
        needed = optimization.needs.optimization
        if needed is not None and needed not in before:
            raise ValueError(messages.needs_before(optimization.name, needed))
        for slot in optimization.decides:
            # A workload's base and a stack on it can name the same one.
            other = decided.setdefault(slot, optimization.name)
            if other != optimization.name:
                raise ValueError(messages.both_decide(other, optimization.name, slot.value))
        before.add(optimization.name)
