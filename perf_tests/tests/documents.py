"""Writes the generated blocks of the documents: tables that come from declarations and baselines.

    python -m perf_tests.tests.documents

A block stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. `unit/test_documents.py`
fails if one is stale.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest

from diffusers_perf import faults
from diffusers_perf.catalog.declarations import Tolerances
from diffusers_perf.catalog.discovery import declared_in, shipped
from diffusers_perf.catalog.metric import PROCESSES_FEW, Metric, MetricKind
from diffusers_perf.catalog.metrics import BY_NAME, METRICS
from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli.commands import COMMANDS
from diffusers_perf.cli.results import ResultRow, rows_of, table
from diffusers_perf.faults.injection import Fault
from diffusers_perf.plugin.options import pytest_addoption
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests import estimators, plain
from perf_tests.tests.kinds import KINDS
from perf_tests.tests.unit.recorded import five_pairs, keep

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
DOCUMENTS = (
    "README.md",
    "perf_tests/README.md",
    "perf_tests/diffusers_perf/faults/README.md",
    "perf_tests/diffusers_perf/techniques/README.md",
    "perf_tests/diffusers_perf/models/SDXL.md",
    "perf_tests/diffusers_perf/models/FLUX.md",
    "perf_tests/diffusers_perf/models/embedded/README.md",
    "perf_tests/diffusers_perf/models/embedded_flux/README.md",
    "baselines/README.md",
    "ci/README.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
    ".github/CHANGELOG.md",
    ".github/changes/README.md",
)
"""All that people write; `RESULTS-<gpu>.md` and HISTORY.md are written by commands."""
DECLARATIONS = "perf_tests.cases"
FAILURE = "slower: ddim50-fp16: GPU busy"
GLANCE = "nvidia-h100-80gb-hbm3"
GLANCE_CASES = (
    "reference",
    "fp16",
    "fp16+compile",
    "best_lossless",
    "best_lossy",
)


EXAMPLES = 4


def needs() -> str:
    """What a machine needs: memory from the accepted baseline, versions from the package."""
    baseline = BaselineStore(ROOT / "baselines").load_machine(GLANCE)
    assert baseline is not None, f"{GLANCE} has no baseline"
    memory = BY_NAME["peak memory"]
    peaks: dict[str, float] = {}
    for row in rows_of(baseline, declared_in(DECLARATIONS).cases):
        peaks[row.suite] = max(peaks.get(row.suite, 0), row.median(memory) or 0)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = {"Python": project["requires-python"].removeprefix(">=")}
    for name in ("torch", "diffusers"):
        (required,) = [r for r in project["dependencies"] if r.startswith(f"{name}>=")]
        oldest[name] = required.split(">=")[1].split(",")[0]
    rows = [
        [
            "GPU",
            "one NVIDIA GPU for a case; [`fleet`](ci/README.md#many-gpus) uses several for a "
            "suite. The default suite (a group of cases) follows diffusers' guide to fast "
            f"inference and needs {memory.shown(peaks['guide'])} of GPU memory, all suites of "
            f"Stable Diffusion 1.x {memory.shown(max(peaks.values()))} ({baseline.machine}); "
            "`-m models` needs a card that holds SDXL and FLUX.1 in bfloat16",
        ],
        [
            "no GPU",
            "two small trained models ship with the library, a Stable Diffusion and a Flux, and "
            "run on two CPU cores. Images and counters are judged as on a GPU; "
            "`diffusers-perf structure` counts the full-size pipelines on tensors without data",
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
    return table(["", ""], rows)


def metrics() -> str:
    """What is measured, by what a fault is said to be detected by."""
    rows = []
    for detector in dict.fromkeys(metric.detector for metric in METRICS):
        own = [metric for metric in METRICS if metric.detector == detector]
        about = "<br>".join(f"**{metric.label}**: {metric.about}" for metric in own)
        if own[0].kind is MetricKind.COUNTER:
            listed = "; ".join(f"**{metric.label}**: {metric.about}" for metric in own)
            about = f"exact integers, in total and per step. {listed}"
        found = [f"`{f.name}`" for f in faults.declared().values() if f.detected_by == detector]
        shown = ", ".join(found[:EXAMPLES])
        rows.append([detector, about, f"{shown}" + (" …" if len(found) > EXAMPLES else "")])
    return table(["kind", "metrics", "detects"], rows)


def limits() -> str:
    """What a baseline allows, by metric."""
    rows = []
    for metric in METRICS:
        rule = metric.limit
        if metric.kind is MetricKind.COUNTER:
            allowed = f"{_percent(metric.rise)} more" if metric.rise else "the accepted count"
            rows.append([metric.label, allowed, ""])
        elif rule is not None:
            side = "below" if metric.more_is_better else "above"
            worst = "lowest" if metric.more_is_better else "highest"
            anchor = "median" if rule.anchor == "median" else f"{worst} accepted process"
            noise = ""
            if rule.noise_times:
                times = f"{rule.noise_times:g} times the " if rule.noise_times != 1 else "the "
                noise = f", or {times}noise between processes if that is more"
            few = f"{_percent(rule.slack_of_few)} {side}" if rule.slack_of_few else ""
            slack = f"{rule.drop:g} dB" if rule.drop else _percent(rule.slack)
            enough = f"; {rule.enough:g} dB pass in any case" if rule.enough else ""
            margin = f", and {metric.margin:g} s more" if metric.margin else ""
            rows.append([metric.name, f"{slack} {side} the {anchor}{noise}{margin}{enough}", few])
    few = f"with fewer than {PROCESSES_FEW} processes"
    return table(["metric", "limit", few], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


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
        for f in faults.declared().values()
        if not f.is_control
    ]
    return table(["fault", "what happens", "detected by", "on", "source"], rows)


def control_table() -> str:
    rows = [
        [f"`{f.name}`", f.line, WHERE[f.where]] for f in faults.declared().values() if f.is_control
    ]
    return table(["control", "what happens", "on"], rows)


def kinds_table() -> str:
    """What users reported, by kind, and what plain pytest-benchmark says of the same faults."""
    known, recorded = faults.declared(), plain.load()
    rows = []
    for kind in KINDS:
        kind.check()
        examples = [
            [
                f"`{name}`",
                known[name].detected_by or "nothing: a control",
                WHERE[known[name].where],
                recorded.suite.get(name, ""),
                _plainly(recorded, name),
            ]
            for name in kind.faults
        ]
        examples += [[f"`{test}`", kind.detector, "any, in a test", "", ""] for test in kind.tests]
        rows += [[kind.what if not number else "", *row] for number, row in enumerate(examples)]
    heads = ["kind", "example", "detected by", "on", "suite, on a CPU", "plain pytest-benchmark"]
    return table(heads, rows)


def _plainly(recorded: plain.Results, name: str) -> str:
    """Whether plain pytest-benchmark failed with a fault, and the largest mean."""
    process = recorded.plain.get(name)
    if process is None:
        return ""
    status = "passes"
    if process.detected:
        status = "fails" if recorded.is_beyond_clean(process) else "fails as clean ones do"
    return f"{status}, {process.largest:.2f}x"


def plain_totals() -> str:
    """Both in one sentence."""
    recorded, known = plain.load(), faults.declared()
    both = [name for name in recorded.plain if name in recorded.suite]
    names = [name for name in both if not known[name].is_control]
    controls = [name for name in both if known[name].is_control]
    by_plain = [name for name in names if recorded.plain[name].detected]
    by_suite = [name for name in names if recorded.suite[name] == "detected"]
    clean, flagged = recorded.clean, [n for n in controls if recorded.suite[n] != "not flagged"]
    beyond = [f"`{n}`" for n in by_plain if recorded.is_beyond_clean(recorded.plain[n])]
    largest = [process.largest for process in clean] or [1.0]
    return (
        f"Of {len(names)} faults, plain pytest-benchmark "
        f"(`--benchmark-compare-fail={plain.LIMIT}`, one process each) failed {len(by_plain)}, and "
        f"the suite detected {len(by_suite)}. Plain pytest-benchmark also failed "
        f"{sum(process.detected for process in clean)} of {len(clean)} clean processes, whose "
        f"largest means were {min(largest):.2f}x to {max(largest):.2f}x, and "
        f"{sum(recorded.plain[name].detected for name in controls)} of {len(controls)} controls. "
        f"Beyond every clean process were "
        f"{len(beyond)} faults: {', '.join(beyond)}. "
        f"The suite flagged {len(flagged)} controls, and gave {recorded.false_alarms} false alarms "
        f"in {recorded.verdicts} verdicts on clean runs. Failed by plain pytest-benchmark and "
        f"missed by the suite: {', '.join(sorted({*by_plain} - {*by_suite})) or 'nothing'}. "
        f"Measured on {recorded.machine}, {recorded.measured}."
    )


PROJECTS = {
    "ComfyUI": "comfyanonymous/ComfyUI",
    "LTX-2": "Lightricks/LTX-2",
    "diffusers": "huggingface/diffusers",
    "sdnext": "vladmandic/sdnext",
    "torch": "pytorch/pytorch",
    "torchvision": "pytorch/vision",
    "transformers": "huggingface/transformers",
}
"""On GitHub, by the name in a fault's source."""


def _source(fault: Fault) -> str:
    match = re.fullmatch(r"([\w-]+) #(\d+)", fault.source)
    if match is None:
        return "" if fault.source == "own" else fault.source
    return f"[{fault.source}](https://github.com/{PROJECTS[match[1]]}/issues/{match[2]})"


class _Options:
    """Stands for pytest's parser, and keeps what the plugin adds to it."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []

    def getgroup(self, name: str, description: str) -> _Options:
        return self

    def addoption(self, name: str, help: str, **about: Any) -> None:
        value = about.get("metavar") or "|".join(about.get("choices", ()))
        # A pipe would end the cell.
        self.rows.append([f"`{name} {value}`".replace(" `", "`").replace("|", "\\|"), help])

    def addini(self, name: str, help: str, **about: Any) -> None:
        self.rows.append([f"`{name}` (ini)", help])


def options() -> str:
    """Of the plugin, from its own help."""
    recorded = _Options()
    pytest_addoption(cast("pytest.Parser", recorded))
    return table(["option", "what it does"], recorded.rows)


def injected_pairs(folder: Path) -> tuple[list[str], list[str]]:
    """Files of base and of head: recorded processes of one case, into whose head more GPU work was
    injected, and of its reference.
    """
    sides: list[list[str]] = []
    for side, runs in zip(("base", "head"), five_pairs("injected"), strict=True):
        sides.append([str(folder / f"{side}-{number}.json") for number, _ in enumerate(runs, 1)])
        for path, run in zip(sides[-1], runs, strict=True):
            keep(run, "ddim50-reference", "ddim50-fp16")
            Path(path).write_text(json.dumps(run))
    base, head = sides
    return base, head


def failure() -> str:
    """What `compare` says of recorded processes, shortened to one message."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()) as out:
        base, head = injected_pairs(Path(folder))
        command.main(["compare", "--base", *base, "--head", *head])
    machine, shown, *messages = re.split(r"\n\n", out.getvalue().strip())
    lines = "\n".join(messages).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(FAILURE))
    end = next(i for i in range(start + 1, len(lines)) if re.match(r"[a-z ]+: ", lines[i]))
    return (
        f"```text\n{machine}\n\n{shown}\n\n"
        + "\n".join([*lines[start:end], "…", lines[-1]])
        + "\n```"
    )


def commands() -> str:
    rows = [
        [f"`diffusers-perf {name}`", (import_module(module).__doc__ or "").splitlines()[0]]
        for name, module in COMMANDS.items()
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
    lines = [
        [
            name,
            *(_of(rows[name], metric) for metric in shown),
            str(len(rows[name].line.measured["latency_s"])),
            rows[name].line.accepted,
        ]
        for name in GLANCE_CASES
    ]
    heads = [*(metric.column for metric in shown), "processes", "accepted"]
    versions = {
        ", ".join(f"{package} {line.versions[package]}" for package in ("torch", "diffusers"))
        for line in (rows[name].line for name in GLANCE_CASES)
    }
    return table([f"ddim50 on {baseline.machine}, {'; '.join(sorted(versions))}", *heads], lines)


def _of(row: ResultRow, metric: Metric) -> str:
    return row.shown(metric) or ("1.000x" if metric.ratio_of else "")


BLOCKS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "controls": control_table,
    "estimators": estimators.table,
    "failure": failure,
    "faults": fault_table,
    "glance": glance,
    "kinds": kinds_table,
    "limits": limits,
    "metrics": metrics,
    "needs": needs,
    "optimizations": optimizations,
    "options": options,
    "plain": plain_totals,
}


def current(text: str) -> str:
    """The document with its generated blocks as they should be. `KeyError` for an unknown one."""
    return BLOCK.sub(lambda block: f"{block[1]}{BLOCKS[block[2]]()}\n{block[3]}", text)


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
