"""How a run is made again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from diffusers_perf.records.quantities import Record
from diffusers_perf.records.repository import as_path, seen_from

MODEL = "--model="


class MainJob(Record, frozen=True, kw_only=True):
    """How pytest was called, so that a command can call it again.

    A run's file names paths from the root of the repository.
    """

    tests: tuple[str, ...] = ("perf_tests",)
    """The files and folders that it was given; none for what its settings say."""
    selected: tuple[str, ...] = ()
    """``-m`` and ``-k`` with what they were given."""
    baselines: str | None = None
    """What ``--baselines`` was given."""
    options: tuple[str, ...] = ()
    """The further command-line options that repeat this run. A folder has a slash."""

    @property
    def main_job(self) -> MainJob:
        return MainJob(**{name: getattr(self, name) for name in MainJob.__struct_fields__})

    def seen_from(self, here: Path, *, of: Path) -> Self:
        """The same job, whose paths are those `of` one folder, as it is called in another one."""
        # Path.exists and Path.is_dir raise for a name that is too long.
        tests = [
            seen_from(test, here, of=of) if os.path.exists(of / test) else test  # noqa: PTH110
            for test in self.tests or (["."] if here != of else [])
        ]
        options = []
        for option in self.options:
            model = option.removeprefix(MODEL)
            is_folder = model != option and "/" in model and os.path.isdir(of / model)  # noqa: PTH112
            seen = as_path(seen_from(model, here, of=of))
            options.append(MODEL + seen if is_folder else option)
        return replace(
            self,
            tests=tuple(tests),
            baselines=self.baselines and seen_from(self.baselines, here, of=of),
            options=tuple(options),
        )
