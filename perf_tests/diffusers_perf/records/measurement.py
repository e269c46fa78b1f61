"""What is observed while a case runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from diffusers_perf.messages.records import UNEQUAL_STEPS
from diffusers_perf.records.quantities import (
    Integer,
    NotNegative,
    NotNegativeInteger,
    Number,
    Positive,
    PositiveInteger,
    Record,
)

IDENTICAL_DB = 120.0
"""PSNR is capped here: JSON has no infinity, and differences beyond it are below float32."""
Bits = Literal[8, 16]
"""In which each number of an image is known."""
HOST_IDLE = 0.1
"""The host is the bottleneck where the GPU is idle for more than this share of the time."""


class Count(Record, frozen=True, kw_only=True, array_like=True):
    """A counter, ``[fixed, per step, missing]`` in JSON; the third may be left out if it is 0."""

    fixed: Integer
    """Never below zero. In older files it may be, and is read as `missing`."""
    per_step: Integer
    missing: NotNegativeInteger = 0
    """What the first or last steps do less than the others; `fixed` is zero then."""

    def __post_init__(self) -> None:
        once = self.once
        force_setattr(self, "fixed", max(0, once))
        force_setattr(self, "missing", max(0, -once))

    @classmethod
    def between(cls, few: int, many: int, *, steps: tuple[int, int]) -> Count:
        """From the totals at two step counts.

        Rounded up where they do not lie on a line: what happens in every other step must not
        vanish.
        """
        per_step = math.ceil((many - few) / (steps[1] - steps[0]))
        return cls(fixed=few - per_step * steps[0], per_step=per_step)

    @property
    def once(self) -> int:
        """What does not grow with the steps; below zero where something is missing."""
        return self.fixed - self.missing

    def total(self, steps: int) -> int:
        return self.once + self.per_step * steps


class Look(Record, frozen=True, kw_only=True):
    """What is on a batch of images; of several images, the worst."""

    finite: bool
    """Every number of the decoder's output is finite."""
    mean: Number
    """Of the darkest image, from 0 (black) to 1."""
    std: Number
    """Over the places of the most uniform image: an even grey has 0."""


class Distance(Record, frozen=True, kw_only=True):
    """How close images are to others; of several pairs, the farthest."""

    psnr_db: Number
    ssim: Number


class BlockDistance(Record, frozen=True, kw_only=True):
    """How far a block's output is from the reference's block's, on the same inputs."""

    kind: str
    """Its class and the shapes of its output, by which blocks are compared with each other."""
    db: Number
    """Signal-to-noise ratio of the mean over the tokens."""


class StepDistances(Record, frozen=True, kw_only=True):
    """How far a case's steps are from its reference's, each from where the reference stood:
    signal-to-noise ratios in dB. Calls of other shapes than the reference's are at -120 dB.
    """

    inputs_db: tuple[Number, ...]
    """By step, of the farthest input that the pipeline gave to its denoisers."""
    predictions_db: tuple[Number, ...]
    """By step, of the denoisers' predictions from the reference's inputs."""
    blocks: Mapping[str, BlockDistance] = {}
    """Of the denoiser's transformer blocks that were compared, in one step, in the order of their
    ends; empty in older runs."""
    blocks_unknown: str = ""
    """Why some or all blocks were not compared; empty where all were."""
    alike_blocks: bool = False
    """Whether the weights are the library's own, whose blocks add as much as each other. Of others
    a block may stand out by what it adds."""

    def __post_init__(self) -> None:
        if len(self.inputs_db) != len(self.predictions_db):
            raise ValueError(UNEQUAL_STEPS)

    @property
    def least_db(self) -> float:
        """Of the step that is the farthest from the reference's."""
        return min((*self.inputs_db, *self.predictions_db), default=IDENTICAL_DB)


class Interference(Record, frozen=True, kw_only=True):
    """What else was at work on the machine during the rounds."""

    gpu: tuple[str, ...] = ()
    """Why every time of this case is invalid, one reason each; empty on a quiet machine."""
    host: tuple[str, ...] = ()
    """Why the wall clock is invalid, while GPU times still count."""
    waited_s: NotNegative = 0.0
    """Spent waiting for a quiet machine before the rounds."""
    sm_clocks_mhz: tuple[PositiveInteger, ...] = ()
    """After each round; unknown without NVML."""
    power_capped_sm_clocks_mhz: tuple[PositiveInteger, ...] = ()
    """The same of rounds that ended at the card's power limit."""
    cpu_wait_share: Number | None = None
    """Share of the rounds for which a thread was ready to run and had no CPU."""
    cpu_loops_s: tuple[Positive, ...] = ()
    """CPU seconds of one calibration loop before and after each round; empty in older runs."""
    import_parts: Mapping[str, tuple[tuple[Positive, Positive], ...]] = {}
    """Of each import time that the measurement has, by `catalog.metrics.Metric.field`: the seconds
    of each part, and the CPU seconds of one calibration loop after it. Empty in older runs."""
    unknown: str | None = None
    """What could not be observed, and why."""

    @property
    def at_power_limit(self) -> bool:
        """Whether most rounds ended at the card's power limit, which then sets its clock."""
        return len(self.power_capped_sm_clocks_mhz) > len(self.sm_clocks_mhz)

    def reasons(self, *, wall_clock: bool) -> tuple[str, ...]:
        """Why a time is invalid. A busy host affects the wall clock and not the GPU."""
        return (*self.gpu, *self.host) if wall_clock else self.gpu


class KernelFamily(Record, frozen=True, kw_only=True):
    """GPU kernels of one kind in one generation."""

    gpu_s: Number
    """Below zero where extrapolating from few steps undershoots."""
    kernels: Integer


class Measurement(Record, frozen=True, kw_only=True):
    """Everything that was observed while a case ran."""

    case: str
    """The stack's name on its workload, or ``reference``."""
    workload: str
    steps: PositiveInteger
    num_images: PositiveInteger
    model: str
    weights: str
    parameters: PositiveInteger
    """Of all modules together."""
    rounds_s: Annotated[tuple[Positive, ...], Meta(min_length=1)]
    """Wall clock of each timed round, synchronized, end to end."""
    look: Look
    repeat_psnr_db: Number
    """The last round's images against the first's: state that leaks between generations shows."""
    image_distance: Distance | None = None
    """To the images of the case it is compared with; the reference's to the accepted ones."""
    accepted_bits: Bits | None = None
    """Of the accepted images, as a reference's were compared with them. None in older runs, and
    where none were."""
    step_distances: StepDistances | None = None
    """Of a step-wise workload's cases, to its reference; their `image_distance` is then of the
    image that comes of the reference's predictions."""
    gpu_busy_s: Positive | None = None
    host_copies_s: NotNegative = 0.0
    """During which the GPU copied from or to pinned memory of the host, and did nothing else. In
    older runs it is a part of `gpu_busy_s`."""
    peak_memory_bytes: PositiveInteger | None = None
    time_to_first_image_s: Positive | None = None
    """Load, check, compile, capture, generate. What an earlier case of the process loaded
    (libraries, a seeded model's weights on the host) is there already."""
    compile_cache: str | None = None
    """Until the first image: ``cold`` if all was compiled, ``warm`` if all came from the cache on
    disk, ``partly warm``; None if nothing is compiled."""
    roofline_s: Positive | None = None
    """A lower bound on the latency on this GPU."""
    roofline_by: str | None = None
    """Whether ``arithmetic`` or ``memory`` sets the bound."""
    alone_psnr_db: Number | None = None
    """The first image of a batch to the same image generated alone. None where it was not, and in
    older runs."""
    default_psnr_db: Number | None = None
    """Images of the pipeline's own output type, as users get them, to the arrays of the same call.
    None where it gives none, and in older runs."""
    ignored: tuple[str, ...] = ()
    """Which of seed and prompt can change without changing the images; ``generator`` where torch's
    global generator decides about them."""
    fewest_steps: PositiveInteger | None = None
    """Of the generations in which it was measured what they leave in memory. None in older runs."""
    observing_s: NotNegative = 0.0
    """Time that counting and profiling took, outside the timed rounds."""
    counters: Mapping[str, Count] = {}
    stages_s: Mapping[str, Number] = {}
    """GPU time of each stage: text encoder, denoising, decoder."""
    families: Mapping[str, KernelFamily] = {}
    metrics: Mapping[str, Positive] = {}
    """Values of metrics that have no field of their own here, by `catalog.metrics.Metric.field`."""
    interference: Interference = Interference()
    flags: Mapping[str, str] = {}
    """Torch's global flags in the first round, where it decoded; empty in older runs."""
    notes: tuple[str, ...] = ()
    """What could not be measured here, and why."""

    @property
    def id(self) -> str:
        """What pytest and the reports call the case."""
        return f"{self.workload}-{self.case}"

    @property
    def key(self) -> str:
        """What a baseline is keyed by: workload, model, weights and case."""
        return f"{self.workload}/{self.model}/{self.weights}/{self.case}"

    @property
    def code_key(self) -> str:
        """What accepted operator counts are keyed by: weights change nothing about them."""
        return f"{self.workload}/{self.model}/{self.case}"

    @property
    def latency_s(self) -> float:
        """Median of the rounds."""
        return median(self.rounds_s)

    @property
    def image_psnr_db(self) -> float | None:
        """Of `image_distance`; None where images were not compared."""
        return None if self.image_distance is None else self.image_distance.psnr_db

    @property
    def farthest_step_db(self) -> float | None:
        """Of a step-wise workload; None elsewhere."""
        return None if self.step_distances is None else self.step_distances.least_db

    @property
    def farthest_db(self) -> float | None:
        """The image's distance or that of the farthest step, if that is farther; None where images
        were not compared.
        """
        if self.image_psnr_db is None or self.farthest_step_db is None:
            return self.image_psnr_db
        return min(self.image_psnr_db, self.farthest_step_db)

    @property
    def idle_share(self) -> float | None:
        """Of the latency, the share during which the GPU is idle; None where that is unknown."""
        if self.gpu_busy_s is None:
            return None
        return max(0.0, 1 - (self.gpu_busy_s + self.host_copies_s) / self.latency_s)

    @property
    def bottleneck(self) -> Literal["host", "gpu"] | None:
        """None where GPU busy time is unknown."""
        if self.idle_share is None:
            return None
        return "host" if self.idle_share > HOST_IDLE else "gpu"

    def notes_on(self, subject: str) -> list[str]:
        """The notes about this, such as ``GPU busy``: a note names it before its reason."""
        heads = {note: note.removeprefix(f"{self.id}: ").partition(": ")[0] for note in self.notes}
        return [note for note, head in heads.items() if subject in head]

    @property
    def cost_s(self) -> float:
        """GPU busy time where it was measured, else latency."""
        return self.latency_s if self.gpu_busy_s is None else self.gpu_busy_s
