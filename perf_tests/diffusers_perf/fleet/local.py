"""Runs jobs on this machine: one on each GPU that is visible, or one on its CPU."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare.guarded import passed_on
from diffusers_perf.fleet.gpus import gpus
from diffusers_perf.fleet.jobs import Device, Event, Job, Place, Started
from diffusers_perf.fleet.process import PREFIX, Process, here
from diffusers_perf.messages import fleet as messages

CPU = "CPU"
"""The kind of device on a machine without a GPU."""
LOOK_S = 0.1


class Local:
    """An executor of this machine's GPUs."""

    def __init__(
        self,
        device: Device | None,
        *,
        root: Path,
        folder: Path | None = None,
        lock: int | None = None,
    ) -> None:
        """On GPUs where there are some, unless a device is named. `Refusal` without the device.

        Jobs write below `folder`, which is only this executor's, as `Process` does.
        """
        cards = [] if device == "cpu" else gpus()
        if device == "cuda" and not cards:
            raise Refusal(messages.NO_GPU_HERE)
        self.device: Device = "cuda" if cards else "cpu"
        self._kinds = {card.visible_as: card.name for card in cards}
        self.places: Mapping[str, int] = Counter(self._kinds.values()) or {CPU: 1}
        self._free = [here(uuid, node=uuid) for uuid in self._kinds] or [here(None, node=CPU)]
        self._root, self._folder, self._lock = root, folder, lock
        for left in folder.glob(f"{PREFIX}*") if folder else ():
            shutil.rmtree(left, ignore_errors=True)
        self._waiting: deque[tuple[Job, Place | None]] = deque()
        self._running: list[Process] = []

    def start(self, job: Job, *, elsewhere: Place | None = None) -> None:
        self._waiting.append((job, elsewhere))

    def next(self) -> Event:
        while True:
            for number, (job, elsewhere) in enumerate(self._waiting):
                place = self._place_for(job, elsewhere)
                if place is not None:
                    del self._waiting[number]
                    return self._started(job, place)
            for process in self._running:
                if (found := process.finished()) is not None:
                    self._running.remove(process)
                    self._free.append(process.place)
                    return found
            time.sleep(LOOK_S)

    def close(self) -> None:
        for process in self._running:
            process.ask_to_end()
        for process in self._running:
            process.end()
        self._running.clear()

    def _place_for(self, job: Job, elsewhere: Place | None) -> Place | None:
        fitting = [place for place in self._free if self._kind_of(place) == job.kind]
        if elsewhere is not None and self.places[job.kind] > 1:
            fitting = [place for place in fitting if place.node != elsewhere.node]
        return fitting[0] if fitting else None

    def _kind_of(self, place: Place) -> str:
        return self._kinds.get(place.node, CPU)

    def _started(self, job: Job, place: Place) -> Started:
        self._free.remove(place)
        process = Process(
            job,
            place,
            root=self._root,
            environment=passed_on(),
            folder=self._folder,
            lock=self._lock,
        )
        self._running.append(process)
        return Started(job=job, place=place)
