"""Reads and writes `baselines/`: what machines did when a person last accepted it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from diffusers_perf.catalog.metrics import LIMITED
from diffusers_perf.catalog.metrics import PORTABLE as PORTABLE_METRICS
from diffusers_perf.records import shape
from diffusers_perf.records.files import read_text, write_whole
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.names import accepted_image_name, image_file
from diffusers_perf.records.run import Mode, slug_of
from diffusers_perf.records.shape import (
    ANYTHING,
    NUMBER,
    POSITIVE,
    TEXT,
    WHOLE,
    Each,
    Leaf,
    Only,
    Some,
)

SCHEMA = 1
FOLDER = Path(__file__).parents[3] / "baselines"


class BadBaseline(Exception):
    """A file under `baselines/` that cannot be used; one sentence says which and why."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How much a case varies between processes of one commit. Written by `ci calibrate`."""

    calibrated: str
    """Date, ISO 8601."""
    processes: int
    """The fewest undisturbed ones that a noise is from."""
    noise: Mapping[str, float]
    """By metric as in a run's JSON (``latency_s``): standard deviation of the log."""
    sees: Mapping[str, float]
    """By metric, the smallest slowdown that `compare` finds in five pairs, as a share."""


@dataclass(frozen=True, kw_only=True)
class CaseBaseline:
    """One line of a machine's file: what a case did in each of the accepted processes."""

    accepted: str
    """Date, ISO 8601."""
    versions: Mapping[str, str]
    generates: Mapping[str, Any]
    """The workload, as `catalog.Workload.as_json`: another one's times say nothing of these."""
    measured: Mapping[str, tuple[float, ...]]
    """By `Metric.field` of `LIMITED`: of each accepted process. A workload's reference has no
    ratios."""
    counters: Mapping[str, Count]
    moving: tuple[str, ...] = ()
    """Counters that were not the same in every process, and hold nobody to anything."""
    limits: Mapping[str, float]
    """By `Metric.limit_name`. Written from the numbers beside it."""
    calibrations: Mapping[Mode, Calibration] = field(default_factory=dict)
    """None where nobody calibrated."""


@dataclass(frozen=True, kw_only=True)
class MachineBaseline:
    """One file: a machine's name and its lines, keyed as `Measurement.key`."""

    path: Path
    machine: str
    cases: Mapping[str, CaseBaseline]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A loose bound that holds on every machine of a kind."""

    expected: float | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Published:
    """The guide's tables, and what it says of a variant in words."""

    cases: Mapping[str, Mapping[str, float]]
    """By case id, ``latency_s`` and ``speedup``."""
    claims: Mapping[str, Mapping[str, float]]
    """By optimization, the shares by which a model is ``smaller`` and ``faster``."""


Portable = Mapping[str, Mapping[str, Bound]]
"""By case id and `Metric.portable`: memory in GiB, all others ratios."""


def machine_path(slug: str, folder: Path | None = None) -> Path:
    return (folder or FOLDER) / f"{slug}.json"


def image_path(*, model: str, weights: str, workload: str, folder: Path | None = None) -> Path:
    """Where the accepted image of a reference lies. `BadName` for names that cannot
    be a file's.
    """
    name = accepted_image_name(workload=workload, model=model, weights=weights)
    return image_file((folder or FOLDER) / "images", name)


def load_machine(slug: str, folder: Path | None = None) -> MachineBaseline | None:
    """A machine's baseline, or None where nobody accepted one. `BadBaseline` if unreadable, or of
    another machine than its name says.
    """
    path = machine_path(slug, folder)
    if not path.exists():
        return None
    content = _load(path, MACHINE)
    if slug_of(content["machine"]) != slug:
        raise BadBaseline(
            f"{path}: its machine is {content['machine']}, whose file would be called "
            f"{slug_of(content['machine'])}.json"
        )
    cases = {key: _case(line, path, key) for key, line in content["cases"].items()}
    return MachineBaseline(path=path, machine=content["machine"], cases=cases)


def save_machine(baseline: MachineBaseline) -> None:
    """Write the file, one line a case."""
    lines = [
        f"  {json.dumps(key)}: {json.dumps(_case_json(case))}"
        for key, case in sorted(baseline.cases.items())
    ]
    text = (
        f'{{\n "schema": {SCHEMA},\n "machine": {json.dumps(baseline.machine)},\n "cases": {{\n'
        + ",\n".join(lines)
        + "\n }\n}\n"
    )
    write_whole(baseline.path, text)


def rounded(number: float) -> Any:
    """To five digits, which are more than is measured; integers stay."""
    return number if isinstance(number, int) else float(f"{number:.5g}")


def load_portable(*, scale: str, device: str, folder: Path | None = None) -> Portable:
    """The loose bounds for models of this scale on this kind of device; empty for others."""
    path = (folder or FOLDER) / "portable.json"
    section = _load(path, PORTABLE).get(f"{scale} on {device}", {})
    return {
        case: {metric: Bound(**bound) for metric, bound in metrics.items()}
        for case, metrics in section.items()
    }


def load_published(folder: Path | None = None) -> Published:
    """What the guide printed. `BadBaseline` if unreadable."""
    path = (folder or FOLDER) / "published.json"
    content = _load(path, PUBLISHED)
    return Published(cases=content["cases"], claims=content["claims"])


def _load(path: Path, shaped: Only) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise BadBaseline(f"{path}: {constant} is no number that anything can be held to")

    try:
        content = json.loads(read_text(path), parse_constant=refuse)
    except OSError as error:
        raise BadBaseline(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadBaseline(f"{path}: is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise BadBaseline(f"{path}: is no JSON object")
    if content.get("schema") != SCHEMA:
        raise BadBaseline(
            f"{path}: has schema {content.get('schema')!r}, this suite reads {SCHEMA}"
        )
    try:
        shape.check(content, shaped, str(path))
    except shape.BadShape as error:
        raise BadBaseline(str(error)) from None
    return content


def _any_of(kind: type) -> Only:
    """Some of the fields of a dataclass of numbers."""
    return Only({}, {field.name: POSITIVE for field in fields(kind)})


NOISE = Leaf(
    # What is the same in every process, as memory can be, has none.
    "zero or a positive number",
    lambda value: NUMBER.fits(value) and value >= 0,
)
PAIR = Leaf(
    "[fixed, per step] in integers",
    lambda value: (
        isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
    ),
)
CALIBRATION = Only(
    {"calibrated": TEXT, "processes": WHOLE, "noise": Each(NOISE), "sees": Each(NOISE)}
)
LINE = Only(
    {
        "accepted": TEXT,
        "versions": Each(TEXT),
        "generates": Each(ANYTHING),
        "latency_s": Some(POSITIVE),
        "counters": Each(PAIR),
        "limits": Only({}, {metric.limit_name: POSITIVE for metric in LIMITED}),
    },
    {
        **{m.field: Some(POSITIVE) for m in LIMITED if m.field != "latency_s"},
        "moving": [TEXT],
        "calibrations": Only({}, dict.fromkeys(get_args(Mode), CALIBRATION)),
    },
)
MACHINE = Only({"schema": WHOLE, "machine": TEXT, "cases": Each(LINE)})
BOUNDS = Each(Only({}, {name: _any_of(Bound) for name in PORTABLE_METRICS}))
PORTABLE = Only({"schema": WHOLE, "about": TEXT}, {"full on cuda": BOUNDS, "small on cpu": BOUNDS})
PUBLISHED = Only(
    {
        "schema": WHOLE,
        "cases": Each(Only({}, {"latency_s": POSITIVE, "speedup": POSITIVE})),
        "claims": Each(Only({}, {"smaller": POSITIVE, "faster": POSITIVE})),
    },
    dict.fromkeys(("source", "gpu", "note"), TEXT),
)


def _case(line: Mapping[str, Any], path: Path, key: str) -> CaseBaseline:
    if key.count("/") < 3:
        raise BadBaseline(f"{path}: the key {key!r} is not workload/model/weights/case")
    measured = {m.field: tuple(line[m.field]) for m in LIMITED if m.field in line}
    limit = "latency_speedup_min" if "latency_speedup" in line else "latency_s_max"
    if limit not in line["limits"]:
        raise BadBaseline(f"{path}: {key}: limits have no {limit!r}")
    counters = {n: Count(fixed=pair[0], per_step=pair[1]) for n, pair in line["counters"].items()}
    calibrations = line.get("calibrations", {})
    return CaseBaseline(
        accepted=line["accepted"],
        versions=line["versions"],
        generates=line["generates"],
        measured=measured,
        counters=counters,
        moving=tuple(line.get("moving", ())),
        limits=line["limits"],
        calibrations={mode: Calibration(**known) for mode, known in calibrations.items()},
    )


def _case_json(case: CaseBaseline) -> dict[str, Any]:
    line = {name: value for name, value in asdict(case).items() if value not in ((), {}, None)}
    line["counters"] = {n: [c.fixed, c.per_step] for n, c in case.counters.items()}
    measured = line.pop("measured")
    return {**line, **measured}
