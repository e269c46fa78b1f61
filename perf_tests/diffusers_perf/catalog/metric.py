"""What a row of the table of metrics says; the rows are in `metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from diffusers_perf.catalog.status import Status

Detector = Literal[
    "counter",
    "GPU busy",
    "latency",
    "host time",
    "load",
    "image",
    "memory",
    "measuring",
    "applied check",
]
"""What detects an injected fault. Measuring: rules on how a case was measured, not on the case."""

MIB = 2**20
SLACK_MAX = 0.5
"""Noise widens no limit by more than this share."""
PROCESSES_FEW = 3
"""Fewer accepted processes do not show how much processes differ."""


class MetricKind(StrEnum):
    """What sort of number a metric is; each has a rule of its own in the judge."""

    TIME = "time"
    MEMORY = "memory"
    COUNTER = "counter"
    IMAGE = "image"
    MEASURING = "measuring"


class Subject(StrEnum):
    """What a finding is about that is not on one metric."""

    COUNTERS = "counters"
    """Several, which lack a count."""
    OPERATORS = "structure"
    """What the code asks for, which was not counted."""
    CASE = "case"
    BASELINE = "baseline"
    WORKLOAD = "workload"
    DRIFT = "drift"
    """Of a reference that was timed again at a process's end."""
    ERROR = "error"

    @property
    def detector(self) -> Detector | None:
        """What detects a fault of which such a finding is the worst."""
        return "counter" if self in (Subject.COUNTERS, Subject.OPERATORS) else None


class Unit(StrEnum):
    """Of a metric's number."""

    SECONDS = "s"
    BYTES = "bytes"
    RATIO = "x"
    COUNT = "count"
    DECIBEL = "dB"

    def shown(self, value: float) -> str:
        """The number with its unit: ``0.6170 s``, ``2,636 MiB``, ``1.25x``."""
        match self:
            case Unit.SECONDS:
                return f"{value:.4f} s"
            case Unit.BYTES:
                return f"{value / MIB:,.0f} MiB"
            case Unit.RATIO:
                return f"{value:.3f}x"
            case Unit.DECIBEL:
                return f"{value:.1f} dB"
        return f"{value:,.0f}"

    def short(self, value: float) -> str:
        """The same with fewer digits, for a table: ``0.617 s``, ``1.25x``."""
        match self:
            case Unit.SECONDS:
                return f"{value:.3f} s"
            case Unit.RATIO:
                return f"{value:.2f}x"
        return self.shown(value)


@dataclass(frozen=True, kw_only=True)
class LimitRule:
    """How far beyond the accepted processes a metric may lie."""

    anchor: Literal["worst", "median"] = "worst"
    slack: float = 0.0
    """The least share beyond the anchor."""
    drop: float = 0.0
    """In place of a share, in the metric's own unit."""
    enough: float | None = None
    """Where more is better: what passes in any case."""
    noise_times: float = 0.0
    """The slack is at least this many times the noise between the accepted processes."""
    calibrated: bool = False
    """A calibration of the machine, where there is one, says what the noise is."""
    slack_of_few: float | None = None
    """The least share where fewer than `PROCESSES_FEW` processes were accepted."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of `metrics.METRICS`."""

    name: str
    """In messages, findings and tables."""
    field: str
    """Of a `Measurement`, of its counters, or of a ratio between two measurements; with the unit,
    as in JSON."""
    unit: Unit
    kind: MetricKind
    worse: Status
    """The status of too much of it, or of too little where more is better."""
    detector: Detector
    about: str
    """What it is, in one line."""
    more_is_better: bool = False
    samples: str = ""
    """The field of the `Measurement` with the single values whose median this is."""
    ratio_of: str = ""
    """The field that is compared with the reference's in the same run."""
    wall_clock: bool = False
    """A busy host disturbs it, and not only a busy GPU."""
    reference_only: bool = False
    """Other cases are limited by their ratio to the reference instead."""
    threshold: float = 0.0
    """In a comparison with base, the share by which it must change to matter; 0 if it is not
    compared."""
    margin: float = 0.0
    """In the metric's unit. A process's disturbances only add to such a metric: the least of base's
    and of head's processes are compared, and must lie this much and `limit.slack` apart. Its limit
    in a baseline is this much higher as well."""
    optional: bool = False
    """Not every process measures it: of a cold and a warm cache there are two metrics."""
    most: int = 0
    """Of what a generation leaves: a limit that no baseline moves."""
    limit: LimitRule | None = None
    """Of an accepted baseline; None if a baseline does not limit it."""
    rise: float = 0.0
    """Of a counter, the share by which it may exceed its accepted count."""
    improves: float = 0.0
    """This many times below the best accepted process asks for a new baseline; 0 if never."""
    portable: str = ""
    """Its name in `portable.json`, whose bounds hold on any machine."""
    column: str = ""
    """Its heading in tables; rows that share one are alternatives, the first that is known wins."""

    @property
    def label(self) -> str:
        """Its name as words."""
        return self.name.replace("_", " ")

    @property
    def limit_name(self) -> str:
        """Of its limit in a baseline: ``gpu_busy_s_max``."""
        return f"{self.field}_{'min' if self.more_is_better else 'max'}"

    def of(self, measured: object, reference: object | None = None) -> float | None:
        """Its value in a `Measurement`, of a ratio to its reference's; None where it was not
        measured.
        """
        if not self.ratio_of:
            return _value(measured, self.field)
        own, other = _value(measured, self.ratio_of), _value(reference, self.ratio_of)
        if own is None or other is None:
            return None
        return float(other / own if self.more_is_better else own / other)

    def shown(self, value: float) -> str:
        return self.unit.shown(value)


def _value(measured: object, field: str) -> float | None:
    """A field of a `Measurement`, or what it has among `Measurement.metrics`."""
    value: float | None = getattr(measured, field, None)
    if value is None:
        others: Mapping[str, float] = getattr(measured, "metrics", {})
        return others.get(field)
    return value
