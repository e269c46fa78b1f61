"""`diffusers-perf accept`: what it writes from runs of the main job, and which runs it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.messages.plugin import INTERRUPTED
from diffusers_perf.records import image_files
from diffusers_perf.records.baselines import CaseBaseline, rounded
from diffusers_perf.records.measurement import Bits, Count
from diffusers_perf.records.operators import COUNTERS
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.unit.recorded import (
    Content,
    case,
    cases,
    drop,
    lost,
    machine,
    measured,
    process,
    session,
    with_images,
)

FP16 = "ddim50-fp16"
KEY = "ddim50/sd15/seeded-2023/"
KEYS = {
    *(KEY + name for name in ("reference", "tf32", "fp16")),
    "pndm25x4/sd15/seeded-2023/reference",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "baselines"


@pytest.fixture
def runs() -> list[Content]:
    return [process(f"accept-{number}") for number in range(3)]


def written(tmp_path: Path, runs: list[Content]) -> list[str]:
    return [str(path) for path in with_images(runs, tmp_path, "run")]


def lines(machine: str = "nvidia-h200") -> dict[str, CaseBaseline]:
    """What the machine's baseline says of each case."""
    baseline = BaselineStore(Path("baselines")).load_machine(machine)
    assert baseline is not None
    return dict(baseline.cases)


def test_accept_writes_baseline_history_and_reference_images(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    assert "accepted 4 cases from 3 processes into nvidia-h200.json" in capsys.readouterr().out
    assert lines().keys() == KEYS
    fp16, seen = lines()[KEY + "fp16"], [measured(run, FP16) for run in runs]
    assert fp16.measured["latency_s"] == tuple(rounded(median(one["rounds_s"])) for one in seen)
    assert fp16.roofline_s == rounded(min(one["roofline_s"] for one in seen))
    assert fp16.accepted == "2026-11-23"
    assert fp16.versions == {
        "python": "3.12.3",
        "torch": "2.11.0+cu130",
        "diffusers": "0.42.1",
        "transformers": "5.17.0",
        "driver": "580.159.04",
    }
    assert fp16.counters["host_syncs"] == Count(fixed=3, per_step=6)
    # A metric without a rule is not kept, nor is a limit that no rule applies.
    assert set(seen[0]["counters"]) - set(fp16.counters) == {
        "compiled_graphs",
        "allocations",
        "device_to_host_bytes",
        "host_to_device_bytes",
        "graph_launches",
    }
    assert "latency_s_max" not in fp16.limits
    reference = lines()[KEY + "reference"]
    assert "latency_speedup" not in reference.measured
    kept = reference.measured
    assert reference.limits == {
        "latency_s_max": rounded(1.1 * max(kept["latency_s"])),
        "gpu_busy_s_max": rounded(1.02 * sorted(kept["gpu_busy_s"])[1]),
        "peak_memory_bytes_max": rounded(1.02 * max(kept["peak_memory_bytes"])),
        "image_psnr_db_min": rounded(min(kept["image_psnr_db"]) - 3),
    }
    history = (folder / "HISTORY.md").read_text()
    assert (
        f"- 2026-11-23 NVIDIA H200 `{KEY}fp16`: new → GPU busy "
        f"{min(fp16.measured['gpu_busy_s']):.4f} s, latency "
        f"{min(fp16.measured['latency_s']):.3f} s. first (python 3.12.3, torch 2.11.0" in history
    )
    images = [image_files.load(path) for path in (folder / "images").iterdir()]
    assert sorted(image.shape for image in images) == [(1, 64, 64, 3)] * 2 + [(4, 64, 64, 3)]


def test_reason_that_is_not_utf8_is_kept_as_far_as_possible(
    tmp_path: Path, no_baselines: Path
) -> None:
    runs = [process(f"run-{number}") for number in range(3)]
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "caf\udce9"]) == 0
    assert "caf\\xe9" in (no_baselines / "HISTORY.md").read_text()
    assert not list(no_baselines.glob("*.draft"))


def test_accepting_again_adds_to_the_history(
    tmp_path: Path, folder: Path, runs: list[Content]
) -> None:
    paths = written(tmp_path, runs)
    for reason in ("first", "second"):
        assert command.main(["accept", *paths, "--reason", reason]) == 0
    (last,) = (
        line
        for line in (folder / "HISTORY.md").read_text().splitlines()
        if f"`{KEY}fp16`" in line and "second" in line
    )
    was, now = last.split(": ", 1)[1].split(". second")[0].split(" → ")
    assert was == now


def test_varying_counter_is_recorded_and_incomplete_one_is_not(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    counters = [measured(run, FP16)["counters"] for run in runs]
    counters[1]["host_syncs"][0] += 1
    for one in counters[1:]:
        one["casts"] = [3, 0]
    del counters[0]["allocations"]
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    printed = capsys.readouterr().out
    assert "left out: ddim50-fp16: host_syncs differ between processes" in printed
    assert "left out: ddim50-fp16: casts were counted in some processes only" in printed
    fp16 = lines()[KEY + "fp16"]
    assert fp16.moving == ("host_syncs",)
    assert not {"host_syncs", "casts"} & set(fp16.counters)


def test_accepting_a_speed_changes_no_image(
    tmp_path: Path, folder: Path, runs: list[Content]
) -> None:
    paths = written(tmp_path, runs)
    assert command.main(["accept", *paths, "--reason", "first"]) == 0
    image = folder / "images" / "ddim50-sd15-seeded-2023.png"
    assert f"`{image.name}`, " in (folder / "HISTORY.md").read_text()
    before = image.read_bytes()
    other = np.zeros((1, 512, 512, 3), dtype=np.float32)
    image_files.save(other, tmp_path / "run-0-images" / "ddim50-reference.png")
    assert command.main(["accept", *paths, "--reason", "second"]) == 0
    assert image.read_bytes() == before
    assert "images. second" not in (folder / "HISTORY.md").read_text()
    assert command.main(["accept", paths[0], "--images-only", "--reason", "third"]) == 0
    assert image.read_bytes() != before
    assert "images. third" in (folder / "HISTORY.md").read_text()


def test_image_is_accepted_in_the_bits_that_the_run_saved(
    tmp_path: Path, folder: Path, runs: list[Content]
) -> None:
    paths = written(tmp_path, runs)
    saved = tmp_path / "run-0-images" / "ddim50-reference.png"
    accepted = folder / "images" / "ddim50-sd15-seeded-2023.png"
    images = np.divide(image_files.load(saved), 3, dtype=np.float32)
    for bits in get_args(Bits):
        image_files.save(images, saved, bits=bits)
        assert command.main(["accept", paths[0], "--images-only", "--reason", f"{bits}"]) == 0
        assert image_files.load_thumbnail(accepted).bits == bits


def test_counts_of_the_code_are_not_the_machines(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    for run in runs:
        machine(run).update(device="cpu", name="Some CPU")
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    kept = set(lines("some-cpu")[KEY + "fp16"].counters)
    assert "recompiles" in kept
    assert not kept & set(COUNTERS)
    assert ': diffusers-perf structure --write --reason "why"\n' in capsys.readouterr().out
    elsewhere = ["--reason", "first", "--baselines", "else where"]
    assert command.main(["accept", *written(tmp_path, runs), *elsewhere]) == 0
    said = "diffusers-perf structure '--baselines=else where' --write --reason \"why\"\n"
    assert said in capsys.readouterr().out
    # Where they are accepted, they are judged.
    (folder / "operators").mkdir()
    for name in ("ddim50", "pndm25x4"):
        (folder / "operators" / f"{name}.json").touch()
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "again"]) == 0
    assert "structure --write" not in capsys.readouterr().out


def test_case_that_too_few_processes_measured_is_left_out(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    drop(runs[2], FP16)
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    said = capsys.readouterr().out
    assert f"left out: {KEY}fp16 is valid in 2 processes, 3 needed" in said
    assert "1 case left out: measure 1 more on a quiet machine" in said
    assert lines().keys() == KEYS - {KEY + "fp16"}


@pytest.mark.parametrize("interrupted", [True, False])
def test_run_that_stopped_half_way_is_named(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    interrupted: bool,
) -> None:
    """By Ctrl-C, which leaves the case under way invalid, or by pytest's ``-x``."""
    run, expected = runs[2], list(session(runs[2])["expected"])
    for name in (FP16, "pndm25x4-reference"):
        drop(run, name)
    session(run)["expected"] = expected
    if interrupted:
        session(run)["not_timed"].append(lost(FP16, "invalid", INTERRUPTED))
    paths = written(tmp_path, runs)
    why = "was interrupted" if interrupted else "ended early"
    sentence = f"{paths[2]} {why}: {FP16}, pndm25x4-reference have no measurement\n"
    for options in ([*paths, "--reason=x"], [paths[2], "--images-only", "--reason=y"]):
        assert command.main(["accept", *options]) == 0
        assert capsys.readouterr().out.startswith(sentence)
    for line in (["calibrate"], ["history", "add", f"--store={tmp_path / 'history'}"]):
        assert command.main([*line, *paths]) == 0
        assert capsys.readouterr().out.startswith(sentence)
    # A skipped case says nothing of that.
    session(run)["not_timed"] = [lost(name, "skipped") for name in (FP16, "pndm25x4-reference")]
    paths = written(tmp_path, runs)
    assert command.main(["accept", *paths, "--reason=z"]) == 0
    assert "no measurement" not in capsys.readouterr().out


@pytest.mark.parametrize(("unknown", "kept"), [(None, 2), (0, 0)])
def test_line_names_the_cards_of_its_processes(
    tmp_path: Path, folder: Path, runs: list[Content], unknown: int | None, kept: int
) -> None:
    for number, content in enumerate(runs):
        uuid = None if number == unknown else f"GPU-{min(number, 1)}"
        machine(content)["gpu_uuid"] = uuid
    # A process that is left out was not accepted.
    measured(runs[0], FP16)["interference"]["gpu"] = ["throttled"]
    paths = written(tmp_path, runs)
    assert command.main(["accept", *paths, "--reason=z", "--processes=2"]) == 0
    cards = {key: line.cards for key, line in lines().items()}
    assert len(cards[KEY + "fp16"]) == 1
    assert {len(one) for key, one in cards.items() if key != KEY + "fp16"} == {kept}
    assert "GPU-" not in (folder / "nvidia-h200.json").read_text()


@pytest.mark.parametrize("whose", ["its own", "its reference's"])
def test_case_with_interference_is_left_out(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    whose: str,
) -> None:
    half = case(runs[1], FP16)
    which = half["measurement" if whose == "its own" else "reference"]
    which["interference"]["host"] = ["the host waited for a CPU"]
    case(runs[2], FP16)["status"] = "invalid"
    measured(runs[2], FP16)["rounds_s"] = [9.0, 1.6, 1.6, 1.6, 1.6]
    paths = written(tmp_path, runs)
    assert command.main(["accept", *paths, "--reason", "first"]) == 0
    printed = capsys.readouterr().out
    assert f"left out of {paths[1]}: ddim50-fp16: the host waited for a CPU\n" in printed
    not_warm = "first round 5.6x slower than the others"
    assert f"left out of {paths[2]}: ddim50-fp16: {not_warm}" in printed
    assert f"left out: {KEY}fp16 is valid in 1 process, 3 needed" in printed
    assert lines().keys() == KEYS - {KEY + "fp16"}
    history = (folder / "HISTORY.md").read_text()
    assert history.count(" first (") == len(KEYS) - 1
    assert "the host waited" not in history


@pytest.mark.parametrize("beside", [False, True])
def test_case_of_a_cold_reference_is_left_out(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    beside: bool,
) -> None:
    """Also to one that was timed as a reference and has no line of its own."""
    for name in ("ddim50-tf32", FP16):
        case(runs[1], name)["reference"]["rounds_s"] = [9.0, 1.6, 1.6, 1.6, 1.6]
    if beside:
        for run in runs:
            drop(run, "ddim50-reference")
    else:
        case(runs[1], "ddim50-reference")["status"] = "invalid"
        measured(runs[1], "ddim50-reference")["rounds_s"] = [9.0, 1.6, 1.6, 1.6, 1.6]
    paths = written(tmp_path, runs)
    assert command.main(["accept", *paths, "--processes", "2", "--reason", "first"]) == 0
    printed = capsys.readouterr().out
    assert "ddim50-fp16: ddim50-reference: first round 5.6x slower" in printed
    assert len(lines()[KEY + "fp16"].measured["latency_s"]) == 2
    assert f"latency limits of {2 if beside else 3} cases are wide" in printed


def test_changed_workload_can_be_accepted(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    """Until it is accepted the runs are invalid, and their sentence says how that is done."""
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 0
    for run in runs:
        case(run, FP16)["status"] = "invalid"
        for one in cases(run):
            if one["measurement"]["workload"] == "ddim50":
                one["workload"]["guidance_scale"] = 5.0
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "second"]) == 0
    assert "left out of" not in capsys.readouterr().out
    assert lines()[KEY + "fp16"].workload["guidance_scale"] == 5.0


def test_findings_of_a_run_left_out_are_not_printed(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    case(runs[1], FP16)["status"] = "slower"
    measured(runs[1], FP16)["interference"]["gpu"] = ["power brake"]
    measured(runs[2], FP16)["repeat_psnr_db"] = 60.0  # repeated, as far as that is asked
    paths = written(tmp_path, runs)
    assert command.main(["accept", *paths, "--processes", "2", "--reason", "first"]) == 0
    assert "accepted although" not in capsys.readouterr().out


def test_cases_of_a_drifted_reference_are_left_out(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    session(runs[1])["reference_drift"]["ddim50"] = {"ratio": 0.9, "significant": True}
    paths = written(tmp_path, runs)
    assert command.main(["accept", *paths, "--reason", "first"]) == 0
    printed = capsys.readouterr().out
    reason = "reference drift: 0.90x its first timing"
    shown = next(line for line in printed.splitlines() if line.startswith("left out of"))
    assert shown.startswith(f"left out of {paths[1]}: ddim50-reference, ")
    assert shown.endswith(f"ddim50-fp16: {reason}")
    assert not any(key.startswith("ddim50/") for key in lines())
    assert command.main(["accept", *paths, "--processes", "2", "--reason", "second"]) == 0
    assert lines().keys() == KEYS
    assert len(lines()[KEY + "fp16"].measured["latency_s"]) == 2


def test_interference_everywhere_accepts_nothing(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    for one in cases(runs[0]):
        one["measurement"]["interference"]["gpu"] = ["power brake"]
    paths = written(tmp_path, runs)
    sentence = (
        "nothing accepted: each case needs 3 processes without interference (got 2 of each); "
        "measure 1 more on a quiet machine and accept all of them, or set --processes 2"
    )
    refused(paths, sentence, folder, capsys)
    assert command.main(["accept", *paths, "--processes", "2", "--reason", "first"]) == 0
    assert "accepted 4 cases from 2 processes into" in capsys.readouterr().out


def test_file_in_place_of_the_baselines_is_kept(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("mine")
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 2
    sentence = f"error: {folder}: cannot be written ({folder} is a file, not a folder)\n"
    assert capsys.readouterr().err == sentence
    assert folder.read_text() == "mine"


def test_fewer_processes_are_accepted_on_request(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = ["accept", *written(tmp_path, runs[:2]), "--processes", "2", "--reason", "slow"]
    assert command.main(fewer) == 0
    assert len(lines()[KEY + "fp16"].measured["latency_s"]) == 2
    assert "the latency limits of 4 cases are wide" in capsys.readouterr().out


def test_case_that_is_no_longer_declared_leaves_the_baseline(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    def accepted(reason: str) -> set[str]:
        assert command.main(["accept", *written(tmp_path, runs), "--reason", reason]) == 0
        return set(lines())

    def each_says(**ours: object) -> None:
        for run in runs:
            session(run).update(ours)

    assert accepted("first") == KEYS
    for run in runs:
        drop(run, FP16)
    each_says(narrowed=True)
    assert accepted("asked for others") == KEYS
    each_says(narrowed=False, not_selected=[FP16])
    assert accepted("another suite") == KEYS
    each_says(not_selected=[])
    session(runs[1])["expected"].append(FP16)
    assert accepted("declared in one") == KEYS
    session(runs[1])["expected"].remove(FP16)
    was = lines()[KEY + "fp16"]
    capsys.readouterr()
    assert accepted("fp16 is no longer worth it") == KEYS - {KEY + "fp16"}
    assert f"dropped: {KEY}fp16" in capsys.readouterr().out
    assert (
        f"- 2026-11-23 NVIDIA H200 `{KEY}fp16`: GPU busy {min(was.measured['gpu_busy_s']):.4f} s, "
        f"latency {min(was.measured['latency_s']):.3f} s → gone. fp16 is no longer worth it ("
        in (folder / "HISTORY.md").read_text()
    )


def test_history_that_cannot_be_read_is_refused_before_anything_is_accepted(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "HISTORY.md").write_bytes(b"\xff")
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 2
    assert "HISTORY.md: not UTF-8" in capsys.readouterr().err
    assert files(folder) == ["HISTORY.md"]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_history_with_conflict_markers_is_refused(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "HISTORY.md").write_text("<<<<<<< ours\n- a\n=======\n- b\n>>>>>>> theirs\n")
    assert command.main(["accept", *written(tmp_path, runs), "--reason", "first"]) == 2
    assert "HISTORY.md: has conflict markers" in capsys.readouterr().err
    assert files(folder) == ["HISTORY.md"]


def test_damaged_accepted_image_is_replaced(
    tmp_path: Path, folder: Path, runs: list[Content]
) -> None:
    accepting = ["accept", *written(tmp_path, runs), "--reason", "first"]
    assert command.main(accepting) == 0
    image, *_ = (folder / "images").iterdir()
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    assert command.main(accepting) == 0
    assert image.read_bytes() == whole


def test_images_of_another_size_than_the_accepted_ones_are_refused(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = written(tmp_path, runs[:1])
    assert command.main(["accept", path, "--images-only", "--reason", "first"]) == 0
    image = next(one for one in (folder / "images").iterdir() if "vase25" in one.name)
    portrait = np.zeros((1, 64, 32, 3), np.float32)
    image_files.save(portrait, image)
    capsys.readouterr()
    assert command.main(["accept", path, "--images-only", "--reason", "again"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{image.name} has 1 image of 32x64, but the new ones are 1 image of 64x64" in said
    assert image_files.load(image).shape == portrait.shape


def test_unwritable_folder_is_one_sentence(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--reason", "first", "--baselines", "/proc/none"]
    assert command.main(["accept", *written(tmp_path, runs), *options]) == 2
    said = "error: /proc/none: cannot be written (No such file or directory)\n"
    assert said in capsys.readouterr().err


def test_process_given_three_times_counts_once(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = written(tmp_path, runs[:1])
    refused([path] * 3, "is given twice, but each run", folder, capsys)


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0, "fast", None])
def test_non_positive_time_is_refused(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    value: object,
) -> None:
    measured(runs[1], FP16)["rounds_s"][0] = value
    sentence = "not valid JSON" if value != value else "rounds_s[0]: expected `float`"
    refused(written(tmp_path, runs), sentence, folder, capsys)


def test_folder_is_refused_with_the_runs_in_it(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, runs)
    refused(
        [str(tmp_path)],
        f"is a folder; name the runs in it, for example {tmp_path}/*.json",
        folder,
        capsys,
    )
    (tmp_path / "head-1.json").touch()
    refused([str(tmp_path)], f"for example {tmp_path}/head-*.json", folder, capsys)


def test_empty_reason_is_refused(tmp_path: Path, folder: Path, runs: list[Content]) -> None:
    assert command.main(["accept", *written(tmp_path, runs), "--reason", " "]) == 2
    assert not folder.exists()


def test_images_only_takes_one_run_and_no_speed(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = written(tmp_path, runs[:2])
    assert command.main(["accept", path, other, "--images-only", "--reason", "look"]) == 2
    assert "error: --images-only needs one run (got 2)" in capsys.readouterr().err
    assert command.main(["accept", path, "--images-only", "--reason", "look"]) == 0
    assert BaselineStore(Path("baselines")).load_machine("nvidia-h200") is None
    assert len(list((folder / "images").iterdir())) == 3
    assert "images. look" in (folder / "HISTORY.md").read_text()


def test_images_only_asks_nothing_of_other_cases(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[0]
    case(run, FP16)["status"] = "black"
    measured(run, "ddim50-tf32")["ignored"] = ["prompt"]
    drop(run, "pndm25x4-reference")
    session(run)["not_timed"] += [
        lost("ddim50-bf16", "not applied", "ddim50-bf16: bf16 did not take effect"),
        lost("pndm25x4-reference", "error", "pndm25x4-reference: out of memory\nfreed nothing"),
    ]
    (path,) = written(tmp_path, [run])
    options = ["accept", path, "--images-only", "--reason", "look"]
    assert command.main(options) == 0
    assert capsys.readouterr().out == (
        f"left out of {path}: pndm25x4-reference: out of memory\n"
        "accepted 2 reference images; commit baselines\n"
    )
    case(run, "ddim50-reference")["status"] = "black"
    written(tmp_path, [run])
    assert command.main(options) == 2
    said = f"{path}: {KEY}reference is black, which cannot be accepted"
    assert said in capsys.readouterr().err


def _other_machine(runs: list[Content]) -> None:
    machine(runs[2])["name"] = "Another GPU"


def _other_versions(runs: list[Content]) -> None:
    machine(runs[1])["torch"] = "2.14.0"


def _other_stopwatch(runs: list[Content]) -> None:
    session(runs[1])["harness_version"] = "ba9876543210"


def _other_workload(runs: list[Content]) -> None:
    case(runs[1], FP16)["workload"]["guidance_scale"] = 1.0


def _failed(runs: list[Content]) -> None:
    case(runs[1], FP16)["status"] = "black"


def _not_repeated(runs: list[Content]) -> None:
    worse = case(runs[1], FP16)
    worse["status"] = "worse image"
    worse["measurement"]["repeat_psnr_db"] = 31.4


def _ignored(runs: list[Content]) -> None:
    worse = case(runs[1], FP16)
    worse["status"] = "worse image"
    worse["measurement"]["ignored"] = ["prompt"]


def _not_timed(runs: list[Content]) -> None:
    session(runs[0])["not_timed"].append(lost("ddim50-bf16", "not applied"))


def _twice(runs: list[Content]) -> None:
    runs[0]["benchmarks"].append(runs[0]["benchmarks"][2])


def _quick(runs: list[Content]) -> None:
    session(runs[2])["quick"] = True


def _few_rounds(runs: list[Content]) -> None:
    measured(runs[2], FP16)["rounds_s"] = [1.6, 1.7]


def _other_schema(runs: list[Content]) -> None:
    session(runs[0])["schema"] = 3


def _of_another_suite(runs: list[Content]) -> None:
    del runs[0]["diffusers_perf"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda runs: runs.pop(), "accept needs 3 processes (got 2)"),
        (_other_machine, "were measured on different machines or with different versions"),
        (_other_versions, "were measured on different machines or with different versions"),
        (_other_stopwatch, "were measured by different versions of the measuring code"),
        (
            _other_workload,
            "run-1.json differ in the workload of ddim50 (guidance_scale): 7.5 and 1.0",
        ),
        (_failed, f"run-1.json: {KEY}fp16 is black, which cannot be accepted"),
        (_not_repeated, f"{KEY}fp16 generated another image from the same seed (31.4 dB apart)"),
        (_ignored, f"run-1.json: {KEY}fp16 generated the same image from another prompt, which"),
        (_not_timed, "run-0.json: ddim50-bf16 has no measurement"),
        (_twice, f"run-0.json: has the case {KEY}fp16 twice"),
        (_other_schema, "run-0.json: has schema 3; this version reads schema 2"),
        (_quick, "run-2.json was measured with --quick, which has too few rounds"),
        (_few_rounds, f"run-2.json: {KEY}fp16 has 2 rounds, at least 3 needed; run"),
        (_of_another_suite, "run-0.json: not a run of this suite"),
    ],
)
def test_runs_without_a_judged_case_are_refused(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Content]], object],
    sentence: str,
) -> None:
    spoil(runs)
    refused(written(tmp_path, runs), sentence, folder, capsys)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "cannot be read (No such file"), ("{", "not valid JSON"), ("[]", "not a run of")],
)
def test_file_that_is_not_a_run_is_refused(
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


def test_run_without_its_references_image_is_refused(
    tmp_path: Path, folder: Path, runs: list[Content], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, runs)
    (tmp_path / "run-0-images" / "ddim50-reference.png").unlink()
    refused(paths, "ddim50-reference.png is missing", folder, capsys)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 512, 512), (1, 64, 65), (4096, 1, 1)])
def test_image_of_another_size_is_refused(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int, int, int],
) -> None:
    """It would take the place of the only accepted image."""
    paths = written(tmp_path, runs)
    image = tmp_path / "run-0-images" / "pndm25x4-reference.png"
    image_files.save(np.zeros((*shape, 3), dtype=np.float32), image)
    refused(paths, "but the run says 4 images of 512x512", folder, capsys)
    assert command.main(["accept", paths[0], "--images-only", "--reason", "one"]) == 2


@pytest.mark.parametrize("name", ["../../escaped/ddim50", "/tmp/ddim50", ".."])
def test_names_stay_inside_the_folder(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    for content in runs:
        case(content, "ddim50-reference")["measurement"]["workload"] = name
    paths = written(tmp_path, runs)
    assert command.main(["accept", paths[0], "--images-only", "--reason", "one"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be the name of a file" in line
    assert not (folder / "images").exists()


@pytest.mark.parametrize("content", [b"", b"no image", b"half"])
def test_broken_image_is_refused_before_anything_is_written(
    tmp_path: Path,
    folder: Path,
    runs: list[Content],
    capsys: pytest.CaptureFixture[str],
    content: bytes,
) -> None:
    paths = written(tmp_path, runs)
    image = tmp_path / "run-0-images" / "ddim50-reference.png"
    whole = image.read_bytes()
    image.write_bytes(content if content != b"half" else whole[: len(whole) // 2])
    refused(paths, "ddim50-reference.png: ", folder, capsys)


def refused(
    paths: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says this in one line, returns 2 and writes nothing."""
    assert command.main(["accept", *paths, "--reason", "first"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert not folder.exists()
