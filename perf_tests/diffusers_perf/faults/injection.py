"""Declarations: what a fault injects, where, and which detector must find it; controls beside them.

Imports no torch, so that the catalogue of faults can be read anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from diffusers_perf.catalog.declarations import REFERENCE, WeightsKind
from diffusers_perf.catalog.metric import Detector
from diffusers_perf.messages import common
from diffusers_perf.messages import faults as messages
from diffusers_perf.messages.declarations import no_docstring

if TYPE_CHECKING:
    from diffusers_perf.measurement.timing import Stopwatch

Where = Literal["any", "cpu", "cuda"]
"""The machines on which its detector finds a fault: any, one without a GPU, one with a GPU."""


class CannotInject(Exception):
    """This machine lacks what a fault or control is about; one sentence says what."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The case in which something is injected: no longer than its detector needs."""

    workload: str = "ddim50"
    base: tuple[str, ...] = ()
    """Optimizations that are on in it, the reference too, beside the workload's own."""
    base_on_cpu: tuple[str, ...] | None = None
    """In their place where there is no GPU, if others say the same there in less time."""
    case: str = REFERENCE
    """If another than the reference, both are measured, and its ratios are judged as well."""
    steps: int
    rounds: int = 1
    """One says nothing about a latency and is judged as inconclusive at worst."""
    image_only: bool = False
    imports: bool = False
    """With the time that a fresh process takes to import the libraries."""
    num_images: int = 1
    """That it takes: of a workload with fewer, the prompt is repeated."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the workload's fields, on both sides (``{"seed": 1}``)."""

    def base_on(self, device: str) -> tuple[str, ...]:
        """The optimizations that are on in it on this device."""
        others = self.base_on_cpu if device == "cpu" else None
        return self.base if others is None else others


@dataclass(kw_only=True)
class Injection:
    """What a fault may change. Handed to its function, then carried out on one side of a trial."""

    device: str
    """``cuda`` or ``cpu``."""
    size: float | None = None
    """Of a fault that is declared with sizes, in its unit."""
    kind: WeightsKind = "embedded"
    """Of the model that it is injected in."""
    step_s: float = 0.0
    """What a step took in the clean run, wall clock."""
    gpu_step_s: float = 0.0
    """What of it the GPU was busy; 0 where there is none."""
    stopwatch: Stopwatch | None = None
    """In place of the one that warms up and times."""
    imported_first: str = ""
    """Python code that a fresh process runs before it imports the libraries."""
    contexts: list[AbstractContextManager[Any]] = field(default_factory=list)
    changes: list[tuple[str | None, Callable[[Any], None]]] = field(default_factory=list)
    givens: list[Callable[[Any], None]] = field(default_factory=list)

    def during(self, context: AbstractContextManager[Any]) -> None:
        """Hold this context from before building to after observing."""
        self.contexts.append(context)

    def put(self, holder: object, name: str, value: object) -> None:
        """Put this in an attribute's place for as long."""
        # Here, since it imports torch.
        from diffusers_perf.measurement.flag import flag

        self.contexts.append(flag(holder, name, value))

    def then(self, change: Callable[[Any], None], *, only: str | None = None) -> None:
        """Call this with every pipeline that is built, or with those of one case only."""
        self.changes.append((only, change))

    def given(self, change: Callable[[Any], None]) -> None:
        """Call this with the pipelines of both sides: what is there before the fault comes."""
        self.givens.append(change)

    def into(self, pipeline: Any, case: str) -> None:
        """Inject into a pipeline of this case."""
        for given in self.givens:
            given(pipeline)
        for only, change in self.changes:
            if only in (None, case):
                change(pipeline)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A regression injected on purpose, or a control: a change that must not be taken for one."""

    name: str
    apply: Callable[[Injection], None]
    source: str
    """Where it happened; ``own`` if it only could."""
    detected_by: Detector | None
    """None for a control, which nothing may see."""
    where: Where
    setting: Setting
    unit: str = ""
    sizes: tuple[float, ...] = ()
    """From the size that must be detected to ones that need not be."""

    @property
    def is_control(self) -> bool:
        return self.detected_by is None

    @property
    def line(self) -> str:
        """The first line of the docstring: what a report says of it."""
        return (self.apply.__doc__ or "").strip().splitlines()[0]

    def runs_on(self, device: str) -> bool:
        return self.where in ("any", device)

    def injected(self, injection: Injection) -> Injection:
        """The injection with all that this fault changes. `CannotInject` where it does not fit."""
        self.apply(injection)
        return injection


def faults_in(modules: Iterable[ModuleType]) -> dict[str, Fault]:
    """What these modules declare, controls too, by name and in their order.

    `ValueError` for a name that two of them declare.
    """
    found: dict[str, Fault] = {}
    for module in modules:
        for value in vars(module).values():
            if not isinstance(value, Fault) or value.apply.__module__ != module.__name__:
                continue
            if found.setdefault(value.name, value) is not value:
                raise ValueError(common.name_taken(value.name))
    return found


def fault(
    *,
    detected_by: Detector | None,
    setting: Setting,
    source: str = "own",
    where: Where = "any",
    unit: str = "",
    sizes: tuple[float, ...] = (),
) -> Callable[[Callable[[Injection], None]], Fault]:
    """Declare the decorated function as a fault under its own name.

    It gets an `Injection` and states there what it breaks. Its docstring's first line is what a
    report says of it. `ValueError` for a function without a docstring, sizes without a unit, or an
    unknown detector or machine.
    """

    def declare(apply: Callable[[Injection], None]) -> Fault:
        name = apply.__name__
        if not (apply.__doc__ or "").strip():
            raise ValueError(no_docstring(name))
        if detected_by not in (None, *get_args(Detector)):
            raise ValueError(messages.unknown_detector(name, detected_by, get_args(Detector)))
        if where not in get_args(Where):
            raise ValueError(messages.unknown_machine(name, where, get_args(Where)))
        if bool(sizes) != bool(unit):
            raise ValueError(messages.sizes_without_unit(name))
        return Fault(
            name=name,
            apply=apply,
            source=source,
            detected_by=detected_by,
            where=where,
            setting=setting,
            unit=unit,
            sizes=sizes,
        )

    return declare


def control(
    *, setting: Setting, source: str = "own", where: Where = "any"
) -> Callable[[Callable[[Injection], None]], Fault]:
    """Declare the decorated function as a change that every rule must let pass."""
    return fault(detected_by=None, setting=setting, source=source, where=where)
