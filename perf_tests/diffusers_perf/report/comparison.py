"""Head compared with base: the verdict on pairs of runs, or how single runs differ. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers_perf.catalog.metrics import COMPARED, COUNTERS, IMAGE, STRICT
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.comparison import Change, Comparison
from diffusers_perf.judge.counters import count_status
from diffusers_perf.judge.messages.numbers import difference
from diffusers_perf.judge.weighing import PAIRS
from diffusers_perf.messages import report as messages
from diffusers_perf.messages.numbers import percent
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.run import CaseRecord, Run
from diffusers_perf.report import figures
from diffusers_perf.report.content import ChangePart, ComparisonPart, Mood, badness, mood_of

IMAGE_DB = 0.5
NAMED_MOST = 3
"""Cases that a sentence names."""
UNKNOWN = 1e6
"""A ratio's end beyond which the interval says that nothing is known."""


def in_pairs(found: Comparison, base: Sequence[Run], head: Sequence[Run]) -> ComparisonPart:
    """The verdict on pairs of runs."""
    verdicts = found.verdicts
    changes = sorted(
        (_judged(change) for change in found.changes),
        # A case's rows stay together.
        key=lambda c: (-badness(verdicts.get(c.case, c.status)), c.case, -badness(c.status)),
    )
    fail = [case for case, status in verdicts.items() if mood_of(status) == "bad"]
    unsure = sum(mood_of(change.status) == "warning" for change in found.changes)
    mood: Mood = "bad" if fail else "warning" if unsure else "good"
    sentence = messages.no_regression(len(verdicts), found.pairs, unsure=unsure)
    if fail:
        worse = [_what_is_worse(case, changes) for case in fail]
        sentence = messages.regression(worse, len(verdicts), found.pairs)
    listed = {(change.case, change.metric) for change in changes if change.changed}
    return ComparisonPart(
        mood=mood,
        sentence=sentence,
        about=_about(base, head),
        changes=tuple(changes),
        counters=tuple(
            (case, words)
            for case, name, words in counter_changes(base[0], head[0])
            if (case, name) not in listed
        ),
    )


def _what_is_worse(case: str, changes: Sequence[ChangePart]) -> str:
    """A case with what got worse: ``ddim50-fp16 (slower: GPU busy +5.8 %; more work)``."""
    worse = [change for change in changes if change.case == case and change.mood == "bad"]
    parts = []
    for status in dict.fromkeys(change.status for change in reversed(worse)):
        moved = [
            f"{change.metric} {percent(change.ratio)}"
            for change in worse
            # For counters the status is enough here; the table has the numbers.
            if change.status == status and change.ratio and change.interval
        ]
        parts.append(f"{status}: {', '.join(moved)}" if moved else status)
    return f"{case} ({'; '.join(parts)})"


def refused(reason: str, base: Sequence[Run], head: Sequence[Run]) -> ComparisonPart:
    """In place of a verdict, why there is none."""
    said = messages.not_compared(reason)
    return ComparisonPart(mood="warning", sentence=said, about=_about(base, head))


def _about(base: Sequence[Run], head: Sequence[Run]) -> str:
    names = [messages.side(_named(side[0]), len(side) - 1) for side in (base, head)]
    return messages.sides(*names)


def _judged(change: Change) -> ChangePart:
    metric = next((metric for metric in COMPARED if metric.name == change.metric), None)

    def read(value: float | None) -> str:
        if value is None:
            return ""
        if change.metric == IMAGE.name:
            return figures.decibels(value)
        return metric.shown(value) if metric else f"{value:,.0f}"

    ratio = change.ratio
    counted = metric is None and change.metric != IMAGE.name
    # A counter has no interval: it is what it is.
    exact = change.head / change.base if counted and change.head and change.base else None
    return ChangePart(
        case=change.case,
        metric=change.metric,
        status=change.status,
        mood=mood_of(change.status),
        base=read(change.base),
        head=read(change.head),
        ratio=ratio.mid if ratio else exact,
        interval=(
            f"99.5 %: {percent(ratio.low)} to {percent(ratio.high)}"
            if ratio and ratio.low > 0 and ratio.high < UNKNOWN
            else ""
        ),
        sentence=change.details,
        next=change.command_line,
        changed=change.status != Status.SAME and not change.status.warns,
    )


def side_by_side(base: Run, head: Run) -> ComparisonPart:
    """What differs between single runs, without a verdict: their noise is unknown."""
    about = _about([base], [head])
    other = _apart(base, head)
    if other:
        return ComparisonPart(mood="warning", sentence=other, about=about)
    shared = [(case, was) for case in head.cases.values() if (was := base.by_id.get(case.id))]
    changes = [change for case, was in shared for change in _differences(was, case)]
    changes += [
        ChangePart(
            case=case.id,
            status=Status.NEW,
            head=figures.seconds(case.measurement.latency_s),
            sentence=messages.ONLY_IN_HEAD,
            changed=True,
        )
        for case in head.cases.values()
        if case.id not in base.by_id
    ]
    changes += [
        ChangePart(
            case=case.id,
            status=Status.MISSING,
            base=figures.seconds(case.measurement.latency_s),
            sentence=messages.ONLY_IN_BASE,
            changed=True,
        )
        for case in base.cases.values()
        if case.id not in head.by_id
    ]
    changes.sort(key=lambda c: (not c.changed, -abs((c.ratio or 1.0) - 1)))
    return ComparisonPart(
        mood="plain",
        sentence=messages.single_runs(PAIRS),
        about=about,
        changes=tuple(changes),
        counters=tuple((case, words) for case, _, words in counter_changes(base, head)),
        next=messages.COMPARE,
    )


def _named(run: Run) -> str:
    return run.path.name + (f" ({run.commit.id[:10]})" if run.commit.id else "")


def _apart(base: Run, head: Run) -> str:
    """Why two runs are not comparable; empty if they are."""
    before, now = base.machine.name, head.machine.name
    if before != now:
        return messages.other_machine(before, now)
    if base.weights and head.weights and not base.weights & head.weights:
        return messages.OTHER_WEIGHTS
    return ""


def _differences(was: CaseRecord, case: CaseRecord) -> list[ChangePart]:
    changes = []
    for metric in COMPARED:
        before, now = metric.of(was.measurement), metric.of(case.measurement)
        if case.image_only or before is None or now is None:
            continue
        ratio = now / before
        changes.append(
            ChangePart(
                case=case.id,
                metric=metric.name,
                base=metric.shown(before),
                head=metric.shown(now),
                ratio=ratio,
                changed=abs(ratio - 1) > metric.threshold,
            )
        )
    had, has = was.measurement.image_distance, case.measurement.image_distance
    if had is not None and has is not None:
        moved = has.psnr_db - had.psnr_db
        changes.append(
            ChangePart(
                case=case.id,
                metric=IMAGE.name,
                base=figures.decibels(had.psnr_db),
                head=figures.decibels(has.psnr_db),
                interval=figures.decibels_change(moved),
                changed=abs(moved) > IMAGE_DB,
            )
        )
    return changes


def counter_changes(base: Run, head: Run) -> list[tuple[str, str, str]]:
    """Every counter that is not what it was, the judged ones first: case, counter, and the change
    in words, with the share within which it counts as the same. They are exact, so one run a side
    is enough.
    """
    changed = []
    for case in head.cases.values():
        was, seen = base.by_id.get(case.id), case.measurement
        for name, now in seen.counters.items():
            before = was.measurement.counters.get(name) if was else None
            if before is not None and before != now:
                words = difference(name, was=before, now=now, steps=seen.steps)
                changed.append((case.id, name, words + _within(name, before, now, seen.steps)))
    return sorted(changed, key=lambda change: change[1] not in STRICT)


def _within(name: str, was: Count, now: Count, steps: int) -> str:
    metric = COUNTERS.get(name)
    if metric is None or not metric.rise:
        return ""
    status = count_status(metric, was=was, now=now, steps=steps)
    return f", {messages.within(metric.rise)}" if status == Status.SAME else ""
