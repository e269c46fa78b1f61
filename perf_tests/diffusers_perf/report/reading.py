"""Reads a run for showing: what one case spoils is said at that case and hides no other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.verdicts import again
from diffusers_perf.records import reading as runs
from diffusers_perf.records.reading import BadRunError
from diffusers_perf.records.records import SCHEMA, Count
from diffusers_perf.records.runs import Untimed, missing


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One case of a run, as far as its numbers are numbers."""

    workload: str
    name: str
    """The stack's, or ``reference``."""
    model: str
    weights: str
    against: str | None
    status: str
    sentence: str
    image_only: bool
    generates: Mapping[str, Any]
    """What its workload pins; empty where the run does not say."""
    stack: Mapping[str, str]
    """What each of its optimizations does, in a line; empty where the run does not say."""
    steps: int
    num_images: int
    parameters: float | None
    latency_s: float | None
    rounds_s: tuple[float, ...]
    latency_speedup: float | None
    gpu_busy_s: float | None
    gpu_speedup: float | None
    peak_memory_bytes: float | None
    roofline_s: float | None
    roofline_by: str
    """Whether arithmetic or memory says so; empty where the run does not."""
    time_to_first_image_s: float | None
    compile_cache: str
    """``cold``, ``warm`` or between; empty where nothing is compiled."""
    finite: bool
    psnr_db: float | None
    ssim: float | None
    compared_with: str
    """The case that its image was held to; ``accepted`` for the accepted image."""
    tolerance: Mapping[str, float]
    """The least ``psnr_db`` and ``ssim`` that are allowed, where the run says so."""
    counters: Mapping[str, Count]
    stages_s: Mapping[str, float]
    families_s: Mapping[str, tuple[float, int]]
    """Seconds and kernels."""
    gpu_interference: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    """What stands in the file where a number should."""

    @property
    def id(self) -> str:
        return f"{self.workload}-{self.name}"

    @property
    def key(self) -> str:
        return f"{self.workload}/{self.model}/{self.weights}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One process of the main job."""

    path: Path
    date: str
    commit: str
    machine: Mapping[str, Any]
    cases: tuple[Seen, ...]
    untimed: tuple[Untimed, ...]
    expected: tuple[str, ...]
    """Ids of the cases that were to run."""
    options: tuple[str, ...]
    """What repeats it on the command line, beside the defaults; empty where it does not say."""
    whole: bool
    """Were all cases asked for? Of a part of them nothing is missing."""
    not_asked: tuple[str, ...]
    """Ids of declared cases that were not asked for."""
    drift: Mapping[str, tuple[float, bool]]
    """By workload: the reference's time when repeated, over its first; whether that is drift."""

    @property
    def images(self) -> Path:
        """Where the main job saved this run's images."""
        return self.path.with_name(f"{self.path.stem}-images")

    def again(self, name: str) -> str:
        """The command that runs the case of this id alone, as this run did."""
        return again(name, self.options)

    def lost(self, accepted: Iterable[str]) -> tuple[Untimed, ...]:
        """Every case without a time, as `gate` calls it; `accepted` as in `runs.missing`."""
        gone = missing(
            accepted,
            weights={f"{case.model}/{case.weights}" for case in self.cases},
            measured={case.id for case in self.cases},
            untimed=self.untimed,
            expected=self.expected,
            whole=self.whole,
            not_asked=self.not_asked,
        )
        names = {case.id for case in gone}
        return (*(case for case in self.untimed if case.id not in names), *gone)

    def case(self, name: str) -> Seen | None:
        """By id."""
        return next((case for case in self.cases if case.id == name), None)


def read(path: Path) -> Reading:
    """`BadRunError` for what is no run, one of another schema, or one with a case twice."""
    content = runs.read(path)
    try:
        ours = content["perf_tests"]
        if ours["schema"] != SCHEMA:
            raise BadRunError(f"{path}: has schema {ours['schema']}, this suite reads {SCHEMA}")
        cases = tuple(_case(benchmark["extra_info"]) for benchmark in content["benchmarks"])
        commit = content.get("commit_info") or {}
        reading = Reading(
            path=path,
            date=str(content["datetime"])[:16].replace("T", " "),
            commit=str(commit.get("id") or "")[:10]
            + (" and changes" if commit.get("dirty") else ""),
            machine=dict(content["machine_info"]["perf_tests"]),
            cases=cases,
            untimed=tuple(
                Untimed(
                    id=f"{case['workload']}-{case['case']}",
                    status=Status(case["verdict"]),
                    sentence=str(case["sentence"]),
                    by_choice=case.get("by_choice") is True,
                )
                for case in ours["not_timed"]
            ),
            expected=tuple(map(str, ours.get("expected", ()))),
            options=tuple(map(str, ours.get("options", ()))),
            whole=ours.get("narrowed") is False and not ours.get("shard"),
            not_asked=tuple(map(str, ours.get("not_asked", ()))),
            drift={
                str(name): (float(drift["ratio"]), bool(drift["significant"]))
                for name, drift in ours["reference_drift"].items()
                if isinstance(drift, dict)
            },
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise BadRunError(
            f"{path}: was not written by this suite's main job with --benchmark-json"
        ) from None
    keys = [case.key for case in cases]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise BadRunError(f"{path}: {twice} is in it twice")
    return reading


class _Numbers:
    """Takes numbers out of a case and notes what is none."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.info = info
        self.problems: list[str] = []

    def positive(self, name: str) -> float | None:
        return self.check(name, self.info.get(name), least=0.0)

    def check(self, name: str, value: Any, *, least: float = -math.inf) -> float | None:
        if value is None:
            return None
        # Python counts true and false as integers.
        if isinstance(value, int | float) and not isinstance(value, bool):
            number: int | float = value
            if math.isfinite(number) and number > least:
                return number
        said = {"nan": "NaN", "inf": "infinity"}.get(str(value), repr(value))
        self.problems.append(f"{name} is {said}, which is no number that says anything")
        return None


def _case(info: Mapping[str, Any]) -> Seen:
    numbers = _Numbers(info)
    image = info["image"]
    rounds = [numbers.check("a round", value, least=0.0) for value in info["latency_rounds_s"]]
    validity: Mapping[str, Any] = info.get("validity") or {}
    families = {
        str(name): (numbers.check(name, part["gpu_s"]) or 0.0, int(part["kernels"]))
        for name, part in info["families"].items()
    }
    return Seen(
        workload=str(info["workload"]),
        name=str(info["case"]),
        model=str(info["model"]),
        weights=str(info["weights"]),
        against=info.get("against"),
        status=str(info["verdict"]),
        sentence=str(info["sentence"]),
        image_only=bool(info["image_only"]),
        generates=dict(info.get("generates") or {}),
        stack=_strings(info.get("stack")),
        steps=int(info["steps"]),
        num_images=int(info["num_images"]),
        parameters=numbers.positive("parameters"),
        latency_s=numbers.positive("latency_s"),
        rounds_s=tuple(value for value in rounds if value is not None),
        latency_speedup=numbers.positive("latency_speedup"),
        gpu_busy_s=numbers.positive("gpu_busy_s"),
        gpu_speedup=numbers.positive("gpu_speedup"),
        peak_memory_bytes=numbers.positive("peak_memory_bytes"),
        roofline_s=numbers.positive("roofline_s"),
        roofline_by=str(info.get("roofline_by") or ""),
        time_to_first_image_s=numbers.positive("time_to_first_image_s")
        if "time_to_first_image_s" in info
        else None,
        compile_cache=str(info.get("compile_cache") or ""),
        finite=bool(image["finite"]),
        psnr_db=numbers.check("psnr_db", image["psnr_db"]),
        ssim=numbers.check("ssim", image["ssim"]),
        compared_with=str(image["compared_with"]),
        tolerance={
            str(name): value
            for name, value in (info.get("tolerance") or {}).items()
            if isinstance(value, int | float) and value > 0
        },
        counters={
            str(name): Count(fixed=int(count["fixed"]), per_step=int(count["per_step"]))
            for name, count in info["counters"].items()
        },
        stages_s={
            str(name): numbers.check(name, value) or 0.0 for name, value in info["stages"].items()
        },
        families_s=families,
        gpu_interference=tuple(str(cause) for cause in validity.get("gpu_interference") or ()),
        notes=_notes(info.get("notes") or (), validity),
        problems=tuple(dict.fromkeys(numbers.problems)),
    )


def _strings(content: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in content.items()} if isinstance(content, dict) else {}


def _notes(notes: Sequence[Any], validity: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = validity.get("unknown")
    return (*map(str, notes), *([str(unknown)] if unknown else []))
