"""The suite from the command line to the exit code, over a fake pipeline: every message once."""

import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from diffusers_perf.catalog.declarations import Optimization
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.cli import __main__ as command
from diffusers_perf.cli.accept import accept
from diffusers_perf.judge.drift import drift_text
from diffusers_perf.measurement import bench, growth, housekeeping, observing, structure
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.lacking import Lack
from diffusers_perf.models import Sources
from diffusers_perf.records.baselines import OperatorBaseline
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.operators import OperatorCount
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.run import Drift
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.unit import fake
from perf_tests.tests.unit.main_job import run, run_pytest
from perf_tests.tests.unit.recorded import case_id, cases, machine, session


def report(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


SENTENCES = {
    "black": "black: fake4-black: image is black",
    "grey": "uniform: fake4-grey: image is uniform",
    "not_a_number": "not finite: fake4-not_a_number: the decoder's output contains NaN*",
    "infinite": "not finite: fake4-infinite: the decoder's output contains NaN or infinity*",
    "elsewhere": "worse image: fake4-elsewhere: image is too far from *",
    "forgetful": "worse image: fake4-forgetful: *",
    "stale": "error: fake4-stale: *",
    "unapplied": "not applied: fake4-unapplied: unapplied did not take effect: the flag fake*",
    "too_large": "error: fake4-too_large: out of memory. Tried to allocate 80.00 GiB*",
    "no_memory": "error: fake4-no_memory: out of memory",
    "no_room": "error: fake4-no_room: out of memory. DefaultCPUAllocator: not enough memory",
    "broken": "error: fake4-broken: RuntimeError: the kernel is not there (*fake.py, line *); "
    "--full-trace shows the traceback",
}


def test_defect_fails_the_run_with_its_sentence(pytester: pytest.Pytester) -> None:
    result = run(pytester, fakes=",".join([*SENTENCES, "fine"]))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for sentence in SENTENCES.values():
        result.stdout.fnmatch_lines([sentence])
    # Each is said once, without what it came from.
    result.stdout.no_fnmatch_line("During handling of the above*")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 2  # the reference and the case that is well
    assert outcomes["failed"] + outcomes["errors"] == len(SENTENCES)


def test_sound_run_passes(pytester: pytest.Pytester) -> None:
    path = pytester.path / "runs" / "run.json"
    result = run(pytester, f"--benchmark-json={path}")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*fake4-fine: *new*", "setting*latency*speedup*verdict", "2 new*"])
    content = report(path)
    assert session(content)["schema"] == 2
    info = cases(content)[1]
    assert info["status"] == "new"
    assert info["reference"]["case"] == "reference"
    seen = info["measurement"]
    for name in ("case", "workload", "model", "weights", "rounds_s"):
        assert seen[name], name
    for name in ("gpu_busy_s", "peak_memory_bytes", "counters", "stages_s"):
        assert name in seen
    assert seen["look"].keys() == {"mean", "std", "finite"}
    assert seen["image_distance"].keys() == {"psnr_db", "ssim"}
    known = machine(content)
    assert known.keys() >= {"name", "driver", "cuda", "torch", "diffusers", "transformers"}
    result.stdout.no_fnmatch_line("*Warning*")


def test_failed_case_is_recorded_with_its_verdict(pytester: pytest.Pytester) -> None:
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", fakes="black,unapplied")
    content = report(path)
    verdicts = {case_id(one): one["status"] for one in cases(content)}
    assert verdicts == {"fake4-reference": "new", "fake4-black": "black"}
    (lost,) = session(content)["not_timed"]
    assert (lost["id"], lost["status"]) == ("fake4-unapplied", "not applied")


TRACE = logging.getLogger("torch.__trace")
OWN = logging.getLogger(f"{__name__}.own")
"""Pytest adds its handlers to each logger that does not propagate, such as diffusers' own."""
OWN.propagate = False


def logs_and_fails(images: Any) -> Any:
    TRACE.debug("", extra={"metadata": {"dynamo_start": {}}, "payload": "graph"})
    OWN.warning("what diffusers has to say")
    return images * 0


@pytest.mark.parametrize("options", [[], ["-olog_cli=true"], ["-p", "no:logging"]])
def test_torchs_trace_is_not_in_the_log_of_a_failed_case(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    kept: list[logging.LogRecord] = []
    torchs = logging.Handler()
    monkeypatch.setattr(torchs, "emit", kept.append)
    TRACE.addHandler(torchs)  # as TORCH_TRACE has it
    monkeypatch.setitem(fake.CHANGES, "logs", logs_and_fails)
    try:
        result = run(pytester, *options, fakes="logs")
    finally:
        TRACE.removeHandler(torchs)
    assert result.parseoutcomes()["failed"] == 1
    assert kept
    result.stdout.no_fnmatch_line("*torch.__trace*")
    if "no:logging" not in options:
        result.stdout.fnmatch_lines(["*Captured log call*", "WARNING *what diffusers has to say"])


def test_torchs_trace_is_in_the_log_of_other_tests(pytester: pytest.Pytester) -> None:
    (pytester.path / "perf_tests").mkdir()
    (pytester.path / "perf_tests" / "test_zother.py").write_text(
        "import logging\n\n"
        "def test_other(caplog):\n"
        f"    logging.getLogger({TRACE.name!r}).debug('')\n"
        "    assert len(caplog.records) == 1\n"
    )
    run(pytester, only=False).assert_outcomes(passed=3)


def test_images_that_are_not_finite_leave_only_numbers_in_the_json(
    pytester: pytest.Pytester,
) -> None:
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", fakes="not_a_number,infinite")
    # Python's own reader would take NaN.
    assert msgspec.json.decode(path.read_bytes())["diffusers_perf"]["schema"] == 2
    statuses = {name: case.status for name, case in load_run(path).by_id.items()}
    assert statuses["fake4-not_a_number"] == statuses["fake4-infinite"] == "not finite"


def test_run_keeps_every_finding_of_a_case(pytester: pytest.Pytester) -> None:
    path = pytester.path / "run.json"
    result = run(pytester, f"--benchmark-json={path}", fakes="forgetful")
    case = load_run(path).by_id["fake4-forgetful"]
    (other,) = case.others
    for sentence in (case.sentence, other.sentence):
        assert sentence in result.stdout.str()
    assert other.status == "worse image"
    assert other.sentence != case.sentence


@pytest.mark.parametrize("fakes", ["unapplied", "unsupported"])
def test_run_that_timed_nothing_is_recorded(pytester: pytest.Pytester, fakes: str) -> None:
    """And not taken for the one before, or for none."""
    path = pytester.path / "run.json"
    path.write_text("{}")
    # The reference has a test of its own, which would be timed.
    result = run(pytester, f"--benchmark-json={path}", "-k", f"fake4-{fakes}", fakes=fakes)
    result.stdout.no_fnmatch_line("*Not saving anything*")
    recorded = load_run(path)
    assert not recorded.cases
    (lost,) = recorded.session.not_timed
    assert (lost.id, lost.status) == (
        f"fake4-{fakes}",
        "not applied" if fakes == "unapplied" else "skipped",
    )
    assert command.main(["gate", str(path)]) == (1 if fakes == "unapplied" else 2)


def test_reference_is_measured_when_it_is_not_selected(pytester: pytest.Pytester) -> None:
    path = pytester.path / "run.json"
    result = run(pytester, f"--benchmark-json={path}", "-k", "fine")
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines("also timed, as references: fake4-reference 0.* s")
    (info,) = cases(report(path))
    assert info["reference"]["case"] == "reference"
    assert info["measurement"]["image_distance"]["psnr_db"] > 30
    assert info["measurement"]["fewest_steps"] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--device=cuda"], "--device cuda: torch sees no CUDA GPU here*"),
        (["--benchmark-disable"], "*Can't have both*--benchmark-disable*"),
        (["-n2"], "ERROR: diffusers-perf times its cases, and processes on one device*-n 0*fleet*"),
        (["--rounds=0"], "*--rounds: must be a positive integer (got 0)"),
    ],
)
def test_bad_input_is_one_sentence(
    pytester: pytest.Pytester, options: list[str], sentence: str
) -> None:
    result = run(pytester, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = "\n".join(result.errlines + result.outlines)
    assert "Traceback" not in text
    result.stderr.fnmatch_lines([f"*{sentence}"])


def test_code_with_more_operators_than_accepted_fails(
    pytester: pytest.Pytester, no_baselines: Path
) -> None:
    nothing = OperatorBaseline(
        accepted="2026-11-22",
        reason="first",
        versions={},
        counters={"operators": OperatorCount(total=Count(fixed=0, per_step=0))},
    )
    counts = {f"fake4/fake/{name}": nothing for name in ("fine", "asks_more")}
    BaselineStore(no_baselines).save_operators(counts)
    result = run(pytester, fakes="fine,asks_more")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        [
            "more work: fake4-asks_more: operators 0 → 1 (+1 fixed, all elementwise and other, *",
            "*expected*0 (baselines/operators/fake4.json, accepted 2026-11-22)",
        ]
    )


def test_unmeasurable_metric_is_reported_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise structure.NotCountable("it depends on data")

    monkeypatch.setattr(structure, "observe", refuse)
    result = run(pytester)
    assert result.ret == 0
    said = f"no structural counters: it depends on data ({__file__}, line "
    assert sum(line.startswith(said) for line in result.outlines) == 1


def test_quick_is_one_short_warm_up_and_two_rounds(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int | None] = []
    images = Generation.images

    def counted(self: Generation, **named: Any) -> Any:
        steps.append(named.get("steps"))
        return images(self, **named)

    monkeypatch.setattr(Generation, "images", counted)
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", "--quick", rounds=None)
    content = report(path)
    assert [b["stats"]["rounds"] for b in content["benchmarks"]] == [2, 2]
    # The warm-up, and two rounds of all steps; what is counted beside them is not timed.
    # Before them, the pipeline's parts are found out.
    assert steps[3:6] == [5, None, None]
    assert session(content)["quick"] is True
    assert session(content)["reference_drift"] == {}


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model counts as large, whatever it is made of."""
    monkeypatch.setattr(bench, "LARGE", 1)


def declared_with(**facts: Any) -> Any:
    """What makes the fakes' optimizations, with these facts as well."""
    make = fake._optimization
    return lambda name: replace(make(name), **facts)


def first_image_s(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *seconds: int) -> Any:
    """The first image time without the load, where the first generations take these seconds."""
    slow = list(seconds)

    def slowed(made: Any) -> Any:
        fake.CLOCK.sleep(slow.pop(0) if slow else 0)
        return made

    monkeypatch.setattr(fake, "CHANGES", {**fake.CHANGES, "fine": slowed})
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}")
    measured = cases(report(path))[1]["measurement"]
    return measured["metrics"]["first_image_s"] - measured["metrics"]["load_s"]


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize(
    ("seconds", "first_s"),
    [([30], 30), ([30, 10], 20), ([30, 0, 10], 20), ([10, 30], 0)],
)
def test_first_image_of_large_model_is_compared_with_any_later_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, seconds: list[int], first_s: int
) -> None:
    assert first_image_s(pytester, monkeypatch, *seconds) == pytest.approx(first_s, abs=0.01)


@pytest.mark.usefixtures("all_are_large")
def test_recording_a_graph_does_not_shorten_the_first_image(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large compiled model records its graph in the second generation."""
    monkeypatch.setattr(fake, "_optimization", declared_with(hides_operators=True))
    assert first_image_s(pytester, monkeypatch, 30, 20) == pytest.approx(30, abs=0.01)


Calls = list[tuple[int | None, str | None]]
"""Of pipeline calls: steps, None being the workload's, and type of output."""


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Calls]:
    """Those of each case, and then of each repeat, but for what a CPU counts without data."""
    calls: list[Calls] = [[]]
    call, measure, repeat = Generation.call, Bench._measure, Bench.repeat_rounds

    def counted(self: Generation, **named: Any) -> Any:
        calls[-1].append((named.get("steps"), named.get("output_type", "np")))
        return call(self, **named)

    def measured(self: Bench, *of: Any) -> Any:
        calls.append([])
        return measure(self, *of)

    def repeated(self: Bench, *of: Any) -> Any:
        calls.append([])
        return repeat(self, *of)

    def uncounted(*_: object, **__: object) -> None:
        raise structure.NotCountable("not looked at")

    monkeypatch.setattr(structure, "observe", uncounted)
    monkeypatch.setattr(Generation, "call", counted)
    monkeypatch.setattr(Bench, "_measure", measured)
    monkeypatch.setattr(Bench, "repeat_rounds", repeated)
    # The first are those that find out what the pipeline is made of.
    return calls


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize(
    ("facts", "warm_up"),
    [({}, [None]), ({"hides_operators": True}, [None, 5]), ({"uneven_steps": True}, [None])],
)
def test_large_model_makes_few_pipeline_calls(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    called: list[Calls],
    facts: dict[str, Any],
    warm_up: list[int | None],
) -> None:
    """A GPU adds one that is profiled, a step-wise workload one, and a batch's reference one."""
    monkeypatch.setattr(fake, "_optimization", declared_with(**facts))
    monkeypatch.setattr(growth, "_host_bytes", lambda: lambda: 0)
    run(pytester, rounds=3)
    rounds, python_calls = [(None, "np")] * 3, (6, "np")
    # The first one, those of another seed and prompt, and one more for four notes of the memory.
    short, default = [(1, "np")] * 4, (1, None)
    _, _, case, _ = called
    warm = [(steps, "np") for steps in warm_up]
    assert case == [*warm, *rounds, python_calls, *short, default]


@pytest.mark.usefixtures("all_are_large")
def test_large_reference_is_repeated_as_warm_as_it_was(
    pytester: pytest.Pytester, called: list[Calls]
) -> None:
    run(pytester)
    assert called[-1] == [(None, "np")] * 3


@pytest.mark.parametrize(("more_than_reference", "is_large"), [(0, True), (1, False)])
def test_reference_decides_whether_a_model_is_large(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    more_than_reference: int,
    is_large: bool,
) -> None:
    """A variant that holds fewer parameters, or more, is measured as its reference is."""
    observed: list[bool] = []
    observe = observing.Observing.observe

    def noted(*of: Any, **named: Any) -> Any:
        observed.append(named["briefly"])
        return observe(*of, **named)

    own = observing.parameters(fake.FakePipeline())
    counts = {True: own, False: own - 1 + 2 * more_than_reference}
    monkeypatch.setattr(bench, "LARGE", own + more_than_reference)
    monkeypatch.setattr(bench, "parameters", lambda made: counts[not made.changes])
    monkeypatch.setattr(observing.Observing, "observe", noted)
    run(pytester)
    assert observed == [is_large, is_large]


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("what", ["stale", "forgetful", "black"])
def test_fault_of_a_large_model_fails_the_run(pytester: pytest.Pytester, what: str) -> None:
    assert run(pytester, fakes=what).ret == 1


def test_drift_that_cannot_be_measured_is_recorded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Bench, "repeat_rounds", exhausted)
    path = pytester.path / "run.json"
    result = run(pytester, f"--benchmark-json={path}")
    result.stdout.fnmatch_lines(["invalid: fake4-reference: not timed again: out of memory"])
    assert load_run(path).session.not_timed_again == {"fake4": "out of memory"}


def test_drift_that_could_be_measured_later_is_not_said_to_be_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated, repeat = count(), Bench.repeat_rounds

    def exhausted_once(*of: Any) -> list[float]:
        if next(repeated) == 0:
            raise MemoryError
        return repeat(*of)

    monkeypatch.setattr(Bench, "repeat_rounds", exhausted_once)
    pytester.makepyfile(test_other="def test_other(): pass")
    path = pytester.path / "run.json"
    case = "perf_tests/test_generation.py::test_generation[fake4-{}]".format
    tests = (case("reference"), "test_other.py", case("fine"))
    result = run(pytester, f"--benchmark-json={path}", tests=tests)
    assert next(repeated) == 2
    found = load_run(path).session
    assert found.reference_drift.keys() == {"fake4"}
    assert found.not_timed_again == {}
    result.stdout.no_fnmatch_line("*not timed again*")


def test_broken_case_is_recorded(pytester: pytest.Pytester) -> None:
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", fakes="broken,fine")
    (lost,) = session(report(path))["not_timed"]
    assert (lost["id"], lost["status"]) == ("fake4-broken", "error")
    said = (
        re.escape("fake4-broken: RuntimeError: the kernel is not there (")
        + r".*fake\.py, line \d+\)"
    )
    assert re.fullmatch(said, lost["sentence"])


@pytest.mark.parametrize("selected", [(), ("-k", "not reference")])
@pytest.mark.parametrize("shown", [(), ("--full-trace",)])
def test_reference_that_fails_is_not_tried_again_for_each_case(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    selected: tuple[str, ...],
    shown: tuple[str, ...],
) -> None:
    called = count()

    def refuse(self: object, **_: object) -> None:
        next(called)
        raise ValueError("`height` has to be divisible by 8")

    monkeypatch.setattr(fake.FakePipeline, "__call__", refuse)
    result = run(pytester, *selected, *shown, fakes="fine,black,grey")
    assert next(called) == 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    why = "fake4-reference: ValueError: `height` has to be divisible by 8"
    later = f"error: the case it is compared with fails: {why}"
    said = [line.removeprefix("E").strip().removeprefix("Failed: ") for line in result.outlines]
    # Without a test of its own, the first case's is the one that measures it.
    assert sum(line.startswith(later) for line in said) == (2 if selected else 3)
    if not shown:
        assert sum(line.startswith(f"error: {why} (") for line in said) == 1
        result.stdout.no_fnmatch_line("*test_plugin.py:*")


def test_pipeline_that_breaks_as_it_is_timed_again_fails_the_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = count()

    def load(self: object, **_: object) -> fake.FakePipeline:
        pipeline = fake.FakePipeline()
        # After the reference's and the case's own.
        if next(built) == 2:
            pipeline.changes.append(fake._raise(ValueError("no second time")))
        return pipeline

    monkeypatch.setattr(fake.FakeSource, "load", load)
    path = pytester.path / "run.json"
    result = run(pytester, f"--benchmark-json={path}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    sentence = "error: fake4-reference: ValueError: no second time (*.py, line *"
    result.stdout.fnmatch_lines(["*ERROR at teardown*", sentence])
    said = load_run(path).session.not_timed_again["fake4"]
    assert re.fullmatch(r"ValueError: no second time \(.*\.py, line \d+\)", said)


def test_bug_as_a_reference_is_timed_again_is_recorded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusers_perf.plugin.judging.drift_of", lambda again: 1)
    path = pytester.path / "run.json"
    result = run(pytester, f"--benchmark-json={path}")
    result.stdout.fnmatch_lines(["*ERROR at teardown*", "*judging.py:*: TypeError"])
    assert load_run(path).session.not_timed_again["fake4"].startswith("TypeError: ")


def test_whole_tracebacks_are_shown_where_they_are_asked_for(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--full-trace", fakes="broken")
    result.stdout.fnmatch_lines(["E *RuntimeError: the kernel is not there", "*fake.py:*"])


def test_bug_of_this_library_shows_its_traceback(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "parameters", lambda pipeline: "many")
    result = run(pytester)
    result.stdout.fnmatch_lines(["E *TypeError: *", "*bench.py:*: TypeError"])


def test_run_that_could_not_be_read_is_not_written(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "parameters", lambda pipeline: 0)
    path = pytester.path / "run.json"
    result = run(pytester, f"--benchmark-json={path}")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["error: --benchmark-json *run.json: fake4/*parameters*"])
    assert not path.exists()


def test_disabled_benchmark_is_refused(
    pytester: pytest.Pytester,
) -> None:
    result = run(pytester, "--benchmark-enable", "--benchmark-disable", only=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*diffusers-perf times its cases, and processes on one device*"])


def test_one_process_of_xdist_is_none(pytester: pytest.Pytester) -> None:
    assert run(pytester, "-n0").parseoutcomes()["passed"] == 2


def test_benchmarks_of_others_are_left_to_pytest_benchmark(pytester: pytest.Pytester) -> None:
    """Also where a file that pytest passes over names this library."""
    pytester.makepyfile(test_other="def test_other(benchmark): benchmark(int)")
    passed_over = pytester.mkdir("node_modules") / "test_ours.py"
    passed_over.write_text("from diffusers_perf import test_generation as test_generation")
    result = run_pytest(pytester, "--benchmark-only", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*Can't have both --benchmark-only and --benchmark-disable*"])


def test_json_without_a_name_is_refused(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--benchmark-json=")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--benchmark-json needs the name of a file"])


def test_package_that_is_not_installed_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = metadata.version

    def version(package: str) -> str:
        if package == "diffusers":
            raise metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(metadata, "version", version)
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: diffusers is not installed: * install -e ."])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", "line 1: '(' was never closed"),
        ("\nraise ValueError('no such name')", "line 2: ValueError: no such name"),
        ("import no_such_package", "line 1: ModuleNotFoundError: No module named*"),
    ],
)
def test_mistake_in_a_declaration_is_one_sentence(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    (pytester.path / "wrong.py").write_text(text)
    monkeypatch.syspath_prepend(pytester.path)
    result = run(pytester, "-o", "perf_declarations=wrong")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: wrong.py, {said}"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("serves.own:build", "serves/own.py, line 1: ModuleNotFoundError: No module named 'nope'"),
        ("breaks.own:build", "breaks/__init__.py, line 2: ValueError: no"),
        ("serves.other:build", "no module is called serves.other here; *"),
        ("absent.own:build", "no module is called absent here; *"),
        ("serves:build", "serves has no function build"),
    ],
)
def test_users_module_that_breaks_is_put_down_to_its_line(
    model: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for package, text in (("serves", ""), ("breaks", "\nraise ValueError('no')")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(text)
        (tmp_path / package / "own.py").write_text("import nope")
    for named in (None, model):
        with pytest.raises(Refusal) as error:
            Sources(device="cpu", model=named).of(replace(fake.WORKLOAD, model=model))
        assert fnmatch(str(error.value), f"model {model}: {said}")
    sys.modules.pop("serves", None)


def test_unwritable_json_fails_at_start(pytester: pytest.Pytester) -> None:
    result = run(pytester, f"--benchmark-json={pytester.path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--benchmark-json *: cannot be written (Is a directory)"])


def test_bad_input_and_collecting_keep_an_older_run(pytester: pytest.Pytester) -> None:
    path = pytester.path / "old.json"
    path.write_text("kept")
    run(pytester, f"--benchmark-json={path}", "--device=cuda")
    run(pytester, f"--benchmark-json={path}", "--collect-only")
    run(pytester, f"--benchmark-json={path}", "--shard=1/99")
    result = run(pytester, f"--benchmark-json={path}", "-k", "nothing_of_this_name")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert path.read_text() == "kept"


@pytest.mark.parametrize("asked", [("-k", "nothing_of_this_name"), ("-m", "not guide")])
def test_selection_without_a_case_names_other_files(
    pytester: pytest.Pytester, asked: tuple[str, str]
) -> None:
    result = run(pytester, *asked)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["no case is selected; *"])


def test_collecting_writes_nothing(pytester: pytest.Pytester) -> None:
    path = pytester.path / "runs" / "new.json"
    result = run(pytester, f"--benchmark-json={path}", "--collect-only")
    assert not path.parent.exists()
    assert "no case of" not in result.stdout.str()
    all_of_them = run(pytester, "--deselect=perf_tests/test_generation.py")
    assert all_of_them.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "no case of" not in all_of_them.stdout.str()


def test_life_of_a_baseline(
    pytester: pytest.Pytester, no_baselines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing: new. Accepted: holds. Slower or gone: fails. Accepted again: holds."""
    paths = [pytester.path / f"{n}.json" for n in range(3)]

    for path in paths:
        result = run(pytester, f"--benchmark-json={path}", fakes="fine,moody", rounds=3)
        result.stdout.fnmatch_lines(["3 new*"])
    assert accept(paths, BaselineStore(no_baselines), reason="first") == 0

    result = run(pytester, "--rounds=5", fakes="fine,moody")
    result.stdout.fnmatch_lines(["*baseline: accepted"])
    result.stdout.no_fnmatch_line("*, new*")
    result.stdout.no_fnmatch_line("* new (*")
    assert result.ret == 0

    monkeypatch.setenv("FAKE_MOOD", "slow")
    result = run(pytester, "--rounds=5", fakes="fine,moody")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["slower: fake4-moody: latency * than the reference, limit *"])

    result = run(pytester, fakes="fine")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["missing: fake4-moody: has a baseline and was not run*", "2 hold, 1 missing"]
    )

    with monkeypatch.context() as patch:
        patch.setattr(fake, "WORKLOAD", fake.WORKLOAD.changed(guidance_scale=1.0))
        result = run(pytester, fakes="fine,moody")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["  fake4-moody: *another workload: guidance_scale was 7.5 and is now 1.0"]
    )

    run(pytester, f"--benchmark-json={paths[0]}", fakes="fine,moody", rounds=3)
    again = partial(accept, paths[:1], BaselineStore(no_baselines), processes=1)
    assert again(reason="moody is slower now") == 0
    result = run(pytester, "--rounds=5", fakes="fine,moody")
    assert result.ret == 0
    history = (no_baselines / "HISTORY.md").read_text()
    assert "first" in history
    assert "moody is slower now" in history

    assert run(pytester, f"--benchmark-json={paths[0]}", fakes="fine", rounds=3).ret == 1
    assert again(reason="moody is not worth it") == 0
    assert run(pytester, fakes="fine").ret == 0


def test_accepted_case_that_cannot_run_is_missing(
    pytester: pytest.Pytester, no_baselines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pytester.path / "run.json"
    run(pytester, f"--benchmark-json={path}", fakes="fine,moody", rounds=3)
    assert accept([path], BaselineStore(no_baselines), reason="first", processes=1) == 0
    lacks = Bench.lacks

    def broken(bench: Bench, stack: Sequence[Optimization], workload: Workload) -> Lack | None:
        moody = any(optimization.name == "moody" for optimization in stack)
        return Lack("no kernel") if moody else lacks(bench, stack, workload)

    monkeypatch.setattr(Bench, "lacks", broken)
    for options, code in ((["-k", "fine"], 0), (["-k", "fine or moody"], 1), ([], 1)):
        result = run(pytester, *options, fakes="fine,moody")
        assert result.ret == code
        if code:
            said = "missing: fake4-moody: has a baseline and was skipped: no kernel"
            result.stdout.fnmatch_lines([said, "* 1 missing"])
            result.stdout.no_fnmatch_line("*1 skipped, 1 missing")


@pytest.mark.parametrize("before", ["0,1", None])
@pytest.mark.parametrize("device", ["cpu", None])
def test_run_in_a_process_of_others_puts_the_visible_gpus_back(
    before: str | None,
    device: str | None,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    seen = "-1" if device else before
    pytester.makepyfile(
        f"""
        import os

        def test_seen():
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == {seen!r}
        """
    )
    options = [f"--device={device}"] if device else []
    run_pytest(pytester, *options).assert_outcomes(passed=1)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


@pytest.mark.parametrize("plugin", ["capture", "terminal"])
def test_main_job_runs_without_a_plugin_of_pytest(plugin: str, pytester: pytest.Pytester) -> None:
    result = run(pytester, "-p", f"no:{plugin}", "--benchmark-json=run.json")
    assert result.ret == pytest.ExitCode.OK
    assert load_run(pytester.path / "run.json").by_id["fake4-fine"].measurement.rounds_s


def test_libraries_are_not_imported_for_tests_that_cannot_be_collected(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports: list[object] = []
    monkeypatch.setattr(housekeeping, "import_libraries", lambda **_: imports.append(None))
    monkeypatch.setattr(Sources, "import_builder", lambda _, of: imports.append(of.name))
    (pytester.path / "perf_tests").mkdir()
    broken = pytester.path / "perf_tests" / "test_broken.py"
    broken.write_text("raise RuntimeError\n")
    assert run(pytester).ret == pytest.ExitCode.INTERRUPTED
    assert not imports
    broken.unlink()
    assert run(pytester).ret == pytest.ExitCode.OK
    assert imports[0] is None
    assert "fake4" in imports


def test_junit_carries_every_verdict(pytester: pytest.Pytester) -> None:
    path = pytester.path / "junit.xml"
    result = run(pytester, f"--junitxml={path}", fakes="fine,black")
    result.stdout.no_fnmatch_line("*xunit2*")
    text = path.read_text()
    assert '<property name="verdict" value="new" />' in text
    assert '<property name="verdict" value="black: fake4-black: image is black" />' in text


def test_closing_table_is_coloured_on_a_terminal_only(pytester: pytest.Pytester) -> None:
    plain = run(pytester, fakes="fine,black").stdout.str()
    assert "\x1b[" not in plain
    coloured = run(pytester, "--color=yes", fakes="fine,black").stdout.str()
    assert re.search(r"\nblack .*\x1b\[31mblack\x1b\[0m", coloured)


def test_insignificant_drift_says_so() -> None:
    took = "reference drift: 1.26x its first timing"
    assert (
        drift_text(Drift(ratio=1.26, significant=False))
        == f"{took}, within the variation of its rounds"
    )
    assert drift_text(Drift(ratio=1.26, significant=True)).startswith(f"{took}; ")
    assert drift_text(Drift(ratio=1.04, significant=False)) == took.replace("1.26", "1.04")
