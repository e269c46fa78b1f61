"""The code blocks of the documents, and what executes each command in them.

`unit/test_documents.py` fails if a command stands in none of the tables below, or a line of a table
in no document. `full/test_commands.py` runs `RUN`. Every Python block is imported by a unit test,
and measured by `integration/test_examples.py` if it declares a case; the one that needs pandas is
run by `full/test_history_rates.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from perf_tests.tests.documents import DOCUMENTS, ROOT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CARD_FILES = tuple(name for name in DOCUMENTS if "/models/embedded" in name)
"""Written by `perf_tests.training`. Their Python uses a folder that the reader has to name."""

RUNS = "runs/1.json runs/2.json runs/3.json"
MEASURE = (
    "for n in 1 2 3; do pytest perf_tests --benchmark-only --benchmark-json runs/$n.json; done"
)
ACCEPT = f"diffusers-perf accept {RUNS} --reason"
INJECT = "python -m pytest perf_tests --benchmark-only -p diffusers_perf.faults.plugin --inject"
PRICES = "python -m perf_tests.training.prices --device cpu"
FLEET = "diffusers-perf fleet --suites guide,lossless,lossy --json runs/run.json"
AB = "diffusers-perf ab --base {} --quick --device"

RUN: dict[str, tuple[int, ...]] = {
    "python -m pip install -e '.[ab,report,nvml]' && pytest perf_tests --benchmark-only": (0,),
    f"{INJECT} no_guidance": (1,),
    f"{INJECT} sdpa_lost": (1,),
    MEASURE: (0,),
    "diffusers-perf history add runs/1.json": (0,),
    "diffusers-perf history report": (0,),
    f'{ACCEPT} "first baseline of this GPU"': (0,),
    f'{ACCEPT} "torch 2.12 on this GPU"': (0,),
    "diffusers-perf results": (0,),
    "pytest perf_tests --benchmark-only --device cpu": (0,),
    "pytest perf_tests --benchmark-only --model=./my-checkpoint": (0,),
    f"{AB.format('origin/main --head HEAD')} cuda": (0, 2),
    f"{AB.format('HEAD --head HEAD --out runs/aa')} cuda": (0, 2),
    "diffusers-perf calibrate runs/aa/base-*.json runs/aa/head-*.json": (0, 2),
    "diffusers-perf faults sdpa_lost --device cpu": (0,),
    "diffusers-perf explore --device cuda --minutes 9.4": (0, 1, 2),
    f"{PRICES} bf16 bf16+int8 tome tiny_vae deepcache": (0,),
    "diffusers-perf structure --model=sdxl": (0,),
    "diffusers-perf structure --model=flux1-dev": (0,),
    "diffusers-perf structure --model=flux1-schnell": (0,),
    "python -m perf_tests.tests.documents": (0,),
}
"""Run by a test in this order, in a copy of the checkout on a CPU: the exit codes that it may have.
Where a machine's noise decides, 2 is one of them."""
INSTEAD = {
    " cuda": " cpu",
    "--quick --device cpu": "--quick --device cpu --minutes 6 -- -k ddim50-reference",
    "--minutes 9.4": "--minutes 1",
    "bf16 bf16+int8 tome tiny_vae deepcache": "bf16",
}
"""What a CPU runs in place of a GPU's command, or of one that takes long."""

IN_CI: dict[str, tuple[str, str]] = {
    "python -m pip install -e '.[dev]' && pytest perf_tests/tests/unit": (
        "ci/quickstart.sh",
        "pytest -n logical perf_tests/tests/unit",
    ),
    "pytest perf_tests/tests/unit": ("ci/quickstart.sh", "pytest -n logical perf_tests/tests/unit"),
    "bash ci/lint.sh": (".ci/run", "bash ci/lint.sh"),
    "python -m venv .venv && source .venv/bin/activate": (".ci/run", "python3 -m venv"),
    "pip install -r ci/torch.txt": (".ci/run", "pip install --quiet --no-compile -r ci/torch.txt"),
    "pip install -e '.[dev]'": (".ci/run", "pip install --quiet --no-compile -e '.[dev]'"),
    "diffusers-perf faults --device cpu": ("ci/faults.sh", "python -m ci faults --device cpu"),
    "bash ci/job.sh judge": (".github/workflows/nightly.yml", "bash ci/job.sh judge"),
}
"""Run by CI: the file that does, and the line in it."""

NOT_RUN: dict[str, str] = {
    "diffusers-perf faults --device cuda --json runs/faults.json": "needs a GPU",
    "pytest perf_tests --benchmark-only --device cuda -m lossless "
    "--benchmark-json runs/lossless.json": "needs a GPU",
    "pytest perf_tests --benchmark-only --device cuda -m lossy "
    "--benchmark-json runs/lossy.json": "needs a GPU",
    "pytest perf_tests --benchmark-only -m models --model=sdxl": "needs a GPU",
    "pytest perf_tests --benchmark-only -m models --model=flux1-dev": "needs a GPU",
    "diffusers-perf ab --base origin/main --head HEAD --quick --device cuda "
    "-- -m models -k dev28-reference --model=flux1-dev": "needs a GPU",
    "diffusers-perf ab --base origin/main --head HEAD --quick --device cuda "
    "-- -m models -k sdxl30-reference --model=sdxl": "needs a GPU",
    "sbatch --array=1-4 ci/slurm.sh": "needs a Slurm cluster",
    FLEET: "measures all suites; full/test_fleet.py and full/test_ray.py run smaller fleets",
    f"{FLEET} --executor ray --device cuda": "needs GPUs; full/test_ray.py runs it on CPUs",
    "ray start --head --port=6379": "needs a cluster; full/test_ray.py starts raylets itself",
    "ray start --address=HEAD:6379": "needs a cluster; full/test_ray.py starts raylets itself",
    "diffusers-perf bisect --good v1.0 --bad HEAD --case ddim50-reference --metric operators": (
        "its refs are examples; full/test_bisection.py bisects a repository of its own"
    ),
    "diffusers-perf bisect --package diffusers --good 0.35.2 --bad 0.42.1 --case ddim50-reference "
    "--metric python_calls": "downloads releases; full/test_bisection.py bisects two of them",
    "pre-commit install": "changes the hooks of the checkout",
}
"""Run by no test, and why."""

OTHER = {
    ("ci/README.md", "yaml"): (
        "needs GitHub and GitLab; a test parses both, and `full/test_user_workflow.py` runs what "
        "the first does"
    ),
    ("ci/README.md", "sql"): "needs DuckDB; `full/test_history_rates.py` runs it as it is written",
    ("README.md", "text"): "output: generated, or compared by `full/test_commands.py`",
}
"""Blocks in other languages than Python and bash."""


def blocks() -> Iterator[tuple[str, str, str]]:
    """Document, language and text of every code block."""
    for name in DOCUMENTS:
        for language, text in FENCE.findall((ROOT / name).read_text()):
            yield name, language, text


def of(language: str) -> list[tuple[str, str]]:
    """Document and text of the blocks in a language."""
    return [(name, text) for name, found, text in blocks() if found == language]


def commands() -> Iterator[tuple[str, str]]:
    """Document and text of each line of shell, without its comment."""
    for name, text in of("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            if command := re.split(r"(?:^|\s)#\s", line)[0].strip():
                yield name, command


def example(document: str, containing: str) -> str:
    """The one Python block of a document that has this in it."""
    (found,) = [t for name, t in of("python") if name == document and containing in t]
    return found


def missing_files() -> list[Path]:
    """Files of `IN_CI` whose line is gone."""
    return [ROOT / file for file, line in IN_CI.values() if line not in (ROOT / file).read_text()]
