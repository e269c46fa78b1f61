"""Writes the generated blocks of the documents: tables that come from declarations and baselines.

    python -m perf_tests.tests.documents

A block stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. `unit/test_documents.py`
fails if one is stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from diffusers_perf import faults  # noqa: F401  (declares them)
from diffusers_perf.catalog.declarations import Tolerances
from diffusers_perf.catalog.discovery import declared_in, shipped
from diffusers_perf.catalog.metrics import METRICS, Kind, Metric
from diffusers_perf.cli.commands import COMMANDS
from diffusers_perf.cli.results import Row, rows_of, table
from diffusers_perf.faults.injection import FAULTS, Fault
from diffusers_perf.records.store import BaselineStore

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
DOCUMENTS = (
    "README.md",
    "perf_tests/README.md",
    "perf_tests/diffusers_perf/faults/README.md",
    "perf_tests/diffusers_perf/techniques/README.md",
    "perf_tests/diffusers_perf/models/embedded/README.md",
    "baselines/README.md",
    "ci/README.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
    ".github/CHANGELOG.md",
    ".github/changes/README.md",
)
"""All that people write; `RESULTS-<gpu>.md` and HISTORY.md are written by commands."""
DECLARATIONS = "perf_tests.cases"
GLANCE = "nvidia-h100-80gb-hbm3"
GLANCE_CASES = (
    "reference",
    "tf32+fp16",
    "fp16+compile",
    "best_eager",
    "best_lossless",
    "best_lossy",
)


def metrics() -> str:
    """One row per metric with a rule of its own; the counters share one."""
    counters = [metric for metric in METRICS if metric.kind is Kind.COUNTER]
    rows = [[m.name, m.about, _detected([m])] for m in METRICS if m.kind is not Kind.COUNTER]
    place = next(i for i, metric in enumerate(METRICS) if metric.kind is Kind.COUNTER)
    about = "exact integers, fixed and per step: " + "; ".join(
        f"{metric.label} ({metric.about})" for metric in counters
    )
    rows.insert(place, ["counters", about, _detected(counters)])
    return table(["metric", "what it is", "detects, for example"], rows)


EXAMPLES = 3


def _detected(metrics: list[Metric]) -> str:
    """Names of faults that this must detect."""
    detectors = {metric.detector for metric in metrics}
    found = [f"`{f.name}`" for f in FAULTS.values() if f.detected_by in detectors]
    return ", ".join(found[:EXAMPLES])


def limits() -> str:
    """What a baseline allows, by metric."""
    rows = []
    for metric in METRICS:
        rule = metric.limit
        if metric.kind is Kind.COUNTER:
            allowed = (
                f"{metric.rise:.0%} more" if metric.rise else "the accepted count, not one more"
            )
            rows.append([metric.label, allowed, ""])
        elif rule is not None:
            side = "below" if metric.more_is_better else "above"
            worst = "lowest" if metric.more_is_better else "highest"
            anchor = "median" if rule.anchor == "median" else f"{worst} accepted process"
            noise = ""
            if rule.noise_times:
                times = f"{rule.noise_times:g} times the " if rule.noise_times != 1 else "the "
                noise = f", or {times}noise between processes if that is more"
            few = f"{rule.slack_of_few:.0%} {side}" if rule.slack_of_few else ""
            rows.append([metric.name, f"{rule.slack:.0%} {side} the {anchor}{noise}", few])
    few = f"with fewer than {_few()} processes"
    return table(["metric", "limit", few], rows)


def _few() -> int:
    from diffusers_perf.catalog.metrics import PROCESSES_FEW

    return PROCESSES_FEW


def optimizations() -> str:
    """What ships, from the docstrings."""
    rows = [
        [f"`{o.name}`", o.line, _tolerance(o.tolerance)] for o in shipped().optimizations.values()
    ]
    return table(["optimization", "what it does", "tolerance (seeded, embedded weights)"], rows)


def _tolerance(tolerance: Tolerances) -> str:
    shown = [
        "none" if one is None else f"{one.psnr_db:g} dB"
        for one in (tolerance.seeded, tolerance.embedded)
    ]
    return shown[0] if shown[0] == shown[1] else ", ".join(shown)


WHERE = {"any": "GPU and CPU", "cuda": "GPU", "cpu": "CPU"}


def fault_table() -> str:
    rows = [
        [f"`{f.name}`", f.line, str(f.detected_by), WHERE[f.where], _source(f)]
        for f in FAULTS.values()
        if not f.is_control
    ]
    return table(["fault", "what happens", "detected by", "on", "source"], rows)


def control_table() -> str:
    rows = [[f"`{f.name}`", f.line, WHERE[f.where]] for f in FAULTS.values() if f.is_control]
    return table(["control", "what happens", "on"], rows)


def _source(fault: Fault) -> str:
    projects = {"diffusers": "huggingface/diffusers", "torch": "pytorch/pytorch"}
    match = re.fullmatch(r"(\w+) #(\d+)", fault.source)
    if match is None:
        return "" if fault.source == "own" else fault.source
    return f"[{fault.source}](https://github.com/{projects[match[1]]}/issues/{match[2]})"


def commands() -> str:
    rows = [
        [f"`diffusers-perf {name}`", (command.__doc__ or "").splitlines()[0]]
        for name, command in COMMANDS.items()
    ]
    return table(["command", "what it does"], rows)


def glance() -> str:
    """A few rows of one machine's baseline."""
    baseline = BaselineStore(ROOT / "baselines").load_machine(GLANCE)
    assert baseline is not None, f"{GLANCE} has no baseline"
    rows = {
        row.name: row
        for row in rows_of(baseline, declared_in(DECLARATIONS).cases)
        if row.workload == "ddim50"
    }
    shown = [metric for metric in METRICS if metric.column]
    lines = [[name, *(_of(rows[name], metric) for metric in shown)] for name in GLANCE_CASES]
    return table(["ddim50", *(metric.column for metric in shown)], lines)


def _of(row: Row, metric: Metric) -> str:
    return row.shown(metric) or ("1.000x" if metric.ratio_of else "")


BLOCKS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "controls": control_table,
    "faults": fault_table,
    "glance": glance,
    "limits": limits,
    "metrics": metrics,
    "optimizations": optimizations,
}


def current(text: str) -> str:
    """The document with its generated blocks as they should be. `KeyError` for an unknown one."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{BLOCKS[block[2]]()}\n\n{block[3]}", text)


def stale() -> Iterator[tuple[Path, str]]:
    """Documents whose generated blocks are out of date, and what they should be."""
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text()
        if (new := current(text)) != text:
            yield path, new


def main() -> None:
    for path, new in list(stale()):
        path.write_text(new)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
