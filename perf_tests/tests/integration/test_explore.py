"""`diffusers-perf explore` from the command line to the answer, over the fake pipeline."""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import pytest
import torch

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Case, Needs, Optimization, Tolerance, Tolerances
from diffusers_perf.catalog.discovery import Project
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli import explore
from diffusers_perf.compare import attempts
from diffusers_perf.compare.attempts import Attempts
from diffusers_perf.compare.lock import held
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.measurement.flag import flag
from diffusers_perf.measurement.machine import this_machine
from diffusers_perf.measurement.timing import Stopwatch
from diffusers_perf.optimizations import tolerances
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.search.attempt import Ask, Stopped, TooLong
from perf_tests.tests.unit import fake
from perf_tests.tests.unit.fake import CHANGES, CLOSE, WORKLOAD, FakePipeline, FakeSources

PACES = {"faster": 0.5, "fast_and_black": 0.1, "slower": 2.0, "far": 0.1, "breaks": 0.1}
IMAGES = {
    "fast_and_black": CHANGES["black"],
    "far": CHANGES["elsewhere"],
    "breaks": CHANGES["broken"],
}


@dataclass(frozen=True)
class Declared:
    """The catalog that the command finds."""

    catalog: Catalog

    def __call__(self, name: str, **how: Any) -> None:
        self.add(name, _changes(name), **how)

    def add(
        self,
        name: str,
        apply: Callable[[Build], None],
        *,
        tolerance: Tolerances = CLOSE,
        needs: Needs | None = None,
        compiles: bool = False,
        uneven: bool = False,
    ) -> None:
        self.catalog.add(
            Optimization(
                name=name,
                apply=apply,
                tolerance=tolerance,
                needs=needs or Needs(),
                applied=lambda pipeline: None,
                compiles=compiles,
                uneven_steps=uneven,
            )
        )


def _changes(name: str) -> Callable[[Build], None]:
    def apply(build: Build) -> None:
        """Changes the pace, or the image."""

        @build.then
        def _(pipeline: Any) -> None:
            pipeline.pace = getattr(pipeline, "pace", 1.0) * PACES.get(name, 1.0)
            if name in IMAGES:
                pipeline.changes.append(IMAGES[name])

    return apply


class Paced(Stopwatch):
    """Reads what the pipeline says of itself."""

    def rounds(
        self, generate: Any, *, before_round: Callable[[], None], rounds: int, **_: object
    ) -> list[float]:
        before_round()
        generate()
        pace: float = getattr(generate._pipeline, "pace", 1.0)
        return [pace * (1 + 0.001 * number) for number in range(rounds)]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declared:
    """A small catalog over the fake pipeline, on a clock of its own."""
    catalog = Catalog()
    monkeypatch.setattr(explore, "find_project", lambda _: Project(shared=catalog))
    monkeypatch.setattr(tolerances, "LOSSLESS", CLOSE)
    monkeypatch.setattr(fake, "STEP_S", 0.0)
    catalog.add_cases(WORKLOAD)

    def bare_bench(**_: object) -> Bench:
        return Bench(
            sources=FakeSources(),
            machine=this_machine("cpu"),
            rounds=1,
            say=lambda *_: None,
            images_folder=None,
            store=BaselineStore(Path("baselines")),
            stopwatch=Paced(),
        )

    monkeypatch.setattr(explore, "bare_bench", bare_bench)
    return Declared(catalog)


SLOW = replace(WORKLOAD, name="fake28", steps=28)


@dataclass(frozen=True)
class Slow:
    """A pipeline that takes a tenth of a second for a step, and 0.3 s for an image."""

    declared: Declared
    steps: list[int]
    """Of each generation."""

    def __call__(
        self, name: str, *, share: float = 1.0, late: float = 0.0, uneven: bool = False
    ) -> None:
        """An optimization: steps take this share, and images of all steps are so far away."""

        def apply(build: Build) -> None:
            """Takes a share of the time."""
            build.during(flag(fake, "STEP_S", fake.STEP_S * share))
            build.then(lambda pipeline: pipeline.changes.append(moved))

        def moved(images: Any) -> Any:
            return images + late * (self.steps[-1] == SLOW.steps)

        self.declared.add(name, apply, uneven=uneven)


@pytest.fixture
def slow(declare: Declared, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """The catalog over a pipeline that takes seconds, on the clock that says so."""
    steps: list[int] = []
    call = FakePipeline.__call__

    def counted(self: FakePipeline, prompt: list[str], **options: Any) -> Any:
        steps.append(options["num_inference_steps"])
        fake.CLOCK.sleep(0.3)
        return call(self, prompt, **options)

    monkeypatch.setattr(FakePipeline, "__call__", counted)
    monkeypatch.setattr(fake, "STEP_S", 0.1)
    monkeypatch.setattr(Paced, "rounds", Stopwatch(clock=fake.CLOCK).rounds)
    declare.catalog.cases.clear()
    declare.catalog.add_cases(SLOW)
    return Slow(declare, steps)


def run(folder: Path, *arguments: str) -> int:
    return command.main(["explore", "--out", str(folder), *arguments])


def test_explore_finds_the_stack_and_reports_the_others(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("faster", "fast_and_black", "far", "breaks", "slower"):
        declare(name)
    declare("untolerated", tolerance=Tolerances())
    declare("elsewhere", needs=Needs(package="no_such_package"))
    declare.catalog.stack("known", "faster")
    assert run(tmp_path, "--without", "slower") == 0
    shown = capsys.readouterr().out
    assert shown.endswith('stack("best_fake4", "faster")\n')
    assert "found: 2.00x as fast as the reference; it is declared as known" in shown
    assert "  fast_and_black: image is black (mean brightness 0.0000" in shown
    assert "  far: image is too far from the reference's (PSNR " in shown
    assert "  breaks: RuntimeError: the kernel is not there" in shown
    assert "  slower: left out by --without" in shown
    assert "  untolerated: its tolerance is none; the search requires PSNR 30 dB and SSIM" in shown
    assert "  elsewhere: needs the package no_such_package, which is not installed" in shown
    assert "7 of the 16 that 4 optimizations can make were tried" in shown
    assert "bottleneck: unknown, because no GPU time was measured" in shown


def test_bottleneck_on_a_gpu(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same stacks as a GPU would have measured them."""
    declare("faster")
    assert run(tmp_path) == 0
    path = tmp_path / "explore.json"
    content = json.loads(path.read_text())
    for entry in content["tried"].values():
        seen = entry["measured"]
        seen["gpu_busy_s"] = 0.9 * median(seen["rounds_s"])
        seen["peak_memory_bytes"] = 2**31 if seen["case"] == "reference" else 2**30
        seen |= {"roofline_s": 0.125, "roofline_by": "memory"}
        seen["families"] = {
            "matmul": {"gpu_s": 0.1, "kernels": 1200},
            "convolution": {"gpu_s": 0.3, "kernels": 90},
        }
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "+ faster   0.501 s  2.00x    0.451 s   2.00x        1,024 MiB  identical" in shown
    assert "bottleneck: the GPU, which is busy for 90% of the time" in shown
    assert "roofline: 0.125 s, what reading the weights would take" in shown
    assert "the latency is 4.0x that" in shown
    assert "family of kernels: convolution 0.300 s (90), matmul 0.100 s (1,200)" in shown
    for entry in content["tried"].values():
        if entry["measured"]["case"] != "reference":
            entry["measured"]["roofline_s"] = None  # as where some of the work is left out
    path.write_text(json.dumps(content))
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "roofline: 0.125 s, what reading the weights of the reference would take" in shown
    assert "the latency is 4.0x that" in shown


def test_explore_without_a_faster_stack(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare("slower")
    assert run(tmp_path) == 1
    shown = capsys.readouterr().out
    assert "slower: slower: latency 2.00x as long" in shown
    assert "2 of the 2 that 1 optimization can make were tried" in shown
    assert shown.splitlines()[-1].startswith("no stack that is faster")


def test_combinations_are_counted_among_candidates(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among fewer than in an earlier search, and among none."""
    declare("faster")
    declare("slower")
    assert run(tmp_path) == 0
    assert "3 of the 4 that 2 optimizations can make were tried" in capsys.readouterr().out
    assert run(tmp_path, "--without", "faster") == 1
    assert "2 of the 2 that 1 optimization can make were tried" in capsys.readouterr().out
    assert run(tmp_path, "--without", "faster", "slower") == 1
    shown = capsys.readouterr().out
    assert "not tried:\n  faster, slower: left out by --without\n" in shown
    assert "no stack that is faster" in shown


def test_stack_that_cannot_be_removed_fails_and_is_kept(
    declare: Declared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a capture that did not end, on a GPU that answers no more."""
    declare("faster")
    clear, calls = Bench.clear, itertools.count()

    def stuck(bench: Bench) -> None:
        clear(bench)
        if next(calls) == 1:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(Bench, "clear", stuck)
    assert run(tmp_path) == 1
    assert "faster: RuntimeError: captures_underway.empty()" in capsys.readouterr().out
    content = json.loads((tmp_path / "explore.json").read_text())
    assert [entry["measured"] is None for entry in content["tried"].values()].count(True) == 1


def test_tolerance_is_given_in_numbers(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search without an image limit admits what has no tolerance, and nothing black."""
    declare("far", tolerance=Tolerances())
    declare("fast_and_black", tolerance=Tolerances())
    assert run(tmp_path, "--psnr", "0") == 0
    assert capsys.readouterr().out.endswith('"far")\n')
    # What was measured stays so, whatever is asked of it.
    assert run(tmp_path, "--tolerance", "lossless") == 1


def test_interrupted_search_resumes(
    declare: Declared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("faster", "plain", "slower"):
        declare(name)
    paced, rounds = Paced.rounds, []

    def interrupted(self: Paced, generate: Any, **options: Any) -> Any:
        rounds.append(generate)
        if len(rounds) == 8:
            raise KeyboardInterrupt
        return paced(self, generate, **options)

    monkeypatch.setattr(Paced, "rounds", interrupted)
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "stopped: interrupted; run the same command again" in shown
    assert "  plain, slower: not reached before the search stopped" in shown
    assert shown.endswith('"faster")\n')
    content = json.loads((tmp_path / "explore.json").read_text())
    assert len(content["tried"]) == 7
    assert content["begun"] == {}

    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert shown.count("(measured earlier)") == 7
    assert "stopped" not in shown
    content = json.loads((tmp_path / "explore.json").read_text())
    assert {key.split(" ")[0] for key in content["tried"]} == {
        "",
        "faster",
        "faster+plain",
        "faster+slower",
        "faster+plain+slower",
    }

    # All of it is there: nothing is measured any more.
    monkeypatch.setattr(Paced, "rounds", None)
    assert run(tmp_path) == 0


def test_stack_that_kills_the_process_is_tried_once(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare("faster")
    declare("slower")
    assert run(tmp_path) == 0
    path = tmp_path / "explore.json"
    content = json.loads(path.read_text())
    del content["tried"]["faster | against the reference"]
    content["begun"] = {"faster | against the reference": 2}
    path.write_text(json.dumps(content))
    assert run(tmp_path) == 1
    assert "faster: the process died 2 times" in capsys.readouterr().out


def test_exhausted_budget_is_reported(
    declare: Declared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is said of a stack that the time did not reach: neither found nor not found."""
    declare("faster")
    now = itertools.count()
    monkeypatch.setattr(attempts, "monotonic", lambda: next(now))
    assert run(tmp_path / "none", "--minutes", "0.001") == 2
    assert "error: the budget of 0.001 min is used up; run the same" in capsys.readouterr().err
    # The clock is read three times for the reference, which takes a second.
    assert run(tmp_path / "reference", "--minutes", f"{3.5 / 60}") == 2
    shown = capsys.readouterr().out
    assert "stopped: the budget of 0.0583 min is used up; run the same command" in shown
    assert "  faster: not reached before the search stopped" in shown
    assert shown.splitlines()[-1].startswith("no stack that is faster")
    declare("plain")
    assert run(tmp_path / "first", "--minutes", "0.25") == 0
    shown = capsys.readouterr().out
    assert "s of 0.25 min are left, too few to try another stack and measure the best" in shown


def test_search_goes_on_where_compiling_would_exceed_the_budget(
    declare: Declared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare("plain", compiles=True)
    declare("faster")
    now = itertools.count()
    monkeypatch.setattr(attempts, "monotonic", lambda: next(now))
    assert run(tmp_path, "--minutes", "1") == 0
    shown = capsys.readouterr().out
    assert "] + plain … not tried" in shown
    assert "s of 1 min are left, too few to try another stack and measure the best one in" in shown
    assert "in full (93 s); use --minutes 1.6 or more" in shown
    assert shown.endswith('"faster")\n')
    assert run(tmp_path, "--minutes", "2") == 0
    assert "plain: gains nothing" in capsys.readouterr().out


def test_better_result_of_an_earlier_search_is_offered(
    declare: Declared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare("plain")
    declare("faster")
    assert run(tmp_path, "--without", "plain") == 0
    before = json.loads((tmp_path / "explore.json").read_text())["tried"]
    now = itertools.count()
    monkeypatch.setattr(attempts, "monotonic", lambda: next(now))
    assert run(tmp_path, "--minutes", "0.001") == 0
    shown = capsys.readouterr().out
    after = json.loads((tmp_path / "explore.json").read_text())["tried"]
    assert after == before  # nothing was measured again
    assert "stopped: the budget of 0.001 min is used up" in shown
    assert "+ faster, from an earlier search" in shown
    assert shown.endswith('stack("best_fake4", "faster")\n')
    assert run(tmp_path, "--minutes", "0.001", "--without", "faster") == 2


def test_second_process_in_the_same_folder_is_refused(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare("faster")
    with held(tmp_path, by="explore"):
        assert run(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {tmp_path} is in use by another explore")
    assert not (tmp_path / "explore.json").exists()
    assert run(tmp_path) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_before_a_measurement_is_reported(
    declare: Declared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    """As while the model is loaded, which takes most of the first seconds."""

    def loading(**_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(explore, "bare_bench", loading)
    # What would end the tests must not; and a process in the background may ignore the other.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(tmp_path) == 2
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupted)
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_other_machine_uses_another_folder(
    declare: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare("faster")
    assert run(tmp_path) == 0
    path = tmp_path / "explore.json"
    was = json.loads(path.read_text())
    for name, value, says in (
        ("torch", "2.0.0", "2.0.0, now "),
        ("workload", {"name": "fake5"}, "(workload changed)"),
        ("measuring code", "0123456789ab", "(measuring code: 0123456789ab, now "),
    ):
        path.write_text(json.dumps({**was, "settings": {**was["settings"], name: value}}))
        assert run(tmp_path) == 2
        shown = capsys.readouterr().err
        assert says in shown
        assert "choose another --out" in shown
    path.write_text("{}")
    assert run(tmp_path) == 2
    assert "not written by explore" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--without", "other"],
            "--without: no optimization is called 'other'; diffusers-perf explore --list lists all",
        ),
        (
            ["--tolerance", "other"],
            "--tolerance: no optimization is called 'other'; diffusers-perf explore --list lists",
        ),
        (
            ["--without", "farr"],
            "--without: no optimization is called 'farr' (did you mean far?); ",
        ),
        (["--tolerance", "far", "--psnr", "20"], "--tolerance cannot be combined"),
        (
            ["--tolerance", "losless"],
            "--tolerance: no optimization is called 'losless' (did you mean lossless?)",
        ),
        (
            ["--workload", "fake"],
            "--workload: no workload 'fake' runs here (did you mean fake4?); known are fake4",
        ),
        (
            ["--workload", "nothing"],
            "--workload: no workload 'nothing' runs here; known are fake4",
        ),
        (["--memory", "4"], "this runs on a CPU"),
        (["--out", "/proc/none"], "--out /proc/none: cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(
    declare: Declared,
    arguments: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    declare("far")
    assert run(tmp_path, *arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert says in shown


@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        ("--minutes", "0", "must be more than 0 (got 0)"),
        ("--minutes", "1e9", "must be more than 0, at most 1e+06 (got 1e9)"),
        ("--memory", "much", "must be more than 0 (got much)"),
        ("--psnr", "-1", "must be 0 or more (got -1)"),
        ("--ssim", "nan", "must be from -1 to 1 (got nan)"),
        ("--device", "tpu", "invalid choice"),
    ],
)
def test_option_that_is_not_a_number_is_refused(
    option: str, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["explore", f"{option}={text}"])
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_slow_model_is_tried_in_few_steps_and_its_best_stack_in_all(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow("faster", share=0.5)
    slow("slower", share=1.5)
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "] reference … 3.100 s, " in shown
    assert "MiB, from 8 of 28 steps (in" in shown
    # 0.3 s and 28 halves of a tenth, in few steps and in all.
    assert "] + faster … 1.700 s, " in shown
    assert "\n+ faster  " in shown
    assert "] in full, at the end: faster … 1.700 s, " in shown
    assert "reference, from 8 of 28 steps  3.100 s  1.00x" in shown
    assert "from few steps: latency and GPU busy are extrapolated, and images are of few" in shown
    assert "not measured in full" not in shown
    content = json.loads((tmp_path / "explore.json").read_text())
    steps = {key: entry["measured"]["steps"] for key, entry in content["tried"].items()}
    assert {key for key, taken in steps.items() if taken == 28} == {
        " | in full",
        " | in full, beside faster",
        "faster | in full, beside faster",
    }

    # All of it is there, and the search goes the same way.
    slow.steps.clear()
    assert run(tmp_path) == 0
    assert not {8, 28} & {*slow.steps}


def test_uneven_steps_of_a_slow_model_are_not_extrapolated(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow("cached", share=0.5, uneven=True)
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("[  3] + cached")]
    assert "1.700 s" in line
    assert "from 8" not in line


def test_hopeless_stack_is_dropped_after_one_generation(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow("hopeless", share=22)
    seen = "dropped: its first generation shows a latency of 61.90 s ("
    for earlier in (False, True):
        slow.steps.clear()
        assert run(tmp_path) == 1
        shown = capsys.readouterr().out
        assert ("] + hopeless … " + seen + ("measured earlier)" if earlier else "in ")) in shown
        reason = "slower: latency 19.97x as long, by its first generation alone"
        assert f"\n      not kept: {reason}\n" in shown
        assert f"\n  hopeless: {reason}\n" in shown
        assert "2 of the 2 that 1 optimization can make were tried" in shown
    # A search that may need it, as for its memory, does not take that for an answer.
    file = tmp_path / "explore.json"
    content = json.loads(file.read_text())
    entry = content["tried"]["hopeless | against the reference"]
    assert (entry["measured"], entry["failed"]) == (None, "")
    entry["too_slow_s"] = 12.3
    file.write_text(json.dumps(content))
    assert run(tmp_path) == 1
    assert "] + hopeless … " + seen + "in " in capsys.readouterr().out


def test_image_that_is_far_after_all_steps_is_out(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow("drifts", share=0.5, late=0.1)
    assert run(tmp_path) == 1
    shown = capsys.readouterr().out
    assert "] + drifts … 1.700 s" in shown
    assert "  drifts: image is too far from the reference's (PSNR " in shown


def test_resumed_search_of_a_slow_model_makes_its_short_reference_again(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow("faster", share=0.5)
    slow("fastest", share=0.25)
    assert run(tmp_path, "--without", "fastest") == 0
    slow.steps.clear()
    assert run(tmp_path) == 0
    assert capsys.readouterr().out.endswith('"fastest")\n')
    # No generation of all steps but for the best in full, and for what that is compared with.
    assert slow.steps.index(28) > slow.steps.index(8)


def test_best_stack_without_time_to_be_measured_in_full_is_said(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow("faster", share=0.5)
    monkeypatch.setattr(Attempts, "_in_full_s", lambda self, way: 1e9 if self.number > 5 else 0.0)
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "the best stack was not measured in full: its image of all steps" in shown
    assert "too few to measure the best stack in full (2000000000 s); use --minutes " in shown


def test_reference_is_measured_again_beside_a_best_that_was_not(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes later, the machine is another."""
    slow("faster", share=0.5)
    afford = Attempts._afford

    def stop(self: Attempts, ask: Ask, case: Case) -> None:
        if ask.in_full and ask.stack:
            raise Stopped("no time")
        afford(self, ask, case)

    with monkeypatch.context() as first:
        first.setattr(Attempts, "_afford", stop)
        assert run(tmp_path) == 0
    for earlier in (False, True):
        capsys.readouterr()
        assert run(tmp_path) == 0
        lines = capsys.readouterr().out.splitlines()
        for what in ("reference", "faster"):
            (line,) = [line for line in lines if f"in full, at the end: {what} …" in line]
            assert ("measured earlier" in line) is earlier


def test_time_to_measure_the_best_is_kept_back_whatever_is_tried(
    slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search for SDXL spent it on a stack that does not compile, since that takes less."""
    made: list[Attempts] = []

    def kept(attempts: Attempts, ask: Ask, case: Case) -> None:
        made.append(attempts)

    afford = Attempts._afford
    monkeypatch.setattr(Attempts, "_afford", kept)
    slow.declared.add("compiled", _changes("faster"), compiles=True)
    slow("other")
    run(tmp_path)
    attempts = made[0]
    monkeypatch.setattr(Attempts, "_in_full_s", lambda self, way: 100.0 if way[0] else 1.0)
    attempts.budget_s, attempts._started = 50.0, monotonic()
    other = Ask(stack=("other",), change="")
    afford(attempts, other, attempts._case(other))
    with pytest.raises(Stopped, match="too few to try another stack"):
        afford(attempts, replace(other, best=("compiled",)), attempts._case(other))
    # What this takes longer than any leaves too little, and another may not.
    monkeypatch.setattr(Attempts, "_expected_s", lambda self, way: 45.0)
    monkeypatch.setattr(Attempts, "_in_full_s", lambda self, way: 20.0 if way[0] else 1.0)
    afford(attempts, other, attempts._case(other))
    with pytest.raises(TooLong, match="too few to try another"):
        afford(attempts, replace(other, best=("compiled",)), attempts._case(other))


def test_stack_that_breaks_a_default_call_is_out_at_once(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in the end, together with all that it was added with."""

    def breaks(build: Build) -> None:
        """Gives arrays alone."""
        build.during(flag(fake, "STEP_S", 0.04))

        @build.then
        def _(pipeline: Any) -> None:
            call = type(pipeline).__call__

            class ArraysAlone(type(pipeline)):  # type: ignore[misc]
                def __call__(self, *args: Any, output_type: str = "pil", **how: Any) -> Any:
                    if output_type != "np":
                        raise ValueError("no PIL image of it")
                    return call(self, *args, output_type=output_type, **how)

            pipeline.__class__ = ArraysAlone

    slow("faster", share=0.5)
    slow.declared.add("breaks", breaks)
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert shown.endswith('"faster")\n')
    at = re.escape(f" ({__file__}, line ")
    assert re.search(rf"  breaks: ValueError: no PIL image of it{at}\d+\)\n", shown)


def test_error_of_a_pipeline_is_shown_with_its_place(
    declare: Declared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: object, **_: object) -> None:
        raise ValueError("`height` has to be\ndivisible by 8")

    monkeypatch.setattr(FakePipeline, "__call__", refuse)
    assert run(tmp_path) == 2
    at = f"({__file__}, line {refuse.__code__.co_firstlineno + 1})"
    said = capsys.readouterr()
    assert f"failed: ValueError: `height` has to be {at}" in said.out
    assert f"ValueError: `height` has to be {at}" in said.err


def test_steps_are_judged_where_the_workload_is_compared_step_by_step(
    slow: Slow, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(change: Callable[[Any], None]) -> Callable[[Build], None]:
        def apply(build: Build) -> None:
            """Takes half of the time, and does something else."""
            build.during(flag(fake, "STEP_S", 0.05))
            build.then(change)

        return apply

    def predicts_otherwise(pipeline: Any) -> None:
        pipeline.unet.forward = lambda sample: torch.ones(3)

    def predicts_twice(pipeline: Any) -> None:
        pipeline.scheduler.step = lambda: pipeline.unet(torch.empty(0))

    catalog = slow.declared.catalog
    catalog.cases.clear()
    catalog.add_cases(replace(SLOW, step_wise=True))
    steps = Tolerances(embedded=Tolerance(psnr_db=30, ssim=0.9, step_db=30))
    monkeypatch.setattr(tolerances, "LOSSLESS", steps)
    slow.declared.add("same", half(lambda pipeline: None), tolerance=steps)
    slow.declared.add("other", half(predicts_otherwise), tolerance=steps)
    slow.declared.add("twice", half(predicts_twice), tolerance=steps)
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "image tolerance PSNR 30 dB and SSIM 0.9 and 30 dB in each step" in shown
    assert shown.endswith('"same")\n')
    assert "identical, from 8 of 28 steps" in shown
    assert "  other: step 1: the denoiser's prediction differs from the reference's (" in shown
    assert "  twice: image distance to the reference could not be measured" in shown
    assert run(tmp_path, "--psnr", "20") == 2
    assert "fake28 is compared step by step, and this tolerance limits" in capsys.readouterr().err
