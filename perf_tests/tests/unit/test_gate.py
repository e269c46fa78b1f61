"""`diffusers-perf gate` on recorded runs: the exit code and the sentence for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.records.run import KEY
from perf_tests.tests.unit import main_job
from perf_tests.tests.unit.recorded import (
    Content,
    accept,
    black,
    case,
    cases,
    drop,
    keep,
    lost,
    machine,
    measured,
    process,
    session,
    settle,
    slow,
    write,
)

FP16 = "ddim50-fp16"
REFERENCE = "ddim50-reference"


def gate(
    content: Content, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    """The exit code and the lines that are printed."""
    capsys.readouterr()
    (path,) = write([content], folder.parent, "gated")
    code = command.main(["gate", str(path)])
    printed = capsys.readouterr()
    return code, (printed.out + printed.err).splitlines()


def test_life_of_a_baseline(no_baselines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing: not judged. Accepted: holds. Slower: fails. Accepted again: holds."""
    runs = [process(f"life-{number}") for number in range(3)]

    code, lines = gate(process("head"), no_baselines, capsys)
    assert code == 2
    assert "error: no baseline is accepted for NVIDIA H200, so no speed was judged" in lines[-1]
    assert (
        "baselines/nvidia-h200.json does not exist yet: images, loose bounds and counts are "
        "judged, but not speed"
    ) in lines

    assert accept(runs, no_baselines) == 0

    code, lines = gate(process("head"), no_baselines, capsys)
    assert code == 0
    assert lines == [
        "5 cases: 5 held, 0 failed, 0 inconclusive or invalid, 0 new, 0 skipped, 0 missing; "
        "on NVIDIA H200, against baselines/nvidia-h200.json"
    ]

    one = process("one")
    keep(one, FP16)
    session(one)["narrowed"] = True
    assert gate(one, no_baselines, capsys)[1][0].startswith("1 case: 1 held, 0 failed")

    slower = [process(f"slower-{number}") for number in range(3)]
    for content in slower:
        slow(content, FP16, by=1.05)
    code, lines = gate(slower[0], no_baselines, capsys)
    assert code == 1
    assert lines[0].startswith("slower: ddim50-fp16: GPU busy")

    assert accept(slower, no_baselines, "fp16 is slower now") == 0
    code, lines = gate(slower[1], no_baselines, capsys)
    assert code == 0
    assert "fp16 is slower now" in (no_baselines / "HISTORY.md").read_text()


def test_every_sentence_names_the_folder_of_baselines(
    no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = no_baselines.parent / "elsewhere"
    assert accept([process(f"e-{number}") for number in range(3)], elsewhere) == 0
    assert capsys.readouterr().out.endswith("; commit elsewhere\n")
    slower = process("slower")
    slow(slower, FP16, by=1.05)
    case(slower, FP16)["status"] = "slower"
    (path,) = write([slower], no_baselines.parent, "gated")
    assert command.main(["gate", str(path), "--baselines=elsewhere"]) == 1
    *_, closing, then = capsys.readouterr().out.splitlines()
    assert closing.endswith("against elsewhere/nvidia-h200.json")
    assert then.startswith("next: pytest ")
    assert then.endswith(" --baselines=elsewhere")
    assert command.main(["report", str(path), "--baselines=elsewhere", "--markdown"]) == 0
    assert " --baselines=elsewhere`" in capsys.readouterr().out


def _sync(content: Content) -> None:
    measured(content, FP16)["counters"]["host_syncs"][1] += 1


def _hungrier(content: Content) -> None:
    measured(content, FP16)["peak_memory_bytes"] += 200 * 2**20
    settle(content)


def _lost(status: str, *, by_choice: bool = False) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        drop(content, FP16)
        why = "ddim50-fp16: no kernel"
        session(content)["not_timed"].append(lost(FP16, status, why, by_choice=by_choice))

    return change


def _ended_early(content: Content, name: str = FP16) -> None:
    expected = list(session(content)["expected"])
    drop(content, name)
    session(content)["expected"] = expected


def _interrupted(content: Content) -> None:
    _lost("invalid")(content)
    _ended_early(content, "pndm25x4-reference")
    session(content)["expected"].append(FP16)


def _asked_for_another(content: Content) -> None:
    drop(content, FP16)
    session(content)["narrowed"] = True


def _a_shard(content: Content) -> None:
    dealt = list(session(content)["expected"])
    drop(content, FP16)
    session(content)["shard"] = {"index": 1, "count": 2, "cases": dealt}


def _another(content: Content) -> None:
    benchmark = next(b for b in content["benchmarks"] if FP16 in b["name"])
    more = json.loads(json.dumps(benchmark))
    more["extra_info"][KEY]["measurement"]["case"] = "fp16+faster"
    content["benchmarks"].append(more)


def _inconclusive(content: Content) -> None:
    measured(content, FP16)["rounds_s"] = [1.0, 5.0, 3.0, 2.0, 9.0]
    settle(content)


def _uncalled(content: Content) -> None:
    measured(content, FP16)["counters"]["python_calls"] = [10, 100]


def _slow_clock(content: Content) -> None:
    seen = measured(content, FP16)
    seen["rounds_s"] = [2 * seconds for seconds in seen["rounds_s"]]
    settle(content)


def _slow_after_drift(content: Content) -> None:
    _slow_clock(content)
    session(content)["reference_drift"]["ddim50"] = {"ratio": 2.5, "significant": True}


def _slower_than_the_drift(content: Content) -> None:
    """The machine became slower, and explains a part of it."""
    _slow_clock(content)
    session(content)["reference_drift"]["ddim50"] = {"ratio": 1.2, "significant": True}


def _slow_after_a_slow_reference(content: Content) -> None:
    """Its reference was slow at first, and flattered what is slower all the same."""
    _slow_clock(content)
    session(content)["reference_drift"]["ddim50"] = {"ratio": 0.8, "significant": True}


def _slow_before_drift(content: Content) -> None:
    """When it was judged, the reference took the same time again."""
    _slow_after_drift(content)
    case(content, FP16)["reference_drift"] = {"ratio": 1.0, "significant": False}


def _half(content: Content) -> None:
    """Half the steps in half the time."""
    for one in cases(content):
        seen = one["measurement"]
        if seen["workload"] == "ddim50":
            seen["steps"] = one["workload"]["steps"] = 25
            seen["rounds_s"] = [s / 2 for s in seen["rounds_s"]]
            seen["gpu_busy_s"] /= 2
    settle(content)


def _with_interference(content: Content) -> None:
    _slow_clock(content)
    measured(content, FP16)["interference"]["gpu"] = ["hardware slowdown"]


@pytest.mark.parametrize(
    ("change", "code", "line", "counts"),
    [
        (lambda c: slow(c, FP16, by=1.05), 1, "slower: ddim50-fp16: GPU busy", "1 failed"),
        (lambda c: slow(c, FP16, by=0.9), 0, "faster: ddim50-fp16: GPU busy 1.11x", "5 held"),
        (lambda c: black(c, FP16), 1, "black: ddim50-fp16: image is black", "1 failed"),
        (_sync, 1, "more work: ddim50-fp16: host syncs 303 → 353", "1 failed"),
        (_hungrier, 1, "more memory: ddim50-fp16: peak memory 1.07x", "1 failed"),
        (lambda c: drop(c, FP16), 1, "missing: ddim50-fp16 has a baseline and was", "1 missing"),
        (
            lambda c: drop(c, FP16),
            1,
            "next: restore it, or accept runs without it:",
            "1 missing",
        ),
        (_lost("skipped"), 1, "missing: ddim50-fp16 has a baseline and was skipped", "1 missing"),
        (_lost("skipped", by_choice=True), 0, "skipped: ddim50-fp16: no kernel", "1 skipped"),
        (_lost("error"), 1, "error: ddim50-fp16: no kernel", "1 failed"),
        (_lost("invalid"), 2, "invalid: ddim50-fp16: no kernel", "1 inconclusive or invalid"),
        (_ended_early, 1, "missing: ddim50-fp16 was expected to run, but has no", "1 missing"),
        (
            _interrupted,
            2,
            "invalid: pndm25x4-reference was expected to run",
            "2 inconclusive or invalid",
        ),
        (_asked_for_another, 0, "cases were selected by name", "4 held"),
        (_a_shard, 0, "this is shard 1/2: missing cases are reported after", "4 held"),
        (_another, 0, "new: ddim50-fp16+faster: its speed is not accepted", "1 new"),
        (_another, 0, "next: accept what is new:", "1 new"),
        (
            _inconclusive,
            2,
            "inconclusive: ddim50-fp16: latency 1.",
            "1 inconclusive or invalid",
        ),
        (_slow_clock, 1, "slower: ddim50-fp16: latency 1.", "1 failed"),
        (
            _slow_after_drift,
            2,
            "invalid: ddim50-fp16: latency 1.",
            "1 inconclusive or invalid",
        ),
        (_slower_than_the_drift, 1, "slower: ddim50-fp16: latency 1.", "1 failed"),
        (_slow_after_a_slow_reference, 1, "slower: ddim50-fp16: latency 1.", "1 failed"),
        (_slow_before_drift, 1, "slower: ddim50-fp16: latency 1.", "1 failed"),
        (
            _uncalled,
            0,
            "new: ddim50-fp16: 1 counter without an accepted count",
            "1 new",
        ),
        (
            _inconclusive,
            2,
            "inconclusive: 1 of 5 cases: ddim50-fp16; run it again",
            "1 inconclusive or",
        ),
        (_with_interference, 2, "invalid: ddim50-fp16: latency 1.", "1 inconclusive or invalid"),
        (
            _half,
            2,
            "invalid: ddim50-fp16: the baseline is for another workload: steps was 50 and",
            "3 inconclusive or invalid",
        ),
    ],
)
def test_gate_judges_a_run(
    accepted: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Content], object],
    code: int,
    line: str,
    counts: str,
) -> None:
    content = process("head")
    change(content)
    seen, lines = gate(content, accepted, capsys)
    assert any(printed.startswith(line) for printed in lines), lines
    assert any(f" {counts}" in printed for printed in lines), lines
    assert seen == code


@pytest.mark.parametrize(
    ("accepted_on", "card", "status", "words"),
    [
        ("aaa", "a", "slower", ""),
        ("aaa", "b", "invalid", "is another card than accepted"),
        ("aab", "a", "invalid", "may be another card than accepted"),
        ("aaa", "", "invalid", "may be another card than accepted"),
        ("aa ", "a", "invalid", "may be another card than accepted"),
    ],
)
def test_card_at_its_power_limit_is_slower_than_itself_alone(
    accepted_on: str,
    card: str,
    status: str,
    words: str,
    no_baselines: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A commit that is 3.5 % slower, and a baseline of these cards."""

    def on(name: str, uuid: str, seconds: float) -> Content:
        content = process(name)
        keep(content, REFERENCE)
        session(content)["narrowed"] = True
        machine(content)["gpu_uuid"] = uuid.strip() or None
        measured(content, REFERENCE).update(rounds_s=[seconds] * 3, gpu_busy_s=0.98 * seconds)
        limited = {"power_capped_sm_clocks_mhz": [1600] * 3, "sm_clocks_mhz": [1980]}
        measured(content, REFERENCE)["interference"].update(limited)
        return content

    runs = [on(f"run-{n}", uuid, 2.0 + n / 1000) for n, uuid in enumerate(accepted_on)]
    assert accept(runs, no_baselines) == 0
    _, lines = gate(on("head", card, 2.07), no_baselines, capsys)
    assert lines[0].startswith(f"{status}: {REFERENCE}: GPU busy 1.03x slower than accepted")
    assert words in lines[0]
    # Another run on this card would say the same.
    assert any("accept it" in line for line in lines) is (status == "invalid")
    assert not any(line.endswith("run it again") for line in lines)


def test_drift_is_said_where_all_holds(accepted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As by the run itself, whose cases hold or are new all the same."""
    content = process("head")
    _another(content)
    _, quiet = gate(content, accepted, capsys)
    session(content)["reference_drift"]["ddim50"] = {"ratio": 1.13, "significant": True}
    code, lines = gate(content, accepted, capsys)
    said = "ddim50: reference drift: 1.13x its first timing; latencies of this run are unreliable"
    assert said in lines
    assert code == 0
    assert [line for line in lines if line != said] == quiet


def test_drift_that_could_not_be_measured_is_said(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = process("head")
    _another(content)
    _, quiet = gate(content, accepted, capsys)
    session(content)["not_timed_again"] = {"ddim50": "out of memory"}
    code, lines = gate(content, accepted, capsys)
    assert code == 0
    assert [*set(lines) - set(quiet)] == ["ddim50-reference: not timed again: out of memory"]


@pytest.mark.parametrize("known", [True, False])
def test_drift_excuses_no_stage_that_it_did_not_excuse_in_the_run(
    no_baselines: Path, capsys: pytest.CaptureFixture[str], known: bool
) -> None:
    """The run asks for the drift where a latency is too long, and not for its stages alone."""
    runs = [process(f"stages-{number}") for number in range(3)]
    content = process("head")
    for one in (*runs, content):
        measured(one, FP16)["metrics"] = {"denoising_stage_s": 0.1}
    assert accept(runs, no_baselines) == 0
    measured(content, FP16)["metrics"] = {"denoising_stage_s": 0.3}
    drift = {"ratio": 3.0, "significant": True}
    session(content)["reference_drift"]["ddim50"] = drift
    case(content, FP16)["reference_drift"] = drift if known else None
    code, lines = gate(content, no_baselines, capsys)
    assert any(line.startswith("slower: ddim50-fp16: denoising stage 3.00x") for line in lines)
    assert code == 1


def test_gate_says_all_that_fails_in_a_case(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst need not be the cause."""
    content = process("head")
    slow(content, "ddim50-fp16", by=1.5)
    measured(content, "ddim50-fp16")["peak_memory_bytes"] *= 2
    _, lines = gate(content, accepted, capsys)
    (place,) = (n for n, line in enumerate(lines) if line.startswith("more memory: ddim50-fp16: "))
    also = [*takewhile(lambda line: line.startswith("  also "), lines[place + 1 :])]
    assert any(line.startswith("  also slower: GPU busy 1.5") for line in also), lines
    assert not any("ddim50-fp16" in line for line in also)


def test_next_command_measures_the_same_model(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = process("head")
    black(content, FP16)
    session(content)["options"] = ["--device", "cpu", "--model", "my model"]
    _, lines = gate(content, accepted, capsys)
    again = 'next: pytest perf_tests --benchmark-only -k "[ddim50-fp16]"'
    assert f"{again} --device cpu --model 'my model'" in lines


def test_next_command_finds_the_tests_from_a_subfolder(
    accepted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = accepted.parent
    for name in (".git", "perf_tests", "tools"):
        (root / name).mkdir()
    content = process("head")
    slow(content, FP16, by=1.05)
    for folder, named in ((".", "perf_tests"), ("perf_tests", "."), ("tools", "../perf_tests")):
        monkeypatch.chdir(root / folder)
        code, lines = gate(content, accepted, capsys)
        assert code == 1
        assert lines[-1].startswith(f"next: pytest {named} --benchmark-only")


def test_baseline_of_other_weights_judges_nothing(
    accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = process("head")
    for one in cases(content):
        one["measurement"]["weights"] = "seeded-7"
    code, lines = gate(content, accepted, capsys)
    assert code == 2
    assert "baselines/nvidia-h200.json has none of these cases on seeded-7" in lines[-1]


def test_image_that_was_accepted_after_the_run_is_not_accepted_again(
    no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [process(f"before-{number}") for number in range(3)]
    for content in runs:
        measured(content, "ddim50-reference")["image_distance"] = None

    def printed() -> str:
        return "\n".join(gate(runs[0], no_baselines, capsys)[1])

    assert "new: ddim50-reference: no accepted image for these weights" in printed()
    assert accept(runs, no_baselines) == 0
    now = printed()
    assert "new: ddim50-reference: not compared with the accepted image, which the run" in now
    assert now.endswith('next: pytest perf_tests --benchmark-only -k "[ddim50-reference]"')
    # Of the speed alone, there is something left to accept.
    (no_baselines / "nvidia-h200.json").unlink()
    assert "next: accept what is new:\nfor n in 1 2 3" in printed()


def _without_image(content: Content) -> None:
    measured(content, "ddim50-reference")["image_distance"] = None


def _other_flag(content: Content) -> None:
    measured(content, FP16)["flags"] = {"default dtype": "float16"}


@pytest.mark.parametrize(
    ("change", "command_line"),
    [
        (_another, "for n in 1 2 3; do pytest "),
        (_uncalled, "for n in 1 2 3; do pytest "),
        (_without_image, "pytest perf_tests --benchmark-only --benchmark-json runs/1.json; "),
        (_other_flag, 'next: pytest perf_tests --benchmark-only -k "[ddim50-fp16]"'),
    ],
)
def test_next_command_is_about_what_is_new(
    accepted: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Content], object],
    command_line: str,
) -> None:
    content = process("head")
    change(content)
    for image in (accepted / "images").glob("ddim50-*"):
        image.unlink()
    code, lines = gate(content, accepted, capsys)
    assert code == 0
    assert lines[-1].startswith(command_line)


def _other_gpu(content: Content) -> None:
    machine(content)["name"] = "NVIDIA A100-SXM4-80GB"


def _nothing(content: Content) -> None:
    content["benchmarks"].clear()
    session(content)["expected"].clear()
    session(content)["narrowed"] = True


def _nan(content: Content) -> None:
    measured(content, FP16)["image_distance"]["ssim"] = float("nan")


def _no_list(content: Content) -> None:
    measured(content, FP16)["interference"]["host"] = "a neighbour"


def _no_time(content: Content) -> None:
    measured(content, FP16)["interference"]["cpu_loops_s"] = [0.01, 0]


def _no_list_of_its_reference(content: Content) -> None:
    case(content, FP16)["reference"]["interference"]["cpu_loops_s"] = None


def _old(content: Content) -> None:
    del session(content)["harness_version"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _other_gpu,
            "no baseline is accepted for NVIDIA A100-SXM4-80GB, so no speed was judged",
        ),
        (_nothing, "gated-0.json measured nothing"),
        (_nan, "gated-0.json: not valid JSON"),
        (_no_list, "fp16: measurement.interference.host: expected `array`, got `str`"),
        (_no_time, "fp16: measurement.interference.cpu_loops_s[1]: expected `float` > 0.0"),
        (
            _no_list_of_its_reference,
            "fp16: reference.interference.cpu_loops_s: expected `array`, got `null`",
        ),
        (_old, "gated-0.json: diffusers_perf: object missing required field `harness_version`"),
    ],
)
def test_run_that_cannot_be_judged_exits_2(
    accepted: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Content], object],
    sentence: str,
) -> None:
    content = process("head")
    change(content)
    code, lines = gate(content, accepted, capsys)
    assert code == 2
    assert lines[-1].startswith("error: ")
    assert sentence in lines[-1]


def test_file_in_place_of_the_baselines_is_refused(
    no_baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write([process("head")], no_baselines.parent, "gated")
    assert command.main(["gate", str(path), f"--baselines={path}"]) == 2
    sentence = f"cannot be read ({path} is a file, not a folder)\n"
    assert capsys.readouterr().err == f"error: {path}/nvidia-h200.json: {sentence}"


def test_image_that_is_not_finite_fails(accepted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = process("head")
    measured(content, FP16)["look"]["finite"] = False
    code, lines = gate(content, accepted, capsys)
    assert code == 1
    assert lines[0] == "not finite: ddim50-fp16: the decoder's output contains NaN or infinity"


def test_judges_as_the_suite_did(
    pytester: pytest.Pytester,
    no_baselines: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The suite's own verdicts, from the command line to the JSON, are the gate's."""
    fakes = "fine,moody,black,forgetful,unapplied,unsupported"
    good = [pytester.path / f"{number}.json" for number in range(3)]
    for path in good:
        main_job.run(pytester, f"--benchmark-json={path}", fakes="fine,moody", rounds=3)
    assert command.main(["accept", *map(str, good), "--reason", "first"]) == 0
    monkeypatch.setenv("FAKE_MOOD", "slow")
    path = pytester.path / "run.json"
    main_job.run(pytester, f"--benchmark-json={path}", "--rounds=5", fakes=fakes)
    content = json.loads(path.read_text())
    capsys.readouterr()
    assert command.main(["gate", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    shown = {one["sentence"] for one in cases(content) if one["sentence"]}
    assert len(shown) >= 3
    assert shown <= set(lines)
    assert "not applied: fake4-unapplied: unapplied did not take effect" in "\n".join(lines)
    assert "skipped: fake4-unsupported: unsupported needs the package" in "\n".join(lines)
