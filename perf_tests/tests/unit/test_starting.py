"""Times before the first image: measured apart for cold and warm caches, and judged widely."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import count
from typing import Any

import pytest
import torch
from msgspec import structs

from diffusers_perf.catalog.build import Build
from diffusers_perf.catalog.declarations import Case, Needs, Optimization, Tolerances
from diffusers_perf.catalog.metrics import BY_LEAST
from diffusers_perf.catalog.status import Status
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.judge.comparison import Change
from diffusers_perf.judge.pairs import compare
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.measurement import core, housekeeping, loading
from diffusers_perf.measurement.bytecode import Compiled
from diffusers_perf.measurement.loading import (
    COLD_BYTES,
    START_TICK_S,
    Importing,
    Load,
    Loading,
    before_first_image,
    import_parts,
    import_times,
    since_start,
)
from diffusers_perf.measurement.pipelines import built
from diffusers_perf.plugin import collection
from diffusers_perf.records.reading import load_run
from perf_tests.tests.unit import main_job, recorded
from perf_tests.tests.unit.factories import FP16, REFERENCE, baseline_of, question
from perf_tests.tests.unit.fake import WORKLOAD, FakePipeline, FakeSource

CASE = "ddim50-fp16"
REFERENCE_CASE = Case(workload=WORKLOAD, name="reference", stack=())
IDLE_S = (0.037, 0.009, 0.055, 0.01)
"""Of imports of 4.2 to 5.0 s by four processes, from the disk's cache."""
IDLE_SLOW_S = 3.02
"""Of one that slept for 3 s."""
COLD_S = (21.43, 25.46)
"""Imports from the disk on two machines with an H200."""


class Thing:
    """Can be referred to weakly."""


def test_load_is_timed_and_the_first_is_cold() -> None:
    pipeline, source = Thing(), Thing()
    for is_first in (True, False):
        began = Loading()
        time.sleep(0.02)
        loading.note(pipeline, source, began)
        load = loading.load_of(pipeline)
        assert load is not None
        assert load.is_first == is_first
        assert load.seconds >= 0.02
    assert loading.load_of(Thing()) is None


def test_peak_of_a_load_is_of_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start of the load to the last change, without what is generated between to find out
    what the pipeline is made of, once. CUDA's memory is simulated.
    """
    allocated = {"now": 0, "peak": 9 * 2**30}

    def take(more: int) -> None:
        allocated["now"] += more
        allocated["peak"] = max(allocated.values())

    class Pipeline(FakePipeline):
        def __call__(self, *args: Any, **options: Any) -> Any:
            take(8 * 2**30)
            take(-8 * 2**30)
            return super().__call__(*args, **options)

    class Source(FakeSource):
        def load(self, **_: Any) -> Any:
            take(2**30)
            take(-(2**29))
            return Pipeline()

    def apply(build: Build) -> None:
        """Takes as much again."""
        build.then(lambda pipeline: take(2**30))

    change = replace(
        REFERENCE_CASE,
        name="more",
        stack=(
            Optimization(
                name="more",
                apply=apply,
                tolerance=Tolerances(),
                needs=Needs(),
                applied=lambda _: None,
            ),
        ),
    )
    cuda = torch.cuda
    monkeypatch.setattr(
        cuda, "reset_peak_memory_stats", lambda: allocated.update(peak=allocated["now"])
    )
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda: allocated["peak"])
    monkeypatch.setattr(cuda, "memory_snapshot", list)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
    source: Any = Source()
    looked_at = []
    for case, peak in ((change, 2**29 + 2**30), (change, 2**29 + 2**30), (REFERENCE_CASE, 2**30)):
        allocated["now"] = 0
        with built(case, source, torch.device("cuda")) as pipeline:
            looked_at.append(pipeline.calls > 0)
            take(2**40)
            load = loading.load_of(pipeline)
        assert load is not None
        assert load.peak_bytes == peak
        seen = before_first_image(load, 1.0, 1.0, None, Compiled())
        assert seen["load_memory_bytes"] == peak
    assert looked_at == [True, False, False]
    with built(REFERENCE_CASE, source, torch.device("cpu")) as pipeline:
        load = loading.load_of(pipeline)
    assert "load_memory_bytes" not in before_first_image(load, 1.0, 1.0, None, Compiled())


def test_workloads_of_the_same_call_are_made_of_the_same_parts() -> None:
    source: Any = FakeSource()
    first = REFERENCE_CASE.workload
    shorter = replace(first, name="shorter", steps=first.steps + 1, seed=1, base=("fine",))
    assert looked_at(source, first, shorter, first) == [True, False, False]


@pytest.mark.parametrize(
    "changes",
    [
        [{"height": 128}, {"height": 96}],
        [{"timesteps": [3, 2, 1]}, {"timesteps": [3, 1, 0]}],
        # What looks alike, such as functions of one kind and long tensors of zeros.
        [{"callback": lambda *_: 1}, {"callback": lambda *_: 2}],
        [{"sigmas": torch.zeros(2000)}, {"sigmas": torch.zeros(3000)}],
        [{"guidance_scale": 1}, {"guidance_scale": 1.0}, {"guidance_scale": True}],
    ],
)
def test_workloads_of_another_call_are_looked_at_anew(changes: list[dict[str, Any]]) -> None:
    source: Any = FakeSource()
    others = [REFERENCE_CASE.workload.changed(**change) for change in changes]
    assert looked_at(source, *others, *others) == [True] * len(others) + [False] * len(others)


@pytest.mark.parametrize("name", ["name", "steps", "seed", "base"])
def test_argument_that_is_named_as_a_field_is_one_of_the_call(name: str) -> None:
    source: Any = FakeSource()
    first = REFERENCE_CASE.workload
    others = [replace(first, call={**first.call, name: number}) for number in (1, 2)]
    assert looked_at(source, first, *others) == [True, True, True]


def test_workloads_of_other_inputs_are_looked_at_anew() -> None:
    source: Any = FakeSource()
    first = REFERENCE_CASE.workload
    others = [replace(first, inputs=Image()) for _ in range(2)]
    assert looked_at(source, first, *others) == [True, True, True]


@dataclass
class Image:
    """Of a user's own: it cannot be hashed, and equals others of its kind."""

    def __call__(self) -> dict[str, Any]:
        return {"image": "an image"}


def test_workloads_of_another_scheduler_are_looked_at_anew() -> None:
    source: Any = FakeSource()
    others = [replace(REFERENCE_CASE.workload, scheduler=s) for s in ("DDIMScheduler", None)]
    assert looked_at(source, *others) == [True, True]


def looked_at(source: Any, *workloads: Workload) -> list[bool]:
    """Of each workload, in turn, whether it was found out what its pipelines are made of."""
    found = []
    for workload in workloads:
        case = replace(REFERENCE_CASE, workload=workload)
        with built(case, source, torch.device("cpu")) as pipeline:
            found.append(pipeline.calls > 0)
    return found


def test_nothing_of_the_last_pipeline_is_there_when_the_next_is_loaded() -> None:
    """Whoever had it can have let go of it after its context was left."""

    class Source(FakeSource):
        def load(self, **kwargs: Any) -> Any:
            self.left = ref()
            return super().load(**kwargs)

    class Cyclic:
        def __init__(self) -> None:
            self.itself = self

    source: Any = Source()
    last = Cyclic()
    ref = weakref.ref(last)
    gc.disable()
    try:
        del last
        assert ref()
        with built(REFERENCE_CASE, source, torch.device("cpu")):
            pass
    finally:
        gc.enable()
    assert source.left is None


def test_cache_is_cold_where_much_is_read() -> None:
    assert not Load(seconds=1, read_bytes=COLD_BYTES).is_cold
    assert Load(seconds=1, read_bytes=COLD_BYTES + 1).is_cold
    both = Load(seconds=1, read_bytes=COLD_BYTES) + Load(seconds=2, read_bytes=1)
    assert (both.seconds, both.is_cold) == (3, True)


def test_sleeping_is_idle_and_computing_is_not() -> None:
    began = Loading()
    time.sleep(0.05)
    slept = began.ended()
    assert 0.04 <= slept.idle_s <= slept.seconds
    began, computed_s = Loading(), time.thread_time()
    while time.thread_time() - computed_s < 0.05:
        pass
    assert began.ended().idle_s < 0.04


class Clock:
    """Stands in for a thread's clock and its loop: a part of an import takes what a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.loops = 0
        monkeypatch.setattr(loading, "running_s", lambda: self.now_s)
        monkeypatch.setattr(loading, "since_start", lambda: Load(seconds=5.0, read_bytes=0))
        monkeypatch.setattr(core, "loop_s", self.loop_s)

    def loop_s(self) -> float:
        self.loops += 1
        self.now_s += 1.0
        return self.loops / 100


def test_loop_is_timed_between_the_parts_of_an_import_and_in_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    importing = Importing()
    clock.now_s += 50  # nothing that counts
    importing.begin_part()
    for seconds in (2.0, 0.01, 3.0):
        clock.now_s += seconds
        importing.end_part()
    load = importing.load()
    assert load.seconds == pytest.approx(5 + 2 + 0.01 + 3)
    # None after the short part.
    assert [seconds for seconds, _ in load.parts] == pytest.approx([5, 2, 3])
    assert [loop_s for _, loop_s in load.parts] == [0.01, 0.02, 0.03]


def test_each_import_time_has_the_parts_of_its_own_import() -> None:
    """A fresh process's from the disk's cache, and this one's from the disk."""
    warm = Load(seconds=7, read_bytes=0, parts=((5, 0.01), (2, 0.02)))
    cold = Load(seconds=20, read_bytes=COLD_BYTES + 1, parts=((20, 0.03),))
    source = Load(seconds=20, read_bytes=0, compiled=Compiled(modules=3000), parts=((20, 0.04),))
    assert import_parts([warm, cold]) == {"import_s": warm.parts, "cold_import_s": cold.parts}
    assert import_parts([warm, source]) == {"import_s": warm.parts}
    again = Load(seconds=8, read_bytes=0, parts=((8, 0.05),))
    assert import_times([warm, again])["import_s"] == 8
    assert import_parts([warm, again]) == {"import_s": again.parts}
    assert import_parts([]) == import_parts([Load(seconds=7, read_bytes=0)]) == {}


OTHER_TESTS = "import clock; clock.now_s += 1000\ndef test_other(): pass\n"
OTHER_HOOKS = "import clock\ndef pytest_collection_modifyitems(): clock.now_s += 1000\n"


@pytest.mark.parametrize("is_first", [True, False])
def test_first_session_of_a_process_records_the_parts_of_its_import(
    is_first: bool, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process's start, the suite's parts and the libraries; and nothing of other tests."""
    clock = Clock(monkeypatch)
    monkeypatch.setitem(sys.modules, "clock", clock)
    monkeypatch.setattr(collection, "_SESSIONS", count(0 if is_first else 1))
    # This process is one of many tests, which may have compiled much.
    monkeypatch.setattr(loading, "with_compiled", lambda load: load)

    def import_part(name: str) -> Any:
        clock.now_s += 3 if name in collection.PARTS else 0
        return import_module(name)

    def import_library(_: str) -> None:
        clock.now_s += 4

    monkeypatch.setattr(collection, "import_module", import_part)
    monkeypatch.setattr(housekeeping, "_import_once", import_library)
    folder = pytester.mkdir("perf_tests")
    for name, content in (
        ("conftest.py", OTHER_HOOKS),
        ("test_before.py", OTHER_TESTS),
        ("test_other.py", OTHER_TESTS),
    ):
        (folder / name).write_text(content)
    assert main_job.run(pytester, "--quick", "--benchmark-json=run.json", fakes="fine").ret == 0
    seen = load_run(pytester.path / "run.json").by_id
    assert seen.keys() == {"fake4-reference", "fake4-fine"}
    # Of the reference, whose import time is judged.
    assert seen["fake4-fine"].measurement.interference.import_parts == {}
    found = seen["fake4-reference"].measurement
    if not is_first:
        assert found.interference.import_parts == {}
        return
    ((field, parts),) = found.interference.import_parts.items()
    assert [seconds for seconds, _ in parts] == pytest.approx([5, 3, 3, 3, 4, 4, 4])
    assert found.metrics[field] == pytest.approx(26)


def test_import_from_the_disk_is_a_metric_of_its_own() -> None:
    cold = Load(seconds=25.5, read_bytes=COLD_BYTES + 1, idle_s=9.0)
    warm = Load(seconds=12.0, read_bytes=0, idle_s=0.0)
    assert import_times([cold]) == {"cold_import_s": 25.5}
    assert import_times([warm, cold]) == {
        "import_s": 12.0,
        "import_idle_s": START_TICK_S,
        "cold_import_s": 25.5,
    }


def test_process_knows_how_long_it_has_run() -> None:
    first = since_start()
    time.sleep(0.05)
    assert since_start().seconds - first.seconds >= 0.03
    assert 0 < first.seconds < 3600


@pytest.mark.parametrize(
    ("field", "accepted", "most"),
    [
        ("text_stage_s", 0.01, 0.035),
        ("decoder_stage_s", 0.1, 0.17),
        ("load_s", 0.3, 1.36),
        ("import_s", 8.0, 10.6),
    ],
)
def test_limit_is_a_share_and_a_margin(field: str, accepted: float, most: float) -> None:
    def with_(seconds: float) -> Any:
        return structs.replace(REFERENCE, metrics={field: seconds})

    first = with_(accepted)
    before = baseline_of(first, first)
    name = next(metric.name for metric in BY_LEAST if metric.field == field)
    for seconds, status in ((0.99 * most, Status.SAME), (1.01 * most, Status.SLOWER)):
        found = judge(question(with_(seconds), baseline=before)).findings
        assert [f.status for f in found if f.metric == name] == [status]


def started(**metrics: float) -> Any:
    return structs.replace(REFERENCE, metrics=metrics)


def worse_than(accepted: Any, seen: Any) -> set[str]:
    found = judge(question(seen, baseline=baseline_of(accepted, accepted))).findings
    return {finding.metric for finding in found if finding.status == Status.SLOWER}


@pytest.mark.parametrize("seconds", [4.3, 9.0, 12.0, 16.3, 25.0])
def test_import_that_waits_3_s_longer_is_detected_however_long_it_takes(seconds: float) -> None:
    for idle_s in IDLE_S:
        accepted = started(import_s=seconds, import_idle_s=idle_s)
        for was_s in IDLE_S:
            assert not worse_than(accepted, started(import_s=seconds, import_idle_s=was_s))
        slow = started(import_s=seconds + 3, import_idle_s=IDLE_SLOW_S)
        assert "import idle time" in worse_than(accepted, slow)
        # The import time alone has room for 3 s where it takes more than 10.
        assert ("import time" in worse_than(accepted, slow)) == (seconds < 10)


def test_cold_caches_are_no_false_alarm() -> None:
    for accepted in COLD_S:
        for seconds in COLD_S:
            assert not worse_than(started(cold_import_s=accepted), started(cold_import_s=seconds))
    warm = started(import_s=12.0, import_idle_s=IDLE_S[0])
    assert not worse_than(warm, started(cold_import_s=max(COLD_S)))


def test_waiting_host_excuses_no_more_than_its_share() -> None:
    def with_(seconds: float) -> Any:
        busy = structs.replace(
            REFERENCE.interference, host=("the host waited for a CPU",), cpu_wait_share=0.5
        )
        return structs.replace(REFERENCE, metrics={"text_stage_s": seconds}, interference=busy)

    before = baseline_of(with_(0.01), with_(0.01))
    for seconds, status in ((0.06, Status.INVALID), (0.08, Status.SLOWER)):
        found = judge(question(with_(seconds), baseline=before)).findings
        assert [f.status for f in found if f.metric == "text stage"] == [status]


def test_metric_of_a_cold_cache_is_not_missed_by_a_warm_process() -> None:
    cold = structs.replace(FP16, metrics={"cold_load_s": 3.0})
    warm = structs.replace(FP16, metrics={"load_s": 0.3})
    assert judge(question(warm, baseline=baseline_of(cold, REFERENCE))).passes
    assert judge(question(warm, baseline=baseline_of(cold, REFERENCE))).status == Status.SAME


def compared(head: Callable[[int], float], *, base: float = 0.3) -> list[Change]:
    sides = [recorded.side(name, count=5, noise=recorded.QUIET) for name in ("base", "head")]
    for number in range(5):
        recorded.measured(sides[0][number], CASE)["metrics"] = {"load_s": base + 0.1 * number}
        recorded.measured(sides[1][number], CASE)["metrics"] = {"load_s": head(number)}
    found = compare(
        *(recorded.parsed(one, name) for one, name in zip(sides, ("base", "head"), strict=True))
    )
    return [change for change in found.changes if change.metric == "load time"]


def test_faults_at_once_are_detected_where_latency_is_inconclusive() -> None:
    sides = [recorded.side(name, count=5, noise=0.3) for name in ("base", "head")]
    for side, by in zip(sides, (1, 4), strict=True):
        for run in side:
            seen = recorded.measured(run, CASE)
            seen["metrics"] = {"load_s": 0.6 * by, "text_stage_s": 0.02 * by}
            seen["flags"] = {"deterministic algorithms": "on" if by > 1 else "off"}
            seen["counters"]["host_growth_bytes"] = [(by - 1) * 10_000, 0]
            seen["counters"]["masked_attention"] = [0, by - 1]
    found = compare(
        *(recorded.parsed(one, name) for one, name in zip(sides, ("base", "head"), strict=True))
    )
    own = [change for change in found.changes if change.case == CASE]
    assert [c.status for c in own if c.metric == "latency"] == [Status.INCONCLUSIVE]
    worse = {change.metric for change in own if not change.status.passes}
    assert worse == {
        "load time",
        "text stage",
        "torch flags",
        "host growth",
        "masked_attention",
    }
    assert found.exit_code == 1


def test_slower_start_is_noticed_in_the_least_of_each_side() -> None:
    (change,) = compared(lambda number: 2.3 + number)
    assert (change.status, change.base, change.head) == (Status.SLOWER, 0.3, 2.3)
    assert "0.3000 s → 2.3000 s" in change.what
    # One process of head that nothing disturbed is as fast as base's.
    assert compared(lambda number: 0.4 if number == 3 else 9.0) == []
    assert compared(lambda number: 1.3) == []
