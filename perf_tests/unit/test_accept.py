"""`python -m ci accept`: what it writes from runs of the main job, and which runs it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ci import __main__ as command
from perf_tests.harness import baselines, closeness
from perf_tests.harness.baselines import Limits
from perf_tests.harness.records import Count

GPU = {
    "device": "cuda",
    "name": "Made Up GPU",
    "compute_capability": [9, 0],
    "memory_bytes": 80_000_000_000,
    "driver": "580.1",
    "cuda": "13.0",
    "threads": 8,
    "python": "3.12.3",
    "torch": "2.13.0",
    "diffusers": "0.42.1",
    "transformers": "5.17.0",
}
CPU = GPU | {"device": "cpu", "name": "Made Up CPU", "compute_capability": None, "driver": None}
KEY = "small/made/up/"

Run = dict[str, Any]


def case(name: str, *, latency_s: float, verdict: str = "new", casts: int = 0) -> Run:
    """One benchmark of a run, as far as accepting reads it."""
    info = {
        "workload": "small",
        "model": "made",
        "weights": "up",
        "case": name,
        "verdict": verdict,
        "picture_only": False,
        "latency_s": latency_s,
        "latency_speedup": None if name == "reference" else 2 / latency_s,
        "gpu_busy_s": None,
        "gpu_speedup": None,
        "peak_memory_bytes": None,
        "counters": {
            "recompiles": {"fixed": 0, "per_step": 0, "total": 0},
            "casts": {"fixed": casts, "per_step": 0, "total": casts},
            "allocations": {"fixed": 9, "per_step": 9, "total": 9},
        },
    }
    return {"extra_info": info}


def run_of(number: int, machine: Run = GPU) -> Run:
    return {
        "datetime": "2026-11-22T10:00:00+00:00",
        "machine_info": {"perf_tests": dict(machine)},
        "perf_tests": {"schema": 1, "reference_drift": {}, "not_timed": []},
        "benchmarks": [
            case("reference", latency_s=2 + 0.01 * number),
            case("fp16", latency_s=1 + 0.01 * number, casts=4),
        ],
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "baselines"
    monkeypatch.setattr(baselines, "FOLDER", folder)
    return folder


def written(tmp_path: Path, runs: list[Run]) -> list[str]:
    """The runs' files, each with its reference's picture beside it."""
    paths = []
    for number, run in enumerate(runs):
        path = tmp_path / f"run{number}.json"
        path.write_text(json.dumps(run))
        pictures = tmp_path / f"run{number}-pictures"
        pictures.mkdir(exist_ok=True)
        drawn = np.random.default_rng(0).random((1, 128, 128, 3), dtype=np.float32)
        closeness.save(drawn, pictures / "small-reference.png")
        paths.append(str(path))
    return paths


def test_writes_the_baseline_the_history_and_the_references_picture(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, [run_of(number) for number in range(3)])
    assert command.main(["accept", *paths, "--reason", "first"]) == 0
    assert "accepted 2 cases from 3 processes into made-up-gpu.json" in capsys.readouterr().out
    baseline = baselines.load_machine("made-up-gpu")
    assert baseline is not None
    assert baseline.cases.keys() == {KEY + "reference", KEY + "fp16"}
    fp16 = baseline.cases[KEY + "fp16"]
    assert fp16.latency_s == (1.0, 1.01, 1.02)
    assert fp16.accepted == "2026-11-22"
    assert fp16.versions == {
        "python": "3.12.3",
        "torch": "2.13.0",
        "diffusers": "0.42.1",
        "transformers": "5.17.0",
        "driver": "580.1",
    }
    nothing = Count(fixed=0, per_step=0)
    # What nobody judges, as allocations, is not kept.
    assert fp16.counters == {"recompiles": nothing, "casts": Count(fixed=4, per_step=0)}
    assert fp16.limits == Limits(latency_speedup_min=1.7647)
    reference = baseline.cases[KEY + "reference"]
    assert reference.latency_speedup == ()
    assert reference.limits == Limits(latency_s_max=2.222)
    history = (folder / "HISTORY.md").read_text()
    assert (
        f"- 2026-11-22 `{KEY}fp16`: new → latency 1.000 s. first (python 3.12.3, torch 2.13.0, "
        in history
    )
    (picture,) = (folder / "pictures").iterdir()
    assert closeness.load(picture).shape == (1, 64, 64, 3)


def test_accepting_again_adds_to_the_history(tmp_path: Path, folder: Path) -> None:
    paths = written(tmp_path, [run_of(number) for number in range(3)])
    for reason in ("first", "second"):
        assert command.main(["accept", *paths, "--reason", reason]) == 0
    last = (folder / "HISTORY.md").read_text().splitlines()[-1]
    assert f"`{KEY}fp16`: latency 1.000 s → latency 1.000 s. second" in last


def test_a_counter_that_varies_between_processes_is_left_out(tmp_path: Path, folder: Path) -> None:
    runs = [run_of(number) for number in range(3)]
    runs[1]["benchmarks"][1]["extra_info"]["counters"]["casts"]["fixed"] = 5
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    baseline = baselines.load_machine("made-up-gpu")
    assert baseline is not None
    assert set(baseline.cases[KEY + "fp16"].counters) == {"recompiles"}


def test_a_counter_that_moves_is_known_to_and_one_that_some_lack_is_not(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_of(number) for number in range(3)]
    counters = [run["benchmarks"][1]["extra_info"]["counters"] for run in runs]
    counters[1]["casts"]["fixed"] = 5
    for one in counters[1:]:
        one["host_syncs"] = {"fixed": 3, "per_step": 0}
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    printed = capsys.readouterr().out
    assert "left out: small-fp16 counts casts differently in each process" in printed
    assert "left out: small-fp16 counts host_syncs in some of the processes alone" in printed
    baseline = baselines.load_machine("made-up-gpu")
    assert baseline is not None
    assert baseline.cases[KEY + "fp16"].moving == ("casts",)


def test_accepting_a_speed_moves_no_picture(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, [run_of(number) for number in range(3)])
    assert command.main(["accept", *paths, "--reason", "first"]) == 0
    (picture,) = (folder / "pictures").iterdir()
    assert f"`{picture.name}`: pictures. first" in (folder / "HISTORY.md").read_text()
    before = picture.read_bytes()
    other = np.zeros((1, 128, 128, 3), dtype=np.float32)
    closeness.save(other, tmp_path / "run0-pictures" / "small-reference.png")
    assert command.main(["accept", *paths, "--reason", "second"]) == 0
    assert picture.read_bytes() == before
    assert "pictures. second" not in (folder / "HISTORY.md").read_text()
    assert command.main(["accept", paths[0], "--pictures-only", "--reason", "third"]) == 0
    assert picture.read_bytes() != before
    assert "pictures. third" in (folder / "HISTORY.md").read_text()


def test_what_was_counted_in_the_code_is_no_machines(tmp_path: Path, folder: Path) -> None:
    runs = [run_of(number, CPU) for number in range(3)]
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    baseline = baselines.load_machine("made-up-cpu")
    assert baseline is not None
    assert set(baseline.cases[KEY + "fp16"].counters) == {"recompiles"}


def test_a_case_that_too_few_processes_measured_is_left_out(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_of(number) for number in range(3)]
    runs[2]["benchmarks"].pop()
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    assert f"left out: {KEY}fp16 was measured in 2 of 3 processes" in capsys.readouterr().out
    baseline = baselines.load_machine("made-up-gpu")
    assert baseline is not None
    assert baseline.cases.keys() == {KEY + "reference"}


def test_a_person_may_accept_from_fewer(tmp_path: Path, folder: Path) -> None:
    paths = written(tmp_path, [run_of(number) for number in range(2)])
    fewer = ["accept", *paths, "--processes", "2", "--reason", "a slow machine"]
    assert command.main(fewer) == 0
    baseline = baselines.load_machine("made-up-gpu")
    assert baseline is not None
    assert baseline.cases[KEY + "fp16"].latency_s == (1.0, 1.01)


def test_one_process_given_three_times_is_one(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = written(tmp_path, [run_of(0)])
    assert command.main(["accept", path, path, path, "--reason", "first"]) == 2
    assert "is given twice: each run is a process of its own" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0, "fast", None])
def test_a_time_that_is_no_time_is_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    runs = [run_of(number) for number in range(3)]
    runs[1]["benchmarks"][1]["extra_info"]["latency_s"] = value
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 2
    assert "latency_s is" in capsys.readouterr().err
    assert not folder.exists()


def test_an_empty_reason_is_none(tmp_path: Path, folder: Path) -> None:
    paths = written(tmp_path, [run_of(number) for number in range(3)])
    assert command.main(["accept", *paths, "--reason", " "]) == 2
    assert not folder.exists()


def test_pictures_alone_take_one_run_and_no_speed(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = written(tmp_path, [run_of(0), run_of(1)])
    assert command.main(["accept", path, other, "--pictures-only", "--reason", "look"]) == 2
    assert "error: --pictures-only takes one run, not 2" in capsys.readouterr().err
    assert command.main(["accept", path, "--pictures-only", "--reason", "look"]) == 0
    assert baselines.load_machine("made-up-gpu") is None
    assert len(list((folder / "pictures").iterdir())) == 1
    assert "pictures. look" in (folder / "HISTORY.md").read_text()


def _other_machine(runs: list[Run]) -> None:
    runs[2]["machine_info"]["perf_tests"]["name"] = "Another GPU"


def _other_versions(runs: list[Run]) -> None:
    runs[1]["machine_info"]["perf_tests"]["torch"] = "2.14.0"


def _failed(runs: list[Run]) -> None:
    runs[1]["benchmarks"][1] = case("fp16", latency_s=1, verdict="black")


def _invalid(runs: list[Run]) -> None:
    runs[1]["benchmarks"][1] = case("fp16", latency_s=1, verdict="invalid")


def _not_timed(runs: list[Run]) -> None:
    lost = {"workload": "small", "case": "tiny_vae", "verdict": "not applied", "sentence": ""}
    runs[0]["perf_tests"]["not_timed"].append(lost)


def _twice(runs: list[Run]) -> None:
    runs[0]["benchmarks"].append(case("fp16", latency_s=1))


def _quick(runs: list[Run]) -> None:
    runs[2]["perf_tests"]["quick"] = True


def _drifted(runs: list[Run]) -> None:
    runs[1]["perf_tests"]["reference_drift"] = {"small": {"ratio": 0.9, "significant": True}}


def _busy_host(runs: list[Run]) -> None:
    info = runs[1]["benchmarks"][1]["extra_info"]
    info["validity"] = {"disturbed_by": [], "host_disturbed_by": ["the host waited for a CPU"]}


def _other_schema(runs: list[Run]) -> None:
    runs[0]["perf_tests"]["schema"] = 2


def _of_another_suite(runs: list[Run]) -> None:
    del runs[0]["perf_tests"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda runs: runs.pop(), "2 of 3 processes: between processes the noise is larger"),
        (_other_machine, "run2.json was measured on another machine or with other versions"),
        (_other_versions, "run1.json was measured on another machine or with other versions"),
        (_failed, f"run1.json: {KEY}fp16 is black, which nobody accepts"),
        (_invalid, f"run1.json: {KEY}fp16 is invalid, which nobody accepts"),
        (_not_timed, "run0.json: small-tiny_vae gave no measurement"),
        (_twice, f"run0.json: {KEY}fp16 is in it twice"),
        (_other_schema, "run0.json: has schema 2, this suite reads 1"),
        (_quick, "run2.json was measured with --quick, whose few rounds are for comparing"),
        (_drifted, "run1.json: of small the reference took 0.900 of its first time"),
        (_busy_host, f"run1.json: {KEY}fp16 was disturbed: the host waited for a CPU"),
        (_of_another_suite, "run0.json: was not written by this suite's main job"),
    ],
)
def test_runs_that_hold_nobody_to_anything_are_refused(
    tmp_path: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Run]], object],
    sentence: str,
) -> None:
    runs = [run_of(number) for number in range(3)]
    spoil(runs)
    refused(written(tmp_path, runs), sentence, folder, capsys)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "cannot be read (No such file"), ("{", "is no JSON"), ("[]", "was not written by")],
)
def test_a_file_that_is_no_run_is_refused(
    tmp_path: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    sentence: str,
) -> None:
    path = tmp_path / "no-run.json"
    if text is not None:
        path.write_text(text)
    refused([str(path)], f"{path}: {sentence}", folder, capsys)


def test_a_run_without_its_references_picture_is_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, [run_of(number) for number in range(3)])
    (tmp_path / "run0-pictures" / "small-reference.png").unlink()
    refused(paths, "small-reference.png is missing", folder, capsys)


@pytest.mark.parametrize("content", [b"", b"no picture", b"half"])
def test_a_broken_picture_is_refused_before_anything_is_written(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    paths = written(tmp_path, [run_of(number) for number in range(3)])
    picture = tmp_path / "run0-pictures" / "small-reference.png"
    whole = picture.read_bytes()
    picture.write_bytes(content if content != b"half" else whole[: len(whole) // 2])
    refused(paths, "small-reference.png: is no picture (", folder, capsys)


def refused(
    paths: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says this in one line, returns 2 and writes nothing."""
    assert command.main(["accept", *paths, "--reason", "first"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert not folder.exists()
