"""Bad input is one sentence and the right exit code: the command lines that version 1 refused, and
those that broke it.

    pytest perf_tests/tests/full/test_bad_inputs.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from diffusers_perf.cli import __main__ as command_line
from perf_tests.tests.frozen import HERE
from perf_tests.tests.frozen.bad_inputs import ENVIRONMENT, FILES, PYTEST, make, run
from perf_tests.tests.schema1 import convert

RENAMED = {"--pictures-only": "--images-only", "--promise": "--tolerance"}
ROOT = HERE.parents[2]
LIMIT_S = 300
"""Of what hangs: one line collects all tests of this repository, for 25 s of CPU time."""
BETTER = {"pytest --benchmark-only --device cpu --model {TMP}/no-weights": 4}
"""Exit codes that are not version 1's, by command line."""

MEASURED = "benchmarks/0/extra_info/"
LONG = "x" * 5000
BROKE_VERSION_1: dict[str, Any] = {
    "escaping.json": run("h200-1", {MEASURED + "workload": "../../../escaped/ddim50"}),
    "absolute.json": run("h200-1", {MEASURED + "model": "/etc/passwd"}),
    # Version 1 also stored numbers that follow from others.
    "negative.json": run("h200-1", {MEASURED + "latency_rounds_s": [-1.0]}),
    "infinite.json": run("h200-1", {MEASURED + "latency_rounds_s": [{"float": "inf"}]}),
    "long-name.json": run("h200-1", {MEASURED + "case": "x" * 300}),
    "long-machine.json": run("h200-1", {"machine_info/perf_tests/name": "x" * 5000}),
    "nested.json": {"repeat": ['{"a":', 200_000]},
    "conflict.json": {"text": "<<<<<<< ours\n{}\n=======\n{}\n>>>>>>> theirs\n"},
    "half.json": {"text": '{"diffusers_perf": {"schema": 2'},
    "newer.json": {"text": '{"diffusers_perf": {"schema": 3}}'},
    "a-images": {"text": "a file where a folder is expected"},
    "deep-config/model_index.json": {"repeat": ["[", 200_000]},
    **{
        f"{name}/{part}": {"text": text}
        for name, unet in {
            "no-steps": '{"sample_size": -8}',
            "no-sample": '{"sample_size": 0}',
            "text-sample": '{"sample_size": "many"}',
        }.items()
        for part, text in {
            "model_index.json": FILES["no-size/model_index.json"]["text"],
            "unet/config.json": unet,
            "vae/config.json": '{"block_out_channels": [1, 1, 1, 1]}',
            "unet/a.safetensors": "",
            "vae/a.safetensors": "",
            "text_encoder/a.safetensors": "",
            "tokenizer/tokenizer.json": "{}",
            "scheduler/scheduler_config.json": "{}",
        }.items()
    },
}
"""Further files, as in `FILES`. ``pipe``, ``link`` and ``closed`` are made by `place`."""
FILES.update(BROKE_VERSION_1)

READERS = (
    ["gate", "{}"],
    ["report", "{}", "--markdown"],
    ["merge", "{}", "--json", "{TMP}/out.json"],
    ["accept", "{}", "--images-only", "--reason", "x"],
    ["calibrate", "{}", "{TMP}/2.json", "{TMP}/3.json"],
    ["compare", "--base", "{}", "--head", "{TMP}/2.json"],
)
NOT_RUNS = (
    "/dev/zero",
    "/dev/null",
    "{TMP}/pipe",
    "{TMP}/folder",
    "{TMP}/link",
    "{TMP}/" + LONG,
    *(f"{{TMP}}/{name}" for name in BROKE_VERSION_1 if name.endswith(".json") and "/" not in name),
)
NEW: list[tuple[list[str], int]] = [
    *(
        (["ci", *(part.replace("{}", file) for part in reader)], 2)
        for reader in READERS
        for file in NOT_RUNS
    ),
    *(
        (["pytest", "--benchmark-only", "--device", "cpu", *arguments], 4)
        for arguments in (
            ["--benchmark-json={TMP}/pipe/run.json"],
            ["--benchmark-json={TMP}/a.json"],
            ["--benchmark-json={TMP}/" + "x" * 300],
            ["--benchmark-json={TMP}/folder"],
            ["--model=" + LONG],
            ["--model={TMP}/" + LONG],
            ["--model={TMP}/deep-config"],
            ["--model={TMP}/no-steps"],
            ["--model={TMP}/no-sample"],
            ["--model={TMP}/text-sample"],
            ["--model={TMP}/pipe"],
            ["--model=/dev/zero"],
            ["--model=\x1b[31mred"],
            ["--rounds=" + "9" * 5000],
            ["--shard=" + "9" * 5000 + "/3"],
        )
    ),
    (["ci", LONG], 2),
    (["ci", "gate", "\udce9.json"], 2),
    (["ci", "report", "{TMP}/1.json", "--html", "{TMP}/folder"], 2),
    (["ci", "report", "{TMP}/1.json", "--html", "{TMP}/pipe"], 2),
    (["ci", "report", "{TMP}/1.json", "--markdown", "{TMP}/" + LONG], 2),
    (["ci", "explore", "--device=cpu", "--out={TMP}/pipe"], 2),
    (["ci", "explore", "--device=cpu", "--out={TMP}/" + LONG], 2),
    (["ci", "faults", "--device=cpu", "--json={TMP}/pipe"], 2),
    (["ci", "faults", "--device=cpu", "--json=/dev/zero", LONG], 2),
    (["ci", "ab", "--base", LONG, "--head", "HEAD", "--out={TMP}/out"], 2),
    (["ci", "ab", "--base", "HEAD", "--head", "HEAD", "--out={TMP}/pipe"], 2),
    (["ci", "structure", "--model=" + LONG], 2),
    (["ci", "structure", "--model={TMP}/pipe"], 2),
]


def recorded() -> list[tuple[list[str], int]]:
    """Version 1's command lines in this version's words, with their exit codes."""
    entries = json.loads((HERE / "v1.json").read_text())["bad_inputs"]["commands"]
    lines = [([RENAMED.get(a, a) for a in entry["argv"]], entry["exit"]) for entry in entries]
    return [(argv, BETTER.get(" ".join(argv), code)) for argv, code in lines]


ROWS = [*recorded(), *NEW]


def place(argv: Sequence[str], folder: Path) -> None:
    """The files that the arguments name."""
    # What lies in the place of a run's images is named by the run.
    make([*argv, *(argument.replace(".json", "-images") for argument in argv)], folder)
    for path in folder.glob("*.json"):
        if path.is_file():
            convert(path)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "link")


def shortened(argv: Sequence[str]) -> str:
    return " ".join(a if len(a) < 60 else f"{a[:20]}...{len(a)}" for a in argv)


@pytest.mark.parametrize(
    ("argv", "code"), ROWS, ids=[f"{n}-{shortened(argv)!a}" for n, (argv, _) in enumerate(ROWS)]
)
def test_bad_input_is_one_sentence(
    argv: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place(argv, tmp_path)
    arguments = [argument.replace("{TMP}", str(tmp_path)) for argument in argv]
    # In a process of `-n`, pytest-benchmark would turn itself off.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    if argv[0] == "pytest":
        line = [sys.executable, "-m", *PYTEST, *arguments[1:]]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
        ended, out, err = done.returncode, done.stdout, done.stderr
    else:
        monkeypatch.chdir(ROOT)
        try:
            ended = command_line.main(arguments[1:])
        except SystemExit as end:
            ended = int(end.code or 0)
        out, err = capfd.readouterr()
    text = out + err
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    assert ended == code, text[-2000:]
    assert text.strip(), "it says nothing"
    sentences = re.findall(r"(?mi)^(?:ERROR|error|.*: error): \S", text)
    assert len(sentences) <= 1 or argv[0] == "pytest", sentences
    assert not re.search(r"_positive value|too many values to unpack|there are 1 cases", text)
