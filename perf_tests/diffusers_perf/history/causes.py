"""What a change came with: another commit, other versions, another machine or harness, or noise.

A cause is what differs between the runs before and after. Where several things do, all are named,
those that need no change of the measured code first. A control run, which measured the older commit
again after the change, decides between code and machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from shlex import join
from statistics import median

from diffusers_perf.catalog.metric import Unit
from diffusers_perf.catalog.workload import FULL_MODELS, SMALL_MODELS
from diffusers_perf.history.changes import Shape
from diffusers_perf.history.store import MEASURED, TIME_TO_FIRST_IMAGE, Row
from diffusers_perf.judge.interference import CORE_SLOWED
from diffusers_perf.messages import history as messages
from diffusers_perf.records.main_job import MODEL

VERSIONS = ("python", "torch", "diffusers", "transformers", "cuda")
PACKAGES = ("torch", "diffusers", "transformers")
"""Those of them that an index offers."""
MACHINE = ("driver", "memory_bytes", "threads")
CLOCK_MOVED = 0.02
"""Share by which the SM clock must differ to explain a time."""
WALL_CLOCK = frozenset(metric.name for metric in MEASURED if metric.wall_clock)


class CauseKind(StrEnum):
    """Of causes, in the order in which they are suspected."""

    HARNESS = "harness"
    VERSIONS = "software versions"
    MACHINE = "machine"
    CODE = "code"
    NOISE = "noise"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What a change came with, and the command that looks for more."""

    kinds: tuple[CauseKind, ...]
    """At least one, the most likely first."""
    evidence: str
    """In a phrase or several."""
    packages: tuple[tuple[str, str, str], ...] = ()
    """Name and versions of packages that differ and can be installed."""
    uncommitted: bool = False
    """Whether a run at either end measured changes that are in no commit."""

    @property
    def text(self) -> str:
        return f"{' or '.join(self.kinds)}: {self.evidence}"

    def command(self, *, good: str, bad: str, row: Row) -> str:
        """The bisection that narrows it down for a row's case and metric; empty where there is
        nothing to bisect.

        The compile cache decides the time to first image, so no bisection takes it. No checkout
        has uncommitted changes, so none can repeat their measurement.
        """
        if row.metric == TIME_TO_FIRST_IMAGE.name or self.uncommitted:
            return ""
        where = ["--case", row.case, "--metric", row.metric]
        if row.device == "cpu":
            # Without it, pytest would run on the reader's GPU, if there is one.
            where += ["--device", "cpu"]
        where += _model_of(row)
        if CauseKind.VERSIONS in self.kinds and self.packages:
            versions = [
                part
                for name, was, now in self.packages
                for part in ("--package", name, "--good", was, "--bad", now)
            ]
            return join(["diffusers-perf", "bisect", *versions, *where])
        if CauseKind.CODE in self.kinds and good and bad and good != bad:
            return join(
                ["diffusers-perf", "bisect", "--good", good[:12], "--bad", bad[:12], *where]
            )
        return ""


def _model_of(row: Row) -> tuple[str, ...]:
    """What makes pytest run the row's case on its model; nothing where it does so by itself, and
    for a folder, of which a row has only the name.
    """
    if row.model in SMALL_MODELS:
        # No workload has `small` as its own model.
        named = row.device != "cpu" or row.model == "small"
    elif row.model in FULL_MODELS:
        named = row.device == "cpu"
    else:
        named = "/" in row.model or ":" in row.model
    return ("--", f"{MODEL}{row.model}") if named else ()


def cause_of(
    shape: Shape,
    before: Sequence[Row],
    after: Sequence[Row],
    last: Row,
    controls: Iterable[Row],
) -> Cause:
    """The cause of a change between two groups of runs of one case and metric, oldest first.

    `last` is the last run that it concerns, as `ChangePoint.last`.
    """
    was, now = before[-1], after[0]
    versions = _differing(was, now, VERSIONS)
    machine = [*_texts(_differing(was, now, MACHINE)), *_card(before, after)]
    found: dict[CauseKind, list[str]] = {}
    if was.harness != now.harness:
        found[CauseKind.HARNESS] = [f"harness {was.harness[:8]} → {now.harness[:8]}"]
    if versions:
        found[CauseKind.VERSIONS] = _texts(versions)
    if machine:
        found[CauseKind.MACHINE] = machine
    end = last if shape is Shape.DRIFT else now
    uncommitted = [messages.uncommitted(row.time, row.commit) for row in (was, end) if row.dirty]
    if uncommitted:
        found[CauseKind.CODE] = [*uncommitted]
    if was.commit != now.commit:
        now = end
        found.setdefault(CauseKind.CODE, []).append(messages.commits(was.commit, now.commit))
    control = _control(was, now, controls)
    if control is CauseKind.MACHINE:
        found.pop(CauseKind.CODE, None)
        found.setdefault(CauseKind.MACHINE, []).append(messages.control_changed(was.commit))
    elif control is CauseKind.CODE:
        only = found.get(CauseKind.CODE, [])
        found = {CauseKind.CODE: [*only, messages.control_unchanged(was.commit)]}
    if shape is Shape.OUTLIER or not found:
        found = {CauseKind.CODE: uncommitted} if now.dirty else {}
        why = messages.RETURNED if shape is Shape.OUTLIER else messages.NOTHING_DIFFERS
        found[CauseKind.NOISE], versions = [why], []
    elif shape is Shape.UNCONFIRMED and control is None and now.unit is not Unit.COUNT:
        # A control run cannot measure again what was not committed.
        found[CauseKind.NOISE] = [] if was.dirty else [messages.CONTROL_DECIDES]
    kinds = tuple(kind for kind in CauseKind if kind in found)
    return Cause(
        kinds=kinds,
        evidence="; ".join(text for kind in kinds for text in found[kind]),
        packages=tuple(one for one in versions if one[0] in PACKAGES),
        uncommitted=bool(uncommitted),
    )


def _differing(was: Row, now: Row, names: Iterable[str]) -> list[tuple[str, str, str]]:
    pairs = ((name, getattr(was, name), getattr(now, name)) for name in names)
    return [(name, str(old), str(new)) for name, old, new in pairs if old != new]


def _texts(differing: Iterable[tuple[str, str, str]]) -> list[str]:
    return [f"{name} {was} → {now}" for name, was, now in differing]


def _card(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """What differs about the very machine: its card, its clocks, its host's speed."""
    found = []
    cards = [{row.gpu for row in rows if row.gpu} for rows in (before, after)]
    if all(cards) and not cards[0] & cards[1]:
        found.append(f"GPU {before[-1].gpu} → {after[0].gpu}")
    if after[0].unit is not Unit.SECONDS:
        return found
    was, now = (_median(row.clock_mhz for row in rows) for rows in (before, after))
    if was and now and abs(math.log(now / was)) > CLOCK_MOVED:
        found.append(messages.clock(was, now))
    was, now = (_median(row.cpu_loop_s for row in rows) for rows in (before, after))
    if after[0].metric in WALL_CLOCK and was and now and now / was > CORE_SLOWED:
        found.append(messages.cpu_loop(was, now))
    return found


def _control(was: Row, now: Row, controls: Iterable[Row]) -> CauseKind | None:
    """What the newest run that measured the older commit again says; None without one."""
    again = [
        row.value
        for row in controls
        if row.commit == was.commit and row.time >= now.time and not row.dirty
    ]
    if not again or not was.commit or was.dirty:
        return None
    is_changed = abs(again[-1] - now.value) < abs(again[-1] - was.value)
    return CauseKind.MACHINE if is_changed else CauseKind.CODE


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
