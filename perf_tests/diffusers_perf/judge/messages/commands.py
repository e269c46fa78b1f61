"""Commands that a message ends with. Each works when pasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import join
from typing import Protocol

REASON = '--reason "why"'


class Command(Protocol):
    """Something to run next about one case or several."""

    def of(self, *cases: str) -> str:
        """The command line for the cases of these ids."""


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """Runs the cases alone."""

    options: Sequence[str] = ()
    """Of the main job."""

    def of(self, *cases: str) -> str:
        # In brackets, an id selects no other case that it is a part of.
        chosen = " or ".join(f"[{case}]" for case in cases)
        return _main_job(f'-k "{chosen}"', self.options)


@dataclass(frozen=True, kw_only=True)
class Accept:
    """Makes three runs and accepts them."""

    options: Sequence[str] = ()

    def of(self, *_: str) -> str:
        run = _main_job("--benchmark-json runs/$n.json", self.options)
        files = " ".join(f"runs/{number}.json" for number in (1, 2, 3))
        return f"for n in 1 2 3; do {run}; done; diffusers-perf accept {files} {REASON}"


@dataclass(frozen=True, kw_only=True)
class AcceptImages:
    """Makes a run and accepts the images of its references."""

    options: Sequence[str] = ()

    def of(self, *_: str) -> str:
        run = _main_job("--benchmark-json runs/1.json", self.options)
        return f"{run}; diffusers-perf accept runs/1.json --images-only {REASON}"


@dataclass(frozen=True, kw_only=True)
class Literal:
    """The same command for every case."""

    text: str

    def of(self, *_: str) -> str:
        return self.text


def _main_job(what: str, options: Sequence[str]) -> str:
    return f"pytest perf_tests --benchmark-only {what} {join(options)}".rstrip()
