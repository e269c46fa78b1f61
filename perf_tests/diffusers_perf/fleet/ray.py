"""Runs jobs on a Ray cluster: core tasks of one GPU each, with nothing but data to and fro.

The nodes need Python, the packages and the weights. The repository and this library travel with the
jobs; the environment variables of the driver do not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare.guarded import passed_on
from diffusers_perf.fleet.gpus import gpus
from diffusers_perf.fleet.jobs import Device, Event, Finished, Job, Lost, Place, Started
from diffusers_perf.fleet.local import CPU
from diffusers_perf.fleet.process import Process, here
from diffusers_perf.fleet.state import FOLDER
from diffusers_perf.messages import fleet as messages

LIBRARY = Path(__file__).parents[1]
"""On a node, the copy that came with the job."""
LEFT_AT_HOME = (".git", ".venv", "runs", f"*{FOLDER}")
"""Of the repository, beside what git ignores."""
KIND = "accelerator_type:"
"""How Ray marks what kind of GPU a node has."""
UNNAMED = "GPU"
NODE = "ray.io/node-id"
LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a job reserves of a node, and how many such shares there are."""

    count: int
    cpus: int
    gpus: int
    accelerator: str | None
    """Ray's name of a kind of GPU."""


def shares(nodes: Sequence[Mapping[str, Any]], device: Device | None) -> dict[str, Share]:
    """By kind, what the living nodes of `ray.nodes()` have; without a device named, of GPUs where
    there are some.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpus = [node for node in alive if node.get("GPU", 0) >= 1]
    if device == "cuda" or (device is None and with_gpus):
        by_kind: dict[str, list[Mapping[str, float]]] = {}
        for node in with_gpus:
            kind = next((name for name in node if name.startswith(KIND)), KIND + UNNAMED)
            by_kind.setdefault(kind.removeprefix(KIND), []).append(node)
        return {
            kind: Share(
                count=sum(int(node["GPU"]) for node in own),
                cpus=min(int(node.get("CPU", 0) // node["GPU"]) for node in own),
                gpus=1,
                accelerator=None if kind == UNNAMED else kind,
            )
            for kind, own in by_kind.items()
        }
    cores = [int(node["CPU"]) for node in alive if node.get("CPU", 0) >= 1]
    if not cores:
        return {}
    # A whole node: a second job on it would slow both down. A smaller node is another machine.
    most = max(cores)
    return {CPU: Share(count=cores.count(most), cpus=most, gpus=0, accelerator=None)}


def measured(job: Job, device: Device) -> Iterator[Event]:
    """Runs on a node: where the job runs, as soon as it does, then what it gave."""
    cards = gpus() if device == "cuda" else []
    if device == "cuda" and not cards:
        raise Refusal(messages.NO_GPU_HERE)
    node = ray.get_runtime_context().get_node_id()
    place = here(cards[0].visible_as if cards else None, node=node)
    yield Started(job=job, place=place)
    environment = passed_on()
    # Ray sets it for its own workers; torch is to decide as in any other process.
    environment.pop("OMP_NUM_THREADS", None)
    environment["PYTHONPATH"] = str(LIBRARY.parent)
    process = Process(job, place, root=Path.cwd(), environment=environment)
    try:
        yield process.wait()
    finally:
        process.end()


class OnRay:
    """An executor of a cluster's GPUs: RAY_ADDRESS names it, else the one on this machine."""

    def __init__(self, device: Device | None, *, root: Path) -> None:
        """`Refusal` where it has no such device, or cannot be reached."""
        # Ray sends usage statistics by default.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        travelling = {
            "working_dir": str(root),
            "py_modules": [str(LIBRARY)],
            "excludes": list(LEFT_AT_HOME),
        }
        try:
            ray.init(runtime_env=travelling, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise Refusal(messages.no_cluster(_reason(error))) from None
        self._shares = shares(ray.nodes(), device)
        if not self._shares:
            ray.shutdown()
            raise Refusal(messages.NO_GPU_IN_CLUSTER if device != "cpu" else messages.NO_CPU)
        self.device: Device = "cuda" if any(s.gpus for s in self._shares.values()) else "cpu"
        self.places: Mapping[str, int] = {k: share.count for k, share in self._shares.items()}
        self._task = ray.remote(num_returns="streaming", max_retries=0)(measured)
        self._running: dict[Any, tuple[Job, Place | None]] = {}
        """By generator, what it runs and, once it does, where."""

    def start(self, job: Job, *, elsewhere: Place | None = None) -> None:
        share = self._shares[job.kind]
        options: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus}
        if share.accelerator:
            options["accelerator_type"] = share.accelerator
        others = [n for n in ray.nodes() if elsewhere and n["NodeID"] != elsewhere.node]
        if elsewhere and self._fits(job, others):
            options["label_selector"] = {NODE: f"!in({elsewhere.node})"}
        self._running[self._task.options(**options).remote(job, self.device)] = (job, None)

    def next(self) -> Event:
        ready = None
        while ready is None:
            found, _ = ray.wait(list(self._running), num_returns=1, timeout=LOOK_S)
            ready = found[0] if found else None
            if ready is None and (stuck := self._stuck()):
                return stuck
        job, place = self._running[ready]
        try:
            event: Event = ray.get(next(ready))
        except (RayError, StopIteration) as error:
            del self._running[ready]
            return Lost(job=job, place=place, reason=_reason(error))
        if isinstance(event, Finished):
            del self._running[ready]
        elif isinstance(event, Started):
            self._running[ready] = (job, event.place)
        return event

    def _fits(self, job: Job, nodes: Sequence[Mapping[str, Any]]) -> bool:
        share = shares(nodes, self.device).get(job.kind)
        return share is not None and share.cpus >= self._shares[job.kind].cpus

    def _stuck(self) -> Lost | None:
        """A job that waits for a kind of node that the cluster no longer has."""
        nodes = ray.nodes()
        for task, (job, place) in self._running.items():
            if place is None and not self._fits(job, nodes):
                del self._running[task]
                ray.cancel(task)
                return Lost(job=job, place=None, reason=messages.NO_NODE)
        return None

    def close(self) -> None:
        # Its workers end with their driver, and what they started with them.
        ray.shutdown()


def _reason(error: Exception) -> str:
    """In a sentence: Ray explains at length."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("\x1b") or "ray::" in lines[0]:
        return lines[-1]  # an exception on the node comes as its traceback
    return lines[0].partition(". ")[0]
