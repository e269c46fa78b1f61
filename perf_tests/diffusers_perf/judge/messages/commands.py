"""Commands that a message ends with. Each works when pasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import join
from typing import Protocol

from diffusers_perf.catalog.workload import SMALL_MODELS
from diffusers_perf.records.main_job import MainJob

REASON = '--reason "why"'


class Command(Protocol):
    """Something to run next about one case or several."""

    def of(self, *cases: str) -> str:
        """The command line for the cases of these ids."""


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """Runs the cases alone."""

    job: MainJob

    def of(self, *cases: str) -> str:
        return _main_job(_only(cases), self.job)


@dataclass(frozen=True, kw_only=True)
class CompareAgain:
    """Compares base and head on the cases alone, as `ab` was called."""

    options: tuple[str, ...]
    """Its own, but for --out and --minutes: without --out, single cases get a new folder."""
    pytest: tuple[str, ...]
    """What it passes on to pytest, but for what selects cases."""

    def of(self, *cases: str) -> str:
        command = join(("diffusers-perf", "ab", *self.options))
        return " ".join(filter(None, (command, "--", _only(cases), join(self.pytest))))


@dataclass(frozen=True, kw_only=True)
class RunAgain:
    """Runs the main job as it was run."""

    job: MainJob

    def of(self, *_: str) -> str:
        return _main_job("", self.job, selected=True)


@dataclass(frozen=True, kw_only=True)
class Accept:
    """Makes three runs of the same cases and accepts them."""

    job: MainJob

    def of(self, *_: str) -> str:
        run = _main_job("--benchmark-json runs/$n.json", self.job, selected=True)
        files = " ".join(f"runs/{number}.json" for number in (1, 2, 3))
        return f"for n in 1 2 3; do {run}; done; {_accept(files, self.job)}"


@dataclass(frozen=True, kw_only=True)
class AcceptImages:
    """Makes a run of the same cases and accepts the images of its references."""

    job: MainJob

    def of(self, *cases: str) -> str:
        what = ["--benchmark-json runs/1.json"]
        # It need not select the references, which are measured with what is compared with them.
        by_name = "-k" in self.job.selected
        what += [_only(cases)] if by_name else []
        run = _main_job(" ".join(what), self.job, selected=not by_name)
        return f"{run}; {_accept('runs/1.json --images-only', self.job)}"


@dataclass(frozen=True, kw_only=True)
class Literal:
    """The same command for every case."""

    text: str

    def of(self, *_: str) -> str:
        return self.text


def _only(cases: Sequence[str]) -> str:
    """Selects these. In brackets, an id selects no other case that it is a part of."""
    return f'-k "{" or ".join(f"[{case}]" for case in cases)}"'


def _main_job(what: str, job: MainJob, *, selected: bool = False) -> str:
    parts = [
        "pytest",
        join(job.tests),
        "--benchmark-only",
        what,
        join((*(job.selected if selected else ()), *job.options, *_baselines(job))),
    ]
    return " ".join(filter(None, parts))


def _accept(what: str, job: MainJob) -> str:
    parts = ["diffusers-perf accept", what, join(_baselines(job)), REASON]
    return " ".join(filter(None, parts))


def _baselines(job: MainJob) -> tuple[str, ...]:
    return () if job.baselines is None else (f"--baselines={job.baselines}",)


def structure_command(*options: str, accept: bool = False) -> Literal:
    """Counts what cases ask for without a GPU; or accepts the counts."""
    command = join(("diffusers-perf", "structure", *options))
    return Literal(text=f"{command} --write {REASON}" if accept else command)


def accept_structure(job: MainJob, model: str) -> Literal:
    """Accepts what the cases of this model ask for, after a main job without a GPU."""
    named = [option for option in job.options if option.startswith("--model=")]
    if not named and model in SMALL_MODELS:
        # As on a GPU, `structure` leaves these out unless they are named.
        named = [f"--model={model}"]
    return structure_command(*named, *_baselines(job), accept=True)
