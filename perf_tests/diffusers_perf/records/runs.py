"""What one process of the main job left behind, as its JSON says it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers_perf.catalog.declarations import REFERENCE, Tolerance
from diffusers_perf.catalog.status import Status
from diffusers_perf.records.pixels import Distance, Look
from diffusers_perf.records.records import Count, Machine, Measurement, Mode

Case = Mapping[str, Any]
"""What stands in a case's `extra_info`."""


@dataclass(frozen=True, kw_only=True)
class Untimed:
    """A case that gave no measurement."""

    id: str
    status: Status
    """``skipped``, ``error``, ``not applied``, or ``invalid`` where it was interrupted; of what
    `missing` finds ``missing`` or ``invalid``."""
    sentence: str
    by_choice: bool = False
    """Skipped for an optional package that is not installed: no loss."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of the cases a run was given."""

    index: int
    of: int
    cases: tuple[str, ...]
    """Ids of what all shards together run."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process of the main job."""

    path: Path
    date: str
    """ISO 8601."""
    commit: str | None
    machine: Machine
    cases: Mapping[str, Case]
    """By `key_of` each."""
    untimed: tuple[Untimed, ...]
    drift: Mapping[str, Mapping[str, Any]]
    """By workload, ``ratio`` and ``significant`` of the reference's last repetition."""
    measuring: str
    """Version of the measuring code."""
    scale: str
    quick: bool
    """Measured in few rounds after a short warm-up, to be one of many."""
    options: tuple[str, ...]
    """What repeats it on the command line, beside the defaults."""
    expected: tuple[str, ...]
    """Ids of the cases that were to run."""
    narrowed: bool
    """Some cases were asked for by name, so that others are not missing."""
    not_asked: tuple[str, ...]
    """Ids of the cases that are declared and were not asked for."""
    shard: Shard | None

    @cached_property
    def by_id(self) -> dict[str, Case]:
        """`cases` by the ids that a person reads."""
        return {case_id(case): case for case in self.cases.values()}

    @property
    def not_timed(self) -> tuple[str, ...]:
        """Ids of the cases that failed without a measurement."""
        return tuple(
            case.id for case in self.untimed if case.status not in (Status.SKIPPED, Status.INVALID)
        )

    @property
    def mode(self) -> Mode:
        return "quick" if self.quick else "whole"

    @property
    def drifted(self) -> tuple[str, ...]:
        """Workloads whose reference took another time when it was repeated."""
        return tuple(name for name, drift in self.drift.items() if drift["significant"])

    @property
    def weights(self) -> frozenset[str]:
        """``model/weights`` of the cases that were measured."""
        return frozenset(f"{case['model']}/{case['weights']}" for case in self.cases.values())

    def undeclared(self, accepted: Iterable[str]) -> set[str]:
        """Of these keys those on this run's weights whose case is no longer declared; none where it
        was not asked for all.
        """
        if self.narrowed or self.shard is not None:
            return set()
        untimed = (case.id for case in self.untimed)
        declared = {*self.expected, *self.not_asked, *self.by_id, *untimed}
        gone = set()
        for key in accepted:
            workload, source, case = parts_of(key)
            if source in self.weights and f"{workload}-{case}" not in declared:
                gone.add(key)
        return gone

    def missing(self, accepted: Iterable[str]) -> tuple[Untimed, ...]:
        """What `missing` finds in this run; `accepted` are the keys of its machine's baseline."""
        return missing(
            accepted,
            weights=self.weights,
            measured=self.by_id,
            untimed=self.untimed,
            expected=self.expected,
            whole=not self.narrowed and self.shard is None,
            not_asked=self.not_asked,
        )

    def drift_of(self, case: Case) -> Mapping[str, Any] | None:
        """The reference's repetition that its test knew of: the last before the case was judged,
        or its workload's where there was none.
        """
        own: Mapping[str, Any] | None = case["reference_drift"]
        return own or self.drift.get(case["workload"])


def key_of(case: Case) -> str:
    """As `records.Measurement.key`."""
    return "/".join(case[name] for name in ("workload", "model", "weights", "case"))


def parts_of(key: str) -> tuple[str, str, str]:
    """The workload, the model (in a machine's baseline with its weights) and the case of a key."""
    workload, rest = key.split("/", 1)
    # A model can be called owner/name.
    source, case = rest.rsplit("/", 1)
    return workload, source, case


def case_id(case: Case) -> str:
    """As `catalog.Case.id`."""
    return f"{case['workload']}-{case['case']}"


def missing(
    accepted: Iterable[str],
    *,
    weights: Collection[str],
    measured: Collection[str],
    untimed: Sequence[Untimed],
    expected: Sequence[str],
    whole: bool,
    not_asked: Collection[str] = (),
) -> tuple[Untimed, ...]:
    """What a run lost without anybody's choice: ``missing``, or ``invalid`` where it was
    interrupted before it got there.

    `accepted` are the keys of the machine's baseline; those on these `weights` (``model/weights``)
    count. `measured`, `expected` and `not_asked` are ids. Under `whole` none were picked by name:
    what the baseline knows and nobody declares any more is missing then.
    """
    known = []
    for key in accepted:
        workload, source, case = parts_of(key)
        if source in weights:
            known.append(f"{workload}-{case}")
    skipped = [case for case in untimed if case.status == Status.SKIPPED]
    lost = [
        Untimed(
            id=case.id,
            status=Status.MISSING,
            sentence=f"{case.id} has a baseline and was skipped: "
            f"{case.sentence.removeprefix(f'{case.id}: ')}",
        )
        for case in skipped
        if case.id in known and not case.by_choice
    ]
    there = {*measured, *(case.id for case in untimed)}
    interrupted = any(case.status == Status.INVALID for case in untimed)
    why = "was interrupted" if interrupted else "ended early"
    lost += [
        Untimed(
            id=name,
            status=Status.INVALID if interrupted else Status.MISSING,
            sentence=f"{name} was to run and has no measurement: the run {why}",
        )
        for name in expected
        if name not in there
    ]
    lost += [
        Untimed(
            id=name,
            status=Status.MISSING,
            sentence=f"{name} has a baseline and was not run: it is no longer declared in "
            "perf_tests/cases/optimizations.py",
        )
        for name in known
        if whole and name not in there and name not in expected and name not in not_asked
    ]
    return tuple(lost)


def measurement(case: Case) -> Measurement:
    """What `Measurement.as_json` wrote, as far as a verdict or a search depends on it."""
    image = case["image"]
    image_distance = None
    if image["psnr_db"] is not None and image["ssim"] is not None:
        image_distance = Distance(psnr_db=image["psnr_db"], ssim=image["ssim"])
    return Measurement(
        case=case["case"],
        workload=case["workload"],
        steps=case["steps"],
        num_images=case["num_images"],
        model=case["model"],
        weights=case["weights"],
        parameters=case["parameters"],
        rounds_s=tuple(case["latency_rounds_s"]),
        look=Look(finite=image["finite"], mean=image["mean"], std=image["std"]),
        # How similar the repeated image's structure is, nobody asks and nothing says.
        repeat=Distance(psnr_db=image["repeat_psnr_db"], ssim=1.0),
        image_distance=image_distance,
        gpu_busy_s=case["gpu_busy_s"],
        peak_memory_bytes=case["peak_memory_bytes"],
        counters={
            name: Count(fixed=count["fixed"], per_step=count["per_step"])
            for name, count in case["counters"].items()
        },
        validity=case["validity"],
        notes=tuple(case["notes"]),
        ignored=tuple(image["ignored"]),
        roofline_s=case["roofline_s"],
        roofline_by=case["roofline_by"],
        families={
            name: (seen["gpu_s"], seen["kernels"]) for name, seen in case["families"].items()
        },
    )


def reference_of(case: Case, measured: Measurement) -> Measurement:
    """What the case was compared with; the measurement itself for a workload's reference."""
    other = case["reference"]
    if case["case"] == REFERENCE or other is None:
        return measured
    return Measurement(
        case=case["against"],
        workload=measured.workload,
        steps=measured.steps,
        num_images=measured.num_images,
        model=measured.model,
        weights=measured.weights,
        parameters=measured.parameters,
        rounds_s=tuple(other["latency_rounds_s"]),
        look=measured.look,
        repeat=measured.repeat,
        gpu_busy_s=other["gpu_busy_s"],
        peak_memory_bytes=other["peak_memory_bytes"],
        validity=other["validity"],
    )


def tolerance_of(case: Case) -> Tolerance | None:
    """The closeness that the case's optimizations tolerance; None for none."""
    allowed = case["tolerance"]
    return allowed and Tolerance(psnr_db=allowed["psnr_db"], ssim=allowed["ssim"])
