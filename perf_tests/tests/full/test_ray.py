"""`diffusers-perf fleet` on a real Ray cluster: several raylets on this machine, its CPU.

    pytest perf_tests/tests/full/test_ray.py

Needs the extra `ray`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from diffusers_perf.catalog.status import Status
from diffusers_perf.cli.gate import judged, standards_of
from diffusers_perf.fleet.commands import Asked
from diffusers_perf.fleet.jobs import LOG, Event, Finished, Job, Started
from diffusers_perf.fleet.local import CPU
from diffusers_perf.fleet.plan import Durations
from diffusers_perf.fleet.run import Fleet, happenings
from diffusers_perf.fleet.state import State
from diffusers_perf.messages import fleet as messages
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.processes import until, write_repository

pytest.importorskip("ray", exc_type=ImportError)
# Ray's own, when a cluster is started and ended in one process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")

ROOT = Path(__file__).parents[3]
LIMIT_S = 300.0
FLEET = [sys.executable, "-m", "diffusers_perf.cli", "fleet", "--executor=ray"]
QUICK = ("--quick", "--rounds=1")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without a CPU, to which tests add nodes."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's repository of four cases, the working directory."""
    # In a process of `-n`, pytest-benchmark would turn itself off.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    folder = write_repository(tmp_path / "repository", "channels_last", "fused_qkv", "sdpa_math")
    monkeypatch.chdir(folder)
    return folder


def processes_with(mark: str) -> list[int]:
    """Ids of the main jobs that have this in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            if mark in line and "--benchmark-json" in line and "guard" not in line:
                found.append(int(folder.name))
    return found


def on_ray(cluster: Any, root: Path) -> Any:
    """An executor of this cluster."""
    from diffusers_perf.fleet.ray import OnRay

    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        return OnRay("cpu", root=root)
    finally:
        del os.environ["RAY_ADDRESS"]


class Watched:
    """An executor, and what a test does when something happens."""

    def __init__(self, executor: Any, saw: Callable[[Event], None]) -> None:
        self.device, self.places = executor.device, executor.places
        self.start, self.close = executor.start, executor.close
        self._executor, self._saw = executor, saw

    def next(self) -> Event:
        event: Event = self._executor.next()
        self._saw(event)
        return event


def test_killed_raylet_costs_one_shard_that_is_repeated(cluster: Any, repository: Path) -> None:
    nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=1) for _ in range(2))}
    mark = token_hex(8)
    asked = Asked(models=(), suites=(), pytest=(*QUICK, "-k", f"not x{mark}"), compare=None)
    seen: list[Event] = []

    def saw(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Started) and "list" not in event.job.name and len(nodes) == 2:
            until(lambda: processes_with(mark) != [])
            cluster.remove_node(nodes.pop(event.place.node), allow_graceful=False)

    executor = on_ray(cluster, repository)
    state = State.open(repository.parent / "kept", {})
    state.folder.mkdir()
    fleet = Fleet(asked=asked, executor=Watched(executor, saw), state=state, root=repository)
    fleet.plan(Durations(cases={}))
    assert len(fleet.shards()) == 2
    fleet.run()
    assert fleet.missing() == []
    retries = sorted(one.placement.retries for one in state.finished.values())
    assert retries == [0, 1]
    (survivor,) = nodes
    finished = {e.place.node for e in seen if isinstance(e, Finished) and "list" not in e.job.name}
    assert finished == {survivor}
    executor.close()
    until(lambda: processes_with(mark) == [], limit_s=60)


def test_run_is_incomplete_once_its_last_node_is_lost(cluster: Any, repository: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    asked = Asked(models=(), suites=(), pytest=QUICK, compare=None)

    def saw(event: Event) -> None:
        if isinstance(event, Started) and "list" not in event.job.name:
            cluster.remove_node(node, allow_graceful=False)

    executor = on_ray(cluster, repository)
    state = State.open(repository.parent / "kept", {})
    state.folder.mkdir()
    fleet = Fleet(asked=asked, executor=Watched(executor, saw), state=state, root=repository)
    fleet.plan(Durations(cases={}))
    fleet.run()
    (missing,) = fleet.missing()
    assert messages.NO_NODE in missing


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_driver_that_is_ended_leaves_no_process_and_goes_on(
    cluster: Any, repository: Path, number: signal.Signals
) -> None:
    cluster.add_node(num_cpus=1)
    mark = token_hex(8)
    line = [*FLEET, "--json=run.json", "--device=cpu", "--", *QUICK, "-k", f"not x{mark}"]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    # Known durations, of which each case is a shard.
    log = repository.parent / "log"

    def started() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(line, env=environment, stdout=output, stderr=output)

    # Cut as for four machines, of which one is left.
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    driver = started()
    until(lambda: "shards on 4" in log.read_text())
    driver.kill()
    driver.wait()
    until(lambda: processes_with(mark) == [], limit_s=60)
    for node in nodes:
        cluster.remove_node(node)
    driver = started()
    until(lambda: "[1/" in log.read_text() and processes_with(mark) != [])
    driver.send_signal(number)
    code = driver.wait(timeout=60)
    assert code == (-number if number == signal.SIGKILL else 2)
    until(lambda: processes_with(mark) == [], limit_s=60)
    kept = len(State.open(repository / "run-fleet", _settings(repository)).finished)
    assert kept >= 1
    log.write_text("")
    until(lambda: _runs_through(started, log))
    said = log.read_text()
    assert f"{kept} shard{'s' if kept > 1 else ''} finished earlier" in said
    assert len(load_run(repository / "run.json").cases) == 4


def _settings(repository: Path) -> dict[str, Any]:
    import msgspec

    from diffusers_perf.fleet.state import StateFile

    data = (repository / "run-fleet" / "fleet.json").read_bytes()
    return dict(msgspec.json.decode(data, type=StateFile).settings)


def _runs_through(started: Callable[[], subprocess.Popen[bytes]], log: Path) -> bool:
    """Whether the folder was free, and all was measured; no CPU is accepted here: 2."""
    assert started().wait(timeout=LIMIT_S) == 2
    return "in use by" not in log.read_text()


def test_environments_of_driver_and_node_stay_there(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL"):
        monkeypatch.setenv(name, "hidden")
    cluster.add_node(num_cpus=1)  # which inherits them
    monkeypatch.setenv("HF_HOME", "of the driver")
    executor = on_ray(cluster, tmp_path)
    job = Job(name="job", kind=CPU, command=("-c", "import os; print(dict(os.environ))"))
    given = [h.event for h in happenings(executor, [job]) if isinstance(h.event, Finished)]
    log = given[0].files[LOG]
    assert b"PATH" in log
    assert b"hidden" not in log
    assert b"of the driver" not in log


def test_two_hundred_shards_cost_little_to_schedule(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes, shards, seconds = 4, 200, 0.5
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    executor = on_ray(cluster, tmp_path)
    assert executor.places == {CPU: nodes}
    code = f"import time; time.sleep({seconds})"
    jobs = [Job(name=str(n), kind=CPU, command=("-c", code)) for n in range(shards)]
    # A node's first worker takes seconds to start, once.
    list(happenings(executor, jobs[:nodes]))
    start = time.monotonic()
    finished = [h for h in happenings(executor, jobs) if isinstance(h.event, Finished)]
    took = time.monotonic() - start
    executor.close()
    assert len(finished) == shards
    overhead = took * nodes / shards - seconds
    with capsys.disabled():
        print(f"\n{shards} shards on {nodes} raylets: {overhead:.3f} s of overhead each")
    assert overhead < 0.05 * 30


@pytest.mark.parametrize("suites", ["guide,lossless,lossy"])
def test_verdicts_are_those_of_one_process(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suites: str
) -> None:
    """This repository's cases, which know accepted images and counts."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    fleet, alone = tmp_path / "fleet.json", tmp_path / "alone.json"
    rounds = "--rounds=2"
    subprocess.run(
        [*FLEET, f"--json={fleet}", "--device=cpu", f"--suites={suites}", "--", rounds],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        check=False,
    )
    main_job = [sys.executable, "-m", "pytest", "perf_tests", "--benchmark-only", "--device=cpu"]
    subprocess.run(
        [*main_job, "-m", suites.replace(",", " or "), rounds, f"--benchmark-json={alone}"],
        cwd=ROOT,
        check=False,
    )
    found = [verdicts(path) for path in (fleet, alone)]
    assert found[0] == found[1]
    assert len(found[0]) > 30
    run = load_run(fleet)
    assert len(run.session.placements) >= 2
    assert run.commit.id == load_run(alone).commit.id


def verdicts(path: Path) -> dict[str, Status]:
    """By case. What a busy machine makes of a time is left out."""
    run = load_run(path)
    standards = standards_of(run, BaselineStore(ROOT / "baselines"))
    found: dict[str, Status] = {}
    for id, case in run.by_id.items():
        status = judged(run, case, standards).status
        found[id] = Status.NEW if status.warns or status is Status.SAME else status
    return found
