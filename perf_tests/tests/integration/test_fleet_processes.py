"""Processes of `fleet`: each with a GPU of its own, without secrets, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare import guard as guard_module
from diffusers_perf.fleet.gpus import Gpu
from diffusers_perf.fleet.jobs import LOG, OUT, Finished, Job, Lost, Place, Started
from diffusers_perf.fleet.local import CPU, Local
from diffusers_perf.fleet.process import Process
from diffusers_perf.fleet.run import happenings
from perf_tests.tests.processes import is_alive, until

LIMIT_S = 30.0
ENDLESS = (
    "import os, pathlib, time; pathlib.Path({path!r}).write_text(str(os.getpid()));"
    f"time.sleep({LIMIT_S})"
)


def job(code: str, *, name: str = "job", kind: str = CPU) -> Job:
    return Job(name=name, kind=kind, command=("-c", code))


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [Gpu(name="H200", uuid="aa"), Gpu(name="H200", uuid="GPU-bb")]
    monkeypatch.setattr("diffusers_perf.fleet.local.gpus", lambda: cards)


def test_each_job_has_a_gpu_of_its_own(two_gpus: None, tmp_path: Path) -> None:
    local = Local(None, root=tmp_path)
    assert (local.device, dict(local.places)) == ("cuda", {"H200": 2})
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(0.1)"
    for name in ("a", "b", "c"):
        local.start(job(code, name=name, kind="H200"))
    events = [local.next() for _ in range(6)]
    assert [type(event) for event in events[:2]] == [Started, Started]
    first, second = (event.place for event in events[:2] if isinstance(event, Started))
    assert {first.gpu_uuid, second.gpu_uuid} == {"GPU-aa", "GPU-bb"}
    for event in events:
        if isinstance(event, Finished):
            assert event.files[LOG].decode().strip() == event.place.gpu_uuid


def test_lost_job_is_repeated_on_another_gpu(two_gpus: None, tmp_path: Path) -> None:
    once = tmp_path / "once"
    code = (
        f"import os, pathlib; once = pathlib.Path({str(once)!r});"
        "once.exists() or (once.touch(), print('killed', flush=True), os.kill(os.getpid(), 9))"
    )
    happened = happenings(Local("cuda", root=tmp_path), [job(code, kind="H200")])
    started, lost, again, finished = (one.event for one in happened)
    assert isinstance(started, Started)
    assert isinstance(lost, Lost)
    assert lost.files[LOG] == b"killed\n"
    assert isinstance(again, Started)
    assert again.place.gpu_uuid != started.place.gpu_uuid
    assert isinstance(finished, Finished)


def test_cpu_runs_one_job_at_a_time(tmp_path: Path) -> None:
    local = Local("cpu", root=tmp_path)
    assert (local.device, dict(local.places)) == ("cpu", {CPU: 1})
    for name in ("a", "b"):
        local.start(job("", name=name))
    kinds = [type(local.next()) for _ in range(4)]
    assert kinds == [Started, Finished, Started, Finished]


def test_folders_that_a_killed_driver_left_are_removed(tmp_path: Path) -> None:
    (tmp_path / "diffusers-perf-left").mkdir()
    local = Local("cpu", root=tmp_path, folder=tmp_path)
    local.start(Job(name="job", kind=CPU, command=("-c", "import sys; print(sys.argv)", OUT)))
    local.next()
    finished = local.next()
    assert isinstance(finished, Finished)
    assert str(tmp_path) in finished.files[LOG].decode()
    assert [*tmp_path.iterdir()] == []


def test_gpu_that_is_asked_for_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusers_perf.fleet.local.gpus", list)
    assert Local(None, root=tmp_path).device == "cpu"
    with pytest.raises(Refusal, match="torch sees no CUDA GPU"):
        Local("cuda", root=tmp_path)


def test_job_gives_its_files_code_and_log(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; out = pathlib.Path(sys.argv[1]); (out / 'run.json').write_text('{}');"
        "(out / 'run-images').mkdir(); (out / 'run-images' / 'a.png').write_text('image');"
        "(out / 'cache-base').mkdir(); (out / 'cache-base' / 'a.json').write_text('');"
        "(out / 'data.bin').write_text(''); print('said'); sys.exit(3)"
    )
    place = Place(host="here", gpu_uuid=None, node="")
    asked = Job(name="job", kind=CPU, command=("-c", code, OUT))
    process = Process(asked, place, root=tmp_path, environment=os.environ)
    given = process.wait()
    assert given.code == 3
    assert given.files == {"log": b"said\n", "run.json": b"{}", "run-images/a.png": b"image"}


def test_what_a_job_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """A process that it started, and that ignores the signal to end."""
    path = tmp_path / "pid"
    endless = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    endless += ENDLESS.format(path=str(path))
    code = (
        "import pathlib, subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', {endless!r}])\n"
        f"path = pathlib.Path({str(path)!r})\n"
        "while not path.exists() or not path.read_text(): time.sleep(0.02)"
    )
    local = Local("cpu", root=tmp_path)
    local.start(job(code))
    local.next()
    assert isinstance(local.next(), Finished)
    until(lambda: not is_alive(pid_in(path)))


def test_secrets_stay_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DATABASE_URL"):
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("HF_HOME", "shown")
    local = Local("cpu", root=tmp_path)
    local.start(job("import os; print(dict(os.environ))"))
    local.next()
    given = local.next()
    assert isinstance(given, Finished)
    assert b"shown" in given.files[LOG]
    assert b"hidden" not in given.files[LOG]


def test_closed_executor_leaves_no_process(two_gpus: None, tmp_path: Path) -> None:
    local = Local("cuda", root=tmp_path)
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        local.start(job(ENDLESS.format(path=str(path)), name=path.name, kind="H200"))
        local.next()
    pids = [*map(pid_in, paths)]
    local.close()
    assert not any(map(is_alive, pids))


DRIVER = """
import sys
from pathlib import Path
from diffusers_perf.fleet.jobs import Job
from diffusers_perf.fleet.local import CPU, Local
local = Local("cpu", root=Path(sys.argv[1]))
local.start(Job(name="job", kind=CPU, command=("-c", sys.argv[2])))
local.next()
local.next()
"""


@pytest.mark.parametrize("killed", ["driver", "guard"])
def test_dead_driver_leaves_no_process(killed: str, tmp_path: Path) -> None:
    """Killed, it can end nothing itself."""
    path = tmp_path / "pid"
    code = ENDLESS.format(path=str(path))
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), code])
    try:
        pid = pid_in(path)
        guard = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(driver.pid if killed == "driver" else guard, signal.SIGKILL)
        until(lambda: not is_alive(pid))
        until(lambda: not is_alive(guard))
    finally:
        driver.kill()
        driver.wait()


def test_process_that_ignores_its_end_is_killed_with_its_driver(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + ENDLESS.format(
        path=str(path)
    )
    guard = Path(guard_module.__file__)
    text = guard.read_text().replace("GRACE_S = 30.0", "GRACE_S = 0.2")
    impatient = tmp_path / "guard.py"
    impatient.write_text(text)
    started = subprocess.Popen(
        [sys.executable, impatient, sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    pid = pid_in(path)
    assert started.stdin is not None
    started.stdin.close()
    started.wait(timeout=LIMIT_S)
    until(lambda: not is_alive(pid))


# Ray


def node(alive: bool = True, **resources: float) -> dict[str, object]:
    named = {name.replace("accelerator_", "accelerator_type:"): n for name, n in resources.items()}
    return {"Alive": alive, "Resources": named}


def test_shares_of_a_cluster() -> None:
    pytest.importorskip("ray")
    from diffusers_perf.fleet.ray import Share, shares

    nodes = [
        node(CPU=4),
        node(CPU=128, GPU=8, accelerator_H100=1),
        node(CPU=60, GPU=4, accelerator_H100=1),
        node(CPU=8, GPU=1, accelerator_L4=1),
        node(CPU=8, GPU=1),
        node(alive=False, CPU=8, GPU=1),
    ]
    h100 = Share(count=12, cpus=15, gpus=1, accelerator="H100")
    l4 = Share(count=1, cpus=8, gpus=1, accelerator="L4")
    unnamed = Share(count=1, cpus=8, gpus=1, accelerator=None)
    assert shares(nodes, None) == shares(nodes, "cuda") == {"H100": h100, "L4": l4, "GPU": unnamed}
    # A node runs one job, and all nodes that are used are alike.
    assert shares(nodes, "cpu") == {CPU: Share(count=1, cpus=128, gpus=0, accelerator=None)}
    assert shares(nodes[3:], "cpu") == {CPU: Share(count=2, cpus=8, gpus=0, accelerator=None)}
    assert shares(nodes[:1], None) == {CPU: Share(count=1, cpus=4, gpus=0, accelerator=None)}
    assert shares(nodes[:1], "cuda") == {}
