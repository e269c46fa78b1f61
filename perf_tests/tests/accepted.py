"""The blocks of the documents that come from the accepted baseline: see `documents`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from statistics import median

from diffusers_perf.catalog.discovery import declared_in
from diffusers_perf.catalog.metric import Metric, Unit
from diffusers_perf.catalog.metrics import GPU_BUSY, GPU_SPEEDUP, LATENCY, PEAK_MEMORY
from diffusers_perf.cli.result_rows import ResultRow, rows_of, table
from diffusers_perf.models.served import FAMILIES
from diffusers_perf.records.store import BaselineStore

ROOT = Path(__file__).parents[2]
DECLARATIONS = "perf_tests.cases"
GLANCE = "nvidia-h100-80gb-hbm3"
GLANCE_CASES = (
    "reference",
    "fp16",
    "fp16+compile_reduce_overhead",
    "best_lossless",
    "best_lossy",
)
BYTES_OF_BFLOAT16 = 2


def needs() -> str:
    """What a machine needs: memory from the accepted baseline, versions from the package."""
    machine, rows = _accepted()
    peaks = [
        (row.median(PEAK_MEMORY) or 0, row.suite)
        for row in rows
        if row.case and row.case.workload.model == "sd15"
    ]
    of_all, of_guide = max(peaks)[0], max(peak for peak, suite in peaks if suite == "guide")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = {"Python": project["requires-python"].removeprefix(">=")}
    for name in ("torch", "diffusers"):
        (required,) = [r for r in project["dependencies"] if r.startswith(f"{name}>=")]
        oldest[name] = required.split(">=")[1].split(",")[0]
    lines = [
        [
            "GPU",
            "one NVIDIA GPU for a case; [`fleet`](ci/README.md#many-gpus) uses several for a "
            "suite. The default suite (a group of cases) follows diffusers' guide to fast "
            f"inference and needs {PEAK_MEMORY.shown(of_guide)} of GPU memory, all suites of "
            f"Stable Diffusion 1.x {PEAK_MEMORY.shown(of_all)} ({machine}). In bfloat16, the "
            f"weights alone take {_weights('sdxl')} for SDXL and {_weights('flux1-dev')} for "
            "FLUX.1-dev (`-m models`); activations come on top",
        ],
        [
            "no GPU",
            "two small trained models ship with the library, a Stable Diffusion and a Flux, and "
            "run on two CPU cores. A run judges images and Python calls there; `diffusers-perf "
            "structure` judges operators, once `--write` accepted their counts, of full-size "
            "pipelines too, on tensors without data",
        ],
        [
            "pipelines",
            "any pipeline of diffusers, from a Hub id or a folder, or a class of your own: a "
            "function of yours builds the object, which is called and has `.components` as a "
            "`DiffusionPipeline` does. Stable Diffusion 1.x, SDXL and FLUX.1 also with weights "
            "from a seed, which need no download",
        ],
        [
            "software",
            ", ".join(f"{name} {version} or newer" for name, version in oldest.items()) + "; Linux",
        ],
    ]
    return table(["", ""], lines)


def _accepted() -> tuple[str, list[ResultRow]]:
    """The machine's name and its lines."""
    baseline = BaselineStore(ROOT / "baselines").load_machine(GLANCE)
    assert baseline is not None, f"{GLANCE} has no baseline"
    return baseline.machine, [*rows_of(baseline, declared_in(DECLARATIONS).cases)]


def _weights(family: str) -> str:
    """What all modules of a model in full size take in bfloat16."""
    parameters = sum(module.parameters for module in FAMILIES[family].modules.values())
    return Unit.BYTES.shown(BYTES_OF_BFLOAT16 * parameters)


def glance() -> str:
    """A few rows of one machine's baseline."""
    machine, rows = _accepted()
    by_name = {row.name: row for row in rows if row.workload == "ddim50"}
    shown = [by_name[name] for name in GLANCE_CASES]
    lines = [
        [
            row.name,
            row.shown(LATENCY),
            _spread(row, LATENCY),
            row.shown(GPU_BUSY),
            _spread(row, GPU_BUSY),
            row.shown(GPU_SPEEDUP) or "1.000x",
            row.shown(PEAK_MEMORY),
            row.suite,
            row.line.accepted,
        ]
        for row in shown
    ]
    heads = [LATENCY.column, "spread", GPU_BUSY.column, "spread", GPU_SPEEDUP.column]
    heads += [PEAK_MEMORY.column, "suite", "accepted"]
    versions = {
        ", ".join(f"{package} {row.line.versions[package]}" for package in ("torch", "diffusers"))
        for row in shown
    }
    (processes,) = {len(row.line.measured[LATENCY.field]) for row in shown}
    suites = " or ".join(dict.fromkeys(row.suite for row in shown))
    listed = table([f"ddim50 on {machine}, {'; '.join(sorted(versions))}", *heads], lines)
    return (
        f"{listed}\n\nMedians of {processes} processes; *spread* is from lowest to highest, over "
        f'the median. With `-m "{suites}"`, the two commands that '
        "[accept a baseline](#accept-a-baseline) measure and keep these rows and others; "
        "`python -m perf_tests.tests.documents` writes this table."
    )


def _spread(row: ResultRow, metric: Metric) -> str:
    values = row.line.measured[metric.field]
    return f"{100 * (max(values) - min(values)) / median(values):.1f} %"
