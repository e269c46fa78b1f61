"""The commands of the documents, run as they are written in a copy of the checkout, on a CPU.

    pytest perf_tests/tests/full/test_commands.py

In the order of `blocks.RUN`, since some need what others wrote. Needs the package index: `pip` and
`ab` install what a build asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from perf_tests.tests import blocks
from perf_tests.tests.documents import ROOT
from perf_tests.tests.installed import calm

QUICK_START = next(iter(blocks.RUN))
LIMIT_S = 590
FEW = "--device cpu --rounds 3 -k ddim50-reference"
"""What a run is shortened to; an option of the command itself goes before it."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The present files as commit `main`, which `origin/main` is as well, and a model folder."""
    folder = tmp_path_factory.mktemp("commands") / "checkout"
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "-c", "-o", "--exclude-standard"]
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        [*author, "commit", "--quiet", "--message=main"],
        ["remote", "add", "origin", "."],
        ["fetch", "--quiet", "origin"],
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    library = folder / "perf_tests" / "diffusers_perf"
    shutil.copytree(library / "models" / "embedded", folder / "my-checkpoint")
    (folder / "runs").mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a new virtual environment that sees the packages of this one, but not its checkout."""
    folder = tmp_path_factory.mktemp("commands") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    paths = {sysconfig.get_path("purelib"), *(p for p in sys.path if "site-packages" in p)}
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join(sorted(paths)))
    program = folder / "bin" / "pytest"
    program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pytest "$@"\n')
    program.chmod(0o755)
    kept = {name: text for name, text in os.environ.items() if "PYTEST" not in name}
    return kept | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "COLUMNS": "120"}


@pytest.mark.parametrize("command", blocks.RUN)
def test_command_runs(command: str, checkout: Path, environment: dict[str, str]) -> None:
    line = command
    for before, after in blocks.INSTEAD.items():
        line = line.replace(before, after)
    if command != QUICK_START:
        environment = environment | {"PYTEST_ADDOPTS": FEW}
    ran = subprocess.run(
        ["bash", "-c", line],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    print(ran.stdout + ran.stderr)
    assert ran.returncode in blocks.RUN[command]
    if command == blocks.MEASURE:
        for run in (checkout / "runs").glob("[123].json"):
            calm(run)
    assert "Traceback" not in ran.stderr
    if command == QUICK_START:
        shown = [text for name, text in blocks.of("text") if name == "README.md"][-1]
        assert form(ran.stdout.strip().splitlines()[-1]) == form(shown.strip().splitlines()[-1])
        assert form(shown.splitlines()[0]) in map(form, ran.stdout.splitlines())
    if command.startswith("diffusers-perf ab "):
        page = ran.stdout.splitlines()[-1].removeprefix("as a page: ")
        subprocess.run(["bash", "-c", page], cwd=checkout, env=environment, check=True)


def form(line: str) -> str:
    """A closing line without its times, and what noise moves between verdicts and warnings."""
    line = re.sub(r"[\d.]+s \([\d:]+\)", "TIME", line.strip("= \n"))
    line = re.sub(r", \d+ (inconclusive or invalid|warnings?)\b", "", line)
    return re.sub(r"\d+ (hold|new)", r"N \1", line)


def test_quoted_fault_is_detected(checkout: Path, environment: dict[str, str]) -> None:
    library = checkout / "perf_tests" / "diffusers_perf"
    with (library / "faults" / "attention.py").open("a") as file:
        file.write(blocks.example("perf_tests/README.md", "@fault("))
    line = ["-m", "diffusers_perf.cli", "faults", "attention_computed_by_hand", "--device", "cpu"]
    ran = subprocess.run(
        [sys.executable, *line],
        cwd=checkout,
        env=environment | {"PYTHONPATH": str(library.parent)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
