"""The documents: generated parts are current, links lead somewhere, examples and commands work."""

from __future__ import annotations

import json
import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from diffusers_perf import faults
from diffusers_perf.catalog.discovery import Project, shipped
from diffusers_perf.catalog.status import Status
from diffusers_perf.cli.commands import COMMANDS
from perf_tests.tests import blocks, documents, english
from perf_tests.tests.documents import DOCUMENTS, ROOT
from perf_tests.training import folder
from perf_tests.training.flux import folder as flux

README_LINES_MOST = 200
DIALECT_MOST = 20
GENERATED = (
    "baselines/RESULTS-nvidia-h100-80gb-hbm3.md",
    "baselines/RESULTS-nvidia-h200.md",
    "perf_tests/training/flux/PRICES.md",
)
ALL = [name for name in (*DOCUMENTS, *GENERATED) if (ROOT / name).exists()]
COMMANDS_WRITTEN = list(blocks.commands())


def words() -> Iterator[tuple[str, list[str]]]:
    """Document and words of each program call."""
    for name, line in COMMANDS_WRITTEN:
        for one in re.split(r"&&|;", line):
            words = shlex.split(one)
            while words and words[0] in ("do", "done", "for"):
                words = [] if words[0] == "for" else words[1:]
            if words:
                yield name, words


WRITTEN = list(words())


def test_every_command_is_run_or_listed_with_a_reason() -> None:
    known = {**blocks.RUN, **blocks.IN_CI, **blocks.NOT_RUN}
    assert sorted({line for _, line in COMMANDS_WRITTEN}) == sorted(known)
    assert blocks.missing_files() == []


def test_readme_says_of_each_status_what_the_code_does() -> None:
    _, _, table = (ROOT / "README.md").read_text().partition("| status | meaning | pytest |")
    rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()[2:]]
    written = {status: row for row in rows for status in row[0].split(", ")}
    assert {*written} == {*Status} - {Status.SKIPPED}
    for status, (_, _, pytests, code) in written.items():
        of = Status(status)
        assert (pytests.startswith("passes"), "warning" in pytests) == (of.passes, of.warns)
        assert code[0] == str(of.exit_code)
    # Of a run without any baseline, as `test_gate.py` has it.
    assert "2 from `gate`" in written[Status.NEW][3]


def test_every_block_is_run_or_listed_with_a_reason() -> None:
    other = {(name, language) for name, language, _ in blocks.blocks()}
    assert {one for one in other if one[1] not in ("python", "bash")} == set(blocks.OTHER)


def test_generated_blocks_are_current() -> None:
    stale = [path.relative_to(ROOT).as_posix() for path, _ in documents.stale()]
    assert not stale, "run `python -m perf_tests.tests.documents`"


def test_stale_block_is_detected() -> None:
    text = (ROOT / "README.md").read_text()
    assert documents.current(text.replace("wall clock", "wall time")) == text


MEASURED = re.compile(
    r"(?<![\w.#`-])\d[\d.,]*\s?(?:x|s|ms|µs|%|[KMG]i?B|dB|minutes?|seconds?|hours?)(?![\w-])"
)
NOTES = re.compile(r"^<!-- notes: (.*?) -->\n.*?^<!-- end of notes -->$", re.MULTILINE | re.DOTALL)
WRITTEN_BY_COMMANDS = (".github/CHANGELOG.md", *blocks.CARD_FILES)


@pytest.mark.parametrize("name", sorted(set(DOCUMENTS) - set(WRITTEN_BY_COMMANDS)))
def test_no_number_is_typed_by_hand(name: str) -> None:
    """What was measured stands in a generated block, or in notes with a command and a date."""
    text = (ROOT / name).read_text()
    for source in NOTES.findall(text):
        assert re.fullmatch(r".*, \d{4}-\d\d-\d\d", source), source
    for part in (documents.BLOCK, NOTES, blocks.FENCE, re.compile(r"`[^`\n]*`")):
        text = part.sub("", text)
    assert MEASURED.findall(text) == []


@pytest.mark.parametrize("name", blocks.CARD_FILES)
def test_cards_are_what_their_training_writes(name: str) -> None:
    card = flux.card if "flux" in name else folder.card
    scores = json.loads((ROOT / name).with_name("scores.json").read_text())
    assert (ROOT / name).read_text() == card(scores)


def test_every_generated_block_is_used() -> None:
    text = "".join((ROOT / name).read_text() for name in DOCUMENTS)
    assert {name for _, name, _ in documents.BLOCK.findall(text)} == set(documents.BLOCKS)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES_MOST


@pytest.mark.parametrize("name", ALL)
def test_documents_have_no_dialect(name: str) -> None:
    assert list(english.words((ROOT / name).read_text())) == []


@pytest.mark.parametrize("name", ALL)
def test_links_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]*)?\)", (ROOT / name).read_text()):
        if "://" not in target:
            assert (folder / target).exists(), target


@pytest.mark.parametrize("name", ALL)
def test_documents_name_files_that_exist(name: str) -> None:
    text = blocks.FENCE.sub("", (ROOT / name).read_text())
    for path in re.findall(r"`((?:perf_tests|baselines|ci|\.github)/[\w./-]+)`", text):
        renamed = name == ".github/CHANGELOG.md"
        assert renamed or (ROOT / path).exists(), path


@pytest.mark.parametrize(("name", "words"), WRITTEN, ids=lambda value: " ".join(value)[:60])
def test_commands_are_known(name: str, words: list[str], pytestconfig: pytest.Config) -> None:
    """Each parses with the parser that would read it; what only a shell knows is named here."""
    program, *arguments = words
    if program == "diffusers-perf":
        command = import_module(COMMANDS[arguments[0]])
        parser = ArgumentParser()
        command.add_arguments(parser)
        parser.parse_args(arguments[1:])
    elif program in ("python", "pytest") and "pytest" in words[:3]:
        options = [word for word in arguments if word.startswith("--")]
        known = {f"--{option.replace('_', '-')}" for option in vars(pytestconfig.option)}
        # Of a plugin that `-p` names.
        assert {option.split("=")[0] for option in options} <= known | {"--inject"}
        if "--inject" in arguments:
            assert arguments[arguments.index("--inject") + 1] in faults.declared()
    elif program == "python" and arguments[:1] == ["-m"]:
        assert find_spec(arguments[1]), arguments[1]
    elif program == "bash":
        assert (ROOT / arguments[0]).exists()
    else:
        assert program in ("pip", "source", "pre-commit", "ray", "sbatch", "python")


PYTHON = [
    (name, text)
    for name, text in blocks.of("python")
    if name not in blocks.CARD_FILES and "import pandas" not in text
]
EXAMPLES = {f"{name}-{number}": text for number, (name, text) in enumerate(PYTHON)}


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_declare(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`integration/test_examples.py` measures with those that can run on a CPU."""
    (tmp_path / "example.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "example", raising=False)
    module = import_module("example")
    monkeypatch.delitem(sys.modules, "example")
    if "measure(" in text:
        assert Project(shared=shipped()).add(module).cases


def test_dialect_is_rare() -> None:
    assert len(list(english.places())) <= DIALECT_MOST
