"""Files that anybody may have written, drawn by hypothesis, and every reader of them.

A reader gives a record or raises the error that it documents, with a sentence. A command ends with
one of its exit codes, without a traceback, and writes nothing outside of the folder it was given.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli import faults
from diffusers_perf.compare.explored import Folder
from diffusers_perf.compare.state import Asked, State
from diffusers_perf.history import store as history
from diffusers_perf.records import image_files
from diffusers_perf.records.image_files import BadImage
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.schema1 import upgraded

BASELINES = Path(__file__).parents[2] / "baselines"
RECORDED = Path(__file__).parent / "unit" / "recorded" / "h200-1.json"
AB = {
    "settings": {"pytest": ["-k", "fp16"], "base": "a" * 40, "head": "b" * 40},
    "asked": {"options": ["--base", "main", "--head", "HEAD"], "pytest": ["-m", "guide"]},
    "finished": [{"side": "base", "pair": 1, "seconds": 2.5}],
    "compared": 0,
}
ASKED = Asked(options=("--base", "main", "--head", "HEAD"), pytest=())
FAULTS = {"schema": 2, "clean_verdicts": {}, "rows": []}
EXPLORE = {
    "schema": 2,
    "settings": {"name": "NVIDIA H200"},
    "tried": {"fp16 | why": {"seconds": 1.0, "measured": None, "failed": "it raised"}},
    "begun": {"fp16": 1},
}
LIMIT_S = 30
"""Of one file, however busy the machine is."""

NAMES = [
    "../../../escaped",
    "/etc/passwd",
    "x" * 300,
    "\ud800",
    "\x1b[2J",
    "a\nb",
    "::error::x",
    "",
]
NUMBERS = [0, -1, 1e308, -0.0, 10**30, 2**63, 1.5, True]
leaves = st.one_of(
    st.none(),
    st.sampled_from([*NAMES, *NUMBERS]),
    st.text(max_size=20),
    st.floats(allow_nan=True),
    st.integers(),
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def edited(draw: st.DrawFn, whole: Any) -> Any:
    """The JSON value with up to three of its parts replaced, removed or doubled."""
    content = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        place = content
        for _ in range(draw(st.integers(0, 7))):
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            inner = place[draw(st.sampled_from(keys))]
            if not isinstance(inner, dict | list) or not inner:
                break
            place = inner
        _edit(draw, place)
    return content


def _edit(draw: st.DrawFn, place: Any) -> None:
    if not place:
        return
    how = draw(st.sampled_from(["replace", "remove", "double"]))
    key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    if how == "replace":
        place[key] = draw(values)
    elif how == "remove":
        del place[key]
    elif isinstance(place, list):
        place.append(place[key])
    else:
        place[draw(st.sampled_from(NAMES))] = place[key]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes cut, or with others somewhere among them."""
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 40)))
    return whole[:start] + draw(st.binary(max_size=40)) + draw(st.sampled_from([whole[end:], b""]))


def of_json(whole: Any) -> st.SearchStrategy[bytes]:
    """Files like this one."""
    data = json.dumps(whole).encode()
    deep = st.sampled_from([b"[" * 200_000, b'{"a":' * 200_000, b"", b"null", b"\xff\xfe"])
    return edited(whole).map(lambda one: json.dumps(one).encode()) | damaged(data) | deep


def png() -> bytes:
    return image_files.encoded(np.full((2, 8, 4, 3), 0.5, np.float32), bits=16)


def row() -> bytes:
    """The history of one run."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run.json"
        run.write_text(recorded())
        path, _ = history.add(load_run(run), Path(folder))
        return path.read_bytes()


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What reads a file."""

    files: Callable[[], st.SearchStrategy[bytes]]
    name: str
    """Where the file lies in its folder."""
    read: Callable[[Path], object]
    """Takes the folder."""
    errors: tuple[type[Exception], ...]


def _accepted(name: str) -> Any:
    """A file of the committed baselines, with two of its cases."""
    content = json.loads((BASELINES / name).read_text())
    if "cases" in content:
        content["cases"] = dict(list(content["cases"].items())[:2])
    return content


def _run_file() -> Any:
    """A recorded run, with three of its cases."""
    content = json.loads(recorded())
    del content["benchmarks"][3:]
    return content


@cache
def recorded() -> str:
    """A recorded run."""
    return json.dumps(upgraded(json.loads(RECORDED.read_text())))


READERS = {
    "run": Reader(
        files=lambda: of_json(_run_file()),
        name="run.json",
        read=lambda folder: load_run(folder / "run.json"),
        errors=(Refusal,),
    ),
    "machine": Reader(
        files=lambda: of_json(_accepted("nvidia-h200.json")),
        name="nvidia-h200.json",
        read=lambda folder: BaselineStore(folder).load_machine("nvidia-h200"),
        errors=(Refusal,),
    ),
    "operators": Reader(
        files=lambda: of_json(_accepted("operators/ddim50.json")),
        name="operators/ddim50.json",
        read=lambda folder: BaselineStore(folder).load_operators(),
        errors=(Refusal,),
    ),
    "portable": Reader(
        files=lambda: of_json(_accepted("portable.json")),
        name="portable.json",
        read=lambda folder: BaselineStore(folder).load_portable(scale="full", device="cuda"),
        errors=(Refusal,),
    ),
    "published": Reader(
        files=lambda: of_json(_accepted("published.json")),
        name="published.json",
        read=lambda folder: BaselineStore(folder).load_published(),
        errors=(Refusal,),
    ),
    "acceptances": Reader(
        files=lambda: damaged((BASELINES / "HISTORY.md").read_bytes()),
        name="HISTORY.md",
        read=lambda folder: _add_line(BaselineStore(folder)),
        errors=(Refusal,),
    ),
    "image": Reader(
        files=lambda: damaged(png()),
        name="image.png",
        read=lambda folder: image_files.load_thumbnail(folder / "image.png"),
        errors=(BadImage,),
    ),
    "history": Reader(
        files=lambda: damaged(row()) | damaged(b"{}\n" * 20).map(zlib.compress),
        name="nvidia-h200/2026-11.jsonl.gz",
        read=history.load,
        errors=(Refusal,),
    ),
    "ab": Reader(
        files=lambda: of_json(AB),
        name="ab.json",
        read=lambda folder: State.open(folder, AB["settings"], ASKED),  # type: ignore[arg-type]
        errors=(Refusal,),
    ),
    "explore": Reader(
        files=lambda: of_json(EXPLORE),
        name="explore.json",
        read=lambda folder: Folder.open(folder, {"name": "NVIDIA H200"}).measured,
        errors=(Refusal,),
    ),
    "faults": Reader(
        files=lambda: of_json(FAULTS),
        name="faults.json",
        read=lambda folder: faults._is_anothers(folder / "faults.json"),
        errors=(),
    ),
    "journal": Reader(
        files=lambda: of_json({"moves": {"a.json": ".a.draft"}, "removed": ["b.json"]}),
        name=".transaction.json",
        read=lambda folder: _add_line(BaselineStore(folder)),
        errors=(OSError,),
    ),
}


def _add_line(store: BaselineStore) -> None:
    with store.changing() as changes:
        changes.add_history(["a line"])


def check(reader: Reader, *, examples: int) -> None:
    """Draw this many files. `AssertionError` for one that is not taken as documented."""

    @_settings(examples)
    @given(data=reader.files())
    def each(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as root:
            folder = _placed(Path(root))
            path = folder / reader.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            sentence = "read"
            try:
                reader.read(folder)
            except reader.errors as error:
                sentence = str(error)
            assert sentence.strip()
            assert "\n" not in sentence
            assert _outside(Path(root), folder) == []

    each()


COMMANDS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "gate": lambda runs: ["gate", runs[0]],
    "compare": lambda runs: ["compare", "--base", runs[0], "--head", runs[1]],
    "report": lambda runs: ["report", runs[0], "--html", "out/page.html", "--markdown", "out/a.md"],
    "accept": lambda runs: ["accept", runs[0], "--processes=1", "--reason=x"],
    "images": lambda runs: ["accept", runs[0], "--images-only", "--reason=x"],
    "calibrate": lambda runs: ["calibrate", *runs],
    "merge": lambda runs: ["merge", runs[0], runs[1], "--json=out/run.json"],
    "history": lambda runs: ["history", "add", *runs, "--folder=out"],
    "comment": lambda runs: ["comment", "artifacts", "--link=https://example.com"],
}
"""Command lines by what they do, of three runs, in a folder of artifacts and baselines."""


def check_command(name: str, *, examples: int) -> None:
    """The same of a command that reads runs, one of them drawn."""
    whole = _run_file()

    @_settings(examples)
    @given(data=of_json(whole))
    def each(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as root:
            folder = _placed(Path(root))
            runs = [folder / f"{number}.json" for number in range(3)]
            for run in runs:
                run.write_text(recorded())
            runs[0].write_bytes(data)
            compared = folder / "artifacts" / "report-gpu" / "compared"
            compared.mkdir(parents=True)
            for run, side in zip(runs, ("head", "base"), strict=False):
                shutil.copy(run, compared / f"{side}-1.json")
            code, said = _run(COMMANDS[name](list(map(str, runs))), folder)
            assert code in (0, 1, 2), said
            assert "Traceback" not in said, said
            assert "\x1b" not in said
            assert _outside(Path(root), folder) == []

    each()


def _run(line: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and all that the command printed."""
    line = [
        part.replace("out/", f"{folder}/out/").replace("=out", f"={folder}/out") for part in line
    ]
    line = [str(folder / part) if part == "artifacts" else part for part in line]
    if line[0] not in ("merge", "history"):
        line += ["--baselines", str(folder / "baselines")]
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            code = command.main(line)
        except SystemExit as end:
            code = int(end.code or 0)
    return code, printed.getvalue()


def _placed(root: Path) -> Path:
    """A folder deep enough that a name with ``../../..`` still leads into the root."""
    folder = root / "a" / "b" / "c" / "d"
    folder.mkdir(parents=True)
    return folder


def _outside(root: Path, folder: Path) -> list[Path]:
    """Files that were written elsewhere."""
    return [p for p in root.rglob("*") if p.is_file() and folder not in p.parents]


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=timedelta(seconds=LIMIT_S),
        database=None,
        derandomize=examples < 1000,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
