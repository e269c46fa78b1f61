"""`optimization`, `stack` and `measure` as a module calls them while it is imported.

What is declared is kept in the declaring module itself, and becomes part of a `Catalog` later: so
a declaration has no effect on modules that do not ask for it, and importing a module twice declares
nothing twice. Imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Any, get_args

from diffusers_perf.catalog.declarations import (
    DEFAULT_SUITE,
    NO_TOLERANCE,
    REFERENCE,
    Aim,
    Needs,
    Optimization,
    Slot,
    Tolerances,
)
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.messages import declarations as messages

if TYPE_CHECKING:
    from diffusers_perf.catalog.build import Build
    from diffusers_perf.catalog.registry import Catalog

KEPT = "__diffusers_perf__"
"""The name under which a module keeps its declarations."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One call, and where it stands."""

    into: Callable[[Catalog], None]
    """Adds what was declared. `ValueError` for a mistake that shows only there."""
    makes_cases: bool
    file: str
    line: int


def declarations_in(namespace: Mapping[str, Any]) -> list[Declaration]:
    """What the module of this namespace declared itself, in its order."""
    kept: list[Declaration] = namespace.get(KEPT, [])
    return kept


def optimization(
    *,
    applied: Callable[[Any], object],
    tolerance: Tolerances = NO_TOLERANCE,
    needs: Needs | None = None,
    skips_work: bool = False,
    uneven_steps: bool = False,
    hides_operators: bool = False,
    follows_values: bool = False,
    decides: tuple[Slot, ...] = (),
    compiles: bool = False,
    offloads: bool = False,
    aim: Aim = "speed",
) -> Callable[[Callable[[Build], None]], Optimization]:
    """Declare the decorated function as an optimization under its own name.

    The function gets a `Build` and says there what it changes. Its docstring's first line is what
    a report says of it; the rest as `Optimization` says. Its place in the file is its place in a
    stack that a search makes. `ValueError` for a function without a docstring, an applied check
    that cannot be called, a tolerance or needs of another type, or an unknown slot or aim.
    """

    def declare(apply: Callable[[Build], None]) -> Optimization:
        name = apply.__name__
        if not (apply.__doc__ or "").strip():
            raise ValueError(messages.no_docstring(name))
        if not callable(applied):
            raise ValueError(messages.no_applied_check(name))
        if not isinstance(tolerance, Tolerances):
            raise ValueError(messages.bad_tolerance(name, tolerance))
        if not isinstance(needs, Needs | None):
            raise ValueError(messages.bad_needs(name, needs))
        are_several = isinstance(decides, tuple | list)
        if not are_several or not all(isinstance(slot, Slot) for slot in decides):
            raise ValueError(messages.bad_slots(name, decides))
        if aim not in get_args(Aim):
            raise ValueError(messages.bad_aim(name, aim, get_args(Aim)))
        declared = Optimization(
            name=name,
            apply=apply,
            tolerance=tolerance,
            needs=needs or Needs(),
            applied=_not_false(name, applied),
            skips_work=skips_work,
            uneven_steps=uneven_steps,
            hides_operators=hides_operators,
            follows_values=follows_values,
            decides=decides,
            compiles=compiles,
            offloads=offloads,
            aim=aim,
        )
        _keep(lambda catalog: catalog.add(declared))
        return declared

    return declare


def _not_false(name: str, check: Callable[[Any], object]) -> Callable[[Any], None]:
    """The check, whose answer counts where it returns one. `Refusal` for False."""

    @wraps(check)
    def applied(pipeline: Any) -> None:
        answer = check(pipeline)
        if answer is not None and not answer:
            raise Refusal(messages.check_returned(name, answer))

    return applied


def stack(name: str, of: str) -> str:
    """Give a stack (names joined by ``+``) a name of its own, which is returned."""
    _keep(lambda catalog: catalog.stack(name, of))
    return name


def measure(
    workload: Workload,
    *stacks: str,
    against: str = REFERENCE,
    image_only: bool = False,
    suite: str = DEFAULT_SUITE,
) -> None:
    """Declare stacks (names joined by ``+``) as cases on a workload, beside its reference.

    `suite` names the group that pytest selects with ``-m``. With `against`, a case is compared with
    another case than the reference. `image_only` generates once, and judges no time.
    """
    _keep(
        lambda catalog: catalog.add_cases(
            workload, *stacks, against=against, image_only=image_only, suite=suite
        ),
        makes_cases=True,
    )


def _keep(into: Callable[[Catalog], None], *, makes_cases: bool = False) -> None:
    frame = _module_frame()
    if frame is None:
        raise RuntimeError(messages.NOT_AT_MODULE_LEVEL)
    declaration = Declaration(
        into=into, makes_cases=makes_cases, file=frame.f_code.co_filename, line=frame.f_lineno
    )
    frame.f_globals.setdefault(KEPT, []).append(declaration)


def _module_frame() -> FrameType | None:
    """Of the module that is being imported: it may declare through a function of another one.

    None where a test or a fixture, which pytest calls, declares.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "<module>":
        if str(frame.f_globals.get("__name__")).startswith("_pytest."):
            return None
        frame = frame.f_back
    return frame
