"""`python -m ci calibrate`: the noise it writes, what follows from it, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ci import __main__ as command
from ci import compare
from perf_tests.harness import baselines
from perf_tests.harness.baselines import BadBaseline, CaseBaseline, load_machine
from perf_tests.unit.recorded import Content, accept, case, keep, process, settle, side, write

FP16 = "ddim50-fp16"
KEY = "ddim50/sd15/seeded-2023/fp16"
EAGER = 0.06


def calibrate(contents: list[Content], folder: Path) -> int:
    paths = write(contents, folder.parent, "same-code")
    return command.main(["calibrate", *map(str, paths)])


def line(folder: Path) -> CaseBaseline:
    """What the baseline says of fp16."""
    baseline = load_machine("nvidia-h200", folder)
    assert baseline is not None
    return baseline.cases[KEY]


def test_says_what_the_gate_can_see_and_writes_it(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = line(accepted)
    assert before.calibration is None
    assert calibrate(side("a", count=8, noise=EAGER), accepted) == 0
    printed = capsys.readouterr().out
    assert (
        "A/A on NVIDIA H200, 8 processes: the smallest slowdown that 5 pairs find 90 % of the time,"
        in printed
    )
    assert "ddim50-fp16: this gate can see latency ≥ " in printed
    assert "GPU busy ≥ 2.1 %, peak memory ≥ 2.0 %" in printed
    after = line(accepted)
    assert after.calibration is not None
    assert after.calibration.processes == 8
    assert after.calibration.noise["latency_s"] == pytest.approx(EAGER, rel=0.5)
    assert after.calibration.noise["peak_memory_bytes"] == 0
    assert after.calibration.sees["latency_s"] > 0.1
    assert after.latency_s == before.latency_s
    assert "calibrated from 8 processes: sees latency ≥ " in (accepted / "HISTORY.md").read_text()


def test_one_case_is_one(accepted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = side("a", count=8, noise=EAGER)
    for content in contents:
        keep(content, FP16)
    assert calibrate(contents, accepted) == 0
    assert "calibrated 1 case in nvidia-h200.json" in capsys.readouterr().out


def test_quick_processes_have_a_noise_of_their_own(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = side("a", count=6, noise=EAGER)
    for content in contents:
        content["perf_tests"]["quick"] = True
    assert calibrate(contents, accepted) == 0
    assert "A/A on NVIDIA H200, 6 --quick processes: the smallest" in capsys.readouterr().out
    history = (accepted / "HISTORY.md").read_text()
    assert "calibrated from 6 --quick processes: sees latency ≥ " in history


def test_gpu_busy_is_held_to_three_times_its_calibrated_noise(accepted: Path) -> None:
    assert calibrate(side("a"), accepted) == 0
    limit = line(accepted).limits.gpu_busy_s_max
    assert limit == pytest.approx(1.02 * sorted(line(accepted).gpu_busy_s)[1], rel=1e-4)
    noisy = side("a")
    for content, by in zip(noisy, (0.97, 0.99, 1.0, 1.01, 1.03), strict=True):
        case(content, FP16)["gpu_busy_s"] *= by
        settle(content)
    assert calibrate(noisy, accepted) == 0
    calibration = line(accepted).calibration
    assert calibration is not None
    noise = calibration.noise["gpu_busy_s"]
    assert noise == pytest.approx(0.0224, rel=0.1)
    limit = line(accepted).limits.gpu_busy_s_max
    assert limit == pytest.approx((1 + 3 * noise) * sorted(line(accepted).gpu_busy_s)[1], rel=1e-4)


def test_accepting_anew_keeps_the_calibration(accepted: Path) -> None:
    assert calibrate(side("a"), accepted) == 0
    calibration = line(accepted).calibration
    assert accept([process(f"later-{number}") for number in range(3)], accepted, "later") == 0
    assert line(accepted).calibration == calibration
    # The noise of another workload is another one.
    others = [process(f"others-{number}") for number in range(3)]
    _other_workload(others)
    assert accept(others, accepted, "another seed") == 0
    assert line(accepted).calibration is None


@pytest.mark.parametrize(("times", "code"), [(2.0, 1), (0.5, 2)])
def test_compare_sees_what_was_promised_and_says_so_below_it(
    accepted: Path, capsys: pytest.CaptureFixture[str], times: float, code: int
) -> None:
    """A sleep on the host: twice the smallest effect is red, half of it is unclear."""
    assert calibrate(side("a", count=12, noise=0.02), accepted) == 0
    calibration = line(accepted).calibration
    assert calibration is not None
    sees = calibration.sees["latency_s"]
    base, head = side("base", noise=0.02), side("head", noise=0.02)
    for content in head:
        info = case(content, FP16)
        info["latency_rounds_s"] = [(1 + times * sees) * s for s in info["latency_rounds_s"]]
        settle(content)
    paths = write(base, accepted.parent, "base"), write(head, accepted.parent, "head")
    capsys.readouterr()
    assert compare.run(*paths) == code
    printed = capsys.readouterr().out
    if code == 1:
        assert "slower: ddim50-fp16: latency" in printed
    else:
        (said,) = (text for text in printed.splitlines() if "unclear: ddim50-fp16" in text)
        assert "these 5 pairs can see" in said
        named = float(said.split("can see ")[1].split(" %")[0]) / 100
        assert named >= sees - 0.001


def _too_few(contents: list[Content]) -> None:
    del contents[2:]


def _other_commit(contents: list[Content]) -> None:
    contents[1]["commit_info"]["id"] = "0" * 40


def _other_gpu(contents: list[Content]) -> None:
    for content in contents:
        content["machine_info"]["perf_tests"]["name"] = "NVIDIA A100-SXM4-80GB"


def _other_weights(contents: list[Content]) -> None:
    for content in contents:
        for benchmark in content["benchmarks"]:
            benchmark["extra_info"]["weights"] = "seeded-7"


def _disturbed(contents: list[Content]) -> None:
    case(contents[2], FP16)["validity"]["disturbed_by"] = ["1 other process on the GPU"]


def _busy_host(contents: list[Content]) -> None:
    case(contents[2], FP16)["validity"]["host_disturbed_by"] = ["the host waited for a CPU"]


def _drifted(contents: list[Content]) -> None:
    contents[2]["perf_tests"]["reference_drift"]["ddim50"].update(ratio=1.2, significant=True)


def _all_disturbed(contents: list[Content]) -> None:
    for content in contents[:3]:
        for benchmark in content["benchmarks"]:
            benchmark["extra_info"]["validity"]["disturbed_by"] = ["another process"]


def _quick(contents: list[Content]) -> None:
    contents[2]["perf_tests"]["quick"] = True


def _other_workload(contents: list[Content]) -> None:
    for content in contents:
        for benchmark in content["benchmarks"]:
            benchmark["extra_info"]["generates"]["seed"] = 1


def _black(contents: list[Content]) -> None:
    case(contents[2], FP16)["verdict"] = "black"


def _other_stopwatch(contents: list[Content]) -> None:
    contents[2]["perf_tests"]["measuring"] = "ba9876543210"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_disturbed, ["ddim50-fp16"]),
        (_busy_host, ["ddim50-fp16"]),
        (_drifted, ["ddim50-reference", "ddim50-tf32", "ddim50-fp16"]),
    ],
)
def test_what_was_disturbed_is_left_out_and_told(
    accepted: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Content]], object],
    told: list[str],
) -> None:
    contents = side("a")
    spoil(contents)
    capsys.readouterr()
    assert calibrate(contents, accepted) == 0
    said = capsys.readouterr().out.splitlines()
    assert [text for text in said if "undisturbed" in text] == [
        f"{name} was measured undisturbed in 4 of 5 processes" for name in told
    ]
    calibration = line(accepted).calibration
    assert calibration is not None
    assert calibration.processes == 4


def test_a_case_that_was_mostly_disturbed_keeps_its_line(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = side("a")
    for content in contents[:3]:
        case(content, FP16)["validity"]["disturbed_by"] = ["1 other process on the GPU"]
    capsys.readouterr()
    assert calibrate(contents, accepted) == 0
    said = capsys.readouterr().out
    assert "left out: ddim50-fp16 was measured undisturbed in 2 of 5 processes" in said
    assert line(accepted).calibration is None


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_too_few, "2 of 3 processes: the noise between so few says nothing"),
        (_other_commit, "same-code-0.json were made on different commits"),
        (_other_gpu, "nobody accepted a baseline for NVIDIA A100-SXM4-80GB, whose noise"),
        (_other_weights, "nvidia-h200.json knows no case that 3 of these runs measured"),
        (_all_disturbed, "nvidia-h200.json knows no case that 3 of these runs measured undist"),
        (_quick, "same-code-2.json was measured with --quick and "),
        (_other_workload, "its baseline and these runs differ in the workload (seed): accept"),
        (_black, "fp16 is black, which nobody accepts"),
        (_other_stopwatch, "was measured by another version of the suite's own measuring code"),
    ],
)
def test_what_is_no_noise_is_refused(
    accepted: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Content]], object],
    sentence: str,
) -> None:
    contents, before = side("a"), (accepted / "nvidia-h200.json").read_text()
    spoil(contents)
    capsys.readouterr()
    assert calibrate(contents, accepted) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: ")
    assert sentence in told
    assert (accepted / "nvidia-h200.json").read_text() == before


GOOD = {"calibrated": "2026-11-23", "processes": 8, "noise": {}, "sees": {}}


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ([], "calibration is [], not an object"),
        ({"noise": {}}, "calibration: has no calibrated"),
        (GOOD | {"said": 1}, "unknown key 'said'; known are calibrated, noise, processes, sees"),
        (GOOD | {"processes": "8"}, "calibration: processes is '8', not a whole number"),
        (GOOD | {"noise": {"latency_s": -1}}, "noise: latency_s is -1, not zero or a positive num"),
        (GOOD | {"sees": 5}, "calibration: sees is 5, not an object"),
    ],
)
def test_a_broken_calibration_is_said(accepted: Path, broken: object, sentence: str) -> None:
    path = baselines.machine_path("nvidia-h200", accepted)
    content = json.loads(path.read_text())
    content["cases"][KEY]["calibration"] = broken
    path.write_text(json.dumps(content))
    with pytest.raises(BadBaseline) as error:
        load_machine("nvidia-h200", accepted)
    assert sentence in str(error.value)
