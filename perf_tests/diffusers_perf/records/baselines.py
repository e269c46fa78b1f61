"""What stands in `baselines/`: what machines did when a person last accepted it.

Every file is read and written by the definitions in here; `BaselineStore` in `store` finds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Meta, to_builtins
from msgspec.structs import asdict

from diffusers_perf.catalog.metrics import (
    LATENCY,
    LATENCY_SPEEDUP,
    LIMITED,
    PORTABLE,
    PYTHON_CALLS,
)
from diffusers_perf.messages import records as messages
from diffusers_perf.records.files import BadContent
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import OperatorCount
from diffusers_perf.records.quantities import (
    NotNegative,
    Number,
    Positive,
    PositiveInteger,
    StrictRecord,
)
from diffusers_perf.records.run import Mode

T = TypeVar("T")

SCHEMA: Final = 2


def rounded(number: float) -> float:
    """To five digits, which are more than is measured; integers stay."""
    return number if isinstance(number, int) else float(f"{number:.5g}")


# A machine's file


class Calibration(StrictRecord, frozen=True, kw_only=True):
    """How much a case varies between processes of one commit. Written by `calibrate`."""

    calibrated: str
    """Date, ISO 8601."""
    processes: PositiveInteger
    """The fewest without interference that a noise is from."""
    noise: Mapping[str, NotNegative]
    """By `Metric.field`, or `judge.clock.STEADY`: standard deviation of the log."""
    detectable: Mapping[str, NotNegative]
    """By `Metric.field`, the minimum detectable effect of five pairs, as a share."""


class _Accepted(StrictRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What a case did in each of the accepted processes, and the limits that follow."""

    accepted: str
    """Date, ISO 8601."""
    measured: Mapping[str, Annotated[tuple[Positive | PositiveInteger, ...], Meta(min_length=1)]]
    """By `Metric.field` of `LIMITED`, of each accepted process. A workload's reference has no
    ratios."""
    roofline_s: Positive | None = None
    """A lower bound on the latency on this GPU, shown beside it; None where it was not counted."""
    cpu_loop_s: Positive | None = None
    """The quickest calibration loop of all processes, by which a slower core is known; None where
    none was timed."""
    cards: tuple[str, ...] = ()
    """The GPUs that the processes ran on, as `Machine.card`; empty where one is not known."""
    fewest_steps: PositiveInteger | None = None
    """Of the shortest generation that the pipeline made, of which are the metrics of
    `catalog.metrics.SHORTEST`. None where it was accepted before this was kept."""
    counters: Mapping[str, Count]
    flags: Mapping[str, str] = {}
    """Torch's global flags, as far as they were the same in all accepted processes."""
    moving: tuple[str, ...] = ()
    """Counters that differ between the accepted processes, by more than may be added to them, and
    are not limited.
    """
    limits: Mapping[str, Positive | PositiveInteger]
    """By `Metric.limit_name`. They follow from the numbers beside them."""
    calibrations: Mapping[Mode, Calibration] = {}
    """None where the machine was not calibrated."""


class CaseLine(_Accepted, frozen=True, kw_only=True, omit_defaults=True):
    """A case in a machine's file."""

    versions: str
    """Name of the versions in the file that it was accepted with."""
    workload: str
    """Name of the workload in the file that it was accepted on."""


class CaseBaseline(_Accepted, frozen=True, kw_only=True, omit_defaults=True):
    """The same with what the names stand for."""

    versions: Mapping[str, str]
    workload: Mapping[str, object]
    """As `catalog.Workload.as_json`: times of another workload are not comparable."""


class MachineFile(StrictRecord, frozen=True, kw_only=True):
    """``<gpu>.json``: workloads and versions once, then the cases."""

    schema: Literal[2] = SCHEMA
    machine: str
    workloads: Mapping[str, Mapping[str, object]]
    versions: Mapping[str, Mapping[str, str]]
    cases: Mapping[str, CaseLine]
    """By `Measurement.key`."""


@dataclass(frozen=True, kw_only=True)
class MachineBaseline:
    """A machine's name and its cases, by `Measurement.key`."""

    machine: str
    cases: Mapping[str, CaseBaseline]

    @classmethod
    def of(cls, file: MachineFile) -> MachineBaseline:
        """`BadContent` where a name or a key in the file is wrong."""
        cases = {key: _resolved(key, line, file) for key, line in file.cases.items()}
        return cls(machine=file.machine, cases=cases)

    def file(self) -> MachineFile:
        """As it is written, in the order of the keys."""
        workloads: dict[str, Mapping[str, object]] = {}
        versions: dict[str, Mapping[str, str]] = {}
        lines = {}
        for key, case in sorted(self.cases.items()):
            known = asdict(case)
            known["workload"] = _named(key.partition("/")[0], case.workload, workloads)
            made_with = ", ".join(f"{n} {v}" for n, v in case.versions.items() if n in NAMING)
            known["versions"] = _named(made_with, case.versions, versions)
            lines[key] = CaseLine(**known)
        return MachineFile(
            machine=self.machine, workloads=workloads, versions=versions, cases=lines
        )


NAMING = ("torch", "diffusers")
"""Packages that name a set of versions."""


def _named(name: str, value: T, known: dict[str, T]) -> str:
    """The name under which a value is known, which may have to be another than this."""
    names = (name, *(f"{name} ({number})" for number in range(2, len(known) + 2)))
    free = next(name for name in names if known.get(name, value) == value)
    known[free] = value
    return free


def _resolved(key: str, line: CaseLine, file: MachineFile) -> CaseBaseline:
    where = f"cases.{key}"
    if key.count("/") < 3:
        raise BadContent(messages.bad_key(where))
    if line.workload not in file.workloads:
        raise BadContent(messages.unknown(where, "workload", line.workload))
    if line.versions not in file.versions:
        raise BadContent(messages.unknown(where, "versions", line.versions))
    _check_names(f"{where}.measured", line.measured, [metric.field for metric in LIMITED])
    _check_names(f"{where}.limits", line.limits, [metric.limit_name for metric in LIMITED])
    own = LATENCY_SPEEDUP if LATENCY_SPEEDUP.field in line.measured else LATENCY
    if own.limit_name not in line.limits or LATENCY.field not in line.measured:
        raise BadContent(messages.no_limit(where, own.limit_name, LATENCY.field))
    for metric in LIMITED:
        if metric.limit_name in line.limits and metric.field not in line.measured:
            raise BadContent(messages.limit_alone(where, metric.limit_name, metric.field))
    known = asdict(line)
    known["workload"] = file.workloads[line.workload]
    known["versions"] = file.versions[line.versions]
    return CaseBaseline(**known)


def _check_names(where: str, names: Iterable[str], known: Collection[str]) -> None:
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise BadContent(f"{where}: unknown {unknown!r} (known: {', '.join(known)})")


# Operator counts


class OperatorBaseline(StrictRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What the code of a case asked for when a person accepted it."""

    accepted: str
    """Date, ISO 8601."""
    reason: str
    versions: Mapping[str, str]
    counters: Mapping[str, OperatorCount]
    python_calls: Count | None = None
    """Of a case that a CPU can run: calls in a real generation, which depend on these versions."""


class OperatorFile(StrictRecord, frozen=True, kw_only=True):
    """``operators/WORKLOAD.json``."""

    schema: Literal[2] = SCHEMA
    workload: str
    cases: Mapping[str, OperatorBaseline]
    """By model and case: ``sd15/fp16``."""


def as_written(file: MachineFile | OperatorFile) -> dict[str, Any]:
    """The file's plain data, each count with its third part only where something is missing."""
    content: dict[str, Any] = to_builtins(file)
    for case in content["cases"].values():
        for field in {"counters", PYTHON_CALLS.field} & case.keys():
            case[field] = _short(case[field])
    return content


def _short(counts: Any) -> Any:
    if isinstance(counts, dict):
        return {name: _short(count) for name, count in counts.items()}
    *parts, missing = counts
    return counts if missing else parts


# Bounds for every machine, and what the guide printed


class Bound(StrictRecord, frozen=True, kw_only=True, omit_defaults=True):
    """A loose bound that holds on every machine of a kind."""

    expected: Number | None = None
    at_least: Number | None = None
    at_most: Number | None = None


Portable = Mapping[str, Mapping[str, Bound]]
"""By case id and `Metric.portable`: memory in GiB, all others ratios."""


class PortableFile(StrictRecord, frozen=True, kw_only=True):
    """``portable.json``."""

    schema: Literal[2] = SCHEMA
    about: str
    bounds: Mapping[str, Portable]
    """By ``SCALE on DEVICE``."""

    def check(self) -> None:
        """`BadContent` where a bound is for no metric."""
        for kind, cases in self.bounds.items():
            for case, bounds in cases.items():
                _check_names(f"bounds.{kind}.{case}", bounds, PORTABLE)


class PublishedCase(StrictRecord, frozen=True, kw_only=True):
    """One row of the guide's tables."""

    latency_s: Positive
    speedup: Positive


class Claim(StrictRecord, frozen=True, kw_only=True):
    """What the guide says of an optimization in words."""

    smaller: Positive
    """Share of the model's size that it saves."""
    faster: Positive
    """Share of the latency that it saves."""


class Published(StrictRecord, frozen=True, kw_only=True):
    """``published.json``: the guide's tables, as printed."""

    schema: Literal[2] = SCHEMA
    source: str = ""
    gpu: str = ""
    note: str = ""
    cases: Mapping[str, PublishedCase]
    """By case id."""
    claims: Mapping[str, Claim]
    """By optimization."""
