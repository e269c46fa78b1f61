"""The catalogue of faults as declared, and what becomes of them on a fake pipeline."""

from __future__ import annotations

import cProfile
import itertools
import json
import os
import re
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch._dynamo import mutation_guard

from diffusers_perf import faults
from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.catalog.discovery import Project, shipped
from diffusers_perf.catalog.metric import Detector
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.status import Status
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.cli import __main__ as cli
from diffusers_perf.cli import faults as command
from diffusers_perf.faults import trials
from diffusers_perf.faults.clean import CleanRun
from diffusers_perf.faults.injection import (
    CannotInject,
    Fault,
    Injection,
    Setting,
    control,
    fault,
    faults_in,
)
from diffusers_perf.faults.outcomes import OutcomeStatus
from diffusers_perf.judge.finding import Finding
from diffusers_perf.measurement import host, pipelines
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.measurement.discovery import know
from diffusers_perf.measurement.generation import Generation
from diffusers_perf.measurement.machine import this_machine
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.techniques.cuda_graphs import Graphed
from perf_tests.tests.unit import fake
from perf_tests.tests.unit.fake import (
    CLOCK,
    WORKLOAD,
    FakePipeline,
    FakeSource,
    FakeSources,
    on_fake_clock,
)

DECLARED = list(faults.declared().values())
REAL = [f for f in DECLARED if not f.is_control]
CONTROLS = [f for f in DECLARED if f.is_control]


# What is declared


def test_every_fault_file_is_imported() -> None:
    files = {path.stem for path in Path(faults.__file__).parent.glob("*.py")}
    assert files - {"__init__", "plugin"} <= set(vars(faults))


def test_catalog_has_the_allowed_size() -> None:
    assert len(REAL) >= 25
    assert len(CONTROLS) >= 10
    assert len([f for f in REAL if f.runs_on("cpu")]) >= 15
    assert {f.detected_by for f in REAL} == set(get_args(Detector))


def test_historical_regressions_are_in_the_catalog() -> None:
    sources = " ".join(f.source for f in DECLARED)
    happened = "#511 #371 #1614 #3493 #3594 #4305 #6173 #6708 UniPC #7576 1.12 #174575 #775 #902"
    happened += " #23648 #14297 #3266 #6931 modulate_index"  # of the models that people serve
    assert [name for name in happened.split() if name not in sources] == []


@pytest.mark.parametrize("declared", DECLARED, ids=lambda f: f.name)
def test_each_fault_is_described(declared: Fault) -> None:
    assert declared.line.endswith(".")
    assert declared.source
    assert declared.where in ("any", "cpu", "cuda")
    assert declared.runs_on("cpu") or declared.runs_on("cuda")
    assert len(set(declared.sizes)) == len(declared.sizes)
    if declared.setting.image_only:
        assert declared.detected_by in ("image", None)
    if declared.detected_by in ("latency", "measuring"):
        assert declared.setting.rounds > 2  # fewer decide nothing


def test_bad_declarations_are_refused() -> None:
    setting = Setting(steps=1)

    def undocumented(injection: Injection) -> None: ...

    def sound(injection: Injection) -> None:
        """It is."""

    def blank(injection: Injection) -> None:
        """ """

    for silent in (undocumented, blank):
        with pytest.raises(ValueError, match="no docstring"):
            control(setting=setting)(silent)
    with pytest.raises(ValueError, match="unknown detector 'speed'; known are counter, GPU busy"):
        fault(detected_by="speed", setting=setting)(sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown machine 'tpu'; known are any, cpu, cuda"):
        control(setting=setting, where="tpu")(sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sizes and unit must be given together"):
        fault(detected_by="latency", setting=setting, sizes=(1,))(sound)


def test_name_that_two_modules_declare_is_refused() -> None:
    modules = [ModuleType("one"), ModuleType("two")]
    for module in modules:

        def sound(injection: Injection) -> None:
            """It is."""

        sound.__module__ = module.__name__
        vars(module)["sound"] = control(setting=Setting(steps=1))(sound)
    with pytest.raises(ValueError, match="the name 'sound' is taken"):
        faults_in(modules)


@pytest.mark.parametrize("status", OutcomeStatus)
def test_status_of_an_outcome_says_the_exit_code(status: OutcomeStatus) -> None:
    undecided = {OutcomeStatus.UNDECIDED, OutcomeStatus.NOT_RUN}
    holds = {OutcomeStatus.DETECTED, OutcomeStatus.NOT_FLAGGED, OutcomeStatus.SKIPPED}
    assert status.exit_code == (3 if status in undecided else 0 if status in holds else 1)


def with_graph(name: str) -> Any:
    """A pipeline in which one of the faults of CUDA graphs was injected."""
    pipeline: Any = FakePipeline()
    know(pipeline, Generation(pipeline, WORKLOAD).anatomy)
    pipeline.encode_prompt = lambda: "states"
    injection = next(f for f in DECLARED if f.name == name).injected(Injection(device="cuda"))
    injection.into(pipeline, REFERENCE)
    return pipeline


def test_graph_faults_switch_off_or_record_again() -> None:
    assert not isinstance(with_graph("graph_off").unet.forward, Graphed)
    pipeline = with_graph("graph_recorded_again")
    before = pipeline.unet.forward
    assert pipeline.encode_prompt() == "states"
    assert pipeline.unet.forward is not before
    assert pipeline.unet.forward.function == before.function


def test_opaque_normalizations_stay_whole_in_what_is_compiled() -> None:
    injection = faults.declared()["norms_opaque"].injected(Injection(device="cuda"))
    layers = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.RMSNorm(4))
    x = torch.arange(8.0).reshape(2, 4)
    with torch.no_grad():
        wanted = layers(x)
    called: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        called.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch.compiler.reset()
    with ExitStack() as contexts, torch.no_grad():
        for context in injection.contexts:
            contexts.enter_context(context)
        made = torch.compile(layers, backend=keep)(x)
    torch.compiler.reset()
    assert torch.equal(made, wanted)
    assert [name.rpartition("faults.")[2] for name in called] == [
        "layer_norm.default",
        "rms_norm.default",
    ]


# What becomes of it


# In fewer steps than the workload has, as most settings are.
FAKE = Setting(workload="fake4", steps=3)
TIMED = Setting(workload="fake4", steps=4, rounds=4)


def images(injection: Injection, change: Any) -> None:
    injection.then(lambda pipeline: pipeline.changes.append(change))


def dark(injection: Injection) -> None:
    """Every image is black."""
    images(injection, lambda p: p * 0)


def harmless(injection: Injection) -> None:
    """Nothing is wrong."""


def raising(injection: Injection) -> None:
    """A library is broken."""

    def change(p: Any) -> Any:
        raise ZeroDivisionError("all is lost")

    images(injection, change)


def lengthy(injection: Injection) -> None:
    """A step takes longer."""
    seconds = 4 * (injection.size or 0) / 100 * injection.step_s

    def change(p: Any) -> Any:
        CLOCK.sleep(seconds)
        return p

    images(injection, change)


def keeping(injection: Injection) -> None:
    """Tensors are kept."""
    kept: list[torch.Tensor] = []

    def change(p: Any) -> Any:
        kept.append(torch.zeros(10_000))
        return p

    images(injection, change)


def lacking(injection: Injection) -> None:
    """Needs what is not here."""
    raise CannotInject("this model has one moon")


class Declared:
    """A catalogue of faults that a test fills."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}

    def fault(self, **options: Any) -> Callable[[Callable[[Injection], None]], None]:
        return lambda apply: self._add(fault(**options)(apply))

    def control(self, **options: Any) -> Callable[[Callable[[Injection], None]], None]:
        return lambda apply: self._add(control(**options)(apply))

    def _add(self, made: Fault) -> None:
        self.faults[made.name] = made


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Declared:
    """An empty catalogue of faults over the fake pipeline."""
    there = Declared()
    on_fake_clock(monkeypatch)
    monkeypatch.setattr(faults, "declared", lambda: there.faults)
    catalog = Catalog()
    catalog.add_cases(WORKLOAD)
    monkeypatch.setattr(command, "find_project", lambda _: Project(shared=catalog))

    def bench(args: Any, project: Project) -> Bench:
        return Bench(
            sources=FakeSources(),
            machine=this_machine("cpu"),
            rounds=1,
            options=("--model", "my model"),
            say=lambda *_: None,
            images_folder=None,
            store=BaselineStore(Path("baselines")),
        )

    monkeypatch.setattr(command, "_bench", bench)
    return there


def test_faults_are_detected_and_controls_are_not_flagged(
    declared: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared.fault(detected_by="image", setting=FAKE)(dark)
    declared.fault(detected_by="memory", setting=FAKE)(keeping)
    declared.control(setting=FAKE)(harmless)
    declared.control(setting=FAKE)(lacking)
    path = tmp_path / "out" / "faults.json"
    assert cli.main(["faults", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert (
        "2 of 2 faults detected, 1 of 1 control not flagged, 0 false alarms in 6 verdicts" in shown
    )
    assert "skipped: lacking: this model has one moon" in shown
    content = json.loads(path.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["dark"]["status"] == "detected"
    assert rows["dark"]["verdict"] == "black"
    assert rows["keeping"]["verdict"] == "more memory"
    assert content["clean_verdicts"] == 6
    assert content["false_alarms"] == []


def test_file_that_lists_no_faults_is_not_overwritten(
    declared: Declared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared.control(setting=FAKE)(harmless)
    path = tmp_path / "run.json"
    for text in ('{"benchmarks": []}', "5", "no JSON"):
        path.write_text(text)
        assert cli.main(["faults", "--json", str(path)]) == 2
        assert "holds something else, which would be lost" in capsys.readouterr().err
        assert path.read_text() == text
    path.unlink()
    assert cli.main(["faults", "--json", str(path)]) == 0
    assert cli.main(["faults", "--json", str(path)]) == 0


def test_undetected_fault_is_missed(declared: Declared, capsys: pytest.CaptureFixture[str]) -> None:
    declared.fault(detected_by="image", setting=FAKE)(harmless)
    assert cli.main(["faults"]) == 1
    shown = capsys.readouterr().out
    assert "harmless: missed" in shown
    assert "image shows no change" in shown


def test_missed_fault_says_what_its_detector_measured(
    declared: Declared, capsys: pytest.CaptureFixture[str]
) -> None:
    declared.fault(detected_by="latency", setting=FAKE)(harmless)
    assert cli.main(["faults"]) == 1
    assert re.search(
        r"latency shows no change: latency \S+ s \(limit \S+ s\)", capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (Setting(workload="nope", steps=1), "no workload is called 'nope'"),
        (replace(FAKE, case="nope"), f"{WORKLOAD.name}: no optimization is called 'nope'"),
        (replace(FAKE, rounds=0), "rounds must be a positive integer"),
        (replace(FAKE, changes={"sise": 8}), f"{WORKLOAD.name} has no 'sise' to change"),
        (replace(FAKE, steps=0), f"{WORKLOAD.name}: steps must be a positive integer (got 0)"),
    ],
)
def test_unknown_setting_is_refused_before_anything_runs(
    declared: Declared,
    capsys: pytest.CaptureFixture[str],
    setting: Setting,
    sentence: str,
) -> None:
    declared.fault(detected_by="image", setting=FAKE)(dark)
    declared.fault(detected_by="image", setting=setting)(harmless)
    assert cli.main(["faults"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"error: harmless: {sentence}")


@pytest.mark.parametrize(
    ("runs", "advice"),
    [
        (True, f"; set --workload to one of those that run here: {WORKLOAD.name}"),
        (False, f", and none of those declared runs here ({WORKLOAD.name}); choose another "),
    ],
)
def test_unknown_workload_names_those_there_are(
    declared: Declared,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: bool,
    advice: str,
) -> None:
    monkeypatch.setattr(FakeSources, "runs", lambda *_: runs)
    declared.fault(detected_by="image", setting=FAKE)(dark)
    assert cli.main(["faults", "--workload", "nope"]) == 2
    assert f"no workload is called 'nope'{advice}" in capsys.readouterr().err


def test_fault_detected_by_another_detector_is_missed(declared: Declared) -> None:
    declared.fault(detected_by="memory", setting=FAKE)(dark)
    assert cli.main(["faults"]) == 1


def test_failing_control_is_a_false_alarm(
    declared: Declared, capsys: pytest.CaptureFixture[str]
) -> None:
    declared.control(setting=FAKE)(dark)
    assert cli.main(["faults"]) == 1
    assert "dark: false alarm" in capsys.readouterr().out


@pytest.mark.parametrize(("setting", "code"), [(FAKE, 3), (TIMED, 1)])
def test_control_that_the_clock_alone_flags_is_undecided_where_it_is_not_timed(
    declared: Declared, setting: Setting, code: int
) -> None:
    def late(injection: Injection) -> None:
        """The machine takes ten times as long for each step."""
        injection.put(fake, "STEP_S", 10 * fake.STEP_S)

    declared.control(setting=setting)(late)
    assert cli.main(["faults"]) == code


def test_fault_that_raises_does_not_stop_the_others(
    declared: Declared, capsys: pytest.CaptureFixture[str]
) -> None:
    declared.fault(detected_by="image", setting=FAKE)(raising)
    declared.fault(detected_by="image", setting=FAKE)(dark)
    assert cli.main(["faults"]) == 1
    shown = capsys.readouterr().out
    assert "raising: error" in shown
    assert "ZeroDivisionError: all is lost" in shown
    assert "1 of 2 faults detected" in shown


def test_kill_ends_the_run_as_ctrl_c_does(
    declared: Declared,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared.fault(detected_by="image", setting=FAKE)(dark)
    monkeypatch.setattr(Bench, "clear", lambda bench: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["faults"]) == 2
    assert "interrupted: nothing was judged" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_fault_that_cannot_be_removed_does_not_stop_the_others(
    declared: Declared,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared.fault(detected_by="image", setting=FAKE)(raising)
    declared.fault(detected_by="image", setting=FAKE)(dark)
    clear, calls = Bench.clear, itertools.count()

    def stuck(bench: Bench) -> None:
        clear(bench)
        if next(calls) == 0:
            raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(Bench, "clear", stuck)
    assert cli.main(["faults"]) == 1
    shown = capsys.readouterr().out
    assert "RuntimeError: an illegal memory access" in shown
    assert "1 of 2 faults detected" in shown


def test_smallest_size_is_found(declared: Declared, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    def uneven(injection: Injection) -> None:
        """A pattern lies over every image."""
        size = injection.size or 0
        rows = np.arange(64).reshape(1, 64, 1, 1) % 8 < 4
        images(injection, lambda p: p + 10 ** (-size / 20) * rows)

    declared.fault(detected_by="image", setting=FAKE, unit="dB", sizes=(10, 50, 80, 110))(uneven)
    assert cli.main(["faults"]) == 0
    assert "uneven: detected, down to 80 dB" in capsys.readouterr().out


def test_busy_machine_is_undecided(
    declared: Declared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers_perf.measurement.interference import Watch

    declared.fault(detected_by="latency", setting=TIMED, unit="%", sizes=(20,))(lengthy)
    assert cli.main(["faults"]) == 0
    monkeypatch.setattr(Watch, "host_interference", lambda self: ("a neighbour",))
    assert cli.main(["faults"]) == 3
    shown = capsys.readouterr().out
    assert "lengthy: undecided" in shown
    assert "undecided; run again: diffusers-perf faults lengthy" in shown


@pytest.mark.parametrize(
    ("alarms", "code"),
    [
        ([], 0),
        ([("slower", "latency")], 3),
        ([("slower", "latency speedup")], 3),
        ([("black", "image")], 1),
        ([("slower", "latency"), ("more work", "casts")], 1),
        ([("slower", "GPU busy")], 1),
    ],
)
def test_clean_run_with_a_latency_alarm_is_undecided(
    alarms: list[tuple[str, str]], code: int
) -> None:
    anything: Any = SimpleNamespace(name="anything")
    session = trials.Trials(judging=anything, project=anything, folder=Path())
    findings = tuple(
        Finding(status=Status(status), metric=metric, what="") for status, metric in alarms
    )
    session._count(anything, CleanRun(measured=(), findings=findings))
    assert len(session.false_alarms) == len(alarms)
    assert command.code([], session) == code


def test_latency_fault_needs_no_observation(
    declared: Declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[str] = []

    def left(*_: object, **__: object) -> host.Left:
        observed.append("a run")
        return host.Left(kept_bytes=0, ignored=())

    monkeypatch.setattr(host, "left", left)
    declared.fault(detected_by="latency", setting=TIMED, unit="%", sizes=(300,))(lengthy)
    assert cli.main(["faults"]) == 0
    assert len(observed) == 2  # the clean ones, which every rule judges
    declared.control(setting=TIMED)(harmless)
    assert cli.main(["faults", "harmless"]) == 0
    assert len(observed) == 5


def test_other_base_gives_the_same_verdict_without_a_gpu() -> None:
    half = Setting(base=("fp16",), base_on_cpu=("bf16",), steps=1)
    assert (half.base_on("cuda"), half.base_on("cpu")) == (("fp16",), ("bf16",))
    assert Setting(base=("fp16",), steps=1).base_on("cpu") == ("fp16",)


def test_pipeline_is_freed_before_the_next_is_built(
    declared: Declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[weakref.ref[FakePipeline]] = []
    left: list[int] = []
    load = FakeSource.load

    def loaded(source: FakeSource, **options: Any) -> FakePipeline:
        left.append(sum(before() is not None for before in built))
        pipeline = load(source, **options)
        built.append(weakref.ref(pipeline))
        return pipeline

    def circular(injection: Injection) -> None:
        """The pipeline is held by what it calls."""
        injection.then(lambda pipeline: pipeline.changes.append(lambda p: p * bool(pipeline)))

    monkeypatch.setattr(FakeSource, "load", loaded)
    declared.fault(detected_by="counter", setting=FAKE)(circular)
    declared.fault(detected_by="image", setting=FAKE)(raising)
    declared.fault(detected_by="image", setting=FAKE)(dark)
    assert cli.main(["faults"]) == 1  # one raises
    assert left == [0] * 6


def test_cublas_workspace_is_freed_with_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    forget = "_cuda_clearCublasWorkspaces"
    monkeypatch.setattr(torch._C, forget, lambda: shown.append("workspaces"), raising=False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: shown.append("cache"))
    # The peak of loading, which nothing here takes.
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_snapshot", list)
    case = Case(workload=WORKLOAD, name=REFERENCE, stack=(), against=REFERENCE, image_only=False)
    source: Any = FakeSource()
    with pipelines.built(case, source, torch.device("cuda")):
        # Those of finding out what it is made of. Later, a graph may stand on them.
        assert shown == ["workspaces", "cache"]
    assert shown == ["workspaces", "cache"] * 2


def test_exhausted_budget_is_reported(
    declared: Declared, capsys: pytest.CaptureFixture[str]
) -> None:
    declared.fault(detected_by="image", setting=FAKE)(dark)
    assert cli.main(["faults", "--minutes", "0"]) == 3
    again = "undecided; run again: diffusers-perf faults dark"
    assert f"{again} --model 'my model'\n" in capsys.readouterr().out
    assert cli.main(["faults", "--minutes", "0", "--workload", WORKLOAD.name]) == 3
    said = f"{again} --workload {WORKLOAD.name} --model 'my model'\n"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["xyz"], "no fault is called 'xyz'; diffusers-perf faults --list lists all"),
        (["upcast_norm"], "'upcast_norm' (did you mean upcast_norms or "),
        (["--json", "/proc/none/out.json"], "cannot be written"),
        (["cudnn_off", "--device", "cpu"], "cudnn_off cannot be detected with --device cpu"),
        (["--device", "cpu", "--model", "no-such"], "no such folder"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["faults", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert says in shown


def test_every_fault_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["faults", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [declared.name for declared in DECLARED]
    assert all(line.endswith(f.line) for line, f in zip(listed, DECLARED, strict=True))


@pytest.mark.parametrize("minutes", ["nan", "-1", "inf", "ten"])
def test_minutes_must_be_a_number(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["faults", f"--minutes={minutes}"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "must be 0 or more" in said
    assert f"(got {minutes})" in said


# The rules that faults asked for


def test_python_calls_are_the_same_on_every_run() -> None:
    pipeline = FakePipeline()
    generation = Generation(pipeline, WORKLOAD)
    once, again = (host.python_calls(generation, pipeline) for _ in range(2))
    assert once == again
    assert once.per_step > 0
    assert host.left(generation, torch.device("cpu")) == host.Left(kept_bytes=0, ignored=())


def test_python_calls_of_another_thread_do_not_count() -> None:
    """As Inductor's, which look at what its workers do, and which a first compilation starts."""
    pipeline = FakePipeline()
    generation = Generation(pipeline, WORKLOAD)
    alone = host.python_calls(generation, pipeline)
    ended = threading.Event()

    def called() -> None:
        pass

    def work() -> None:
        while not ended.is_set():
            called()

    other = threading.Thread(target=work)
    other.start()
    try:
        beside = host.python_calls(generation, pipeline)
    finally:
        ended.set()
        other.join()
    assert beside == alone


def test_python_calls_are_counted_beside_cprofile() -> None:
    """Which is what `sys.getprofile` gives on Python 3.11, and no function."""
    pipeline = FakePipeline()
    generation = Generation(pipeline, WORKLOAD)
    alone = host.python_calls(generation, pipeline)

    def after() -> None:
        pass

    with cProfile.Profile(builtins=False) as profile:
        beside = host.python_calls(generation, pipeline)
        after()
    assert beside == alone
    entries = profile.getstats()  # type: ignore[attr-defined, unused-ignore]
    assert after.__code__ in {entry.code for entry in entries}


def test_python_calls_leave_a_profiler_as_it_was() -> None:
    def profiler(*_: object) -> None:
        pass

    pipeline = FakePipeline()
    generation = Generation(pipeline, WORKLOAD)
    sys.setprofile(profiler)
    try:
        host.python_calls(generation, pipeline)
        after = sys.getprofile()
    finally:
        sys.setprofile(None)
    assert after is profiler


def test_python_calls_of_a_cached_result_end_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no steps. That its time cannot be true, the rounds say."""
    pipeline = FakePipeline()
    generation = Generation(pipeline, WORKLOAD)
    assert generation.anatomy
    made = generation.call(steps=4)()
    monkeypatch.setattr(FakePipeline, "__call__", lambda *_, **__: made)
    assert host.python_calls(generation, pipeline).per_step == 0


def test_python_calls_are_the_same_once_something_was_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From then on Dynamo notes each module that is made, as diffusers' SD v1.5 does in each step,
    and forgets it when it is gone.
    """
    module = torch.nn.Module
    # As in a process in which no test before this one compiled anything.
    monkeypatch.setattr(module, "__init__", mutation_guard.unpatched_nn_module_init)
    monkeypatch.setattr(module, "__setstate__", module.__setstate__)
    monkeypatch.setattr(module, "___needs_generation_tag_patch", True, raising=False)

    def with_modules(sample: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            torch.nn.Identity()
        return sample

    pipeline = FakePipeline()
    pipeline.unet.forward = with_modules  # type: ignore[method-assign]
    generation = Generation(pipeline, WORKLOAD)
    before = host.python_calls(generation, pipeline)
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert module.__init__ is not mutation_guard.unpatched_nn_module_init
    assert host.python_calls(generation, pipeline) == before


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("torch/_functorch/_aot_autograd/runtime_wrappers.py", False),
        (
            "torch/_functorch/_aot_autograd/subclass_codegen.py:codegen(wrapper)",
            False,
        ),
        ("torch/_functorch/vmap.py", True),
        ("torch/_dynamo/mutation_guard.py", False),
        ("torch/_dynamo/utils.py", True),
        ("torch/_dynamo/eval_frame.py", True),
        ("torch/_inductor/output_code.py", True),
        ("torch/nn/modules/module.py", True),
        ("diffusers/pipelines/pipeline_utils.py", True),
    ],
)
def test_python_calls_leave_out_what_wraps_compiled_graphs(path: str, counts: bool) -> None:
    """Torch 2.11 wraps a graph that it compiled once more than one from the cache on disk."""

    def calls(wrappers: int) -> Count:
        pipeline = FakePipeline()
        for _ in range(wrappers):
            wrapped = {"inner": pipeline.unet.forward}
            file = Path(torch.__file__).parents[1] / path
            exec(compile("def forward(x): return inner(x)", file, "exec"), wrapped)
            pipeline.unet.forward = wrapped["forward"]  # type: ignore[method-assign]
        return host.python_calls(Generation(pipeline, WORKLOAD), pipeline)

    bare, wrapped = calls(0), calls(2)
    assert wrapped.fixed == bare.fixed
    # Each of them is called, and is one more that is summed up.
    assert wrapped.per_step - bare.per_step == (4 if counts else 0)


def test_memory_kept_by_a_generation_is_counted() -> None:
    pipeline, kept = FakePipeline(), []

    def keep(images: Any) -> Any:
        kept.append(torch.zeros(1000))
        return images

    pipeline.changes.append(keep)
    left = host.left(Generation(pipeline, WORKLOAD), torch.device("cpu"))
    assert left.kept_bytes == 4000


@pytest.mark.parametrize("asked", [True, False])
def test_memory_kept_on_a_gpu_is_in_requested_bytes(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """The bytes requested; the larger blocks only where requests are not counted."""
    held = iter((1000, 5000))
    stats = {"requested_bytes.all.current": 0}

    def synchronize() -> None:
        if asked:
            stats["requested_bytes.all.current"] = next(held)

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: stats)
    monkeypatch.setattr(torch.cuda, "memory_allocated", iter((2000, 8000)).__next__)
    left = host.left(Generation(FakePipeline(), WORKLOAD), torch.device("cuda"))
    assert left.kept_bytes == (4000 if asked else 6000)


def test_head_of_a_users_weights_is_not_off() -> None:
    """Their blocks may add as much as they like, so that none is judged beside the others."""
    with pytest.raises(CannotInject):
        faults.declared()["head_off"].injected(Injection(device="cpu", kind="checkpoint"))
    assert faults.declared()["head_off"].injected(Injection(device="cpu")).changes


def test_patched_static_method_is_restored() -> None:
    class Library:
        @staticmethod
        def twice(x: int) -> int:
            return 2 * x

    injection = Injection(device="cpu")
    injection.put(Library, "twice", staticmethod(lambda x: x))
    with injection.contexts[0]:
        assert Library().twice(3) == 3
    assert Library().twice(3) == 6


def stand_in(*workloads: Workload, setting: Setting) -> list[Case]:
    """The cases of a fault in the shortest of a model's workloads, of which none is its own."""
    catalog = shipped().without_cases()
    for workload in workloads:
        catalog.add_cases(workload, "fused_qkv")
    project = Project(shared=catalog)
    made = fault(detected_by="image", setting=setting)(dark)
    bench: Any = SimpleNamespace(sources=FakeSources(), device=torch.device("cuda"))
    session = trials.Trials(
        judging=SimpleNamespace(bench=bench),  # type: ignore[arg-type]
        project=project,
        folder=Path(),
        workload=command._stand_in(project, bench.sources, [made]),
    )
    return session._cases(setting)


FULL = replace(WORKLOAD, model="sdxl")
LONG = replace(FULL, name="long28", steps=28)
BATCH = replace(FULL, name="batch4", call={**WORKLOAD.call, "prompt": ["a fake"] * 4})
HALF = replace(WORKLOAD, base=("bf16",))


def test_faults_of_another_model_are_injected_in_its_shortest_workload() -> None:
    (case,) = stand_in(LONG, BATCH, FULL, setting=Setting(steps=20))
    assert (case.workload.name, case.workload.steps) == ("fake4", 4)
    (case,) = stand_in(WORKLOAD, setting=Setting(steps=20))
    assert case.workload.steps == 20  # of a small model's, which takes no time
    (case,) = stand_in(LONG, setting=Setting(steps=20))
    assert (case.workload.name, case.workload.steps) == ("long28", 20)


def test_precision_that_a_workload_is_served_in_stays() -> None:
    setting = Setting(base=("fp16", "naive_attention"), steps=4)
    (case,) = stand_in(HALF, setting=setting)
    assert case.workload.base == ("bf16", "naive_attention")
    (case,) = stand_in(WORKLOAD, setting=setting)
    assert case.workload.base == ("fp16", "naive_attention")


def test_settings_that_come_to_the_same_case_share_a_clean_run(
    declared: Declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    side = trials.Trials._side

    def counted(self: trials.Trials, *args: Any, injected: bool, **kwargs: Any) -> CleanRun:
        made.append(injected)
        return side(self, *args, injected=injected, **kwargs)

    monkeypatch.setattr(trials.Trials, "_side", counted)
    catalog = Catalog()
    catalog.add_cases(FULL)
    monkeypatch.setattr(command, "find_project", lambda _: Project(shared=catalog))
    declared.fault(detected_by="image", setting=Setting(workload="sd", steps=20))(dark)
    declared.control(setting=Setting(workload="sd", steps=30))(harmless)
    assert cli.main(["faults"]) == 0
    # Before the first, after it, and after the second.
    assert made == [False, True, False, True, False]
    made.clear()
    declared.fault(detected_by="memory", setting=Setting(workload="sd", steps=3))(keeping)
    assert cli.main(["faults", "dark", "keeping"]) == 0
    assert made == [False, True, False] * 2


def test_prompt_of_another_text_encoder_takes_every_prompts_place() -> None:
    assert WORKLOAD.changed(prompt_2="another").call["prompt_2"] == ["another"] * 2
    one = replace(WORKLOAD, call={**WORKLOAD.call, "prompt": "a fake"})
    assert one.changed(prompt_2="another").call["prompt_2"] == "another"
