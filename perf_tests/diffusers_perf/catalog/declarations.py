"""Declarations: what an optimization is, what it needs, what it tolerances, and which cases exist.

Imports no torch, so that the judging half and `ci` can read the catalogue anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from diffusers_perf.measurement.build import Build

Kind = Literal["seeded", "embedded", "checkpoint"]
"""Where weights come from: drawn from a seed, shipped with the suite, or the user's own."""

Scale = Literal["full", "small"]
"""Which workloads a model runs: the guide's, or the same scaled down to the embedded model."""

Suite = Literal["guide", "lossless", "lossy"]
"""Which part of the field a case belongs to: the guide's own rows and what they are measured
against, what is faster at no price, and what has one. pytest knows each as a mark."""

REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How close an image must be to the reference's; both must hold."""

    psnr_db: float = 0.0
    """At least this peak signal-to-noise ratio, in dB, on images in [0, 1]."""
    ssim: float = -1.0
    """At least this structural similarity."""


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """Tolerance allowed on each kind of weights; None tolerances none there."""

    seeded: Tolerance | None = None
    embedded: Tolerance | None = None
    checkpoint: Tolerance | None = None

    def on(self, kind: Kind) -> Tolerance | None:
        """The closeness allowed on weights of this kind."""
        allowed: Tolerance | None = getattr(self, kind)
        return allowed


NO_TOLERANCE = Tolerances()
REFERENCE_TOLERANCES = Tolerances(
    seeded=Tolerance(psnr_db=45.0, ssim=0.95), embedded=Tolerance(psnr_db=45.0, ssim=0.95)
)
"""What a reference's image tolerances to be to the accepted one, where more is known of the weights
than `verdicts.REFERENCE_IMAGE` asks of all. Half-way between rounding (58 dB for fp16 on the
embedded model and 60 dB on the seeded ones, 59 dB for the accepted image's own 8 bits) and the
weakest faults: on the embedded model weights that went through 8 bits at 35 dB; on the small seeded
one a schedule that is 20 of a thousand timesteps early at 34 dB, and another model's scaling factor
at 37 dB."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What must be there for an optimization to run at all."""

    compute_capability: tuple[int, int] | None = None
    """A CUDA GPU of at least this compute capability."""
    package: str | None = None
    """An importable package."""
    variant: str | None = None
    """Weights that the model must come with, beside its own (``distilled_unet``)."""
    probe: Callable[[], str | None] | None = None
    """Tries it for real; returns why it refuses, or None."""
    optimization: str | None = None
    """Another one, which stands before it in a stack."""


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """One declared change to how a pipeline is built or run."""

    name: str
    apply: Callable[[Build], None]
    tolerance: Tolerances
    needs: Needs
    applied: Callable[[Any], None]
    """Raises `applied.NotApplied` if the built pipeline does not show the change."""
    skips_work: bool = False
    """Does less arithmetic than the case without it."""
    uneven_steps: bool = False
    """Its steps do not all do the same arithmetic."""
    hides_operators: bool = False
    """Compiles or replays: what PyTorch runs then can no longer be counted by operator, and takes
    launches off the host: a search that the host holds back tries it next."""
    decides: tuple[str, ...] = ()
    """What of the pipeline it settles (``dtype``); no other in a stack may settle the same."""
    compiles: bool = False
    """Takes a minute to build where a compiler's cache is cold: a search tries it last."""

    @property
    def line(self) -> str:
        """The first line of the docstring: what a report says of it."""
        return (self.apply.__doc__ or "").strip().splitlines()[0]


OPTIMIZATIONS: dict[str, Optimization] = {}


def optimization(
    *,
    applied: Callable[[Any], None],
    tolerance: Tolerances = NO_TOLERANCE,
    needs: Needs | None = None,
    skips_work: bool = False,
    uneven_steps: bool = False,
    hides_operators: bool = False,
    decides: tuple[str, ...] = (),
    compiles: bool = False,
) -> Callable[[Callable[[Build], None]], Optimization]:
    """Declare the decorated function as an optimization under its own name.

    The function gets a `Build` and says there what it changes. Its docstring's first line is what
    a report says of it; the rest as `Optimization` says. Its place in the file is its place in a
    stack that a search makes. `ValueError` for a name that is taken or has no docstring, or that
    needs one which is not declared before.
    """

    def declare(apply: Callable[[Build], None]) -> Optimization:
        name = apply.__name__
        if name in OPTIMIZATIONS or name == REFERENCE:
            raise ValueError(f"the name {name!r} is taken")
        if not (apply.__doc__ or "").strip():
            raise ValueError(f"{name} has no docstring to say in a report what it is")
        if not callable(applied):
            raise ValueError(f"{name} has no applied check that can be called with a pipeline")
        needed = needs.optimization if needs else None
        if needed is not None and needed not in OPTIMIZATIONS:
            raise ValueError(f"{name} needs {needed!r}, which is not declared before")
        declared = Optimization(
            name=name,
            apply=apply,
            tolerance=tolerance,
            needs=needs or Needs(),
            applied=applied,
            skips_work=skips_work,
            uneven_steps=uneven_steps,
            hides_operators=hides_operators,
            decides=decides,
            compiles=compiles,
        )
        OPTIMIZATIONS[name] = declared
        return declared

    return declare


STACKS: dict[str, tuple[str, ...]] = {}
"""Stacks that have a name of their own, by it."""


def stack(name: str, of: str) -> str:
    """Give a stack (names joined by ``+``) a name of its own, which is returned.

    `ValueError` for a name that is taken, an optimization nobody declared or named twice, or a
    wrong combination.
    """
    if name in OPTIMIZATIONS or name in STACKS or name == REFERENCE:
        raise ValueError(f"the name {name!r} is taken")
    found = _optimizations(of)
    _fit(found)
    STACKS[name] = tuple(o.name for o in found)
    return name


def _optimizations(stack: str) -> list[Optimization]:
    """In the order in which the stack names them. `ValueError` for one that nobody declared, and
    for one that is named twice.
    """
    parts = [part for name in stack.split("+") for part in STACKS.get(name, (name,))]
    unknown = next((part for part in parts if part not in OPTIMIZATIONS), None)
    if unknown is not None:
        raise ValueError(no_optimization(unknown, [*OPTIMIZATIONS, *STACKS]))
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise ValueError(f"{stack} names {twice} twice")
    return [OPTIMIZATIONS[part] for part in parts]


def no_optimization(name: str, known: Sequence[str]) -> str:
    """What is wrong with a name that is none of these."""
    close = get_close_matches(name, known, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"no optimization is called {name!r}{meant}; known are {', '.join(known)}"


def _fit(stack: Sequence[Optimization]) -> None:
    """`ValueError` where one needs another before it, or two settle the same."""
    before: set[str] = set()
    settled: dict[str, str] = {}
    for optimization in stack:
        needed = optimization.needs.optimization
        if needed is not None and needed not in before:
            raise ValueError(f"{optimization.name} needs {needed} before it in the stack")
        for what in optimization.decides:
            # A workload's base and a stack on it can name the same one.
            other = settled.setdefault(what, optimization.name)
            if other != optimization.name:
                raise ValueError(
                    f"{other} and {optimization.name} both decide the {what}: a stack has one"
                )
        before.add(optimization.name)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is generated. Everything that an image or a time depends on is pinned here."""

    name: str
    scale: Scale
    prompt: str
    size: int
    """Height and width, in pixels."""
    scheduler: str
    """Name of a diffusers scheduler class, built with `from_config` of the model's own."""
    steps: int
    num_images: int
    guidance: float
    seed: int
    base: tuple[str, ...] = ()
    """Optimizations that are on in every case, the reference too."""
    pipeline: str = "StableDiffusionPipeline"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.num_images < 1 or self.size < 8 or self.size % 8:
            raise ValueError(
                f"{self.name}: it takes one step and one image or more, of a size in eights of "
                "pixels"
            )

    def as_json(self) -> dict[str, Any]:
        """As runs and baselines say what they generated."""
        return {**asdict(self), "base": list(self.base)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stack on a workload: what one test runs."""

    workload: Workload
    name: str
    """The stack's names joined by ``+``, without the workload's base; or ``reference``."""
    stack: tuple[Optimization, ...] = field(repr=False)
    against: str
    """Name of the case on the same workload that this one is compared with."""
    image_only: bool
    """Generated once to look at; its time is shown, not judged."""
    suite: Suite = "guide"

    @property
    def id(self) -> str:
        """What pytest, the baselines and the reports call it."""
        return f"{self.workload.name}-{self.name}"

    @property
    def is_reference(self) -> bool:
        return self.name == REFERENCE

    def tolerance_on(self, kind: Kind) -> Tolerance | None:
        """The loosest closeness in the stack beyond its base; None if one tolerances none.

        A reference's is to its accepted image.
        """
        if self.is_reference:
            return REFERENCE_TOLERANCES.on(kind)
        own = self.stack[len(self.workload.base) :]
        allowed = [optimization.tolerance.on(kind) for optimization in own]
        if not allowed or None in allowed:
            return None
        return Tolerance(
            psnr_db=min(p.psnr_db for p in allowed if p), ssim=min(p.ssim for p in allowed if p)
        )


CASES: list[Case] = []


def measure(
    workload: Workload,
    *stacks: str,
    against: str = REFERENCE,
    image_only: bool = False,
    suite: Suite = "guide",
) -> None:
    """Declare stacks (names joined by ``+``) as cases on a workload, beside its reference.

    `ValueError` for an optimization nobody declared or named twice, a wrong combination, a case
    declared twice, another workload's name, a suite that is none, or an `against` that is not
    declared before.
    """
    if suite not in get_args(Suite):
        raise ValueError(f"{suite!r} is no suite; there are {', '.join(get_args(Suite))}")
    namesakes = {case.workload for case in CASES if case.workload.name == workload.name}
    if any(w.scale == workload.scale for w in namesakes - {workload}):
        raise ValueError(f"another workload is called {workload.name!r}")
    declared = {case.name for case in CASES if case.workload == workload}
    if REFERENCE not in declared:
        declared.add(REFERENCE)
        CASES.append(_case(workload, REFERENCE, image_only=image_only, suite=suite))
    if against not in declared:
        raise ValueError(f"{workload.name}: nothing called {against!r} is declared before")
    for name in stacks:
        if name in declared:
            raise ValueError(f"{workload.name}: the case {name!r} is declared twice")
        declared.add(name)
        case = _case(workload, name, image_only=image_only, suite=suite)
        CASES.append(replace(case, against=against))


def stacked(workload: Workload, name: str) -> Case:
    """The case of this name, declared or not: what is searched for is declared only when found.

    `ValueError` for an optimization nobody declared or named twice, or a wrong combination.
    """
    return _case(workload, name, image_only=False, suite="guide")


def _case(workload: Workload, name: str, *, image_only: bool, suite: Suite) -> Case:
    names = [*workload.base, *(() if name == REFERENCE else (name,))]
    try:
        # What the base has, a stack on it can name as well, and it is done once.
        stack = tuple(dict.fromkeys(o for part in names for o in _optimizations(part)))
        _fit(stack)
    except ValueError as error:
        raise ValueError(f"{workload.name}: {error}") from None
    return Case(
        workload=workload,
        name=name,
        stack=stack,
        against=REFERENCE,
        image_only=image_only,
        suite=suite,
    )


def cases_for(scale: Scale) -> list[Case]:
    """The declared cases whose workloads fit a model of this scale, references first."""
    workloads: Iterable[Workload] = dict.fromkeys(
        case.workload for case in CASES if case.workload.scale == scale
    )
    return [case for workload in workloads for case in CASES if case.workload == workload]


def suites_of(case: Case, cases: Iterable[Case]) -> list[Suite]:
    """The case's suite; a reference is in all that its workload has cases of."""
    own = [c.suite for c in cases if c.workload == case.workload and case.is_reference]
    return list(dict.fromkeys((case.suite, *own)))
