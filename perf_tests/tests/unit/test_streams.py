"""What a command prints harms neither terminal nor CI log, and may be lost without a traceback."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from diffusers_perf.cli import __main__ as cli
from diffusers_perf.cli import gate
from diffusers_perf.cli.commands import NAMES
from diffusers_perf.cli.streams import Plain, plain
from diffusers_perf.ending import leave_lost_terminal
from diffusers_perf.records.files import write_whole
from perf_tests.tests.unit.recorded import cases, lost, process, session, write

COMMAND = [sys.executable, "-m", "diffusers_perf.cli"]
EVIL = "x\x1b[2J\r\x9b1A\n::error::forged\n##[error]forged"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("512×512 → 1.2x\tfaster\n", "512×512 → 1.2x\tfaster\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("::error::forged\n  ::add-mask::x", "\\::error::forged\n  \\::add-mask::x"),
        ("tests/test_x.py::test_y", "tests/test_x.py::test_y"),
        ("a\u2028b\rc", "a\\u2028b\\rc"),
    ],
)
def test_control_characters_and_commands_are_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_command_that_comes_in_parts_is_written_out() -> None:
    out = io.StringIO()
    stream = Plain(out)
    for part in ("line\n", ":", ":error::forged\n", "a", "::b\n", " ", "::error::\n"):
        stream.write(part)
    assert out.getvalue() == "line\n:\\:error::forged\na::b\n \\::error::\n"


@pytest.mark.parametrize("command", ["gate", "compare", "accept"])
def test_text_of_a_run_is_escaped_on_a_terminal(
    command: str, accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = [process(f"evil-{number}") for number in range(6)]
    for content in contents:
        for one in cases(content):
            one["sentence"] = f"slower: {EVIL}"
            one["measurement"]["interference"] |= {"gpu": [EVIL], "host": [EVIL], "unknown": EVIL}
            one["measurement"]["notes"] = [EVIL]
        session(content)["not_timed"] = [lost("ddim50-fp8", "error", EVIL)]
        session(content)["options"] = [EVIL]
    paths = [str(path) for path in write(contents, accepted.parent, "evil")]
    arguments = {
        "gate": ["gate", paths[0]],
        "compare": ["compare", "--base", *paths[:3], "--head", *paths[3:]],
        "accept": ["accept", *paths, "--reason", EVIL],
    }[command]
    cli.main(arguments)
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert not {"\x1b", "\r", "\x9b"} & {*text}
        assert not any(line.lstrip().startswith(("::", "##[")) for line in text.splitlines())


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "</dev/null >&- 2>&- <&-"])
@pytest.mark.parametrize("arguments", ["gate nowhere.json", "--help", "report nowhere.json"])
def test_closed_stream_is_not_a_regression(
    redirection: str, arguments: str, tmp_path: Path
) -> None:
    line = f"{' '.join(COMMAND)} {arguments} {redirection}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == (0 if arguments == "--help" else 2)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_behind_the_output_is_one_sentence(unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written (No space left on device)\n"


@pytest.mark.parametrize("name", NAMES)
def test_no_command_passes_where_its_output_is_lost(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main([name, "--help"]) == 2
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    line = f"{' '.join(COMMAND)} --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""


def test_reader_that_goes_while_a_file_is_written_into_its_pipe_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with ``--json /dev/stdout | head -1``."""
    reading, writing = os.pipe()

    def read_a_little() -> None:
        os.read(reading, 1)
        os.close(reading)

    def write(_: object) -> None:
        write_whole(Path(f"/dev/fd/{writing}"), "text" * 2**20)

    monkeypatch.setattr(gate, "main", write)
    reader = Thread(target=read_a_little)
    reader.start()
    assert cli.main(["gate", "run.json"]) == 2
    reader.join()
    os.close(writing)
    assert capsys.readouterr().err == ""


def test_lost_terminal_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "__stdout__", terminal)
        leave_lost_terminal()
        assert os.isatty(theirs)
        os.close(ours)
        leave_lost_terminal()
        print("text", file=terminal, flush=True)


def test_exhausted_memory_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(gate, "main", exhausted)
    assert cli.main(["gate", "run.json"]) == 2
    assert capsys.readouterr().err == "error: out of memory\n"
