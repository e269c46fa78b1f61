"""`diffusers-perf fleet` without a process: what is kept, repeated and missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.fleet.commands import RUN
from diffusers_perf.fleet.jobs import LOG, Event, Finished, Job, Place
from diffusers_perf.fleet.plan import Durations
from diffusers_perf.fleet.run import Fleet
from diffusers_perf.fleet.state import State
from diffusers_perf.records.reading import load_run
from perf_tests.tests.unit.fleets import (
    ASKED,
    IDS,
    FakeExecutor,
    asked_of,
    done,
    encoded,
    lost,
    shard_of,
)
from perf_tests.tests.unit.recorded import black

Run = Callable[..., int]


@pytest.fixture
def run(accepted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`diffusers-perf fleet` with an executor, in a folder with a baseline of its machine."""

    def on(executor: FakeExecutor, *options: str) -> int:
        monkeypatch.setattr("diffusers_perf.fleet.local.Local", lambda *_, **__: executor)
        return command.main(["fleet", "--json=run.json", *options])

    return on


def test_shards_become_one_run_with_the_verdicts_of_one_process(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = FakeExecutor()
    assert run(executor) == 0
    assert len(executor.started) == 2
    whole = load_run(tmp_path / "run.json")
    assert whole.session.expected == IDS
    assert sorted(whole.by_id) == sorted(IDS)
    assert whole.machine.gpu_uuid is None
    placed = {(one.shard, one.host, one.gpu_uuid, one.retries) for one in whole.session.placements}
    assert placed == {(1, "host-0", "GPU-0", 0), (2, "host-0", "GPU-0", 0)}
    assert all(one.seconds == 10 for one in whole.session.placements)
    starts = {one.start_s for one in whole.session.placements}
    # Of ten seconds, each case took two.
    assert starts <= {10 - 2.0 * cases for cases in range(1, 5)}
    assert set(whole.session.durations_s) == set(IDS)
    assert "5 cases: 5 held" in capsys.readouterr().out


def test_next_run_is_planned_by_what_this_one_took(run: Run, tmp_path: Path) -> None:
    assert run(FakeExecutor()) == 0
    (tmp_path / "run-fleet" / "fleet.json").unlink()
    executor = FakeExecutor(places={"H200": 1})
    assert run(executor) == 0
    # Ten seconds of cases: one process, where a minute for each would be cut.
    assert executor.started == ["1-of-1"]


def test_lost_shard_runs_once_more_elsewhere(run: Run, tmp_path: Path) -> None:
    def answer(job: Job, place: Place) -> Event | None:
        return lost(job, place) if (job.name, place.node) == ("1-of-2", "node-0") else None

    executor = FakeExecutor(answer=answer)
    assert run(executor) == 0
    assert sorted(executor.started) == ["1-of-2", "1-of-2", "2-of-2"]
    assert executor.nodes.count("node-1") == 1
    retries = {p.shard: p.retries for p in load_run(tmp_path / "run.json").session.placements}
    assert retries == {1: 1, 2: 0}


def test_shard_that_is_lost_twice_makes_the_run_incomplete(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(FakeExecutor()) == 0
    shutil.rmtree(tmp_path / "run-fleet")

    def answer(job: Job, place: Place) -> Event | None:
        return lost(job, place) if job.name == "1-of-2" else None

    executor = FakeExecutor(answer=answer)
    assert run(executor) == 2
    assert executor.started.count("1-of-2") == 2
    said = capsys.readouterr().out
    first = asked_of(Job(name="", kind="", command=executor.commands["1-of-2"]))
    for case in IDS[first[2] - 1 : first[3]]:
        assert case in said
    assert "missing: shard 1/2" in said
    assert "incomplete: 1 of 2 shards missing" in said
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("code", [-9, 137])
def test_shard_whose_process_is_killed_is_lost(run: Run, code: int, tmp_path: Path) -> None:
    executor = FakeExecutor(
        answer=lambda job, place: done(job, place, code=code) if "1-of" in job.name else None
    )
    assert run(executor) == 2
    assert executor.started.count("1-of-2") == 2
    assert executor.nodes.count("node-1") == 1
    assert (tmp_path / "run-fleet" / "1-of-2" / LOG).read_bytes() == b"its last line\n"


def test_shard_that_fails_beside_its_cases_fails_the_run(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a fixture fails after a case was judged."""

    def answer(job: Job, place: Place) -> Event | None:
        code = 1 if asked_of(job)[0] == 1 else 0
        return done(job, place, code=code, files={RUN: encoded(shard_of(job))})

    assert run(FakeExecutor(answer=answer)) == 1
    said = capsys.readouterr()
    assert "shard 1/2 failed, though none of its cases did" in said.err
    assert "shard 2/2 failed" not in said.err


def test_red_shard_is_not_repeated(run: Run, tmp_path: Path) -> None:
    def answer(job: Job, place: Place) -> Event | None:
        content = shard_of(job)
        if "ddim50-fp16" not in [b["name"].split("[")[1][:-1] for b in content["benchmarks"]]:
            return None
        black(content, "ddim50-fp16")
        return done(job, place, code=1, files={RUN: encoded(content)})

    executor = FakeExecutor(answer=answer)
    assert run(executor) == 1
    assert sorted(executor.started) == ["1-of-2", "2-of-2"]
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("files", [{}, {RUN: b"{}"}])
def test_shard_without_a_run_is_missing_and_not_repeated(
    run: Run, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    executor = FakeExecutor(
        answer=lambda job, place: done(job, place, code=4 if not files else 0, files=files)
    )
    assert run(executor) == 2
    assert sorted(executor.started) == ["1-of-2", "2-of-2"]
    said = capsys.readouterr().out
    assert "its last line" in said
    assert "incomplete: 2 of 2 shards" in said


def test_same_command_goes_on(run: Run, tmp_path: Path) -> None:
    def broken(job: Job, place: Place) -> Event | None:
        if job.name == "2-of-2":
            raise KeyboardInterrupt
        return None

    first, second = FakeExecutor(answer=broken), FakeExecutor()
    assert run(first) == 2
    assert run(second) == 0
    done_first = set(first.started) - {"2-of-2"}
    assert set(second.started) == {"1-of-2", "2-of-2"} - done_first
    assert load_run(tmp_path / "run.json").session.expected == IDS


def test_shard_whose_folder_is_removed_is_measured_anew(run: Run, tmp_path: Path) -> None:
    assert run(FakeExecutor()) == 0
    shutil.rmtree(tmp_path / "run-fleet" / "1-of-2")
    executor = FakeExecutor()
    assert run(executor) == 0
    assert executor.started == ["1-of-2"]


def test_other_settings_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeExecutor()) == 0
    capsys.readouterr()
    assert run(FakeExecutor(), "--suites=guide") == 2
    said = capsys.readouterr().err
    assert "measured otherwise (suites: none, now guide); choose another --json" in said
    assert run(FakeExecutor(device="cpu")) == 2


def test_each_kind_and_model_has_a_run_of_its_own(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = FakeExecutor(places={"H100": 1, "L4": 1})
    assert run(executor, "--models=sd15,./mine", "--suites=guide,lossless") == 0
    written = {path.name for path in tmp_path.glob("run*.json")}
    assert written == {
        f"run-{model}-{kind}.json" for model in ("sd15", "mine") for kind in ("h100", "l4")
    }
    for name, line in executor.commands.items():
        model = "./mine" if "mine" in name else "sd15"
        assert f"--model={model}" in line
        assert line[line.index("-m", 2) + 1] == "guide or lossless"
        assert line[line.index("--device") + 1] == "cuda"
    said = capsys.readouterr().out
    assert "nothing is recorded yet" in said
    assert "shard H100 sd15 1/1 runs on" in said
    shutil.rmtree(tmp_path / "run-fleet")
    again = FakeExecutor(places={"H100": 1, "L4": 1})
    assert run(again, "--models=sd15,./mine", "--suites=guide,lossless") == 0
    assert "nothing is recorded yet" not in capsys.readouterr().out


def test_models_that_share_a_file_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeExecutor(), "--models=a/b,a-b") == 2
    assert "--models" in capsys.readouterr().err


def test_kind_that_is_gone_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(job: Job, place: Place) -> Event | None:
        raise KeyboardInterrupt

    assert run(FakeExecutor(answer=broken)) == 2
    assert run(FakeExecutor(places={"L4": 1})) == 2
    assert "planned for H200, and there is only L4" in capsys.readouterr().err


def test_nothing_selected_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("perf_tests.tests.unit.fleets.listed", lambda: "[]")
    assert run(FakeExecutor(), "--suites=guide", "--", "-k", "nothing") == 2
    assert "no case is selected by -m guide -k nothing" in capsys.readouterr().err


# Comparisons


def compared(job: Job, place: Place, *, code: int, pairs: int = 5) -> Finished:
    state = b'{"settings": {}, "finished": [], "compared": %d}' % pairs
    return done(job, place, code=code, files={"ab.json": state, "base-1.json": b"{}"})


@pytest.mark.parametrize(("codes", "code"), [((0, 0), 0), ((0, 2), 2), ((2, 1), 1)])
def test_comparison_is_one_job_with_both_sides(
    run: Run, codes: Sequence[int], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    first, others = codes

    def answer(job: Job, place: Place) -> Event | None:
        return compared(job, place, code=first if asked_of(job)[0] == 1 else others)

    executor = FakeExecutor(answer=answer)
    assert run(executor, "--ab=--base main --head HEAD --quick", "--", "-k", "fp16") == code
    line = executor.commands[executor.started[0]]
    assert line[:3] == ("-m", "diffusers_perf.cli", "ab")
    assert line[3:8] == ("--base", "main", "--head", "HEAD", "--quick")
    behind = line[line.index("--") :]
    assert behind[1] == "--shard"
    assert behind[-2:] == ("-k", "fp16")
    said = capsys.readouterr().out
    assert said.count("its last line") == len(executor.started) > 1


def test_comparison_that_broke_off_is_missing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    executor = FakeExecutor(answer=lambda job, place: compared(job, place, code=2, pairs=0))
    assert run(executor, "--ab=--base main --head HEAD") == 2
    assert "it compared nothing" in capsys.readouterr().out


@pytest.mark.parametrize("code", [-11, 139, 3])
def test_comparison_that_crashes_is_missing(run: Run, code: int) -> None:
    """Even though it has compared five pairs."""

    def answer(job: Job, place: Place) -> Event | None:
        return compared(job, place, code=code if asked_of(job)[0] == 1 else 0)

    assert run(FakeExecutor(answer=answer), "--ab=--base main --head HEAD") == 2


# Baselines


def test_shards_and_verdict_use_the_same_baselines(run: Run, tmp_path: Path) -> None:
    executor = FakeExecutor()
    run(executor, "--baselines=mine")
    assert all("--baselines=mine" in line for line in executor.commands.values())
    elsewhere = FakeExecutor(answer=lambda job, place: compared(job, place, code=0))
    run(elsewhere, "--json=pr.json", "--baselines=/elsewhere", "--ab=--base main --head HEAD")
    line = elsewhere.commands[elsewhere.started[0]]
    assert "--baselines=/elsewhere" in line[: line.index("--")]


# Bad input


def refused(line: list[str]) -> int:
    """The exit code, also where argparse ends the process."""
    try:
        return command.main(line)
    except SystemExit as error:
        return int(error.code or 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--json=."], "--json needs the name of a file"),
        (["--json=baselines"], "baselines: cannot be written (Is a directory)"),
        (["--json=pipe"], "pipe: cannot be written (not a regular file)"),
        (["--json=run.json", "--device=cuda"], "--device cuda: torch sees no CUDA GPU here"),
        (["--json=run.json", "--durations=none.json"], "none.json: cannot be read"),
        (["--json=run.json", "--models=,"], "--models: must name at least one"),
        (["--json=run.json", "--ab='--base"], "--ab: must be quoted as in a shell"),
        (["--json=run.json", "--suites="], "--suites: must name at least one"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str],
    sentence: str,
    no_baselines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("diffusers_perf.fleet.local.gpus", list)
    if "--device=cuda" not in options:
        options = [*options, "--device=cpu"]
    os.mkfifo("pipe")
    assert refused(["fleet", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_file_that_cannot_be_written_is_found_before_anything_runs(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run-mine.json").mkdir()
    executor = FakeExecutor()
    assert run(executor, "--models=sd15,./mine") == 2
    assert executor.started == []
    assert "run-mine.json" in capsys.readouterr().err


def test_state_of_another_program_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run-fleet").mkdir()
    (tmp_path / "run-fleet" / "fleet.json").write_text("{}")
    assert run(FakeExecutor()) == 2
    assert "not written by fleet" in capsys.readouterr().err


def test_files_of_a_job_stay_in_its_folder(tmp_path: Path) -> None:
    executor = FakeExecutor(
        answer=lambda job, place: done(
            job, place, files={RUN: encoded(shard_of(job)), "../x.json": b"", "/x.json": b""}
        )
    )
    state = State.open(tmp_path / "in" / "folder", {})
    state.folder.mkdir(parents=True)
    fleet = Fleet(asked=ASKED, executor=executor, state=state, root=tmp_path)
    fleet.plan(Durations(cases={}))
    fleet.run()
    assert not fleet.missing()
    assert not [*tmp_path.rglob("x.json")]
