"""Reads and writes `baselines/`: what machines did when a person last accepted it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, get_args

from diffusers_perf.judge.stats import spread
from diffusers_perf.records import shape
from diffusers_perf.records.files import write_whole
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.names import image_file
from diffusers_perf.records.operators import COUNTERS
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

NEVER_MORE = (
    "host_syncs",
    "device_to_host_copies",
    "host_to_device_copies",
    "device_reads",
    "graph_breaks",
    "recompiles",
    "casts",
    "layout_conversions",
    "full_precision_operators",
    "unfused_attention",
)
"""Counters of which one more in a generation is a regression."""
# Not the launches of graphs: one more stands for many kernels, whose launches there are fewer of.
LAUNCHES = ("kernels", "kernel_launches", "operators", "python_calls")
JUDGED = (*NEVER_MORE, *LAUNCHES)
"""All other counters explain a number and hold nobody to anything."""


class BadBaseline(Exception):
    """A file under `baselines/` that cannot be used; one sentence says which and why."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the baseline allows. Written by `ci accept` from the numbers beside it.

    A workload's reference is held to the latency that it had, any other case to how many times
    faster than its reference it was.
    """

    latency_s_max: float | None = None
    latency_speedup_min: float | None = None
    gpu_busy_s_max: float | None = None
    gpu_speedup_min: float | None = None
    peak_memory_bytes_max: float | None = None


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
    latency_s: tuple[float, ...]
    latency_speedup: tuple[float, ...] = ()
    """Of a workload's reference none."""
    gpu_busy_s: tuple[float, ...] = ()
    gpu_speedup: tuple[float, ...] = ()
    peak_memory_bytes: tuple[int, ...] = ()
    counters: Mapping[str, Count]
    moving: tuple[str, ...] = ()
    """Counters that were not the same in every process, and hold nobody to anything."""
    limits: Limits
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


METRICS = ("gpu_speedup", "latency_speedup", "memory_ratio", "memory_gib")

Portable = Mapping[str, Mapping[str, Bound]]
"""Bounds by metric (`METRICS`; the last is the peak in GiB, all others are ratios), by case id."""


def machine_path(slug: str, folder: Path | None = None) -> Path:
    return (folder or FOLDER) / f"{slug}.json"


def image_path(*, model: str, weights: str, workload: str, folder: Path | None = None) -> Path:
    """Where the accepted image of a reference lies. `BadName` for names that cannot
    be a file's.
    """
    source = f"{model}-{weights}" if weights != model else model
    name = f"{workload}-{source.replace('/', '--')}"
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


def of_processes(
    *,
    accepted: str,
    versions: Mapping[str, str],
    generates: Mapping[str, Any],
    device: str,
    counters: Sequence[Mapping[str, Count]],
    calibrations: Mapping[Mode, Calibration] = MappingProxyType({}),
    **seen: Sequence[Any],
) -> CaseBaseline:
    """The line that these processes of one case are accepted as, with the limits that follow.

    `counters` are of each process, `seen` its times, ratios and bytes as in `limits_of`. A counter
    that some processes lack is left out, and so is one that holds nobody to anything.
    """
    values = {name: tuple(rounded(value) for value in them) for name, them in seen.items()}
    # Without a GPU they were counted in the code, are the same on every machine, and are judged by
    # baselines/structure.json alone.
    structural = () if device == "cuda" else COUNTERS
    known = {
        name: [one[name] for one in counters]
        for name in dict.fromkeys(name for one in counters for name in one)
        if name in JUDGED and name not in structural and all(name in one for one in counters)
    }
    return CaseBaseline(
        accepted=accepted,
        versions=versions,
        generates=generates,
        counters={n: counts[0] for n, counts in known.items() if len(set(counts)) == 1},
        moving=tuple(n for n, counts in known.items() if len(set(counts)) > 1),
        limits=limits_of(**values, calibration=calibrations.get("whole")),
        calibrations=calibrations,
        **values,
    )


def rounded(number: float) -> Any:
    """To five digits, which are more than is measured; integers stay."""
    return number if isinstance(number, int) else float(f"{number:.5g}")


def limits_of(
    *,
    latency_s: Sequence[float],
    latency_speedup: Sequence[float] = (),
    gpu_busy_s: Sequence[float] = (),
    gpu_speedup: Sequence[float] = (),
    peak_memory_bytes: Sequence[int] = (),
    calibration: Calibration | None = None,
) -> Limits:
    """What is allowed from here on, from what the accepted processes measured.

    A workload's reference has no speedups. GPU busy time spreads by 1 % and is held tightly: 2 %,
    or three times its noise where that is more, which is the calibrated one and without a
    calibration the spread seen; its speedups to 0.97 of the lowest. Wall clock spreads by 10 %
    where the host is what counts, so it gets that, or the spread seen, beyond the worst process.
    Noise widens no limit by more than half, and a latency's by that of fewer than three processes,
    which tell nothing of how they differ: on a shared host, by a third and more.
    """
    if calibration and "gpu_busy_s" in calibration.noise:
        busy_slack = min(0.5, max(0.02, 3 * calibration.noise["gpu_busy_s"]))
    else:
        busy_slack = _slack(gpu_busy_s, least=0.02, times=3) if gpu_busy_s else 0.0
    limits: dict[str, float | None] = {
        "gpu_busy_s_max": median(gpu_busy_s) * (1 + busy_slack) if gpu_busy_s else None,
        "gpu_speedup_min": 0.97 * min(gpu_speedup) if gpu_speedup else None,
        "peak_memory_bytes_max": 1.02 * max(peak_memory_bytes) if peak_memory_bytes else None,
    }
    least = 0.10 if len(latency_s) >= 3 else 0.50
    if latency_speedup:
        slowest = min(latency_speedup) * (1 - _slack(latency_speedup, least=least))
        limits["latency_speedup_min"] = slowest
    else:
        limits["latency_s_max"] = max(latency_s) * (1 + _slack(latency_s, least=least))
    return Limits(**{n: rounded(limit) for n, limit in limits.items() if limit is not None})


def _slack(values: Sequence[float], *, least: float, times: float = 1) -> float:
    return min(0.5, max(least, times * spread(values)))


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
        content = json.loads(path.read_text(), parse_constant=refuse)
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


SEEN = ("latency_s", "latency_speedup", "gpu_busy_s", "gpu_speedup", "peak_memory_bytes")
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
        "limits": _any_of(Limits),
    },
    {
        **dict.fromkeys(SEEN[1:], Some(POSITIVE)),
        "moving": [TEXT],
        "calibrations": Only({}, dict.fromkeys(get_args(Mode), CALIBRATION)),
    },
)
MACHINE = Only({"schema": WHOLE, "machine": TEXT, "cases": Each(LINE)})
BOUNDS = Each(Only({}, {metric: _any_of(Bound) for metric in METRICS}))
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
    limit = "latency_speedup_min" if "latency_speedup" in line else "latency_s_max"
    if limit not in line["limits"]:
        raise BadBaseline(f"{path}: {key}: limits have no {limit!r}")
    counters = {n: Count(fixed=pair[0], per_step=pair[1]) for n, pair in line["counters"].items()}
    calibrations = line.get("calibrations", {})
    lists = {name: tuple(line.get(name, ())) for name in (*SEEN, "moving")}
    return CaseBaseline(
        accepted=line["accepted"],
        versions=line["versions"],
        generates=line["generates"],
        counters=counters,
        limits=Limits(**line["limits"]),
        calibrations={mode: Calibration(**known) for mode, known in calibrations.items()},
        **lists,
    )


def _case_json(case: CaseBaseline) -> dict[str, Any]:
    line = {name: value for name, value in asdict(case).items() if value not in ((), {}, None)}
    line["counters"] = {n: [c.fixed, c.per_step] for n, c in case.counters.items()}
    line["limits"] = {n: v for n, v in asdict(case.limits).items() if v is not None}
    return line
