"""`diffusers-perf`, whatever the command: help, bad input, and what goes wrong in it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest

from diffusers_perf.catalog import discovery
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import __main__ as cli
from diffusers_perf.cli import commands, gate
from diffusers_perf.cli.answers import plainly
from diffusers_perf.cli.commands import COMMANDS
from perf_tests.tests.unit.recorded import side, write

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"\n    diffusers-perf {command}" in capsys.readouterr().out


def test_all_commands_are_listed_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    listed = capsys.readouterr().out
    assert all(
        f"\n    {command} " in listed or f"\n    {command}\n" in listed for command in COMMANDS
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["gate", ""],
        ["accept", "", "--reason", "x"],
        ["merge", "run.json", "--json", ""],
        ["faults", "--json", ""],
        ["ab", "--out", ""],
        ["explore", "--out", ""],
        ["report", "run.json", "--html", ""],
    ],
)
def test_empty_variable_is_not_a_path(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "must be a path (got an empty text)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("ab --base main --head HEAD -k fp16", "ab --base main --head HEAD -- -k fp16"),
        ("ab -k main --base main --head b -q", "ab --base main --head b -- -k main -q"),
        ("ab --base a --head b t.py -k x", "ab --base a --head b -- t.py -k x"),
        ("ab --base a --head b -k x -- -m y", "ab --base a --head b -- -k x -m y"),
        (
            "bisect --good a --bad b --case c --metric d --model=e",
            "bisect --good a --bad b --case c --metric d -- --model=e",
        ),
        ("fleet --json c --maxfail 1", "fleet --json c -- --maxfail 1"),
    ],
)
def test_option_of_pytest_is_shown_where_it_goes(
    arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments.split())
    assert end.value.code == 2
    said = f"; options of pytest go behind `--`: diffusers-perf {line}\n"
    assert capsys.readouterr().err.endswith(said)


def test_command_that_hands_nothing_on_only_says_what_is_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["gate", "run.json", "-k", "x"])
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: -k x\n")


def test_missing_packages_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unavailable(*_: object) -> int:
        raise ModuleNotFoundError("No module named 'PIL'", name="PIL")

    monkeypatch.setattr(commands, "run", unavailable)
    assert cli.main(["gate", "run.json"]) == 2
    said = f"error: PIL is not installed: {sys.executable} -m pip install -e .\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", ["torch._inductor.moved", "ci.nothing", None])
def test_missing_part_of_an_installed_package_is_a_bug(
    name: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def moved(*_: object) -> int:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(commands, "run", moved)
    assert cli.main(["gate", "run.json"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_unexpected_exception_is_not_a_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> int:
        raise KeyError("a bug")

    monkeypatch.setattr(gate, "main", broken)
    assert cli.main(["gate", str(tmp_path / "run.json")]) == 2
    assert "KeyError: 'a bug'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "visible"),
    [
        (["faults", "--device=cpu"], "-1"),
        (["explore", "--device=cpu"], "-1"),
        (["structure"], "-1"),
        (["faults", "--device=cuda"], "0,1"),
        (["faults"], "0,1"),
        # Its processes hide them.
        (["ab", "--device=cpu"], "0,1"),
    ],
)
def test_command_that_runs_on_the_cpu_sees_no_gpu(
    arguments: list[str], visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(_: object) -> int:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return 0

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(import_module(COMMANDS[arguments[0]]), "main", look)
    assert cli.main(arguments) == 0
    assert seen == [visible]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_terminal_that_lacks_characters_gets_replacements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    (base,), (head,) = (write(side(name, count=1), tmp_path, name) for name in ("base", "head"))
    assert cli.main(["compare", "--base", str(base), "--head", str(head)]) == 2
    terminal.seek(0)
    assert "\\u2192" in terminal.read()


def test_stripped_docstrings_still_judge_and_declare_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As under python -OO."""
    missing = tmp_path / "run.json"
    monkeypatch.setattr(gate, "__doc__", None)
    assert cli.main(["gate", str(missing)]) == 2
    said = f"error: {missing}: cannot be read (No such file or directory)\n"
    assert capsys.readouterr().err == said
    monkeypatch.setattr(discovery, "sys", SimpleNamespace(flags=SimpleNamespace(optimize=2)))
    with pytest.raises(Refusal, match="python -OO removes docstrings"):
        discovery.load("perf_tests.cases")


@pytest.mark.parametrize(
    ("arguments", "printed", "answer"),
    [
        (["gate", "run.json"], "holds", 0),
        (["gate", "run.json"], "a regression", 1),
        (["gate", "run.json"], "much to tell\n" * 10_000, 2),
        (["gate", ""], "", 2),
        (["gate", "--help"], "", 0),
    ],
)
def test_closed_reader_is_not_a_regression(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], printed: str, answer: int
) -> None:
    """What was judged before it was printed stands; what could not be printed to the end is not."""

    def judge(_: object) -> int:
        print(printed)
        return answer % 2

    with unread() as out, unread() as err, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(gate, "main", judge)
        try:
            code = cli.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        assert code == answer
        for stream in (out, err):
            stream.flush()  # as Python does at its end


def unread() -> TextIO:
    """A reader that has gone."""
    read, written = os.pipe()
    os.close(read)
    return os.fdopen(written, "w")


def test_help_imports_the_chosen_command_alone() -> None:
    """So that it answers at once: in a tenth of a second of CPU time beside Python's own start."""
    code = (
        "import sys, time; started = time.process_time()\n"
        "from diffusers_perf.cli.__main__ import main\n"
        "try: main(['gate', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'diffusers', 'pytest'} & set(sys.modules)\n"
        "others = [name for name in sys.modules if name.startswith('diffusers_perf.cli.')]\n"
        "assert not heavy, heavy\n"
        "assert 'diffusers_perf.cli.accept' not in others\n"
        "took = time.process_time() - started\n"
        "assert took < 0.5, took\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: diffusers-perf gate" in done.stdout


@pytest.mark.parametrize("command", ["explore", "faults", "structure"])
def test_missing_torch_is_one_sentence(command: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from diffusers_perf.cli.__main__ import main\n"
        f"sys.exit(main(['{command}']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == f"error: torch is not installed: {sys.executable} -m pip install -e .\n"


def test_main_job_names_missing_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pytest; sys.exit(pytest.main(['perf_tests', '--benchmark-only']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = f"ERROR: torch is not installed: {sys.executable} -m pip install -e ."
    assert done.stderr.strip() == said


def test_folder_is_named_without_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "perf_tests").mkdir()
    monkeypatch.chdir(tmp_path / "perf_tests")
    assert plainly(Path("..", "runs", "ab")) == tmp_path.resolve() / "runs" / "ab"
    assert plainly(Path("runs")) == Path.cwd() / "runs"
