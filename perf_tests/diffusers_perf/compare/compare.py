"""Compares runs of head with runs of base, pair by pair, and prints what changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import get_terminal_size

from diffusers_perf.catalog.metric import Subject
from diffusers_perf.catalog.metrics import COMPARED, GPU_BUSY, IMAGE, LATENCY
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import CANNOT_JUDGE, Status
from diffusers_perf.compare.state import again_of, more_of
from diffusers_perf.judge.comparison import Change, Comparison
from diffusers_perf.judge.messages import comparison as messages_of_pairs
from diffusers_perf.judge.pairs import compare
from diffusers_perf.judge.stats import detectable
from diffusers_perf.messages import ab as messages
from diffusers_perf.plugin.screen import table
from diffusers_perf.records.reading import load_runs
from diffusers_perf.records.run import Run
from diffusers_perf.records.store import BaselineStore

SHOWN = (*(metric.name for metric in COMPARED), Subject.COUNTERS, IMAGE.name)


def run(base: Sequence[Path], head: Sequence[Path], store: BaselineStore) -> int:
    """Print what changed; returns 0 if all holds, 1 for a regression, 2 for what is not judged."""
    try:
        comparison = load(base, head, store)
    except Refusal as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT_JUDGE
    tell(comparison)
    return comparison.exit_code


def load(
    base: Sequence[Path], head: Sequence[Path], store: BaselineStore, *, more: str | None = None
) -> Comparison:
    """Compare these files' runs, with what the machine's calibration knows of its noise; `more` as
    `pairs.compare` takes it, where it is not what `ab` left beside the runs.

    `Refusal` for what cannot be read or compared.
    """
    runs = [run.seen_from_here() for run in load_runs([*base, *head])]
    sides = runs[: len(base)], runs[len(base) :]
    noise = known_noise(sides[1][0], store)
    more = more_of(base, head) if more is None else more
    return compare(*sides, noise=noise, more=more, again=again_of(base, head))


def known_noise(run: Run, store: BaselineStore) -> dict[str, dict[str, float]]:
    """By case and field, of the calibration of the run's machine for processes of its mode."""
    baseline = store.load_machine(run.machine.slug)
    return {
        key: dict(case.calibrations[run.session.mode].noise)
        for key, case in (baseline.cases if baseline else {}).items()
        if run.session.mode in case.calibrations
    }


def tell(comparison: Comparison) -> None:
    """The table, each row that is not plainly well, and one sentence."""
    rows = [
        (
            case,
            *(_cell(comparison, case, column) for column in SHOWN),
            ", ".join(comparison.failed(case)) or verdict,
        )
        for case, verdict in comparison.verdicts.items()
    ]
    width = get_terminal_size().columns if sys.stdout.isatty() else 200
    if comparison.machines:
        print(comparison.machines)
        print()
    for line in table((messages.HEAD_OVER_BASE, *SHOWN, "verdict"), rows, width=width):
        print(line)
    if effects := _detectable(comparison):
        print(messages_of_pairs.detects(effects))
    if cases := _not_calibrated(comparison):
        print(messages.not_calibrated(cases))
    print()
    for _, text in comparison.texts():
        print(text)
    print(comparison.sentence)


def _detectable(comparison: Comparison) -> dict[str, list[float]]:
    """By metric, the smallest slowdown that the pairs of each case detect; none of one pair."""
    effects: dict[str, list[float]] = {}
    for change in comparison.changes:
        pairs = sum(pair is not None for pair in change.by_pair)
        if change.metric in (LATENCY.name, GPU_BUSY.name) and pairs > 1:
            effect = detectable(
                change.noise, pairs=pairs, threshold=change.threshold, calibrated=change.calibrated
            )
            effects.setdefault(change.metric, []).append(effect)
    return effects


def _not_calibrated(comparison: Comparison) -> int:
    """Of how many cases a latency is inconclusive that a calibration would let pairs tell more of;
    one pair shows no noise.
    """
    return sum(
        change.metric == LATENCY.name
        and change.status == Status.INCONCLUSIVE
        and not change.calibrated
        and sum(pair is not None for pair in change.by_pair) > 1
        for change in comparison.changes
    )


def _cell(comparison: Comparison, case: str, column: str) -> str:
    """What a column says of a case: the ratio of a measure, else the status."""
    counted = [*SHOWN, Subject.CASE, Subject.DRIFT]
    found = [
        change
        for change in comparison.changes
        if change.case == case
        # A counter that changed stands under its own name.
        and (change.metric if change.metric in counted else Subject.COUNTERS) == column
    ]
    if not found:
        return ""
    worst: Change = max(found, key=lambda change: change.status.severity)
    if worst.ratio is None:
        return worst.status
    ratio = f"{worst.ratio.mid:.3f}x"
    return ratio if worst.status == Status.SAME else f"{ratio} {worst.status}"
