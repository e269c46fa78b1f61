"""The documents: generated parts are current, links lead somewhere, examples and commands work."""

from __future__ import annotations

import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from diffusers_perf.catalog.discovery import Project, shipped
from diffusers_perf.cli.commands import COMMANDS
from diffusers_perf.faults import injection
from perf_tests.tests import documents, english
from perf_tests.tests.documents import DOCUMENTS, ROOT

README_LINES_MOST = 200
DIALECT_MOST = 60
GENERATED = ("baselines/RESULTS-nvidia-h100-80gb-hbm3.md", "baselines/RESULTS-nvidia-h200.md")
ALL = [name for name in (*DOCUMENTS, *GENERATED) if (ROOT / name).exists()]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Document and text of every code block in a language, but those of the models' cards."""
    for name in DOCUMENTS:
        if "/models/" in name:
            continue
        for found, text in FENCE.findall((ROOT / name).read_text()):
            if found == language:
                yield name, text


def commands() -> Iterator[tuple[str, list[str]]]:
    """Document and words of each command in a block of shell."""
    for name, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            for one in re.split(r"&&|;", line.split(" #")[0]):
                words = shlex.split(one)
                while words and words[0] in ("do", "done", "for"):
                    words = [] if words[0] == "for" else words[1:]
                if words:
                    yield name, words


WRITTEN = list(commands())


def test_generated_blocks_are_current() -> None:
    stale = [path.relative_to(ROOT).as_posix() for path, _ in documents.stale()]
    assert not stale, "run `python -m perf_tests.tests.documents`"


def test_stale_block_is_detected() -> None:
    text = (ROOT / "README.md").read_text()
    assert documents.current(text.replace("wall clock", "wall time")) == text


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
    text = FENCE.sub("", (ROOT / name).read_text())
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
            assert arguments[arguments.index("--inject") + 1] in injection.FAULTS
    elif program == "python" and arguments[:1] == ["-m"]:
        assert find_spec(arguments[1]), arguments[1]
    elif program == "bash":
        assert (ROOT / arguments[0]).exists()
    else:
        assert program in ("pip", "source", "pre-commit", "sbatch", "python")


EXAMPLES = {f"{name}-{number}": text for number, (name, text) in enumerate(blocks("python"))}


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_declare(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`integration/test_examples.py` measures with those that can run on a CPU."""
    monkeypatch.setattr(injection, "FAULTS", dict(injection.FAULTS))
    (tmp_path / "example.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "example", raising=False)
    module = import_module("example")
    monkeypatch.delitem(sys.modules, "example")
    if "measure(" in text:
        assert Project(shared=shipped()).add(module).cases


def test_dialect_is_rare() -> None:
    assert len(list(english.places())) <= DIALECT_MOST
