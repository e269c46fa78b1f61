"""What a declaration is: an optimization, what it needs and tolerates, a case.

Imports no torch, so that the judging half and the commands can read a catalog anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from keyword import iskeyword
from typing import Any, Literal

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.messages import declarations as messages

WeightsKind = Literal["seeded", "embedded", "checkpoint"]
"""Where weights come from: drawn from a seed, shipped with the suite, or the user's own."""

DEFAULT_SUITE = "default"
"""The suite of cases that name none."""

REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How close an image must be to the reference's; both must hold."""

    psnr_db: float = 0.0
    """At least this peak signal-to-noise ratio, in dB, on images in [0, 1]."""
    ssim: float = -1.0
    """At least this structural similarity."""
    step_db: float | None = None
    """Of step-wise workloads: at least this signal-to-noise ratio, in dB, of each step's inputs and
    predictions of the denoiser. None: not known, so that such a step cannot be judged."""


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """The tolerance on each kind of weights; None: images are not compared there."""

    seeded: Tolerance | None = None
    embedded: Tolerance | None = None
    checkpoint: Tolerance | None = None

    def on(self, kind: WeightsKind) -> Tolerance | None:
        """The tolerance on weights of this kind."""
        allowed: Tolerance | None = getattr(self, kind)
        return allowed


NO_TOLERANCE = Tolerances()
REFERENCE_TOLERANCES = Tolerances(
    seeded=Tolerance(psnr_db=45.0, ssim=0.95), embedded=Tolerance(psnr_db=45.0, ssim=0.95)
)
"""The tolerance of a reference's image to the accepted one, where more is known of the weights than
`judge.images.REFERENCE_IMAGE` allows for all. Half-way between rounding (58 dB for fp16 on the
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
    fits: Callable[[Any], str | None] | None = None
    """Asked with the pipeline as loaded; returns why it cannot apply to it, or None: its case is
    skipped with the reason."""


class Slot(Enum):
    """A property of a pipeline that one optimization of a stack decides."""

    DTYPE = "dtype"
    WEIGHTS = "weights"
    BIASES = "biases"
    LINEAR_LAYERS = "denoiser's linear layers"
    ADAPTERS = "adapters"
    ATTENTION = "attention"
    COMPILER = "compiler"
    DECODER_COMPILER = "decoder's compiler"
    LOOP = "loop"
    DENOISER_LAUNCHES = "denoiser's launches"
    DENOISER_CALLS = "denoiser's calls"
    DENOISER_FORWARD = "denoiser's forward as a whole"
    DENOISER_BLOCKS = "denoiser's inner blocks"
    DENOISER_STEPS = "denoiser's steps"
    DECODER_LAUNCHES = "decoder's launches"
    DECODER_CALLS = "decoder's calls"
    TEXT_ENCODER_LAUNCHES = "text encoder's launches"


Aim = Literal["speed", "memory", "comparison"]
"""What an optimization is for. A search for the fastest stack tries what saves memory, and costs
time, where memory is limited, and never what is there for comparison: a default under its name, or
what is known to be slower."""


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
    """Compiles or replays: what PyTorch runs then can no longer be counted by operator."""
    follows_values: bool = False
    """What it does next depends on values that it computed: its operators cannot be counted
    without data."""
    decides: tuple[Slot, ...] = ()
    """What of the pipeline it decides; no other in a stack may decide the same."""
    compiles: bool = False
    """Takes a minute to build where a compiler's cache is cold: a search tries it last."""
    offloads: bool = False
    """Keeps weights in the host's memory. The pipeline is loaded there, and what this changes comes
    behind all other changes."""
    aim: Aim = "speed"
    """Whether a search tries it, and when."""

    @property
    def line(self) -> str:
        """The first line of the docstring: what a report says of it."""
        return (self.apply.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stack on a workload: what one test runs."""

    workload: Workload
    name: str
    """The stack's names joined by ``+``, without the workload's base; or ``reference``."""
    stack: tuple[Optimization, ...] = field(repr=False)
    against: str = REFERENCE
    """Name of the case on the same workload that this one is compared with."""
    image_only: bool = False
    """Generated once to look at; its time is shown, not judged."""
    suite: str = DEFAULT_SUITE
    """The group that it belongs to, which pytest selects with ``-m``."""

    def __post_init__(self) -> None:
        suite: object = self.suite
        if not isinstance(suite, str) or not suite.isidentifier() or iskeyword(suite):
            raise ValueError(messages.bad_suite(self.suite))
        if self.workload.step_wise and not self.is_reference and self.against != REFERENCE:
            raise ValueError(messages.step_wise_against(self.id, self.against))

    @property
    def id(self) -> str:
        """What pytest, the baselines and the reports call it."""
        return f"{self.workload.name}-{self.name}"

    @property
    def is_reference(self) -> bool:
        return self.name == REFERENCE

    @property
    def alike(self) -> bool:
        """Whether all of its steps do the same arithmetic."""
        return not any(optimization.uneven_steps for optimization in self.stack)

    def tolerance_on(self, kind: WeightsKind) -> Tolerance | None:
        """The loosest tolerance in the stack beyond its base; None if one has none.

        A reference's is to its accepted image.
        """
        if self.is_reference:
            return REFERENCE_TOLERANCES.on(kind)
        own = self.stack[len(self.workload.base) :]
        allowed = [optimization.tolerance.on(kind) for optimization in own]
        if not allowed or None in allowed:
            return None
        steps = [p.step_db for p in allowed if p]
        return Tolerance(
            psnr_db=min(p.psnr_db for p in allowed if p),
            ssim=min(p.ssim for p in allowed if p),
            step_db=None if None in steps else min(s for s in steps if s is not None),
        )
