"""How a run is made again."""

from __future__ import annotations

from diffusers_perf.records.quantities import Record


class MainJob(Record, frozen=True, kw_only=True):
    """How pytest was called, so that a command can call it again."""

    tests: tuple[str, ...] = ("perf_tests",)
    """The files and folders that it was given; none where its settings say which."""
    selected: tuple[str, ...] = ()
    """``-m`` and ``-k`` with what they were given."""
    baselines: str | None = None
    """What ``--baselines`` was given."""
    options: tuple[str, ...] = ()
    """The further command-line options that repeat this run."""

    @property
    def main_job(self) -> MainJob:
        return MainJob(**{name: getattr(self, name) for name in MainJob.__struct_fields__})
