"""`diffusers-perf ab`: which processes it starts, in which order, and what it does when one fails.

The environments are shell scripts that copy recorded runs instead of measuring; what is compared is
compared for real.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare import environments, sides, state, turns
from diffusers_perf.compare.kept import Setting
from diffusers_perf.compare.lock import held
from diffusers_perf.messages import ab as messages
from diffusers_perf.records.repository import repository
from perf_tests.tests.unit.environments import TURNS, Place
from perf_tests.tests.unit.recorded import (
    Content,
    case,
    cases,
    drop,
    lost,
    measured,
    session,
    side,
    slow,
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(tmp_path)


def test_sides_take_turns_and_are_compared(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.ab("--quick", "--device=cuda", "--", "-k", "fp16 or reference") == 0
    assert place.started == TURNS[:10]
    for call in place.calls:
        assert "-m pytest perf_tests --benchmark-only" in call
        assert "--device cuda --quick -k fp16 or reference --benchmark-json=" in call
        # Neither side compiles into what the other left.
        name, cache, *_ = call.split()
        assert cache == f"cache-{name.split('-')[0]}"
    out = capsys.readouterr().out
    assert "torch 2.13.0" in out
    assert re.search(r"\[1/10\] base 1: 5 cases in \d+ s, about \d+ s left", out)
    assert "(5 A/B pairs)" in out


def test_slower_head_fails(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.05)
    place.record(side("base"), head)
    assert place.ab() == 1
    assert "slower: ddim50-fp16: GPU busy 1.0" in capsys.readouterr().out


def test_what_the_first_pair_shows_is_said_at_once(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = side("base"), side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.05)
    place.record(base, head)
    said = "after the first pair: "
    assert place.ab() == 1
    assert said not in capsys.readouterr().out
    for content in head:
        for name in ("ddim50-fp16", "ddim50-tf32"):
            measured(content, name)["counters"]["host_syncs"] = [7, 7]
    head[4] = side("head")[4]
    place.record(base, head)
    shutil.rmtree(place.out)
    place.ab()
    out = capsys.readouterr().out
    line = f"{said}ddim50-tf32 (more work) and 1 other case; the other pairs measure times\n"
    assert out.count(line) == 1
    assert out.index("head 1:") < out.index(line) < out.index("head 2:")
    # The fifth pair counts otherwise.
    assert "inconclusive: host syncs in 2 cases" in out


def test_next_command_compares_the_case_again(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.05)
    place.record(side("base"), head)
    selection = (
        *("-k", "fp16 or reference", "--shard", "1/2", "--shard=1/2", "-kfp16", "--lf", "--ff"),
        *("--sw", "--deselect", "more.py::test[b]", "more.py::test[a]", "more.py::test[c]"),
    )
    assert place.ab("--quick", "--device=cuda", "--", *selection, "-m", "guide", "-Wa::B") == 1
    out = capsys.readouterr().out
    given = " ".join(f"--{n}-python {place.folder / n / 'python'}" for n in ("base", "head"))
    line = (
        f"diffusers-perf ab {given} --quick --device cuda --baselines {place.folder / 'baselines'} "
        '-- -k "[ddim50-fp16]" more.py -m guide -Wa::B'
    )
    assert f"            {line}\n" in out
    # `report` and `compare` find it beside the runs; in another order they are not ab's.
    sides = [sorted(map(str, place.out.glob(f"{name}-[1-5].json"))) for name in ("base", "head")]
    for base, head_ in (sides, sides[::-1]):
        command.main(["compare", "--base", *base, "--head", *head_])
        assert (line in capsys.readouterr().out) == (base is sides[0])
    # Pasted, it leaves the other comparisons alone, and measures each time.
    for number, folder in enumerate(("ab", "ab-2", "ab-3"), start=2):
        assert command.main(shlex.split(line)[1:]) == 1
        assert place.calls[-1].count("--device cuda --quick -k [ddim50-fp16] more.py -m guide")
        assert len(place.calls) == 10 * number
        out = capsys.readouterr().out
        assert f"            {line}\n" in out
        assert f"all runs are in {place.folder / 'runs' / folder};" in out
        anew = f"folder {place.folder / 'runs' / folder}: this comparison is complete, and is"
        assert (anew in out) == (folder != "ab")


def test_next_command_shows_what_head_does_whatever_is_checked_out(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    head = side("head")
    for content in head:
        measured(content, "ddim50-fp16")["ignored"] = ["prompt"]
        case(content, "ddim50-fp16")["status"] = "worse image"
        one = lost("ddim50-tf32", "error", "ddim50-tf32: RuntimeError: no kernel image")
        drop(content, "ddim50-tf32")
        session(content)["not_timed"].append(one)
    place.record(side("base"), head)
    assert place.ab() == 1
    out = capsys.readouterr().out
    assert "worse image: ddim50-fp16: another prompt gives the same image" in out
    assert '-- -k "[ddim50-tf32]"' in out
    assert '-- -k "[ddim50-fp16]"' in out
    assert "pytest " not in out
    assert command.main(["report", str(place.out), "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert "diffusers-perf ab" in shown
    assert not re.search("pytest .*-k", shown)


def test_next_command_works_in_every_folder(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.05)
    place.record(side("base"), head)
    for name in (".git", "tools"):
        (place.folder / name).mkdir()
    monkeypatch.chdir(place.folder / "tools")
    monkeypatch.setenv("PATH", str(place.folder / "head"), prepend=os.pathsep)
    options = ["--base-python=../base/python", "--head-python=python", "--baselines=accepted"]
    assert command.main(["ab", *options, f"--out={place.out}"]) == 1
    capsys.readouterr()
    for folder, base, accepted in (
        (".", "base/python", "tools/accepted"),
        ("base", "./python", "../tools/accepted"),
        ("tools", "../base/python", "accepted"),
    ):
        monkeypatch.chdir(place.folder / folder)
        runs = [sorted(map(str, place.out.glob(f"{one}-?.json"))) for one in ("base", "head")]
        command.main(["compare", "--base", *runs[0], "--head", *runs[1]])
        line = f"--base-python {base} --head-python python --baselines {accepted} -- -k"
        assert line in capsys.readouterr().out


def test_selection_without_out_goes_on_where_it_was_interrupted(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(turns, "monotonic", itertools.count(step=10).__next__)
    options = [option for option in place.arguments() if not option.startswith("--out")]
    assert command.main([*options, "--", "-m", "guide"]) == 0
    damaged = place.folder / "runs" / "ab-2" / "ab.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    chosen, other = ["--", "-k", "[ddim50-fp16]"], ["--", "-k", "[ddim50-reference]"]
    assert command.main([*options, "--minutes=0.9", *chosen]) in (0, 2)
    assert command.main([*options, *other]) == 0
    assert command.main([*options, *chosen]) == 0
    assert place.started == [*TURNS[:10], *TURNS[:4], *TURNS[:10], *TURNS[4:10]]
    folders = re.findall(r"all runs are in .*/(ab\S*);", capsys.readouterr().out)
    assert folders == ["ab", "ab-3", "ab-4", "ab-3"]


def test_comparison_without_out_has_a_folder_of_its_own(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(turns, "monotonic", itertools.count(step=10).__next__)
    options = [option for option in place.arguments() if not option.startswith("--out")]
    first, second = (place.folder / "runs" / name for name in ("ab", "ab-2"))

    def compare(code: str, *more: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sides, "code_digest", lambda _: code)
        answer = command.main([*options, *more])
        return answer, capsys.readouterr().out.splitlines()

    assert compare("a")[0] == 0
    before = {path: path.read_bytes() for path in first.glob("*-*.json")}
    # The next pull request of the checkout is slower.
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.05)
    place.record(side("base"), head)
    _, shown = compare("b", "--minutes=0.9")
    assert shown[0] == f"folder {second}: {first} is taken"
    code, shown = compare("b")
    assert code == 1
    goes_on = "it holds this comparison"
    assert shown[0] == f"folder {second}: {goes_on}"
    assert place.started == [*TURNS[:10], *TURNS[:10]]
    # Its page is made of its own pairs, and not of half a pair that lies there too.
    (second / "head-6.json").write_bytes((second / "head-1.json").read_bytes())
    program, *line = shlex.split(shown[-1].removeprefix("as a page: "))
    assert program == "diffusers-perf"
    assert command.main(line) == 0
    assert "slower" in (second / "report.html").read_text()
    (second / "head-6.json").unlink()
    # A whole one is compared again, and not measured again.
    capsys.readouterr()
    for code_, folder, verdict in (("b", second, 1), ("a", first, 0)):
        answer, shown = compare(code_)
        assert (answer, shown[0]) == (verdict, f"folder {folder}: {goes_on}")
    assert len(place.calls) == 20
    assert {path: path.read_bytes() for path in first.glob("*-*.json")} == before


def test_number_of_a_folder_is_a_number(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ab-nightly` belongs to a person: a comparison does not continue in it."""
    monkeypatch.setattr(turns, "monotonic", itertools.count(step=10).__next__)
    assert place.ab() == 0
    runs = place.folder / "runs"
    runs.mkdir()
    (place.folder / "out").rename(runs / "ab-nightly")
    settings = json.loads((runs / "ab-nightly" / "ab.json").read_text())["settings"]
    assert state.own_folder(runs / "ab", settings, anew=False) == (runs / "ab", "")
    # A date is a number, and says nothing of how many folders there are.
    for name in ("ab", "ab-20261130"):
        (runs / name).mkdir()
        (runs / name / "ab.json").write_text("{")
    assert state.own_folder(runs / "ab", settings, anew=False)[0] == runs / "ab-2"


def test_comparisons_started_at_once_have_a_folder_each(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    options = [option for option in place.arguments() if not option.startswith("--out")]
    runs = place.folder / "runs"
    # Another one chose the folder and has not written yet what it compares.
    with held(runs / "ab", by="ab"):
        assert command.main(options) == 0
        assert command.main([*options, "--quick"]) == 0
    assert sorted(path.parent.name for path in runs.glob("*/base-5.json")) == ["ab-2", "ab-3"]
    out = capsys.readouterr().out
    assert out.startswith(f"folder {runs / 'ab-2'}: {runs / 'ab'} is taken\n")
    # A folder in which nothing was measured is free again.
    place.act("exit 5")
    assert command.main([*options, "--", "-m", "nosuchsuite"]) == 2
    assert (runs / "ab" / "ab.json").exists()
    # In its first process, it is known by what it wrote before.
    place.act("")
    with held(runs / "ab", by="ab"):
        assert command.main([*options, "--", "-m", "nosuchsuite"]) == 2
    assert "is in use by another ab" in capsys.readouterr().err
    assert command.main([*options, "--", "-m", "guide"]) == 0
    assert (runs / "ab" / "base-5.json").exists()


@pytest.mark.parametrize("more", [[], ["--base", "base.json"]])
def test_folder_without_a_pair_has_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    page = tmp_path / "page.html"
    assert command.main(["report", str(tmp_path), *more, "--html", str(page)]) == 2
    said = messages.needs_no_base(tmp_path) if more else messages.holds_no_pair(tmp_path)
    assert said in capsys.readouterr().err
    assert not page.exists()


def test_folder_is_compared_again_as_it_was(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    code = place.ab()
    printed = capsys.readouterr().out
    assert command.main(["compare", str(place.out)]) == code
    again = capsys.readouterr().out
    assert again.splitlines()[-1].endswith("(5 A/B pairs)")
    assert again in printed


@pytest.mark.parametrize(
    "arguments", [[], ["runs/ab", "--base", "a.json"], ["--head", "a.json"], ["--base", "a.json"]]
)
def test_compare_takes_two_sides_or_a_folder(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["compare", *arguments]) == 2
    assert messages.TWO_SIDES_OR_A_FOLDER in capsys.readouterr().err


def test_inconclusive_pairs_are_followed_by_five_more_once(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.record(side("base", count=10, noise=0.015), side("head", count=10, noise=0.015))
    assert place.ab() == 2
    assert place.started == TURNS
    out = capsys.readouterr().out
    assert "inconclusive after 5 pairs: ddim50-" in out
    assert "(10 A/B pairs)" in out
    assert json.loads((place.folder / "out" / "ab.json").read_text())["compared"] == 10
    # All there already: compared again, nothing is run, and no advice to repeat it is printed.
    assert place.ab() == 2
    assert len(place.calls) == 20
    out = capsys.readouterr().out
    assert "10 pairs finished earlier" in out
    assert (
        "  next      10 pairs with this noise would not resolve it: rerun on a quieter machine"
        in out
    )
    assert "diffusers-perf ab" not in out


def test_noise_too_large_for_ten_pairs_adds_no_pairs(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.record(side("base", count=10, noise=0.06), side("head", count=10, noise=0.06))
    assert place.ab() == 2
    assert place.started == TURNS[:10]
    out = capsys.readouterr().out
    assert "inconclusive after 5 pairs: ddim50-reference, " in out
    assert "; more pairs would not resolve it\n" in out
    assert (
        "  next      10 pairs with this noise would not resolve it: rerun on a quieter machine"
        in out
    )


def test_pairs_that_are_all_invalid_are_followed_by_no_more(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = side("base", count=10), side("head", count=10)
    for content in head:
        for one in cases(content):
            one["measurement"]["interference"]["gpu"] = ["another process used the GPU"]
    place.record(base, head)
    for _ in range(2):
        assert place.ab() == 2
        assert place.started == TURNS[:6]
        out = capsys.readouterr().out
        assert messages.no_time_counts(3) in out
        assert "rerun on a quieter machine" in out
        assert "--minutes" not in out
    assert json.loads((place.out / "ab.json").read_text())["complete"]


def test_metric_that_is_invalid_in_all_pairs_adds_no_pairs(place: Place) -> None:
    """GPU busy times are valid, and five pairs tell them."""
    base, head = side("base", count=10), side("head", count=10)
    for content in head:
        for drift in session(content)["reference_drift"].values():
            drift.update(ratio=1.2, significant=True)
    place.record(base, head)
    assert place.ab() == 2
    assert place.started == TURNS[:10]


def test_result_that_more_pairs_could_settle_names_the_command(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "monotonic", itertools.count(step=10).__next__)
    place.record(side("base", count=10, noise=0.015), side("head", count=10, noise=0.015))
    options = ("--quick", "--device=cuda")
    pytests = ("--", "-k", "fp16 or reference")
    assert place.ab(*options, "--minutes=1.8", *pytests) == 2
    given = " ".join(f"--{n}-python {place.folder / n / 'python'}" for n in ("base", "head"))
    assert (
        f"            diffusers-perf ab {given} --quick --device cuda --baselines "
        f"{place.folder / 'baselines'} --out {place.folder / 'out'} --minutes 4 "
        "-- -k 'fp16 or reference'\n"
    ) in capsys.readouterr().out
    # And with as much time it is all that is to be done.
    assert place.ab(*options, "--minutes=4", *pytests) == 2
    assert place.started == TURNS


def test_runs_of_a_comparison_name_the_command_that_goes_on_with_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "monotonic", itertools.count(step=10).__next__)
    place.record(side("base", count=10, noise=0.015), side("head", count=10, noise=0.015))
    options = ("--quick", "--device=cuda", "--", "-k", "fp16 or reference")

    def compared() -> list[str]:
        """The commands that are proposed for all pairs that were made."""
        made = range(1, len(place.calls) // 2 + 1)
        base, head = ([str(place.run(one, n)) for n in made] for one in ("base", "head"))
        assert command.main(["compare", "--base", *base, "--head", *head]) == 2
        return re.findall("diffusers-perf (.*)", capsys.readouterr().out)

    assert place.ab("--minutes=0.9", *options) == 2
    assert place.started == TURNS[:4]
    while len(place.started) < 20:
        capsys.readouterr()
        (line,) = {one for one in compared() if one.startswith("ab ")}
        assert f"--out {place.out} --minutes " in line
        assert line.endswith("-- -k 'fp16 or reference'")
        before = len(place.started)
        # Pasted, it goes on there.
        assert command.main(shlex.split(line)) == 2
        assert len(place.started) > before
    assert place.started == TURNS
    capsys.readouterr()
    # Complete, it does not go on.
    assert not any("--out" in one for one in compared())


def test_comparison_of_commits_goes_on_with_those_that_were_measured(tmp_path: Path) -> None:
    """A branch may have moved since."""
    settings: dict[str, Setting] = {"pytest": ("--quick", "-m", "guide")}
    settings |= {"base": "a" * 40, "head": "b" * 40}
    asked = state.Asked(
        options=("--base", "origin/main", "--head", "change", "--quick"), pytest=("-m", "guide")
    )
    made = state.State(path=tmp_path / "ab.json", settings=settings, asked=asked)
    made.finished = [state.Finished(side=one, pair=1, seconds=60) for one in ("base", "head")]
    made.save()
    runs = [[made.run(one, 1)] for one in ("base", "head")]
    assert state.more_of(*runs) == (
        f"diffusers-perf ab --base {12 * 'a'} --head {12 * 'b'} --quick --out {tmp_path} "
        "--minutes 11 -- -m guide"
    )
    made.complete = True
    made.save()
    assert state.more_of(*runs) == ""


def test_kill_loses_one_pair(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.act('if [ "$name" = head-3 ]; then kill -TERM $PPID; exec sleep 60; fi')
    assert place.ab() == 2
    assert place.started == TURNS[:6]
    assert "run the same command again" in capsys.readouterr().err
    # A process that was ended can have left half a run.
    (place.folder / "out" / "head-3.json").write_text('{"benchmarks": [')
    place.act("")
    assert place.ab() == 0
    assert place.started == [*TURNS[:6], *TURNS[4:10]]
    out = capsys.readouterr().out
    assert "2 pairs finished earlier" in out
    assert "(5 A/B pairs)" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_leaves_no_process_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        """While it is started, and once more while it is ended."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            signal.raise_signal(number)

        def wait(self, timeout: float | None = None) -> int:
            signal.raise_signal(number)
            return super().wait(timeout)

    place.act("exec sleep 60")
    # From here on: what asks the environments for their versions is interrupted as everything is.
    whole = turns.Turns.judge

    def judge(self: turns.Turns) -> int:
        monkeypatch.setattr(subprocess, "Popen", Interrupted)
        return whole(self)

    monkeypatch.setattr(turns.Turns, "judge", judge)
    assert place.ab() == 2
    (process,) = started
    assert process.returncode == -signal.SIGTERM
    with held(place.folder / "out", by="ab"):
        pass  # and no other process uses it


def test_process_that_exceeds_the_budget_is_not_started(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked before and after each process: ten seconds for one.
    monkeypatch.setattr(turns, "monotonic", itertools.count(step=10).__next__)
    # Five would fit, and no process is run that would have no partner.
    assert place.ab("--minutes=0.9") in (0, 2)  # by so few pairs, as it happens
    out = capsys.readouterr().out
    assert "stopped: 0.7 of 0.9 min used" in out
    assert "the same command with --minutes 3 runs the other 6" in out
    assert place.started == TURNS[:4]
    assert "(2 A/B pairs)" in out
    # The budget may change: with a larger one the same folder is continued.
    assert place.ab() == 0
    assert place.started == TURNS[:10]


def test_process_ends_with_the_budget(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.act("sleep 60")
    assert place.ab("--minutes=0.005") == 2
    captured = capsys.readouterr()
    assert "stopped: base-1 was stopped after" in captured.out
    assert "an interval needs 2 pairs" in captured.err


def test_run_with_failed_tests_is_compared(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.act("code=1")
    assert place.ab() == 0
    assert "some of them failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "shell",
    [
        'echo "--device cuda: torch sees no CUDA GPU here"; exit 4',
        'echo "--device cuda: torch sees no CUDA GPU here"; kill -9 $$',
        'echo "--device cuda: torch sees no CUDA GPU here"; exit 0',
    ],
)
def test_process_that_measured_nothing_ends_the_comparison(
    place: Place, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    place.act(f'if [ "$name" = head-1 ]; then {shell}; fi')
    assert place.ab() == 2
    error = capsys.readouterr().err
    assert "error: head 1 ended with exit code" in error
    assert "torch sees no CUDA GPU here" in error
    assert place.started == TURNS[:2]


def _all_fail(contents: Sequence[Content]) -> None:
    for content in contents:
        names = session(content)["expected"]
        why = "ValueError: no such scheduler (pipeline.py, line 45)"
        session(content)["not_timed"] = [lost(name, "error", f"{name}: {why}") for name in names]
        content["benchmarks"] = []


def test_head_that_fails_in_every_case_is_an_error(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    head = side("head")
    _all_fail(head)
    place.record(side("base"), head)
    place.act("[ ${name%-*} = base ] || code=1")
    for _ in range(2):  # kept
        assert place.ab() == 1
        captured = capsys.readouterr()
        said = "  ddim50-fp16: ValueError: no such scheduler (pipeline.py, line 45)\n"
        assert "\nerror: case in 5 cases\n" in captured.out
        assert said in captured.out
        assert f"{messages.HEAD_FAILS}\n" in captured.out
        assert "the other pairs measure times" not in captured.out
        assert captured.err == ""
        assert place.started == TURNS[:2]
    assert command.main(["report", str(place.out), "--html", str(place.folder / "a.html")]) == 0
    assert "no such scheduler" in (place.folder / "a.html").read_text()


def test_base_that_fails_in_every_case_says_why(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    base = side("base")
    _all_fail(base)
    place.record(base, side("head"))
    place.act("code=1")
    assert place.ab() == 2
    first, *cases = capsys.readouterr().err.splitlines()
    assert first == "error: base 1 measured nothing, since every case failed:"
    assert "  ddim50-fp16: ValueError: no such scheduler (pipeline.py, line 45)" in cases
    assert place.started == TURNS[:1]


def test_run_that_cannot_be_read_says_why(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.act('if [ "$name" = head-1 ]; then echo "{}" > "$path"; exit 0; fi')
    assert place.ab() == 2
    assert re.search(r"measured nothing \(.*head-1\.json", capsys.readouterr().err)


def test_other_settings_in_the_same_folder_are_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.ab("--quick") == 0
    assert place.ab() == 2
    assert "measured otherwise (pytest: --quick, now none)" in capsys.readouterr().err
    assert len(place.calls) == 10


def test_second_process_in_the_same_folder_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(place.folder / "out", by="ab"):
        assert place.ab() == 2
    assert "is in use by another ab" in capsys.readouterr().err
    assert place.calls == []


def test_process_left_by_a_killed_ab_is_waited_for(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.act('echo $$ >"$here/../orphan"; exec sleep 60')
    options = [f"--{name}-python={place.folder / name / 'python'}" for name in ("base", "head")]
    killed = subprocess.Popen(
        [sys.executable, "-m", "ci", "ab", *options, f"--out={place.folder / 'out'}"],
        cwd=repository(),
        stdout=subprocess.DEVNULL,
    )
    orphan = place.folder / "orphan"
    while not (orphan.exists() and orphan.read_text().strip()):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert place.ab() == 2
    assert "in use by another ab, or by a process that one left" in capsys.readouterr().err
    os.killpg(int(orphan.read_text()), signal.SIGKILL)


def test_incomparable_runs_end_it_after_the_first_pair(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    head = side("head")
    for content in head:
        session(content)["harness_version"] = "another"
    place.record(side("base"), head)
    assert place.ab() == 2
    assert "different versions of the measuring code" in capsys.readouterr().err
    assert place.ab() == 2
    assert "1 pair finished earlier" in capsys.readouterr().out
    assert place.started == TURNS[:2]
    assert "compared" not in json.loads((place.folder / "out" / "ab.json").read_text())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "needs either --base and --head"),
        (["--base=HEAD"], "needs either --base and --head"),
        (["--base=HEAD", "--head=HEAD", "--head-python=python3"], "needs either --base and"),
        (["--base-python=/nowhere", "--head-python=python3"], "/nowhere: no such program"),
        (["--base-python=/bin/true", "--head-python=python3"], "/bin/true: cannot run this suite"),
        (["--base-python=/bin/sh", "--head-python=python3"], "/bin/sh: cannot run this suite"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["ab", f"--out={tmp_path / 'out'}", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_folder_that_ab_did_not_write_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.folder / "out").write_text("a file")
    assert place.ab() == 2
    said = f"--out {place.folder / 'out'}: cannot be written ({place.folder / 'out'} is a file,"
    assert said in capsys.readouterr().err
    (place.folder / "out").unlink()
    (place.folder / "out").mkdir()
    for content in (
        "{",
        "[" * 100_000,
        '{"settings": {"pytest": [1]}, "finished": []}',
        '{"settings": {"pytest": 1}, "finished": []}',
        '{"settings": {}, "finished": [{"side": "x", "pair": 1, "seconds": 1}]}',
        '{"settings": {}, "finished": [{"side": "base", "pair": 0, "seconds": 1}]}',
        '{"settings": {}, "finished": [{"side": "base", "pair": "x", "seconds": 1}]}',
        '{"settings": {}, "finished": [{"side": "base", "pair": 1, "seconds": null}]}',
        '{"settings": {}, "finished": [{"side": "base", "pair": 1, "seconds": NaN}]}',
    ):
        (place.folder / "out" / "ab.json").write_text(content)
        assert place.ab() == 2
        assert "not written by ab" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["ab", "bisect", "explore", "fleet"])
def test_folder_with_other_files_is_refused(tmp_path: Path, by: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "__init__.py").touch()
    with pytest.raises(Refusal, match=rf"--out {source} has files that {by} did not write"):
        held(source, by=by).__enter__()
    assert [path.name for path in source.iterdir()] == ["__init__.py"]


def test_folder_of_an_interrupted_start_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".gitkeep").touch()
    for _ in range(2):
        with held(tmp_path / "out", by="bisect"):
            (tmp_path / "out" / "env-torch-2.10.0").mkdir(exist_ok=True)
    (tmp_path / "out" / "lock").unlink()
    (tmp_path / "out" / "bisect.json").touch()
    with held(tmp_path / "out", by="bisect"):
        pass


def test_comparison_without_out_leaves_other_files_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    other = place.folder / "runs" / "ab" / "notes.txt"
    other.parent.mkdir(parents=True)
    other.touch()
    without_out = [one for one in place.arguments() if not one.startswith("--out=")]
    assert command.main(without_out) == 0
    assert [*other.parent.iterdir()] == [other]
    assert (place.folder / "runs" / "ab-2" / "ab.json").exists()


def test_arguments_that_select_no_case_are_one_sentence(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.act("exit 5")
    assert place.ab("--", "-k", "nosuchcase") == 2
    log = place.folder / "out" / "base-1.log"
    said = f"base 1 measured nothing: no case is selected by -k nosuchcase (log: {log})"
    assert capsys.readouterr().err == f"error: {said}\n"


def test_checkout_without_perf_tests_is_said(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    log = place.folder / "out" / "base-1.log"
    place.act("exit 5")
    assert place.ab("--", "-k", "fp16") == 2
    said = "this checkout has no perf_tests/, and elsewhere no case is selected by -k fp16"
    assert capsys.readouterr().err == f"error: base 1 measured nothing: {said} (log: {log})\n"
    # Of tests that are not of this suite, all are skipped, or some cannot be imported.
    for code in (0, 2):
        place.act(f"exit {code}")
        assert place.ab("--", "-k", "fp16") == 2
        said = f"exit code {code} and measured nothing (this checkout has no perf_tests/). Its"
        assert said in capsys.readouterr().err


def test_restarted_side_compiles_into_an_empty_cache(place: Place) -> None:
    place.act(
        'mkdir -p "${TRITON_CACHE_DIR%/*}"; touch "${TRITON_CACHE_DIR%/*}/$name"\n'
        "[ $name != head-1 ] || exit 9"
    )
    assert place.ab() == 2
    place.act(
        'ls "${TRITON_CACHE_DIR%/*}" 2>/dev/null | wc -l >>"$here/../left"\n'
        'mkdir -p "${TRITON_CACHE_DIR%/*}"; touch "${TRITON_CACHE_DIR%/*}/$name"'
    )
    assert place.ab() == 0
    # The first process of each side found nothing, and each later one what came before it.
    left = (place.folder / "left").read_text().split()
    assert left == ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"]


def test_environment_is_kept_only_for_the_same_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, env = tmp_path / "base", tmp_path / "env"
    (checkout / "ci").mkdir(parents=True)
    ran: list[Sequence[str]] = []

    def run(checkout: Path, command: Sequence[str]) -> None:
        env.mkdir(exist_ok=True)
        ran.append(command)

    monkeypatch.setattr(environments, "_run", run)

    def installs(torch: str, others: str) -> int:
        ran.clear()
        (checkout / "ci" / "torch.txt").write_text(f"torch=={torch}\n")
        (checkout / "ci" / "requirements.txt").write_text(f"diffusers=={others}\n")
        assert environments.environment(checkout, env) == env / "bin" / "python"
        return len(ran)

    assert installs("2.12.0", "1") == 3
    assert "--require-hashes" in ran[-1]
    assert "torch==2.12.0" in ran[-2]
    assert installs("2.12.0", "1") == 0
    assert installs("2.13.0", "1") == 3
    assert installs("2.13.0", "2") == 3
    assert installs("2.13.0", "2") == 0


def test_overlay_adds_what_the_current_environment_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a requirement's own requirements too, with their extras and markers."""
    requires = {
        "acme": ["pytest>=1", "coffee[milk]>=2", "tea; extra == 'tea'"],
        "coffee": ["cow; extra == 'milk'", "beans; python_version < '3'"],
    }
    site = tmp_path / "lib" / "python3" / "site-packages"
    asked: list[Sequence[str]] = []

    def run(checkout: Path, command: Sequence[str]) -> None:
        site.mkdir(parents=True, exist_ok=True)
        if "--no-deps" not in command:
            return
        asked.append(command[command.index("--no-deps") + 1 :])
        for text in asked[-1]:
            name = re.split(r"\W", text)[0]
            metadata = site / f"{name}-2.0.dist-info" / "METADATA"
            metadata.parent.mkdir(exist_ok=True)
            lines = [f"Requires-Dist: {one}" for one in requires.get(name, [])]
            metadata.write_text("\n".join([f"Name: {name}", "Version: 2.0", *lines, ""]))

    monkeypatch.setattr(environments, "_run", run)
    for _ in range(2):  # kept
        environments.overlay(tmp_path, ["acme==2.0"])
        assert asked == [
            ["acme==2.0"],
            ["acme==2.0", "coffee[milk]>=2"],
            ["acme==2.0", "coffee[milk]>=2", "cow"],
        ]


def test_suite_may_come_from_the_checkout_and_not_from_its_requirements(tmp_path: Path) -> None:
    venv = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")]
    subprocess.run(venv, check=True)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    python, site = tmp_path / "env" / "bin" / "python", tmp_path / "site"

    def install(folder: Path, name: str) -> None:
        metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")

    for name in (*environments.PACKAGES, "pytest-benchmark"):
        install(packages, name)
    install(site, "diffusers-perf")
    with pytest.raises(Refusal, match=r"cannot run this suite .*diffusers-perf"):
        environments.probe(python, "base")
    versions, _ = environments.probe(python, "base", site)
    assert versions["torch"] == "1.0"


@pytest.mark.parametrize(
    "line",
    ["ab --base a --head b", "bisect --good a --bad b --case c --metric kernels"],
    ids=("ab", "bisect"),
)
def test_refs_outside_of_a_repository_are_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert command.main(line.split()) == 2
    said = "error: refs need a git repository here: not a git repository"
    assert capsys.readouterr().err.startswith(said)


def test_incomplete_requirement_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "torch.txt").write_text("torch==2.13.0\n")
    with pytest.raises(Refusal, match=r"has torch.txt but no ci/requirements.txt"):
        environments.requirements_of(tmp_path)


def test_secrets_do_not_reach_measured_code(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "UNKNOWN", "CUDA_HOME"):
        monkeypatch.setenv(name, "seen")
    place.act('env >"$here/../environment"')
    assert place.ab() == 0
    passed = (place.folder / "environment").read_text()
    assert "CUDA_HOME=seen" in passed
    assert "PATH=" in passed
    for name in ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "UNKNOWN"):
        assert name not in passed


@pytest.mark.parametrize(
    ("was", "becomes", "sentence"),
    [
        (
            "0123456789ab",
            "ba9876543210",
            "head's environment changed since it was measured: diffusers (same version, other "
            "files); all pairs are measured anew",
        ),
        ("0.42.1 0123456789ab", "0.43.0 ba9876543210", "measured: diffusers 0.42.1 → 0.43.0; all"),
        ("diffusers", "other", "measured: diffusers 0.42.1 → none, other none → 0.42.1; all"),
    ],
)
def test_changed_environment_is_measured_anew(
    place: Place, capsys: pytest.CaptureFixture[str], was: str, becomes: str, sentence: str
) -> None:
    assert place.ab() == 0
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.05)
    place.record(side("base"), head)
    assert place.ab() == 0  # the same environments: nothing is measured
    assert len(place.calls) == 10
    versions = place.folder / "head" / "versions"
    versions.write_text(versions.read_text().replace(was, becomes))
    capsys.readouterr()
    assert place.ab() == 1
    assert sentence in capsys.readouterr().out
    assert place.started == [*TURNS[:10], *TURNS[:10]]


def test_environment_that_changes_meanwhile_gives_no_verdict(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.act('[ $name != head-3 ] || sed -i s/0123456789ab/ba9876543210/ "$here/versions"')
    assert place.ab() == 2
    said = capsys.readouterr()
    assert "head's environment changed while it was measured: diffusers (same version" in said.err
    assert "A/B pairs" not in said.out
    place.act("")
    assert place.ab() == 0
    assert place.started == [*TURNS[:10], *TURNS[:10]]


def test_environment_is_known_by_its_files(tmp_path: Path) -> None:
    venv = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")]
    subprocess.run(venv, check=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    python, source = tmp_path / "env" / "bin" / "python", tmp_path / "source" / "acme"
    names = (*environments.PACKAGES, "pytest-benchmark", "diffusers-perf", "acme")
    for name in names:
        metadata = site / f"{name.replace('-', '_')}-1.0.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (site / "diffusers").mkdir()
    code, edited = site / "diffusers" / "unet.py", source / "model.py"
    source.mkdir(parents=True)
    for path in (code, edited):
        path.write_text("fast")
    origin = {"url": source.parent.as_uri(), "dir_info": {"editable": True}}
    (site / "acme-1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))

    def changed(path: Path, text: str) -> set[str]:
        _, before = environments.probe(python, "head")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        _, after = environments.probe(python, "head")
        return {name for name in after if before.get(name) != after[name]}

    assert changed(code, "slow") == {"diffusers"}
    assert changed(site / "diffusers" / "__pycache__" / "unet.pyc", "compiled") == set()
    assert changed(edited, "slow") == {"acme"}
    assert changed(site / "hooks.pth", "import os") == {"hooks.pth"}
