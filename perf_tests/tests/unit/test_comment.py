"""`diffusers-perf comment`: what is posted of runs that anybody's code may have written."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.report import markdown
from perf_tests.tests.unit.drawn import many
from perf_tests.tests.unit.recorded import Content, case, machine, process, side, slow, write

LINK = "https://github.com/owner/name/actions/runs/1"


@pytest.fixture(autouse=True)
def folder(no_baselines: Path) -> Path:
    """A folder of baselines in which nothing is accepted."""
    return no_baselines


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return folder


def compared(artifacts: Path, name: str, base: list[Content], head: list[Content]) -> Path:
    """An artifact with the runs of both sides."""
    folder = artifacts / name / "compared"
    folder.mkdir(parents=True)
    for prefix, contents in (("base", base), ("head", head)):
        for number, path in enumerate(write(contents, artifacts.parent, f"{name}-{prefix}")):
            path.rename(folder / f"{prefix}-{number + 1}.json")
    return folder


def comment(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert command.main(["comment", str(artifacts), "--link", LINK]) == 0
    said = capsys.readouterr().out
    assert said.startswith("<!-- diffusers-perf -->\n\n")
    assert said.rstrip().endswith(f"[Workflow run]({LINK}). Set the label again to repeat it.")
    assert len(said) <= markdown.MOST_CHARACTERS
    return said


def test_verdict_is_recomputed_from_the_measurements(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.06)
        case(content, "ddim50-fp16").update(status="same", sentence="")
    compared(artifacts, "report-gpu", side("base"), head)
    (artifacts / "report-gpu" / "report.md").write_text("## ✅ all is well @everybody")
    said = comment(artifacts, capsys)
    assert "## ❌ " in said
    assert "ddim50-fp16 (slower" in said
    assert "everybody" not in said


def test_every_machine_and_the_link_stay_however_long(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = many(process("long"), 40)
    for number in range(6):
        one = deepcopy(content)
        machine(one)["name"] = f"GPU-{number}"
        for info in one["benchmarks"]:
            record = info["extra_info"]["diffusers_perf"]
            record.update(status="slower", sentence="slower: " + "a_b " * 100 * number)
        compared(artifacts, f"report-{number}", [one], [deepcopy(one)])
    said = comment(artifacts, capsys)
    for number in range(6):
        assert f"**GPU-{number}**" in said
    assert said.count("## ❌") == 6
    assert markdown.MORE.strip() in said
    assert said.count("<details>") == said.count("</details>")


def test_many_machines_leave_room_for_the_link(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(200):
        (artifacts / f"report-{number:03}").mkdir()
    said = comment(artifacts, capsys)
    assert "report-000" in said
    assert "176 more machines are not shown" in said


def test_machine_without_a_comparison_is_named(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifacts / "report-a").mkdir()
    (artifacts / "report-b" / "compared").mkdir(parents=True)
    folder = compared(artifacts, "report-c", side("base"), side("head"))
    (folder / "base-1.json").write_text("{")
    (artifacts / "report-@d").mkdir()
    said = comment(artifacts, capsys)
    for name in ("report-a", "report-b", "report-c"):
        assert f"Not judged: {name}\n" in said
    assert "report-c/compared/base-1.json: not valid JSON" in said
    assert "@d" not in said


def test_comment_without_a_machine(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "The run ended without a result." in comment(artifacts, capsys)
    artifacts.rmdir()
    assert "The run ended without a result." in comment(artifacts, capsys)


def test_links_are_not_followed(
    tmp_path: Path, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret file, a folder or a device behind a link, or in a run's place."""
    real = compared(tmp_path, "real", side("base"), side("head"))
    for number, name in enumerate(("artifact", "folder", "file", "pipe", "large")):
        part = artifacts / f"{number}-{name}"
        if name == "artifact":
            part.symlink_to(real.parent)
            continue
        part.mkdir()
        if name == "folder":
            (part / "compared").symlink_to(real)
            continue
        (part / "compared").mkdir()
        for prefix in ("base", "head"):
            path = part / "compared" / f"{prefix}-1.json"
            if name == "file":
                path.symlink_to(real / f"{prefix}-1.json")
            elif name == "pipe":
                os.mkfifo(path)
            else:
                path.touch()
                os.truncate(path, 2**31)
    said = comment(artifacts, capsys)
    assert said.count("Not judged") == 5
    assert "NVIDIA H200" not in said


@pytest.mark.parametrize("name", ["published", "portable", "", "../nvidia-h200", "\u202e"])
def test_machine_name_stays_text(
    artifacts: Path, capsys: pytest.CaptureFixture[str], folder: Path, name: str
) -> None:
    (folder / "published.json").write_text(json.dumps({"schema": 1}))
    one = process("run")
    machine(one)["name"] = name
    compared(artifacts, "report-gpu", [one], [process("other")])
    assert "## " in comment(artifacts, capsys)
