"""What is wrong with a declaration."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from diffusers_perf.messages.common import IMPORT, meant

NO_DOCSTRINGS = "python -OO removes docstrings, which reports show of each optimization"
NOT_AT_MODULE_LEVEL = "declarations must be made at module level, while the module is imported"
SHARED = "perf_declarations"
"""Where the cases of all test modules are declared."""


NO_CASE = (
    "no case is declared here: call measure(WORKLOAD) in a test file that pytest collects, which "
    f"also has the line: {IMPORT}"
)


def no_case_runs(models: Sequence[str], named: str | None) -> str:
    """`models`: of the declared cases; `named` is the one that is asked for."""
    if not models:
        return NO_CASE
    which = f"with --model={named}" if named else "here without --model"
    others = f" (or: {', '.join(models[1:])})" if models[1:] else ""
    return f"no declared case runs {which}; --model={models[0]}{others} runs those of that model"


def bad_stack_name(name: object) -> str:
    return (
        f"a stack's name must be a string that can be the name of a file, without + (got {name!r})"
    )


def wrong_change(error: object, name: str) -> str:
    """`error` begins with the workload."""
    return f"{error}, in its sensitive_to[{name!r}]"


def no_change(workload: str, name: str, change: object) -> str:
    return (
        f"{workload}: sensitive_to[{name!r}] does not change the call, so it cannot change the "
        f"images (got {change!r}); pass another value"
    )


def bad_suite(name: object) -> str:
    return f"a suite's name must be a Python identifier (got {name!r})"


def step_wise_against(case: str, against: str) -> str:
    return (
        f"{case}: cases of a step-wise workload are compared with its reference (got "
        f"against={against!r})"
    )


def not_positive(workload: str, what: str, value: object) -> str:
    return f"{workload}: {what} must be a positive integer (got {value!r})"


WORKLOAD_FIELDS = {
    "name": "a string that can be the name of a file",
    "model": 'a string: a Hub id, a folder, or "module:function" for a function of yours',
    "call": "a dict of arguments of the pipeline's call, by name",
    "inputs": "a function without parameters that returns a dict of arguments",
    "seed": "an integer",
    "scheduler": "the name of a scheduler's class",
    "base": 'a tuple of names, such as ("bf16",)',
    "step_wise": "True or False",
    "sensitive_to": 'a dict such as {"guidance": {"guidance_scale": 1.0}}',
}


def wrong(workload: object, workload_field: str, value: object) -> str:
    """For one of `WORKLOAD_FIELDS`."""
    name = workload if isinstance(workload, str) and workload else "a workload"
    return f"{name}: {workload_field} must be {WORKLOAD_FIELDS[workload_field]} (got {value!r})"


def no_workload(value: object) -> str:
    return f"measure takes a Workload, and names of stacks behind it (got {value!r})"


def no_stack(workload: str, value: object) -> str:
    return (
        f"{workload}: a stack is a string of names joined by + (got {value!r}); name each stack as "
        "an argument of its own"
    )


def bad_stack(name: str, of: object) -> str:
    return f"{name}: the stack must be a string of names joined by + (got {of!r})"


def bad_against(workload: str, value: object) -> str:
    return f"{workload}: against must be the name of a case (got {value!r})"


def no_inputs(workload: str, value: object) -> str:
    return f"{workload}: inputs must return a dict of arguments (got {value!r})"


def bad_tolerance(name: str, value: object) -> str:
    return f"{name}: tolerance must be one of diffusers_perf.tolerances (got {value!r})"


def not_of_the_call(workload: str, argument: str) -> str:
    return f"{workload}: {argument} is not part of call; it follows from steps and seed"


def no_docstring(name: str) -> str:
    return f"{name} has no docstring, whose first line a report shows"


def check_returned(name: str, answer: object) -> str:
    return f"{name}: the applied check returned {answer!r}, so the optimization had no effect"


def no_applied_check(name: str) -> str:
    return f"{name} has no applied check that can be called with a pipeline"


def bad_needs(name: str, value: object) -> str:
    return f"{name}: needs must be diffusers_perf.Needs(...) (got {value!r})"


def bad_slots(name: str, got: object) -> str:
    return f"{name}: decides must be a tuple of members of Slot (got {got!r})"


def bad_aim(name: str, aim: object, known: Sequence[str]) -> str:
    return f"{name}: aim must be one of {', '.join(known)} (got {aim!r})"


def needs_declared(name: str, needed: str) -> str:
    return f"{name} needs {needed!r}, which must be declared before it"


def needs_before(name: str, needed: str) -> str:
    return f"{name} needs {needed} before it in the stack"


def no_case(workload: str, against: str) -> str:
    return f"{workload}: no case {against!r} is declared before"


def case_twice(workload: str, case: str) -> str:
    return f"{workload}: the case {case!r} is declared twice"


def case_of_another(case: str, place: str) -> str:
    return f"the case {case} is declared twice: in {place}, too"


def workload_taken(name: str) -> str:
    return f"another workload is called {name!r}"


def no_optimization(name: str, known: Collection[str]) -> str:
    return (
        f"no optimization is called {name!r}{meant(name, known)}; diffusers-perf explore --list "
        "lists all"
    )


def both_decide(one: str, other: str, what: str) -> str:
    return f"{one} and {other} both decide the {what}, but a stack can have only one"
