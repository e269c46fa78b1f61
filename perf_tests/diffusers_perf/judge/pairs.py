"""Head against base in paired processes: numbers in, verdicts out; no files, no torch, no clock.

The i-th run of base and the i-th of head are a pair, made one after the other on one machine. Times
and memory are weighed as `weighing` says. Counters are held to base's exactly, and head's images
to what its optimizations tolerance, as in `verdicts`; where they tolerance nothing, to be no
farther from the reference than base's by `IMAGE_DROP_DB`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.metrics import COMPARED, COUNTERS, Kind, Metric
from diffusers_perf.catalog.status import Status, exit_code, worst
from diffusers_perf.judge import messages
from diffusers_perf.judge.comparable import NotComparable, check
from diffusers_perf.judge.counters import work
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.images import REPEAT_PSNR_DB
from diffusers_perf.judge.question import Question
from diffusers_perf.judge.stats import Interval
from diffusers_perf.judge.verdicts import judge
from diffusers_perf.judge.weighing import PAIRS_MOST, weigh
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.run import CaseRecord, Run

Noise = Mapping[str, Mapping[str, float]]
"""By a case's key and a field's name: the standard deviation of its log between processes."""


DRIFT = "drift"
"""The metric of a reference that was timed again at a process's end."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row: what became of one metric of one case."""

    case: str
    """The case's id."""
    metric: str
    status: Status
    base: float | None = None
    """Median over the processes, in the unit of the run's JSON; a counter's total."""
    head: float | None = None
    ratio: Interval | None = None
    """Head over base, with its 99 % interval."""
    sentence: str = ""
    next: str = ""
    """What to do about it."""
    more_could_tell: bool = False
    """Whether further pairs, `PAIRS_MOST` in all, could settle what is inconclusive or invalid."""

    def text(self) -> str:
        """The sentence behind its status, and what to do."""
        said = f"{self.status}: {self.sentence}"
        return f"{said}\n  next      {self.next}" if self.next else said


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that was found, and what follows from it."""

    changes: tuple[Change, ...]
    pairs: int
    machines: str = ""
    """On which machine, and which versions each side ran with."""

    @property
    def verdicts(self) -> dict[str, Status]:
        """By case id, the worst of its statuses. A reference that drifted is a case only where it
        was measured as one.
        """
        verdicts: dict[str, Status] = {}
        cases = {change.case for change in self.changes if change.metric != DRIFT}
        for change in self.changes:
            if change.case not in cases:
                continue
            before = verdicts.get(change.case, Status.SAME)
            verdicts[change.case] = worst((before, change.status))
        return verdicts

    @property
    def inconclusive(self) -> tuple[str, ...]:
        """Ids of the cases of which something could not be told, whatever else is known of them."""
        return tuple(dict.fromkeys(c.case for c in self.changes if c.status.warns))

    @property
    def worth_more(self) -> tuple[str, ...]:
        """Those of them that more pairs could settle."""
        return tuple(dict.fromkeys(c.case for c in self.changes if c.more_could_tell))

    @property
    def exit_code(self) -> int:
        """0 holds, 1 a regression, 2 not to be judged from these pairs."""
        return exit_code(change.status for change in self.changes)

    @property
    def sentence(self) -> str:
        """The whole in one line."""
        statuses = list(self.verdicts.values())
        counts = {
            "worse": sum(not status.passes for status in statuses),
            "inconclusive or invalid": sum(status.warns for status in statuses),
            "faster": statuses.count(Status.FASTER),
            "less work": statuses.count(Status.LESS_WORK),
            "new": statuses.count(Status.NEW),
            "the same": statuses.count(Status.SAME),
        }
        verdict = ("holds", "regression", "inconclusive")[self.exit_code]
        told = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
        pairs = _number(self.pairs, "pair")
        return f"{verdict}: of {_number(len(statuses), 'case')} {told}, by {pairs} of processes"


def _number(number: int, one: str, many: str = "") -> str:
    """``1 pair``, ``2 pairs``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def compare(
    base: Sequence[Run],
    head: Sequence[Run],
    *,
    noise: Noise | None = None,
    more: str = "",
) -> Comparison:
    """What head changed. `noise` is what a calibration of the machine knows of each case, `more`
    the command that measures further pairs, where it is known.

    `NotComparable` where nothing follows from these runs, whatever they say.
    """
    check(base, head)
    ids = dict.fromkeys(
        name
        for run in (*head, *base)
        for name in (*run.by_id, *(lost.id for lost in run.session.not_timed))
    )
    drifts = {change.case: change for change in _drifts(base, head)}
    changes: list[Change] = []
    for name in ids:
        changes += _changes(_Sides(name=name, base=base, head=head, more=more), noise or {})
        changes += [drifts.pop(name)] if name in drifts else []
    # References that were measured for others and have no test in these runs.
    changes += drifts.values()
    found = Comparison(
        changes=tuple(changes), pairs=len(base), machines=_machines(base[0], head[0])
    )
    if not found.verdicts:
        raise NotComparable("no case was measured on either side")
    # What is wrong with head by itself is so without base, too.
    if not any(run.by_id for run in base) and found.exit_code != 1:
        raise NotComparable("base measured no case, so there is nothing to hold head to")
    return found


def _machines(base: Run, head: Run) -> str:
    versions = ("python", "torch", "diffusers", "transformers")
    had, has = ([f"{n} {getattr(run.machine, n)}" for n in versions] for run in (base, head))
    changed = [f"{was} → {now.split()[1]}" for was, now in zip(had, has, strict=True) if was != now]
    if changed:
        return f"{head.machine.name}: {', '.join(changed)}"
    return f"{head.machine.name}, both with {', '.join(has)}"


# What became of a case


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """One case in all runs."""

    name: str
    base: Sequence[Run]
    head: Sequence[Run]
    more: str
    """The command that measures further pairs; empty where nobody knows."""

    @property
    def in_base(self) -> list[CaseRecord]:
        return [case for run in self.base if (case := run.by_id.get(self.name))]

    @property
    def in_head(self) -> list[CaseRecord]:
        return [case for run in self.head if (case := run.by_id.get(self.name))]

    @property
    def again(self) -> str:
        return messages.rerun(self.name, self.head[0].session.options)

    def quiet(self, metric: Metric) -> tuple[list[tuple[CaseRecord, CaseRecord]], list[str]]:
        """The pairs whose times say something, and why the others do not."""
        pairs, reasons = [], []
        for runs in zip(self.base, self.head, strict=True):
            cases = [run.by_id.get(self.name) for run in runs]
            if cases[0] is None or cases[1] is None:
                reasons.append("not measured on both sides")
                continue
            disturbed = [
                reason
                for run, case in zip(runs, cases, strict=True)
                if case
                for reason in disturbed_in(run, case, metric)
            ]
            if disturbed:
                reasons.append(disturbed[0])
            else:
                pairs.append((cases[0], cases[1]))
        return pairs, reasons


def disturbed_in(run: Run, case: CaseRecord, metric: Metric) -> list[str]:
    """Why a process says nothing of this metric of a case; empty where it does."""
    if metric.kind is Kind.MEMORY:
        return []
    interference = case.measurement.interference
    if not metric.wall_clock:
        return [*interference.reasons(wall_clock=False)]
    drifts = (
        case.reference_drift,
        run.session.reference_drift.get(case.measurement.workload),
    )
    return [
        *interference.reasons(wall_clock=True),
        *(finding.said for finding in _findings(case) if finding.status == Status.INVALID),
        # Whichever way: what is compared was made on one machine or says nothing.
        *(messages.drift(drift.ratio) for drift in drifts if drift and drift.significant),
    ]


def _changes(sides: _Sides, noise: Noise) -> Iterator[Change]:
    name = sides.name
    lost = [case for run in sides.head for case in run.session.not_timed if case.id == name]
    failed = [case for case in lost if not case.status.passes]
    if failed:
        as_before = any(
            case.id == name and case.status == failed[0].status
            for run in sides.base
            for case in run.session.not_timed
        )
        yield Change(
            case=name,
            metric="case",
            status=failed[0].status,
            sentence=_named(name, failed[0].sentence) + "; as in base" * as_before,
            next=sides.again,
        )
    if not sides.in_head:
        if sides.in_base and not failed:
            why = lost[0].sentence if lost else "it is not declared there, or was not asked for"
            cut_short = any(case.status == Status.INVALID for case in lost)
            if not lost and any(_ended_before(name, run) for run in sides.head):
                why, cut_short = "the run was interrupted before it got there", True
            left_out = not lost and any(name in run.session.not_selected for run in sides.head)
            if left_out:
                why = "it was left out by name there"
            status = Status.INCONCLUSIVE if left_out else Status.MISSING
            status = Status.INVALID if cut_short else status
            yield Change(
                case=name,
                metric="case",
                status=status,
                sentence=f"{name} was measured in base and not in head: "
                f"{why.removeprefix(f'{name}: ')}",
                next=f"{'run it again' if cut_short else 'bring it back'}; {sides.again}",
                more_could_tell=cut_short and len(sides.base) < PAIRS_MOST,
            )
        return
    yield from _alone(sides)
    if not sides.in_base:
        yield Change(
            case=name,
            metric="case",
            status=Status.NEW,
            sentence=f"{name} was not measured in base, so there is nothing to hold it to",
        )
        return
    if sides.in_head[0].image_only:
        return
    for metric in COMPARED:
        yield from _measured(sides, metric, noise)
    yield from _counted(sides)


def _ended_before(name: str, run: Run) -> bool:
    session = run.session
    return name in session.expected and any(c.status == Status.INVALID for c in session.not_timed)


def _named(name: str, sentence: str) -> str:
    return sentence if name in sentence else f"{name}: {sentence}"


def _measured(sides: _Sides, metric: Metric, noise: Noise) -> Iterator[Change]:
    name = sides.name
    had, has = (
        [value for case in side if (value := metric.of(case.measurement)) is not None]
        for side in (sides.in_base, sides.in_head)
    )
    if not had and not has:
        return
    if not had or not has:
        blind = sides.in_head if had else sides.in_base
        notes = "; ".join(
            dict.fromkeys(chain.from_iterable(case.measurement.notes for case in blind))
        )
        where = "base and not in head" if had else "head and not in base"
        where += f": {notes}" if notes else ""
        yield Change(
            case=name,
            metric=metric.name,
            status=Status.INCONCLUSIVE,
            base=median(had) if had else None,
            head=median(has) if has else None,
            sentence=f"{name}: {metric.name} was measured in {where}",
            next=f"mend what keeps it from being measured; {sides.again}",
        )
        return
    quiet, reasons = sides.quiet(metric)
    both = [
        (b, h)
        for one, other in quiet
        if (b := metric.of(one.measurement)) is not None
        and (h := metric.of(other.measurement)) is not None
    ]
    left_out = ""
    if len(both) < len(sides.base):
        why = (*reasons, "not measured on both sides")[0]
        pairs = _number(len(sides.base), "pair")
        left_out = f"; {len(sides.base) - len(both)} of {pairs} left out: {why}"
    if not both:
        yield Change(
            case=name,
            metric=metric.name,
            status=Status.INVALID,
            base=median(had),
            head=median(has),
            sentence=f"{name}: {metric.name} says nothing{left_out}",
            next=f"run it again on a quiet machine; {sides.again}",
            more_could_tell=len(sides.base) < PAIRS_MOST,
        )
        return
    under, over = [b for b, _ in both], [h for _, h in both]
    known = noise.get(sides.in_head[0].key, {}).get(metric.field, 0.0)
    weighed = weigh(metric, over, under, known=known, of=len(sides.base))
    yield Change(
        case=name,
        metric=metric.name,
        status=weighed.status,
        base=median(under),
        head=median(over),
        ratio=weighed.ratio,
        sentence=f"{name}: {weighed.said}{left_out}",
        next=_next(sides, weighed.status, worth_more=weighed.more_could_tell),
        more_could_tell=weighed.more_could_tell,
    )


def _next(sides: _Sides, status: Status, *, worth_more: bool = False) -> str:
    if status == Status.INCONCLUSIVE:
        if len(sides.base) >= PAIRS_MOST:
            return "measure anew on a quieter machine, into a fresh --out; here no more are made"
        if not worth_more:
            return (
                "measure anew on a quieter machine, into a fresh --out: "
                f"{PAIRS_MOST} pairs as noisy as these cannot tell an effect this small"
            )
        more = sides.more or f"python -m ci ab makes up to {PAIRS_MOST}, its --help says how"
        return f"more pairs: {more}; or a quieter machine"
    if status in (Status.SLOWER, Status.MORE_MEMORY, Status.MORE_WORK):
        return f"if the change is intended, accept it; else rerun:\n{sides.again}"
    return ""


def _counted(sides: _Sides) -> Iterator[Change]:
    """Counters against base's; one that varies between processes counts beyond its whole range."""
    steps = sides.in_head[0].measurement.steps
    had, has = (
        [case.measurement.counters for case in side] for side in (sides.in_base, sides.in_head)
    )
    judged = [n for n in dict.fromkeys(chain.from_iterable((*had, *has))) if n in COUNTERS]
    unseen = [n for n in judged if not all(n in counters for counters in (*had, *has))]
    changes = []
    for name in judged:
        was, now = (
            sorted(
                (counters[name] for counters in side if name in counters),
                key=lambda count: count.total(steps),
            )
            for side in (had, has)
        )
        statuses = {work(COUNTERS[name], was=w, now=n, steps=steps) for w in was for n in now}
        if statuses <= {Status.SAME}:
            continue
        if len(statuses) > 1:
            changes.append(_varying(sides, name, was, now))
            continue
        (status,) = statuses
        # The nearest of both sides: head's least against base's most, and the other way round.
        more = status == Status.MORE_WORK
        before, after = (was[-1], now[0]) if more else (was[0], now[-1])
        difference = messages.difference(name, was=before, now=after, steps=steps)
        limit = f", limit {messages.most(COUNTERS[name], before, steps=steps)}"
        changes.append(
            Change(
                case=sides.name,
                metric=name,
                status=status,
                base=before.total(steps),
                head=after.total(steps),
                sentence=f"{sides.name}: {difference}{limit if more else ''}",
                next=_next(sides, status),
            )
        )
    if unseen:
        lacking = [
            f"{number} of {_number(len(side), 'process', 'processes')} of {where}"
            for where, side in (("base", had), ("head", has))
            if (number := sum(unseen[0] not in counters for counters in side))
        ]
        changes.append(
            Change(
                case=sides.name,
                metric="counters",
                status=Status.INCONCLUSIVE,
                sentence=f"{sides.name}: {unseen[0].replace('_', ' ')} ({len(unseen)} counters) "
                f"was not counted in {' and '.join(lacking)}",
                next=f"mend what keeps it from being counted; {sides.again}",
            )
        )
    elif not changes and judged:
        changes.append(
            Change(
                case=sides.name,
                metric="counters",
                status=Status.SAME,
                sentence=f"{sides.name}: {len(judged)} counters as in base",
            )
        )
    yield from changes


def _varying(sides: _Sides, name: str, was: Sequence[Count], now: Sequence[Count]) -> Change:
    """Of some processes more, of others not: what was counted depends on more than the code."""
    steps = sides.in_head[0].measurement.steps
    before, after = (
        " to ".join(f"{n:,}" for n in dict.fromkeys((side[0].total(steps), side[-1].total(steps))))
        for side in (was, now)
    )
    return Change(
        case=sides.name,
        metric=name,
        status=Status.INCONCLUSIVE,
        base=was[0].total(steps),
        head=now[-1].total(steps),
        sentence=f"{sides.name}: {name.replace('_', ' ')} {before} → {after}, not the same in all "
        "processes of a side",
        next=f"find what makes processes of one commit differ; {sides.again}",
    )


IMAGE = ("image", "image distance", "repeat")
"""Metrics of what an image shows, as `verdicts` names them."""
IMAGE_DROP_DB = 3.0
"""Twice the squared error. The same seed gives the same image but for rounding, and what is
farther from its reference than rounding takes it (`REPEAT_PSNR_DB`) is not moved by it: a drop like
this in every pair is another image."""


def _alone(sides: _Sides) -> Iterator[Change]:
    """What head's runs show without base: images held to their tolerance, and whatever else."""
    found = [f for case in sides.in_head for f in _findings(case)]
    before = {(f.metric, f.status) for case in sides.in_base for f in _findings(case)}
    images = [f for f in found if f.metric in IMAGE]
    # What makes one process invalid costs its pair, and not the case.
    others = [
        f for f in found if f.metric not in IMAGE and f.status not in (Status.SAME, Status.INVALID)
    ]
    for metric, group in (
        ("image", images),
        *(
            (name, [f for f in others if f.metric == name])
            for name in dict.fromkeys(f.metric for f in others)
        ),
    ):
        if not group:
            continue  # an image whose distance could not be measured is among the others
        most_severe = max(group, key=lambda finding: finding.status.severity)
        if metric == "image" and most_severe.status == Status.SAME and not _has_tolerance(sides):
            yield _without_tolerance(sides)
            continue
        said = f"{sides.name}: its image is as allowed"
        if most_severe.status == "new":
            said = f"{sides.name}: nobody accepted an image to hold it to"
        elif most_severe.what:
            said = f"{most_severe.said} ({most_severe.measured}; limit {most_severe.limit})"
            # Such a thing fails whoever made it so, and whoever reads it wants to know.
            said += "; so is base's" if (most_severe.metric, most_severe.status) in before else ""
        yield Change(
            case=sides.name,
            metric=metric,
            status=most_severe.status,
            base=_psnr(sides.in_base) if metric == "image" else None,
            head=_psnr(sides.in_head) if metric == "image" else None,
            sentence=said,
            next=most_severe.next,
        )


def _has_tolerance(sides: _Sides) -> bool:
    """Is head's image held to a tolerance? The reference's is, to the accepted image."""
    case = sides.in_head[0]
    return case.is_reference or case.tolerance is not None


def _without_tolerance(sides: _Sides) -> Change:
    """An image that may be anything but black or uniform, and is held to be what it was."""
    seen = [
        [run.by_id[sides.name].measurement for run in pair]
        for pair in zip(sides.base, sides.head, strict=True)
        if all(sides.name in run.by_id for run in pair)
    ]
    known = [
        (was.image_distance.psnr_db, now.image_distance.psnr_db)
        for was, now in seen
        if was.look.finite and was.image_distance and now.image_distance
    ]
    farther = bool(known) and all(
        now < min(was - IMAGE_DROP_DB, REPEAT_PSNR_DB) for was, now in known
    )
    base, head = _psnr(sides.in_base), _psnr(sides.in_head)
    said = f"{sides.name}: its image is neither black nor uniform, and nothing more is allowed"
    if farther:
        against = sides.in_head[0].compared_with.case
        said = (
            f"{sides.name}: its image is farther from {against} than base's, "
            f"PSNR {base:.1f} → {head:.1f} dB, in each of {_number(len(known), 'pair')}; "
            f"nothing is allowed of it, limit {IMAGE_DROP_DB:.0f} dB less than base's"
        )
    return Change(
        case=sides.name,
        metric="image",
        status=Status.WORSE_IMAGE if farther else Status.SAME,
        base=base,
        head=head,
        sentence=said,
        next=f"compare the images saved beside the runs' JSON; {sides.again}" if farther else "",
    )


def _findings(case: CaseRecord) -> list[Finding]:
    """What the rule for one run finds where there is no baseline."""
    verdict = judge(
        Question(
            measured=case.measurement,
            reference=case.compared_with,
            tolerance=case.tolerance,
            baseline=None,
            baseline_name="",
            portable={},
            versions={},
            image_only=case.image_only,
        )
    )
    return [finding for finding in verdict.findings if finding.metric != "baseline"]


def _psnr(cases: Sequence[CaseRecord]) -> float | None:
    """Of the farthest image, in dB."""
    seen = [case.measurement.image_distance for case in cases]
    return min((distance.psnr_db for distance in seen if distance), default=None)


# The control


def _drifts(base: Sequence[Run], head: Sequence[Run]) -> Iterator[Change]:
    """A row for each workload's reference: did it hold while a process ran?"""
    for workload in dict.fromkeys(
        name for run in (*base, *head) for name in run.session.reference_drift
    ):
        ratios = [
            [drift.ratio for run in side if (drift := run.session.reference_drift.get(workload))]
            for side in (base, head)
        ]
        pairs = list(zip(base, head, strict=True))
        moved = sum(any(workload in run.session.drifted for run in pair) for pair in pairs)
        name = f"{workload}-{REFERENCE}"
        too_few = bool(moved) and len(pairs) - moved < 2
        said = f"{name}: timed again at a process's end it took {_range(list(chain(*ratios)))}"
        said += " of its first time"
        if moved:
            said += f"; latencies of {moved} of {_number(len(pairs), 'pair')} are left out"
        yield Change(
            case=name,
            metric=DRIFT,
            # Enough pairs are left, or the machine is the one that is judged here.
            status=Status.INVALID if too_few else Status.SAME,
            base=median(ratios[0]) if ratios[0] else None,
            head=median(ratios[1]) if ratios[1] else None,
            sentence=said,
            next="run it again on a quiet machine" if moved else "",
            more_could_tell=too_few and len(pairs) < PAIRS_MOST,
        )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f}x to {max(values):.3f}x"
