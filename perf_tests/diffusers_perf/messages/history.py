"""What `history` says: of a store, of changes and of their causes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from diffusers_perf.messages.numbers import plural

# A store

ADD_RUNS = "add runs with diffusers-perf history add"
EMPTY_LABEL = "must not be empty"


def no_cases(run: Path) -> str:
    return f"{run}: measured no case"


def bad_datetime(run: Path, datetime: object) -> str:
    return f"{run}: datetime is out of range ({datetime})"


def no_store(folder: Path) -> str:
    return f"{folder}: no such folder; {ADD_RUNS}"


def no_runs(folder: Path, store: Path | None) -> str:
    """`store` is a folder below it that is a store."""
    hint = ADD_RUNS if store is None else f"the store is {store}"
    return f"{folder}: holds no runs; {hint}"


def one_machine(folder: Path, store: Path) -> str:
    return f"{folder}: holds the runs of one machine; the store is {store}"


def empty(file: Path) -> str:
    return f"{file}: empty; add its run again"


def lost_rows(file: Path, there: int, rows: int) -> str:
    return f"{file}: holds {there} of the {plural(rows, 'row')} of its run; add its run again"


def added(file: Path) -> str:
    return f"added {file}"


def already_there(file: Path) -> str:
    return f"already there: {file}"


def keeps_label(file: Path, label: str) -> str:
    return f"already there with the label {label}, which it keeps: {file}"


# Causes of a change

RETURNED = "the level returned"
NOTHING_DIFFERS = "nothing recorded differs"
CONTROL_DECIDES = "a control run will decide"


def commits(was: str, now: str) -> str:
    return f"commits {was[:12] or '?'}..{now[:12] or '?'}"


def uncommitted(time: datetime, commit: str) -> str:
    run = f"the run of {time:%Y-%m-%d %H:%M} UTC"
    return f"{run} measured uncommitted changes on top of {commit[:12] or '?'}"


def control_changed(commit: str) -> str:
    return f"commit {commit[:12]} changed as much when measured again"


def control_unchanged(commit: str) -> str:
    return f"commit {commit[:12]} did not change when measured again"


def clock(was_mhz: float, now_mhz: float) -> str:
    return f"SM clock {was_mhz:.0f} → {now_mhz:.0f} MHz"


def cpu_loop(was_s: float, now_s: float) -> str:
    return f"CPU calibration loop {1000 * was_s:.1f} → {1000 * now_s:.1f} ms"


# The report and an issue


def totals(runs: int, trends: int, changes: int) -> str:
    return f"{plural(runs, 'run')}, {plural(trends, 'trend')}, {plural(changes, 'change')}"


def issue(first_seen: datetime, events: Sequence[str], *, more: int, command: str) -> str:
    """A change that made something worse, as the body of an issue."""
    lines = [f"First seen on {first_seen:%Y-%m-%d}.", ""]
    lines += [f"- {event}" for event in events]
    lines += [f"- and {more} more"] if more else []
    if command:
        lines += ["", "Find the commit or version:", "", f"    {command}"]
    lines += ["", "This issue is updated each night. Close it to stop the updates.", ""]
    return "\n".join(lines)
