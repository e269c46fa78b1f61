"""`diffusers-perf compare` on recorded runs: the exit code and the sentence for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare import compare
from diffusers_perf.records.run import KEY
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.unit import recorded
from perf_tests.tests.unit.recorded import (
    Content,
    black,
    case,
    case_id,
    cases,
    drop,
    keep,
    lost,
    machine,
    measured,
    session,
    side,
    slow,
    write,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """These machines are not calibrated."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Content], object] = lambda content: None,
    *,
    base_too: Callable[[Content], object] = lambda content: None,
    count: int = 5,
    noise: float | None = recorded.QUIET,
) -> tuple[int, str]:
    """The exit code and all that is printed, for a change that each process of head has."""
    base, head = side("base", count=count, noise=noise), side("head", count=count, noise=noise)
    for content in base:
        base_too(content)
    for content in head:
        change(content)
    code = compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def _sync(content: Content) -> None:
    measured(content, "ddim50-fp16")["counters"]["host_syncs"][1] += 1


def _fewer_syncs(content: Content) -> None:
    measured(content, "ddim50-fp16")["counters"]["host_syncs"][1] -= 6


def _memory(content: Content) -> None:
    measured(content, "ddim50-fp16")["peak_memory_bytes"] += 100 * 2**20


def _worse(content: Content) -> None:
    measured(content, "ddim50-fp16")["image_distance"].update(psnr_db=22.0, ssim=0.8)


def _uncounted(content: Content) -> None:
    measured(content, "ddim50-fp16").update(gpu_busy_s=None, counters={}, notes=["no trace"])


def _another_image(content: Content) -> None:
    measured(content, "ddim50-fp16")["image_distance"].update(psnr_db=5.0, ssim=0.1)


def _without_tolerances(content: Content) -> None:
    case(content, "ddim50-fp16")["tolerance"] = None
    measured(content, "ddim50-fp16")["image_distance"].update(psnr_db=40.0, ssim=0.9)


def _left_out(content: Content) -> None:
    drop(content, "ddim50-fp16")
    session(content)["not_selected"].append("ddim50-fp16")


def _lost(status: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        drop(content, "ddim50-fp16")
        why = "RuntimeError: no kernel image is available"
        session(content)["not_timed"].append(lost("ddim50-fp16", status, why))

    return change


def _with_interference(content: Content) -> None:
    for one in cases(content):
        one["measurement"]["interference"]["gpu"] = ["1 other process on the GPU"]


def _drifted(content: Content) -> None:
    session(content)["reference_drift"]["ddim50"] = {"ratio": 1.13, "significant": True}


FP16 = "ddim50-fp16"
NONE = BaselineStore(Path("baselines"))


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (lambda content: None, 0, "passed: 5 of 5 cases the same (5 A/B pairs)"),
        (
            lambda content: slow(content, FP16, by=1.05),
            1,
            "slower: ddim50-fp16: GPU busy 1.05",
        ),
        (
            lambda content: slow(content, FP16, by=0.9),
            0,
            "faster: ddim50-fp16: GPU busy 1.11",
        ),
        (
            lambda content: drop(content, FP16),
            1,
            "missing: ddim50-fp16: measured in base, not in head",
        ),
        (
            _left_out,
            2,
            "inconclusive: ddim50-fp16: measured in base, not in head",
        ),
        (
            _lost("skipped"),
            1,
            "missing: ddim50-fp16: measured in base, not in head: RuntimeError: no kernel",
        ),
        (_lost("invalid"), 2, "invalid: ddim50-fp16: measured in base, not in head: RuntimeError"),
        (_lost("error"), 1, "error: ddim50-fp16: RuntimeError: no kernel image is available"),
        (lambda content: black(content, FP16), 1, "black: ddim50-fp16: image is black"),
        (_worse, 1, "worse image: ddim50-fp16: image is too far from the reference's"),
        (_sync, 1, "more work: ddim50-fp16: host syncs 303 → 353 (+1 in each of 50 steps)"),
        (_fewer_syncs, 0, "less work: ddim50-fp16: host syncs 303 → 3 (-6 in each of 50 steps)"),
        (
            _memory,
            1,
            "more memory: ddim50-fp16: peak memory 1.04x higher than base, medians 2,716 MiB",
        ),
        (
            _uncounted,
            2,
            "inconclusive: ddim50-fp16: GPU busy was measured in base, not in head",
        ),
        (
            _uncounted,
            2,
            "inconclusive: ddim50-fp16: graph breaks and 6 other counters not counted in 5",
        ),
        (_with_interference, 2, "5 of 5 pairs left out: 1 other process on the GPU"),
        (_drifted, 2, "invalid: ddim50-reference: reference timed again: 1.010x"),
    ],
)
def test_head_change_is_classified(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Content], object],
    code: int,
    sentence: str,
) -> None:
    seen, text = compared(folder, capsys, change)
    assert sentence in text
    assert seen == code


def test_says_what_the_pairs_detect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = compared(folder, capsys)
    (line,) = [line for line in said.splitlines() if line.startswith("minimum detectable effect:")]
    assert ": latency 3." in line
    assert ", GPU busy 1." in line
    _, said = compared(folder, capsys, count=1)
    assert "minimum detectable effect" not in said


def test_says_how_to_calibrate_what_is_inconclusive(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, said = compared(folder, capsys, noise=0.05)
    assert said.count("not calibrated: latency of 4 cases; ") == 1
    # One pair does not show the noise, and what is not inconclusive needs no calibration.
    for noise, count in ((0.05, 1), (0.001, 5)):
        _, said = compared(folder, capsys, count=count, noise=noise)
        assert "not calibrated" not in said


def test_new_case_is_not_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = compared(folder, capsys, base_too=lambda content: drop(content, FP16))
    assert code == 0
    assert "new: ddim50-fp16: not measured in base" in text


def _nothing(content: Content) -> None:
    """The processes timed a reference for others, and no case came of it."""
    content["benchmarks"] = []
    session(content)["expected"] = []


def test_side_without_measurements_is_not_judged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drifts of references are not counted as cases."""
    code, text = compared(folder, capsys, _nothing, base_too=_nothing)
    assert (code, text) == (2, "error: no case was measured on either side\n")
    code, text = compared(folder, capsys, base_too=_nothing)
    said = "error: base measured no case, so there is nothing to compare head with\n"
    assert (code, text) == (2, said)
    # What is wrong without base is wrong.
    code, text = compared(folder, capsys, lambda c: black(c, FP16), base_too=_nothing)
    assert code == 1
    assert "black: ddim50-fp16: image is black" in text
    code, text = compared(folder, capsys, _nothing)
    assert code == 1
    assert "regression: 5 of 5 cases worse" in text


def test_reference_timed_for_others_is_not_a_case(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def one(content: Content) -> None:
        keep(content, FP16)

    code, text = compared(folder, capsys, one, base_too=one)
    assert code == 0
    assert "passed: 1 of 1 case the same (5 A/B pairs)" in text

    def one_in_drift(content: Content) -> None:
        one(content)
        _drifted(content)

    code, text = compared(folder, capsys, one_in_drift, base_too=one)
    assert code == 2
    assert "inconclusive: 1 of 1 case invalid" in text
    assert "invalid: ddim50-reference: reference timed again" in text


def test_failure_that_base_shares_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(content: Content) -> None:
        black(content, FP16)

    code, text = compared(folder, capsys, spoil, base_too=spoil)
    assert code == 1
    assert "; as in base" in text


def test_recorded_host_bound_latencies_are_inconclusive_with_their_mde(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = compared(folder, capsys, noise=None)
    assert code == 2
    assert "inconclusive: latency in 4 cases" in text
    assert "minimum detectable effect with 5 pairs: " in text
    assert "GPU busy" not in text.split("\n\n")[2]


def test_interference_in_one_process_costs_one_pair(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = side("base"), side("head")
    slow(head[2], FP16, by=3.0)
    _with_interference(head[2])
    code = compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE)
    assert code == 0, capsys.readouterr().out


def test_invalid_process_costs_one_pair(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = side("base"), side("head")
    measured(head[2], FP16)["rounds_s"] = [9.0, 3.0, 3.0, 3.0, 3.0]
    assert compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE) == 0
    for content in head:
        measured(content, FP16)["rounds_s"] = [9.0, 3.0, 3.0, 3.0, 3.0]
    assert compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE) == 2
    said = capsys.readouterr().out
    assert "invalid: ddim50-fp16: latency is invalid, 5 of 5 pairs left out: " in said


@pytest.mark.parametrize(
    ("in_base", "in_head", "shown"),
    [(0, 4, "303 → 303 to 353"), (1, 5, "303 to 353 → 353")],
)
def test_varying_counter_is_inconclusive(
    folder: Path, capsys: pytest.CaptureFixture[str], in_base: int, in_head: int, shown: str
) -> None:
    base, head = side("base"), side("head")
    for content in (*base[:in_base], *head[:in_head]):
        _sync(content)
    assert compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE) == 2
    said = f"inconclusive: ddim50-fp16: host syncs {shown}, not the same in all processes of a side"
    assert said in capsys.readouterr().out


def test_metric_missing_in_one_process_costs_one_pair(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = side("base"), side("head")
    measured(head[1], FP16)["gpu_busy_s"] = None
    for content in (head[0], *head[2:]):
        slow(content, FP16, by=1.05)
    assert compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE) == 1
    assert "1 of 5 pairs left out: not measured on both sides" in capsys.readouterr().out


def test_base_without_a_measurement_hides_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def worse(content: Content) -> None:
        measured(content, FP16)["gpu_busy_s"] *= 1.3
        _sync(content)

    code, text = compared(folder, capsys, worse, base_too=_uncounted)
    assert code == 2
    assert "ddim50-fp16: GPU busy was measured in head, not in base" in text
    assert "graph breaks and 6 other counters not counted in 5 of 5 processes of" in text
    base, head = side("base"), side("head")
    _uncounted(base[0])
    assert compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE) == 2
    assert "and 6 other counters not counted in 1 of 5 processes of base" in capsys.readouterr().out
    for content in head:
        _sync(content)
    assert compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE) == 1
    assert "more work: ddim50-fp16: host syncs 303 → 353" in capsys.readouterr().out


def test_image_without_tolerance_is_limited_by_base(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def another(content: Content) -> None:
        _without_tolerances(content)
        _another_image(content)

    code, text = compared(folder, capsys, another, base_too=_without_tolerances)
    assert code == 1
    assert "PSNR 40.0 → 5.0 dB" in text
    assert "at most 3 dB below base's" in text
    code, text = compared(folder, capsys, _without_tolerances, base_too=_without_tolerances)
    assert code == 0
    # One pair in which it is as it was: state that leaks, or a machine, and no change of head's.
    base, head = side("base"), side("head")
    for number, content in enumerate((*base, *head)):
        (_without_tolerances if number < 6 else another)(content)
    assert compare.run(write(base, folder, "base"), write(head, folder, "head"), NONE) == 0


def test_single_pair_judges_counters_and_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = compared(folder, capsys, count=1)
    assert code == 2
    assert "one pair does not show the noise" in text
    code, text = compared(folder, capsys, _sync, count=1)
    assert code == 1


def _other_gpu(content: Content) -> None:
    machine(content)["name"] = "NVIDIA A100-SXM4-80GB"


def _other_torch(content: Content) -> None:
    machine(content)["torch"] = "2.12.0"


def _other_stopwatch(content: Content) -> None:
    session(content)["harness_version"] = "ba9876543210"


def _other_weights(content: Content) -> None:
    for one in cases(content):
        one["measurement"]["weights"] = "seeded-7"


def _other_workload(content: Content) -> None:
    case(content, FP16)["workload"]["guidance_scale"] = 1.0


def _quick(content: Content) -> None:
    measured(content, FP16)["rounds_s"] = [1.0, 1.0]


def _with_quick(content: Content) -> None:
    session(content)["quick"] = True


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_other_gpu, "different hardware (machine): NVIDIA H200 and NVIDIA A100-SXM4-80GB"),
        (_other_stopwatch, "different versions of the measuring code: ba9876543210"),
        (_other_weights, "differ in the weights of ddim50: sd15 (seeded-2023) and sd15 (seeded-7)"),
        (_other_workload, "differ in the workload of ddim50 (guidance_scale): 7.5 and 1.0"),
        (_with_quick, "head-0.json was measured with --quick and "),
        (_quick, "differ in the number of rounds of ddim50-fp16: 5 and 2"),
    ],
)
def test_incomparable_runs_are_refused(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Content], object],
    sentence: str,
) -> None:
    code, text = compared(folder, capsys, change)
    assert code == 2
    (line,) = text.splitlines()
    assert line.startswith("error: ")
    assert sentence in line


def test_torch_versions_may_differ(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = compared(folder, capsys, _other_torch)
    assert code == 0
    assert text.startswith("NVIDIA H200: torch 2.11.0+cu130 → 2.12.0\n")
    code, text = compared(folder, capsys)
    assert text.startswith("NVIDIA H200, both with python 3.12.3, torch 2.11.0+cu130, diffusers")
    base, head = side("base"), side("head")
    _other_torch(head[3])
    assert compare.run(write(base, folder, "b"), write(head, folder, "h"), NONE) == 2
    assert "belong to one side, but to different machines or versions" in capsys.readouterr().err


def test_sides_of_different_length_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = write(side("base"), folder, "base"), write(side("head", count=4), folder, "head")
    assert compare.run(base, head, NONE) == 2
    assert "5 runs of base and 4 runs of head" in capsys.readouterr().err
    assert compare.run([base[0], base[0]], base[1:3], NONE) == 2
    assert "is given twice" in capsys.readouterr().err


def _truncated(path: Path) -> None:
    path.write_text(path.read_text()[:5000])


def _nan(path: Path) -> None:
    path.write_text(path.read_text().replace('"gpu_busy_s": 0.6', '"gpu_busy_s": NaN, "x": 0.6'))


def _twice(path: Path) -> None:
    content = json.loads(path.read_text())
    content["benchmarks"].append(content["benchmarks"][2])
    path.write_text(json.dumps(content))


def _other_schema(path: Path) -> None:
    old, new = (f'"diffusers_perf": {{"schema": {number}' for number in (2, 3))
    path.write_text(path.read_text().replace(old, new))


def _hollow(path: Path) -> None:
    path.write_text(path.read_text().replace('"workload": {', '"made": {'))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_truncated, "head-1.json: not valid JSON"),
        (_nan, "head-1.json: not valid JSON"),
        (_twice, "head-1.json: has the case ddim50/sd15/seeded-2023/fp16 twice"),
        (_other_schema, "head-1.json: has schema 3; this version reads schema 2"),
        (_hollow, "reference: object missing required field `workload`"),
        (Path.unlink, "head-1.json: cannot be read (No such file or directory)"),
    ],
)
def test_broken_file_is_one_sentence(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    sentence: str,
) -> None:
    base, head = write(side("base"), folder, "base"), write(side("head"), folder, "head")
    spoil(head[1])
    arguments = ["compare", "--base", *map(str, base), "--head", *map(str, head)]
    assert command.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line


def test_copied_run_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, head = write(side("base"), folder, "base"), write(side("head"), folder, "head")
    head[3].write_bytes(head[1].read_bytes())
    assert compare.run(base, head, NONE) == 2
    said = capsys.readouterr().err
    assert "head-3.json is a copy of " in said
    assert "head-1.json, but each run" in said


def test_case_that_an_interrupted_head_missed_is_invalid(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(content: Content) -> None:
        ours, (first, *others) = session(content), content["benchmarks"]
        content["benchmarks"] = [first]
        stopped = case_id(others[0]["extra_info"][KEY])
        ours["not_timed"] = [lost(stopped, "invalid", "interrupted")]

    code, said = compared(folder, capsys, interrupt)
    assert code == 2
    assert "measured in base, not in head: the run was interrupted" in said
    assert "missing" not in said


def test_next_command_finds_the_tests_from_a_subfolder(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".git", "perf_tests", "tools"):
        (folder / name).mkdir()
    for name, tests in (("tools", "../perf_tests"), ("perf_tests", ".")):
        monkeypatch.chdir(folder / name)
        code, printed = compared(folder, capsys, lambda content: slow(content, FP16, by=1.05))
        assert code == 1
        assert f"pytest {tests} --benchmark-only" in printed
