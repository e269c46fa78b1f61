"""`diffusers-perf calibrate`: the noise it writes, what follows from it, and what it refuses."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from diffusers_perf.catalog.metrics import COMPARED
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare import compare
from diffusers_perf.judge.stats import detectable
from diffusers_perf.records.baselines import Calibration, CaseBaseline
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.run import Mode
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.unit.recorded import (
    Content,
    accept,
    case,
    cases,
    drop,
    keep,
    machine,
    measured,
    process,
    session,
    settle,
    side,
    write,
)

FP16 = "ddim50-fp16"
KEY = "ddim50/sd15/seeded-2023/fp16"
EAGER = 0.06


def calibrate(contents: list[Content], folder: Path) -> int:
    paths = write(contents, folder.parent, "same-code")
    return command.main(["calibrate", *map(str, paths)])


def calibration(folder: Path, mode: Mode = "whole") -> Calibration:
    """What the baseline says of fp16's noise."""
    return line(folder).calibrations[mode]


def line(folder: Path) -> CaseBaseline:
    """What the baseline says of fp16."""
    baseline = BaselineStore(folder).load_machine("nvidia-h200")
    assert baseline is not None
    return baseline.cases[KEY]


def test_calibration_prints_and_writes_the_detectable_effect(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = line(accepted)
    assert not before.calibrations
    assert calibrate(side("a", count=8, noise=EAGER), accepted) == 0
    printed = capsys.readouterr().out
    assert "A/A on NVIDIA H200, 8 whole processes: the smallest slowdown that 5 pairs " in printed
    assert "detect with 90 % power at 99.5 % confidence" in printed
    assert "ddim50-fp16: minimum detectable effect: latency ≥ " in printed
    assert "GPU busy ≥ 1.6 %, peak memory ≥ 2.0 %" in printed
    after = calibration(accepted)
    assert after.processes == 8
    assert after.noise["latency_s"] == pytest.approx(EAGER, rel=0.5)
    assert after.noise["peak_memory_bytes"] == 0
    assert after.detectable["latency_s"] > 0.1
    for field, calibrated in (("latency_s", True), ("gpu_busy_s", False)):
        (metric,) = (metric for metric in COMPARED if metric.field == field)
        pair, threshold = math.sqrt(2) * after.noise[field], metric.threshold
        effect = detectable(pair, pairs=5, threshold=threshold, calibrated=calibrated)
        assert after.detectable[field] == pytest.approx(effect, rel=1e-3)
    assert line(accepted).measured["latency_s"] == before.measured["latency_s"]
    assert (
        "calibrated from 8 whole processes: minimum detectable effect latency ≥ "
        in (accepted / "HISTORY.md").read_text()
    )


def test_single_case_is_calibrated(accepted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = side("a", count=8, noise=EAGER)
    for content in contents:
        keep(content, FP16)
    assert calibrate(contents, accepted) == 0
    assert "calibrated 1 case in nvidia-h200.json" in capsys.readouterr().out


def test_quick_processes_have_a_noise_of_their_own(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(side("whole"), accepted) == 0
    whole = line(accepted)
    noisy = side("a", count=6, noise=EAGER)
    for content in noisy:
        session(content)["quick"] = True
        measured(content, FP16)["gpu_busy_s"] *= 1 + EAGER * random.Random(str(content)).random()
        settle(content)
    capsys.readouterr()
    assert calibrate(noisy, accepted) == 0
    assert "A/A on NVIDIA H200, 6 quick processes: the smallest" in capsys.readouterr().out
    assert (
        "calibrated from 6 quick processes: minimum detectable effect latency ≥ "
        in (accepted / "HISTORY.md").read_text()
    )
    # The main job is whole, and so is the calibration behind its limit.
    assert line(accepted).limits == whole.limits
    assert calibration(accepted) == whole.calibrations["whole"]
    assert calibration(accepted, "quick").noise["gpu_busy_s"] > 0.005
    for mode, quick in (("whole", False), ("quick", True)):
        session(noisy[0])["quick"] = quick
        (path,) = write(noisy[:1], accepted.parent, mode)
        known = compare.known_noise(load_run(path), BaselineStore(accepted))[KEY]
        assert known == line(accepted).calibrations[cast("Mode", mode)].noise


def test_gpu_busy_limit_is_three_times_its_calibrated_noise(accepted: Path) -> None:
    assert calibrate(side("a"), accepted) == 0
    limit = line(accepted).limits["gpu_busy_s_max"]
    assert limit == pytest.approx(1.02 * sorted(line(accepted).measured["gpu_busy_s"])[1], rel=1e-4)
    noisy = side("a")
    for content, by in zip(noisy, (0.97, 0.99, 1.0, 1.01, 1.03), strict=True):
        measured(content, FP16)["gpu_busy_s"] *= by
        settle(content)
    assert calibrate(noisy, accepted) == 0
    noise = calibration(accepted).noise["gpu_busy_s"]
    assert noise == pytest.approx(0.0224, rel=0.1)
    limit = line(accepted).limits["gpu_busy_s_max"]
    assert limit == pytest.approx(
        (1 + 3 * noise) * sorted(line(accepted).measured["gpu_busy_s"])[1], rel=1e-4
    )


def test_accepting_anew_keeps_the_calibration(accepted: Path) -> None:
    assert calibrate(side("a"), accepted) == 0
    before = line(accepted).calibrations
    assert accept([process(f"later-{number}") for number in range(3)], accepted, "later") == 0
    assert line(accepted).calibrations == before
    # The noise of another workload is another one.
    others = [process(f"others-{number}") for number in range(3)]
    _other_workload(others)
    assert accept(others, accepted, "another seed") == 0
    assert not line(accepted).calibrations


@pytest.mark.parametrize(("times", "code"), [(2.0, 1), (0.5, 2)])
def test_compare_detects_the_minimum_effect_and_is_inconclusive_below(
    accepted: Path, capsys: pytest.CaptureFixture[str], times: float, code: int
) -> None:
    """A sleep on the host: twice the smallest effect is red, half of it is inconclusive."""
    assert calibrate(side("a", count=12, noise=0.02), accepted) == 0
    effect = calibration(accepted).detectable["latency_s"]
    base, head = side("base", noise=0.02), side("head", noise=0.02)
    for content in head:
        seen = measured(content, FP16)
        seen["rounds_s"] = [(1 + times * effect) * s for s in seen["rounds_s"]]
        settle(content)
    paths = write(base, accepted.parent, "base"), write(head, accepted.parent, "head")
    capsys.readouterr()
    assert compare.run(*paths, BaselineStore(accepted)) == code
    printed = capsys.readouterr().out
    assert "not calibrated" not in printed
    if code == 1:
        assert "slower: ddim50-fp16: latency" in printed
    else:
        (said,) = (text for text in printed.splitlines() if "ddim50-fp16: latency" in text)
        named = float(said.split("with 5 pairs: ")[1].split(" %")[0]) / 100
        assert named >= effect - 0.001


def _too_few(contents: list[Content]) -> None:
    del contents[2:]


def _other_commit(contents: list[Content]) -> None:
    contents[1]["commit_info"]["id"] = "0" * 40


def _other_gpu(contents: list[Content]) -> None:
    for content in contents:
        machine(content)["name"] = "NVIDIA A100-SXM4-80GB"


def _other_weights(contents: list[Content]) -> None:
    for content in contents:
        for one in cases(content):
            one["measurement"]["weights"] = "seeded-7"


def _with_interference(contents: list[Content]) -> None:
    measured(contents[2], FP16)["interference"]["gpu"] = ["1 other process on the GPU"]


def _busy_host(contents: list[Content]) -> None:
    measured(contents[2], FP16)["interference"]["host"] = ["the host waited for a CPU"]


def _drifted(contents: list[Content]) -> None:
    session(contents[2])["reference_drift"]["ddim50"].update(ratio=1.2, significant=True)


def _other_rounds(contents: list[Content]) -> None:
    measured(contents[2], FP16)["rounds_s"].pop()
    settle(contents[2])


def _other_image(contents: list[Content]) -> None:
    case(contents[2], FP16)["status"] = "worse image"


def _a_copy(contents: list[Content]) -> None:
    contents[2] = contents[1]


def _no_date(contents: list[Content]) -> None:
    contents[2]["datetime"] = "today\n- evil"


def _quick(contents: list[Content]) -> None:
    session(contents[2])["quick"] = True


def _other_workload(contents: list[Content]) -> None:
    for content in contents:
        for one in cases(content):
            one["workload"]["seed"] = 1


def _black(contents: list[Content]) -> None:
    case(contents[2], FP16)["status"] = "black"


def _other_stopwatch(contents: list[Content]) -> None:
    session(contents[2])["harness_version"] = "ba9876543210"


def _invalid(contents: list[Content]) -> None:
    """As a run that was affected beyond its limit says it."""
    _busy_host(contents)
    case(contents[2], FP16).update(status="invalid", sentence="invalid: ddim50-fp16: too slow")


@pytest.mark.parametrize(
    ("spoil", "shown"),
    [
        (_with_interference, ["fp16: latency", "fp16: GPU busy"]),
        (_busy_host, ["fp16: latency"]),
        (_invalid, ["fp16: latency"]),
        (_drifted, ["reference: latency", "tf32: latency", "fp16: latency"]),
    ],
)
def test_interference_is_left_out_and_reported(
    accepted: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Content]], object],
    shown: list[str],
) -> None:
    contents = side("a", noise=EAGER)
    measured(contents[2], FP16)["rounds_s"] = [9.0] * 5
    settle(contents[2])
    spoil(contents)
    capsys.readouterr()
    assert calibrate(contents, accepted) == 0
    said = capsys.readouterr().out.splitlines()
    assert [text.split(" of 1 of 5 processes: ")[0] for text in said if "left" in text] == [
        f"left out: ddim50-{name}" for name in shown
    ]
    assert calibration(accepted).noise["latency_s"] < 2 * EAGER


def test_case_that_few_measured_is_left_out_and_reported(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = side("a")
    for content in contents[:3]:
        drop(content, FP16)
    capsys.readouterr()
    assert calibrate(contents, accepted) == 0
    assert "left out: ddim50-fp16 was measured in 2 of 5 processes" in capsys.readouterr().out


def test_metric_with_mostly_interference_has_no_noise(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = side("a")
    for content in contents[:3]:
        measured(content, FP16)["interference"]["host"] = ["the host waited for a CPU"]
    capsys.readouterr()
    assert calibrate(contents, accepted) == 0
    said = capsys.readouterr().out
    assert ("left out: ddim50-fp16: latency of 3 of 5 processes: the host waited for a CPU") in said
    assert set(calibration(accepted).noise) == {"gpu_busy_s", "peak_memory_bytes"}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_too_few, "calibrate needs 3 processes (got 2)"),
        (_other_commit, "same-code-0.json have different commits"),
        (_other_gpu, "has no baseline for NVIDIA A100-SXM4-80GB; accept"),
        (_other_weights, "nvidia-h200.json has no case that 3 of these runs measured"),
        (_other_rounds, "differ in the number of rounds of ddim50-fp16: 5 and 4"),
        (_quick, "same-code-2.json was measured with --quick and "),
        (_other_workload, "the baseline and these runs differ in the workload (seed); accept"),
        (_black, "fp16 is black, which cannot be accepted"),
        (_other_image, "fp16 is worse image, which cannot be accepted"),
        (_a_copy, "same-code-2.json is a copy of "),
        (_no_date, "same-code-2.json: datetime: invalid RFC3339 encoded datetime"),
        (_other_stopwatch, "were measured by different versions of the measuring code"),
    ],
)
def test_noise_that_is_not_a_positive_number_is_refused(
    accepted: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Content]], object],
    sentence: str,
) -> None:
    contents, before = side("a"), (accepted / "nvidia-h200.json").read_text()
    spoil(contents)
    capsys.readouterr()
    assert calibrate(contents, accepted) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith("error: ")
    assert sentence in shown
    assert (accepted / "nvidia-h200.json").read_text() == before


GOOD = {"calibrated": "2026-11-23", "processes": 8, "noise": {}, "detectable": {}}


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ([], "calibrations: expected `object`, got `array`"),
        ({"slow": GOOD}, "invalid enum value 'slow'"),
        ({"whole": {"noise": {}}}, "calibrations[...]: object missing required field `calibrated`"),
        ({"whole": GOOD | {"said": 1}}, "object contains unknown field `said`"),
        ({"quick": GOOD | {"processes": "8"}}, "processes: expected `int`, got `str`"),
        ({"whole": GOOD | {"noise": {"latency_s": -1}}}, "noise[...]: expected `float` >= 0.0"),
        ({"whole": GOOD | {"detectable": 5}}, "detectable: expected `object`, got `int`"),
    ],
)
def test_broken_calibration_is_one_sentence(accepted: Path, broken: object, sentence: str) -> None:
    path = BaselineStore(accepted).machine_path("nvidia-h200")
    content = json.loads(path.read_text())
    content["cases"][KEY]["calibrations"] = broken
    path.write_text(json.dumps(content))
    with pytest.raises(Refusal) as error:
        BaselineStore(accepted).load_machine("nvidia-h200")
    assert sentence in str(error.value)
