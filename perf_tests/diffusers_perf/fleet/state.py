"""What a fleet has planned and finished, kept in a file so that it can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from diffusers_perf.compare.state import Setting, shown
from diffusers_perf.fleet.jobs import BadFleet
from diffusers_perf.fleet.plan import ListedCase, PlannedShard
from diffusers_perf.messages import fleet as messages
from diffusers_perf.records.files import as_json, read_bytes, write_whole
from diffusers_perf.records.quantities import Integer, StrictRecord
from diffusers_perf.records.shards import Placement

FILE = "fleet.json"
FOLDER = "-fleet"
"""End of the name of the folder beside the joined run."""


class FinishedShard(StrictRecord, frozen=True, kw_only=True):
    """A shard that was measured."""

    placement: Placement
    code: Integer
    """Its process's exit code: 1 where a case failed."""


class StateFile(StrictRecord, frozen=True, kw_only=True):
    """The file that `State` is kept in."""

    settings: Mapping[str, Setting]
    cases: Mapping[str, tuple[ListedCase, ...]]
    plans: Mapping[str, tuple[PlannedShard, ...]]
    finished: Mapping[str, FinishedShard]


@dataclass(kw_only=True)
class State:
    """What a folder holds."""

    folder: Path
    settings: Mapping[str, Setting]
    cases: dict[str, tuple[ListedCase, ...]] = field(default_factory=dict)
    """By group, all that is to be measured."""
    plans: dict[str, tuple[PlannedShard, ...]] = field(default_factory=dict)
    """By kind of GPU, the shards in the order in which they start. Empty before there is a plan."""
    finished: dict[str, FinishedShard] = field(default_factory=dict)
    """By the job's name."""

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Setting]) -> State:
        """As it was left, or a new one. `BadFleet` where other settings were measured here."""
        state = cls(folder=folder, settings=settings)
        path = folder / FILE
        if not path.exists():
            return state
        try:
            known = msgspec.json.decode(read_bytes(path), type=StateFile)
        except (OSError, ValueError, RecursionError):
            raise BadFleet(messages.not_written_by_fleet(path)) from None
        for name, value in settings.items():
            if known.settings.get(name) != value:
                was, now = shown(known.settings.get(name)), shown(value)
                raise BadFleet(messages.other_settings(folder, name, was, now))
        state.cases, state.plans = dict(known.cases), dict(known.plans)
        # A shard whose folder was removed is measured anew.
        state.finished = {n: one for n, one in known.finished.items() if (folder / n).is_dir()}
        return state

    def save(self) -> None:
        """Write all of it, or leave what was there."""
        content = StateFile(
            settings=self.settings, cases=self.cases, plans=self.plans, finished=self.finished
        )
        write_whole(self.folder / FILE, as_json(content))
