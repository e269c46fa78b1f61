"""What a fleet has planned and finished, kept in a file so that it can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diffusers_perf.compare.kept import Setting, kept, refuse_others
from diffusers_perf.fleet.plan import ListedCase, PlannedShard
from diffusers_perf.records.files import as_json, write_whole
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
        """As it was left, or a new one. `Refusal` where other settings were measured here."""
        state = cls(folder=folder, settings=settings)
        known = kept(folder / FILE, StateFile, by="fleet", option="--json")
        if known is None:
            return state
        refuse_others(folder, known.settings, settings, option="--json")
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
