"""What one process of the main job writes with `--benchmark-json`, and reads back.

`RunFile` is the file as pytest-benchmark lays it out, as far as it is ours; `Run` is what commands
work with. The JSON Schema of the file is `run.schema.json`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from msgspec.structs import asdict, replace

from diffusers_perf.catalog.declarations import REFERENCE, Tolerance
from diffusers_perf.catalog.file_name import BYTES_MOST
from diffusers_perf.catalog.status import Status
from diffusers_perf.messages.records import bad_name
from diffusers_perf.records.main_job import MainJob
from diffusers_perf.records.measurement import Interference, Measurement
from diffusers_perf.records.missing import Untimed, missing, parts_of
from diffusers_perf.records.names import BadName, check_case, shown
from diffusers_perf.records.quantities import NotNegative, Positive, PositiveInteger, Record
from diffusers_perf.records.repository import repository
from diffusers_perf.records.shards import Placement, Shard

SCHEMA = 2
KEY = "diffusers_perf"
"""Our section of the file, of its machine info, and of a benchmark's extra info."""
Mode = Literal["whole", "quick"]
"""A run with ``--quick`` measures less, and with another noise."""


def slug_of(machine: str) -> str:
    """The name of a machine's file under `baselines/`."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


class Machine(Record, frozen=True, kw_only=True):
    """What a number depends on that the suite does not choose."""

    device: str
    """``cuda`` or ``cpu``."""
    name: str
    """The GPU's name, or the CPU's."""
    compute_capability: tuple[int, int] | None
    memory_bytes: PositiveInteger | None
    driver: str | None
    cuda: str | None
    threads: PositiveInteger
    """Of PyTorch on the host."""
    python: str
    torch: str
    diffusers: str
    transformers: str
    gpu_uuid: str | None = None
    """The card itself: two of one kind differ by up to a few percent."""
    cpu: str | None = None
    """The host's CPU model, on which what waits for the host depends; None in older runs."""

    def __post_init__(self) -> None:
        if not self.name.isprintable() or not 0 < len(self.slug) <= BYTES_MOST:
            raise BadName(bad_name(shown(self.name), "a machine"))

    @property
    def slug(self) -> str:
        return slug_of(self.name)

    @property
    def card(self) -> str:
        """The GPU itself, as a baseline names it: eight hexadecimal digits, since a file that is
        published need not name a serial number. Empty where it is not known, as of several GPUs.
        """
        return hashlib.sha256(self.gpu_uuid.encode()).hexdigest()[:8] if self.gpu_uuid else ""

    def is_like(self, other: Machine) -> bool:
        """Whether both are the same kind of hardware with the same versions.

        A GPU's host and its threads change nothing that the GPU does, and a latency is compared
        with its CPU in view; on a CPU they are the machine.
        """
        if self.device == "cuda":
            other = replace(other, threads=self.threads, cpu=self.cpu)
        return self == replace(other, gpu_uuid=self.gpu_uuid)

    @property
    def versions(self) -> dict[str, str]:
        """What a baseline is made with."""
        # Python's own decides how many calls a line makes.
        names = ("python", "torch", "diffusers", "transformers")
        versions: dict[str, str] = {name: getattr(self, name) for name in names}
        return versions | ({"driver": self.driver} if self.driver else {})


class Drift(Record, frozen=True, kw_only=True):
    """A workload's reference, timed again and compared with its first time."""

    ratio: Positive
    """The later time over the first; 1 means no drift."""
    significant: bool


class Reference(Record, frozen=True, kw_only=True):
    """What a verdict needs of the case that another is compared with.

    It stands with every case: a reference may have no test of its own in a run, or be measured
    once more in another shard.
    """

    case: str
    rounds_s: tuple[Positive, ...]
    gpu_busy_s: Positive | None
    peak_memory_bytes: PositiveInteger | None
    interference: Interference

    @classmethod
    def of(cls, measured: Measurement) -> Reference:
        return cls(**{name: getattr(measured, name) for name in cls.__struct_fields__})


class CaseFinding(Record, frozen=True, kw_only=True):
    """One of several findings on a case."""

    status: Status
    sentence: str


class CaseRecord(Record, frozen=True, kw_only=True):
    """What a run says of one case: it stands in its benchmark's ``extra_info``."""

    measurement: Measurement
    reference: Reference | None
    """None for a workload's reference."""
    status: Status
    sentence: str
    """The worst finding in one line; empty if all is well."""
    others: tuple[CaseFinding, ...] = ()
    """Further findings that say something, the worst first."""
    tolerance: Tolerance | None
    """How close the images must be to the reference's; None for no limit."""
    workload: Mapping[str, object]
    """All that is pinned about what is generated, by the names of `catalog.Workload`."""
    stack: Mapping[str, str]
    """What each optimization of the stack does, in one line."""
    image_only: bool
    """Generated once, for the image: its time is not judged."""
    reference_drift: Drift | None
    """As far as it was known when the case was judged, which it can excuse."""

    def __post_init__(self) -> None:
        seen = self.measurement
        for case in (seen.case, *([self.reference.case] if self.reference else [])):
            check_case(workload=seen.workload, case=case, model=seen.model, weights=seen.weights)

    @property
    def id(self) -> str:
        return self.measurement.id

    @property
    def key(self) -> str:
        return self.measurement.key

    @property
    def is_reference(self) -> bool:
        return self.measurement.case == REFERENCE

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels, where the workload pins them."""
        sides = (self.workload.get(name) for name in ("height", "width"))
        height, width = (side if isinstance(side, int) else 0 for side in sides)
        return (height, width) if height > 0 and width > 0 else None

    @property
    def compared_with(self) -> Measurement:
        """The reference, as far as it is known; the case's own measurement where there is none."""
        own = self.measurement
        if self.is_reference or self.reference is None:
            return own
        names = ("workload", "steps", "num_images", "model", "weights", "parameters", "look")
        known = {name: getattr(own, name) for name in (*names, "repeat_psnr_db")}
        return Measurement(**known, **asdict(self.reference))


class Session(MainJob, frozen=True, kw_only=True):
    """What a run says of itself as a whole."""

    schema: Literal[2] = 2
    quick: bool
    """Measured in few rounds after a short warm-up, to be one of many."""
    harness_version: str
    """Digest of the measuring code: times of two versions are not compared."""
    scale: str
    """Of the model's workloads."""
    expected: tuple[str, ...]
    """Ids of the cases that were to run."""
    narrowed: bool
    """Some cases were selected by name, so that others are not missing."""
    not_selected: tuple[str, ...]
    """Ids of the declared cases that were not selected."""
    shard: Shard | None
    reference_drift: Mapping[str, Drift]
    """By workload, of the last time that its reference was timed again."""
    not_timed_again: Mapping[str, str] = {}
    """By workload, why its reference could not be timed again at its end."""
    not_timed: tuple[Untimed, ...]
    durations_s: Mapping[str, NotNegative] = {}
    """By id, how long each case's test took, or measuring a reference without one of its own."""
    placements: tuple[Placement, ...] = ()
    """Where the shards were measured that make up this run."""

    @property
    def mode(self) -> Mode:
        return "quick" if self.quick else "whole"

    @property
    def failures(self) -> dict[str, str]:
        """Of the cases that failed without a measurement, by id, why."""
        passed_over = (Status.SKIPPED, Status.INVALID)
        return {
            case.id: case.sentence.removeprefix(f"{case.id}: ")
            for case in self.not_timed
            if case.status not in passed_over
        }

    @property
    def drifted(self) -> tuple[str, ...]:
        """Workloads whose reference took another time when it was timed again."""
        return tuple(name for name, drift in self.reference_drift.items() if drift.significant)

    @property
    def is_whole(self) -> bool:
        """Every selected case was to run here: of a part of them nothing is missing."""
        return not self.narrowed and self.shard is None


class ExtraInfo(Record, frozen=True, kw_only=True):
    """A benchmark's ``extra_info``; one that is not ours has no record."""

    diffusers_perf: CaseRecord | None = None


class Benchmark(Record, frozen=True, kw_only=True):
    """One benchmark of the file."""

    extra_info: ExtraInfo


class MachineInfo(Record, frozen=True, kw_only=True):
    """Of the file."""

    diffusers_perf: Machine


class CommitInfo(Record, frozen=True, kw_only=True):
    """What was checked out; without git, nothing is known."""

    id: str | None = None
    dirty: bool | None = None
    """Files were changed and not committed."""


class RunFile(Record, frozen=True, kw_only=True):
    """The JSON that `--benchmark-json` writes, without what is pytest-benchmark's own."""

    datetime: dt.datetime
    commit_info: CommitInfo = CommitInfo()
    machine_info: MachineInfo
    benchmarks: tuple[Benchmark, ...]
    diffusers_perf: Session


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process of the main job."""

    path: Path
    datetime: dt.datetime
    commit: CommitInfo
    machine: Machine
    session: Session
    cases: Mapping[str, CaseRecord]
    """By `Measurement.key`."""

    def seen_from_here(self, baselines: Path | None = None) -> Run:
        """The same run, whose next commands work in the working directory, and name these
        `baselines` if some are given.
        """
        session = self.session.seen_from(Path.cwd(), of=repository())
        if baselines is not None:
            session = replace(session, baselines=str(baselines))
        return dataclasses.replace(self, session=session)

    @property
    def date(self) -> str:
        """ISO 8601."""
        return self.datetime.date().isoformat()

    @property
    def images(self) -> Path:
        """Where the main job saved this run's images."""
        return self.path.with_name(f"{self.path.stem}-images")

    @cached_property
    def by_id(self) -> dict[str, CaseRecord]:
        """`cases` by the ids that a person reads."""
        return {case.id: case for case in self.cases.values()}

    @property
    def weights(self) -> frozenset[str]:
        """``model/weights`` of the cases that were measured."""
        seen = (case.measurement for case in self.cases.values())
        return frozenset(f"{measured.model}/{measured.weights}" for measured in seen)

    def undeclared(self, accepted: Iterable[str]) -> set[str]:
        """Of these keys those on this run's weights whose case is no longer declared; none where
        the run was not asked for every case.
        """
        if not self.session.is_whole:
            return set()
        untimed = (case.id for case in self.session.not_timed)
        selected = (*self.session.expected, *self.session.not_selected)
        declared = {*selected, *self.by_id, *untimed}
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
            untimed=self.session.not_timed,
            expected=self.session.expected,
            whole=self.session.is_whole,
            not_selected=self.session.not_selected,
        )

    def lost(self, accepted: Iterable[str]) -> tuple[Untimed, ...]:
        """Every case without a measurement; `accepted` as in `missing`."""
        gone = self.missing(accepted)
        names = {case.id for case in gone}
        return (*(case for case in self.session.not_timed if case.id not in names), *gone)

    def drift_of(self, case: CaseRecord) -> Drift | None:
        """The reference's drift that the case's test knew of; else its workload's."""
        return case.reference_drift or self.session.reference_drift.get(case.measurement.workload)
