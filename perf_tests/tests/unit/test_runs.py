"""Reading a run's JSON: whatever is wrong with it is one sentence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusers_perf.catalog.status import Status
from diffusers_perf.cli import __main__ as command
from diffusers_perf.records.missing import Untimed, missing
from perf_tests.tests.unit.recorded import process, write

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


def test_no_content_makes_it_crash(accepted: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_what_a_run_lost(
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
