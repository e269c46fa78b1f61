"""Reading a run's JSON: whatever is wrong with it is one sentence."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusers_perf.catalog.status import Status
from diffusers_perf.cli import __main__ as command
from diffusers_perf.records.missing import Untimed, missing
from perf_tests.tests.unit.recorded import cases, machine, process, write

GONE = object()
WEIRD: tuple[Any, ...] = (
    None,
    "x",
    -1,
    0,
    [],
    {},
    float("nan"),
    float("inf"),
    True,
    10**400,
    [None],
    GONE,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))


def test_content_never_crashes(accepted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value anywhere in a run is replaced by something weird, a hundred times."""
    draw, everywhere = random.Random(0), list(places(process("head")))
    refused = 0
    for _ in range(100):
        content: Any = process("head")
        *parents, last = draw.choice(everywhere)
        place = content
        for name in parents:
            place = place[name]
        weird = draw.choice(WEIRD)
        if weird is GONE:
            del place[last]
        else:
            place[last] = weird
        (path,) = write([content], accepted.parent, "weird")
        capsys.readouterr()
        code = command.main(["gate", str(path)])
        said = capsys.readouterr().err.splitlines()
        refused += bool(said)
        assert code in (0, 1, 2)
        assert len(said) <= 1
    assert refused > 20


ACCEPTED = [f"w/owner/model/made/{name}" for name in ("a", "b", "c")] + ["w/other/made/d"]


@pytest.mark.parametrize(
    ("untimed", "expected", "whole", "found"),
    [
        ([], ["w-a"], True, {"w-b": "missing", "w-c": "missing"}),
        ([], ["w-a"], False, {}),
        ([], ["w-a", "w-b"], False, {"w-b": "missing"}),
        (
            [Untimed(id="w-b", status=Status.SKIPPED, sentence="no kernel")],
            [],
            False,
            {"w-b": "missing"},
        ),
        ([Untimed(id="w-b", status=Status.SKIPPED, sentence="", by_choice=True)], [], False, {}),
        ([Untimed(id="w-e", status=Status.SKIPPED, sentence="no kernel")], [], False, {}),
        ([Untimed(id="w-b", status=Status.ERROR, sentence="no kernel")], [], False, {}),
        (
            [Untimed(id="w-b", status=Status.INVALID, sentence="interrupted")],
            ["w-a", "w-b", "w-c"],
            True,
            {"w-c": "invalid"},
        ),
    ],
)
def test_missing_cases_are_listed(
    untimed: list[Untimed], expected: list[str], whole: bool, found: dict[str, str]
) -> None:
    lost = missing(
        ACCEPTED,
        weights={"owner/model/made"},
        measured=["w-a"],
        untimed=untimed,
        expected=expected,
        whole=whole,
    )
    assert {case.id: case.status for case in lost} == found
    assert all(case.sentence.startswith(f"{case.id} ") for case in lost)


@pytest.mark.parametrize("field", ["workload", "case", "model", "weights"])
@pytest.mark.parametrize(
    "name", ["../../../x/ddim50", "/etc/x", "x" * 300, "a\ud800b", "a\nb", "\x1b[31mred", "", ".."]
)
@pytest.mark.parametrize("command_line", ["gate", "accept", "merge", "report"])
def test_name_that_leads_elsewhere_is_refused_in_one_sentence(
    field: str, name: str, command_line: str, accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = process("head")
    cases(content)[0]["measurement"][field] = name
    before = sorted(accepted.parent.rglob("*"))
    (path,) = write([content], accepted.parent, "named")
    options = {
        "gate": [],
        "accept": ["--reason", "x", "--images-only"],
        "merge": ["--json", str(accepted.parent / "whole.json")],
        "report": ["--html", str(accepted.parent / "page.html")],
    }[command_line]
    assert command.main([command_line, str(path), *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "cannot be the name of a file" in said[0] or "UTF-8" in said[0] or "JSON" in said[0]
    assert sorted(accepted.parent.rglob("*")) == sorted([*before, path])


@pytest.mark.parametrize("name", ["", "···", "x" * 300, "H200\n::error::forged", "\x1b[31mH200"])
def test_machine_that_cannot_have_a_file_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = process("head")
    machine(content)["name"] = name
    (path,) = write([content], tmp_path, "machine")
    assert command.main(["gate", str(path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "cannot be the name of a machine" in said


def test_reference_named_like_a_path_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = process("head")
    next(one for one in cases(content) if one["reference"])["reference"]["case"] = "../../reference"
    (path,) = write([content], tmp_path, "reference")
    assert command.main(["gate", str(path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "cannot be the name of a file" in said


@pytest.mark.parametrize("name", ["runs.json", "/dev/zero", "pipe"])
def test_what_is_not_a_file_is_refused_without_waiting(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.json").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    assert command.main(["gate", str(path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    is_folder = path.is_dir()
    assert said.startswith(
        f"error: {path}" + (" is a folder; " if is_folder else ": cannot be read (")
    )
