"""An executor that measures nothing: its shards are cut out of a recorded run."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from diffusers_perf.fleet.commands import CASES, RUN, Asked
from diffusers_perf.fleet.jobs import LOG, Device, Event, Finished, Job, Lost, Place, Started
from perf_tests.tests.unit.recorded import Content, case_id, cases, machine, process, session

ASKED = Asked(models=(), suites=(), pytest=(), compare=None)
IDS = tuple(session(process("shard"))["expected"])
REFERENCE_OF = {id: f"{id.split('-')[0]}-reference" for id in IDS}
"""Of each recorded case, what it is compared with."""

Answer = Callable[[Job, Place], Event | None]
"""What becomes of a job on its place; None for a shard that is measured well."""


def listed(ids: Sequence[str] = IDS) -> str:
    """What a listing writes."""
    return json.dumps(
        [{"id": id, "against": [] if id == REFERENCE_OF[id] else [REFERENCE_OF[id]]} for id in ids]
    )


@dataclass(kw_only=True)
class FakeExecutor:
    """Each job is done as soon as it starts, one after the other."""

    places: Mapping[str, int] = field(default_factory=lambda: {"H200": 2})
    answer: Answer = lambda job, place: None
    device: Device = "cuda"
    started: list[str] = field(default_factory=list)
    """Names of the shards' jobs, as often as they started."""
    nodes: list[str] = field(default_factory=list)
    """Where each of them did."""
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _waiting: deque[tuple[Job, Place | None]] = field(default_factory=deque)
    _running: tuple[Job, Place] | None = None

    def start(self, job: Job, *, elsewhere: Place | None = None) -> None:
        self._waiting.append((job, elsewhere))

    def next(self) -> Event:
        if self._running is None:
            job, elsewhere = self._waiting.popleft()
            node = 1 if elsewhere is not None and elsewhere.node == "node-0" else 0
            place = Place(host=f"host-{node}", gpu_uuid=f"GPU-{node}", node=f"node-{node}")
            self._running = (job, place)
            self.commands[job.name] = job.command
            if not job.name.startswith("list"):
                self.started.append(job.name)
                self.nodes.append(place.node)
            return Started(job=job, place=place)
        job, place = self._running
        self._running = None
        if job.name.startswith("list"):
            return done(job, place, files={CASES: listed().encode()})
        return self.answer(job, place) or done(job, place, files={RUN: encoded(shard_of(job))})

    def close(self) -> None:
        self._running = None


def done(
    job: Job, place: Place, *, code: int = 0, files: Mapping[str, bytes] | None = None
) -> Finished:
    return Finished(
        job=job,
        place=place,
        code=code,
        seconds=10.0,
        files={LOG: b"its last line\n", **(files or {})},
    )


def lost(job: Job, place: Place) -> Lost:
    return Lost(job=job, place=place, reason="the node died")


def encoded(content: Content) -> bytes:
    return json.dumps(content).encode()


def shard_of(job: Job) -> Content:
    """The part of a recorded run that a job was asked for."""
    index, count, first, last = asked_of(job)
    content = process("shard")
    own = IDS[first - 1 : last]
    kept = [b for b in content["benchmarks"] if case_id(b["extra_info"]["diffusers_perf"]) in own]
    content["benchmarks"] = kept
    ours = session(content)
    ours.update(
        expected=list(own),
        shard={"index": index, "count": count, "cases": list(IDS)},
        durations_s={case_id(one): 2.0 for one in cases(content)},
    )
    machine(content)["gpu_uuid"] = f"card-{index}"
    return content


def asked_of(job: Job) -> tuple[int, int, int, int]:
    text = job.command[job.command.index("--shard") + 1]
    index, count, first, last = map(int, re.split("[/:-]", text))
    return index, count, first, last
