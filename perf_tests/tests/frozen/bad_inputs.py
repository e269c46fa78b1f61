# mypy: ignore-errors
"""Command lines that version 1 refuses, and the files that they name.

{TMP} in an argument is a new folder with the files of `FILES` that the arguments name. A file is a
text, a text repeated, or a run: an input, after an edit of the catalogue, with a field deleted and
others set. ``/`` separates the keys of a field; ``*`` stands for every element of a list.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from perf_tests.tests.frozen import HERE, Content, load
from perf_tests.tests.frozen.catalogue import EDITS
from perf_tests.tests.frozen.edits import edited

Recipe = dict[str, Any]
CASE = "benchmarks/*/extra_info/"
FIRST = "benchmarks/0/extra_info/"
COMMANDS = HERE / "commands.txt"
PYTEST = ("pytest", "perf_tests", "-p", "no:cacheprovider")
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
FOLDER: Recipe = {"folder": True}
PLACES = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
INDEX = json.dumps({"_class_name": "StableDiffusionPipeline"} | dict.fromkeys(PLACES))


def run(
    name: str, fields: dict[str, Any] | None = None, *, edit: str = "", delete: str = ""
) -> Recipe:
    """An input after an edit, with these fields set and this one deleted."""
    parts = {"run": name, "edit": edit, "delete": delete, "set": fields}
    return {part: value for part, value in parts.items() if value}


H200 = "h200-1"
SHARD = {"of": 2, "cases": ["ddim50-reference", "ddim50-tf32"]}
FILES: dict[str, Recipe] = {
    # Runs as they are.
    **{f"{n}.json": run(f"h200-{n}") for n in (1, 2, 3)},
    **{f"base-{n}.json": run(f"h200-same/base-{n}") for n in range(3)},
    "cpu.json": run("cpu-1"),
    "copy.json": run(H200),
    # No runs.
    "folder": FOLDER,
    "text.json": {"text": "no JSON"},
    "empty.json": {"text": ""},
    "list.json": {"text": "[]"},
    "object.json": {"text": "{}"},
    "deep.json": {"repeat": ["[", 100_000]},
    "page.html": {"text": "<p>"},
    "binary.json": {"text": "\u0000\u0001"},
    # Runs that cannot be read.
    "schema.json": run(H200, {"perf_tests/schema": 2}),
    "no-schema.json": run(H200, delete="perf_tests/schema"),
    "old.json": run(H200, delete="perf_tests/measuring"),
    "foreign.json": run(H200, delete="perf_tests"),
    "no-machine.json": run(H200, delete="machine_info/perf_tests"),
    "no-picture.json": run(H200, delete=FIRST + "picture"),
    "no-date.json": run(H200, {"datetime": "yesterday"}),
    "negative.json": run(H200, {FIRST + "latency_s": -1.0}),
    "zero.json": run(H200, {FIRST + "gpu_busy_s": 0}),
    "no-rounds.json": run(H200, {FIRST + "latency_rounds_s": []}),
    "text-rounds.json": run(H200, {FIRST + "latency_rounds_s": ["1 s"]}),
    "nan.json": run(H200, {FIRST + "picture/ssim": {"float": "nan"}}),
    "infinite.json": run(H200, {FIRST + "latency_s": {"float": "inf"}}),
    "verdict.json": run(H200, {FIRST + "verdict": "splendid"}),
    "half-a-count.json": run(H200, {FIRST + "counters/host_syncs/fixed": 1.5}),
    "neighbour.json": run(H200, {FIRST + "validity/host_disturbed_by": "a neighbour"}),
    "loops.json": run(H200, {FIRST + "validity/cpu_loops_s": [0.01, 0]}),
    "flag.json": run(H200, {"perf_tests/quick": "yes"}),
    "twice.json": run(H200, {CASE + "case": "reference", CASE + "workload": "ddim50"}),
    # Runs that say nothing, or nothing of each other.
    "nothing.json": run(H200, {"benchmarks": [], "perf_tests/expected": []}),
    "nothing-2.json": run("h200-2", {"benchmarks": [], "perf_tests/expected": []}),
    "other-gpu.json": run(H200, edit="another GPU"),
    "other-gpu-3.json": run("h200-3", edit="another GPU"),
    "other-gpu-2.json": run("h200-2", edit="another GPU"),
    "other-driver.json": run("h200-2", edit="another driver"),
    "other-memory.json": run("h200-2", {"machine_info/perf_tests/memory_bytes": 1}),
    "other-torch.json": run("h200-2", edit="another torch"),
    "other-weights.json": run("h200-2", edit="other weights"),
    "other-guidance.json": run("h200-2", edit="other guidance"),
    "other-stopwatch.json": run("h200-2", edit="another stopwatch"),
    "other-rounds.json": run("h200-2", edit="two rounds"),
    "other-commit.json": run("h200-same/base-2", {"commit_info/id": "0" * 40}),
    "quick.json": run("h200-2", edit="with --quick"),
    # Runs that nobody accepts.
    "black.json": run("h200-2", {CASE + "verdict": "black"}, edit="black"),
    "repeats.json": run("h200-2", edit="the repetition differs"),
    "ignores.json": run("h200-2", edit="seed ignored"),
    "failed.json": run("h200-2", edit="case lost: error"),
    # Shards.
    "shard-1.json": run(H200, {"perf_tests/shard": {"index": 1, **SHARD}}),
    "shard-1-again.json": run("h200-2", {"perf_tests/shard": {"index": 1, **SHARD}}),
    "shard-2.json": run("h200-2", {"perf_tests/shard": {"index": 2, **SHARD}}),
    "shard-2-gpu.json": run(
        "h200-2", {"perf_tests/shard": {"index": 2, **SHARD}}, edit="another GPU"
    ),
    "shard-2-quick.json": run(
        "h200-2", {"perf_tests/shard": {"index": 2, **SHARD}}, edit="with --quick"
    ),
    "shard-2-weights.json": run(
        "h200-2", {"perf_tests/shard": {"index": 2, **SHARD}}, edit="other weights"
    ),
    "shard-3.json": run(
        "h200-3", {"perf_tests/shard": {"index": 3, "of": 3, "cases": ["ddim50-tf32"]}}
    ),
    "shard.json": run(H200, {"perf_tests/shard": 1}),
    # Models.
    "bare": FOLDER,
    "no-json/model_index.json": {"text": "no JSON"},
    "no-object/model_index.json": {"text": "[]"},
    "xl/model_index.json": {"text": '{"_class_name": "StableDiffusionXLPipeline"}'},
    "index-alone/model_index.json": {"text": INDEX},
    "no-weights/model_index.json": {"text": INDEX},
    "no-weights/unet/config.json": {"text": "{}"},
    "pickled/model_index.json": {"text": INDEX},
    "pickled/unet/diffusion_pytorch_model.bin": {"text": ""},
    "no-vocabulary/model_index.json": {"text": INDEX},
    **{f"no-vocabulary/{place}/a.safetensors": {"text": ""} for place in PLACES},
    "no-size/model_index.json": {"text": INDEX},
    **{f"no-size/{place}/a.safetensors": {"text": ""} for place in PLACES},
    "no-size/tokenizer/tokenizer.json": {"text": "{}"},
    "no-size/unet/config.json": {"text": "{}"},
    "no-size/vae/config.json": {"text": "{}"},
    # Of other commands.
    "ab/ab.json": {"text": "{}"},
    "explore/explore.json": {"text": "{}"},
}


def commands() -> list[list[str]]:
    """The lines of `commands.txt`, each an argument list; ``#`` starts a heading."""
    lines = COMMANDS.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def record() -> dict[str, Any]:
    """What version 1 answers to each."""
    before, answers = changed(), []
    for argv in commands():
        with tempfile.TemporaryDirectory() as folder:
            make(argv, Path(folder))
            code, text = answer([argument.replace("{TMP}", folder) for argument in argv])
            sentence = said(text).replace(folder, "{TMP}").replace(str(Path.cwd()), "{ROOT}")
            answers.append({"argv": argv, "exit": code, "sentence": sentence})
        if changed() != before:
            raise SystemExit(f"{argv} wrote into the checkout")
    return {"environment": ENVIRONMENT, "files": FILES, "commands": answers}


def changed() -> str:
    shown = ["git", "status", "--porcelain", "--untracked-files=no"]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout


def make(argv: Sequence[str], folder: Path) -> None:
    """The files that the arguments name."""
    for name, recipe in FILES.items():
        top = name.split("/")[0]
        if any(f"{{TMP}}/{top}" in (a, *a.split("=")) or f"{{TMP}}/{top}/" in a for a in argv):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if recipe.get("folder"):
                path.mkdir()
            else:
                path.write_text(text_of(recipe), encoding="utf-8")


def text_of(recipe: Recipe) -> str:
    """What stands in the file."""
    if "text" in recipe:
        return str(recipe["text"])
    if "repeat" in recipe:
        text, times = recipe["repeat"]
        return str(text * times)
    content = load(recipe["run"])
    for edit in EDITS:
        if edit.name == recipe.get("edit"):
            content = edited(content, edit) or content
    if "delete" in recipe:
        parent, _, last = recipe["delete"].rpartition("/")
        for place in places(content, parent):
            del place[last]
    for field, value in recipe.get("set", {}).items():
        parent, _, last = field.rpartition("/")
        for place in places(content, parent):
            # JSON has no NaN and no infinity.
            place[last] = float(value["float"]) if is_float(value) else value
    return json.dumps(content)


def is_float(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["float"]


def places(content: Content, path: str) -> list[Any]:
    """What stands at a path, of each element where it has a star."""
    found: list[Any] = [content]
    for key in path.split("/") if path else ():
        if key == "*":
            found = [part for one in found for part in one]
        else:
            found = [one[int(key) if isinstance(one, list) else key] for one in found]
    return found


def answer(argv: Sequence[str]) -> tuple[int, tuple[str, str]]:
    """Exit code, and what went to standard error and standard output."""
    if argv[0] == "pytest":
        command = [sys.executable, "-m", *PYTEST, *argv[1:]]
        environment = {**os.environ, **ENVIRONMENT}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return done.returncode, (done.stderr, done.stdout)
    from ci import __main__ as command_line

    os.environ.update(ENVIRONMENT)
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = command_line.main(list(argv[1:]))
        except SystemExit as end:
            code = int(end.code or 0)
    return code, (err.getvalue(), out.getvalue())


def said(text: tuple[str, str]) -> str:
    """The sentence that says why: the last error, or else the last line."""
    errors = [line for line in text[0].splitlines() if re.search(r"\berror: (?!usage)", line, re.I)]
    if errors:
        return errors[-1].strip()
    for part in text:
        lines = [line for line in part.splitlines() if line.strip() and not line.startswith("=")]
        if lines:
            return lines[-1].strip()
    return ""
