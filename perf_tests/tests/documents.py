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
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from diffusers_perf import faults
from diffusers_perf.catalog.declarations import Tolerances
from diffusers_perf.catalog.discovery import shipped
from diffusers_perf.catalog.metric import PROCESSES_FEW, Metric, MetricKind
from diffusers_perf.catalog.metrics import METRICS
from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli.commands import COMMANDS
from diffusers_perf.cli.result_rows import table
from diffusers_perf.compare.state import FILE, Asked, StateFile
from diffusers_perf.faults.injection import Fault
from diffusers_perf.plugin.options import pytest_addoption
from perf_tests.tests import accepted, estimators, plain
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
ASKED = Asked(
    options=("--base", "origin/main", "--head", "HEAD", "--quick", "--device", "cuda"), pytest=()
)
"""What the README compares."""
EXAMPLES = 4


def metrics() -> str:
    """What is measured, by what a fault is said to be detected by."""
    rows = []
    for detector in dict.fromkeys(metric.detector for metric in METRICS):
        own = [metric for metric in METRICS if metric.detector == detector]
        about = "<br>".join(f"**{metric.label}**: {metric.about}" for metric in own)
        if own[0].kind is MetricKind.COUNTER:
            listed = "; ".join(
                f"**{metric.label}**{_rise(metric)}: {metric.about}" for metric in own
            )
            about = f"exact integers, in total and per step. {listed}"
        found = [f"`{f.name}`" for f in faults.declared().values() if f.detected_by == detector]
        shown = ", ".join(found[:EXAMPLES])
        rows.append([detector, about, f"{shown}" + (" …" if len(found) > EXAMPLES else "")])
    return table(["kind", "metrics", "detects"], rows)


def _rise(metric: Metric) -> str:
    return f" (same within {_percent(metric.rise)})" if metric.rise else ""


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
    "SGLang": "sgl-project/sglang",
    "diffusers": "huggingface/diffusers",
    "sdnext": "vladmandic/sdnext",
    "torch": "pytorch/pytorch",
    "torchvision": "pytorch/vision",
    "transformers": "huggingface/transformers",
    "vLLM-Omni": "vllm-project/vllm-omni",
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
    """Files of base and of head, as `ab` leaves them: recorded processes of one case, into whose
    head more GPU work was injected, and of its reference.
    """
    state = StateFile(settings={}, asked=ASKED, finished=())
    (folder / FILE).write_bytes(msgspec.json.encode(state))
    sides: list[list[str]] = []
    for side, runs in zip(("base", "head"), five_pairs("injected"), strict=True):
        sides.append([str(folder / f"{side}-{number}.json") for number, _ in enumerate(runs, 1)])
        for path, run in zip(sides[-1], runs, strict=True):
            keep(run, "ddim50-reference", "ddim50-fp16")
            Path(path).write_text(json.dumps(run))
    base, head = sides
    return base, head


def failure() -> str:
    """What `compare` prints for recorded processes; of inconclusive findings, the first line."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()) as out:
        base, head = injected_pairs(Path(folder))
        command.main(["compare", "--base", *base, "--head", *head])
    head_of_it, messages = out.getvalue().strip().rsplit("\n\n", 1)
    shown = [
        f"{message.splitlines()[0]}\n  …" if message.startswith("inconclusive: ") else message
        for message in re.split(r"\n(?=[a-z ]+: )", messages)
    ]
    return "\n".join(["```text", f"{head_of_it}\n", *shown, "```"])


def commands() -> str:
    rows = [
        [f"`diffusers-perf {name}`", (import_module(module).__doc__ or "").splitlines()[0]]
        for name, module in COMMANDS.items()
    ]
    return table(["command", "what it does"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "controls": control_table,
    "estimators": estimators.table,
    "failure": failure,
    "faults": fault_table,
    "glance": accepted.glance,
    "kinds": kinds_table,
    "limits": limits,
    "metrics": metrics,
    "needs": accepted.needs,
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
