"""Commands that messages end with call pytest as the session that they are about did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusers_perf.judge.messages.commands import Accept, AcceptImages, Rerun, RunAgain
from diffusers_perf.records.main_job import MainJob
from perf_tests.tests.unit.main_job import run
from perf_tests.tests.unit.recorded import session

JOB = MainJob(
    tests=("my perf",),
    selected=("-m", "lossless or lossy", "-k", "fp16"),
    baselines="kept",
    options=("--device=cpu",),
)
CALL = "pytest 'my perf' --benchmark-only"
SELECTED = "-m 'lossless or lossy' -k fp16 --device=cpu --baselines=kept"
ACCEPT = "diffusers-perf accept"
REASON = '--baselines=kept --reason "why"'


def test_commands_repeat_files_selection_and_baselines() -> None:
    assert Rerun(job=JOB).of("w-a", "w-b") == (
        f'{CALL} -k "[w-a] or [w-b]" --device=cpu --baselines=kept'
    )
    assert RunAgain(job=JOB).of() == f"{CALL} {SELECTED}"
    assert Accept(job=JOB).of("w-a") == (
        f"for n in 1 2 3; do {CALL} --benchmark-json runs/$n.json {SELECTED}; done; "
        f"{ACCEPT} runs/1.json runs/2.json runs/3.json {REASON}"
    )
    assert AcceptImages(job=JOB).of("w-a") == (
        f"{CALL} --benchmark-json runs/1.json {SELECTED}; "
        f"{ACCEPT} runs/1.json --images-only {REASON}"
    )


def test_settings_say_where_the_tests_are_if_the_command_line_did_not() -> None:
    assert Rerun(job=MainJob(tests=())).of("w-a") == 'pytest --benchmark-only -k "[w-a]"'


def test_run_says_how_it_was_called(pytester: pytest.Pytester) -> None:
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", "-k", "fine", "-m", "guide")
    ours = session(json.loads(path.read_text()))
    assert ours["tests"] == ["perf_tests"]
    assert ours["selected"] == ["-m", "guide", "-k", "fine"]
    assert ours["baselines"] == str(Path.cwd() / "baselines")
