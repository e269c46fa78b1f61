"""What a report says, made once from runs: the page and the comment only render it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ci.report import figures
from ci.report.reading import Lost, Reading, Seen
from perf_tests.harness import pairs
from perf_tests.harness.baselines import Published
from perf_tests.harness.catalog import REFERENCE
from perf_tests.harness.stats import Interval, mean_interval
from perf_tests.harness.verdicts import NEVER_MORE, PASSING, STATUSES, WARNING, difference

Mood = Literal["good", "plain", "warning", "bad"]

NAMED_MOST = 3
"""Cases that a sentence names."""
PAIRS = 5
"""Of processes, from which base and head can be judged."""
SHOWN_SHARE = {"latency": 0.03, "GPU busy": 0.02, "memory": 0.02}
"""Differences that a comparison without pairs shows first; they are judged from nothing."""
PICTURE_DB = 0.5
UNKNOWN = 1e6
"""A ratio's end beyond which the interval says that nothing is known."""
HOST_IDLE = 0.1
"""The host holds a case back where the GPU idles for more than this part of the time."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One thing that a reader has to know, and what to do about it."""

    status: str
    mood: Mood
    case: str
    sentence: str
    next: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The first thing that is read."""

    mood: Mood
    sentence: str
    points: tuple[Point, ...]
    """What is not well, worst first."""
    next: str
    """One command."""


@dataclass(frozen=True, kw_only=True)
class CasePart:
    """One case with what follows from its numbers."""

    seen: Seen
    mood: Mood
    base: Seen | None
    """The same case of the run it is compared with."""
    interval: Interval | None
    """99 % interval of the latency, seconds; None from a single round."""
    guide: Mapping[str, float]
    """The guide's ``latency_s`` and ``speedup``; empty where it has none."""
    front: bool
    """No other case of the workload is faster, closer and smaller at once."""

    @property
    def to(self) -> str:
        """What it is compared with, where that is not the reference."""
        against = self.seen.against
        return "" if against in (None, REFERENCE, self.seen.name) else str(against)

    @property
    def label(self) -> str:
        """Its name, and what it is compared with where that is not the reference."""
        return f"{self.seen.name} (to {self.to})" if self.to else self.seen.name

    @property
    def speedup(self) -> float | None:
        """By latency, over the case it is compared with."""
        return 1.0 if self.seen.name == REFERENCE else self.seen.latency_speedup

    @property
    def gpu_speedup(self) -> float | None:
        if self.seen.name == REFERENCE and self.seen.gpu_busy_s is not None:
            return 1.0
        return self.seen.gpu_speedup

    @property
    def idle_share(self) -> float | None:
        """The part of the latency in which the GPU has nothing to do."""
        seen = self.seen
        if seen.gpu_busy_s is None or seen.latency_s is None:
            return None
        return max(0.0, 1 - seen.gpu_busy_s / seen.latency_s)

    @property
    def bound(self) -> str:
        """What holds it back, in words; empty where nobody could look."""
        if self.idle_share is None:
            return ""
        by = "host" if self.idle_share > HOST_IDLE else "GPU"
        return f"{by}, GPU idle {100 * self.idle_share:.0f} %"

    @property
    def cost_s(self) -> float | None:
        """The time that says most: GPU busy where it was seen, else latency."""
        return self.seen.latency_s if self.seen.gpu_busy_s is None else self.seen.gpu_busy_s

    @property
    def picture(self) -> str:
        """What is on it, or how close it is, in a few words."""
        seen = self.seen
        if not seen.finite:
            return "not finite"
        if seen.status in ("black", "flat"):
            return seen.status
        if seen.psnr_db is None:
            return ""
        if seen.psnr_db >= figures.IDENTICAL_DB:
            return "identical"
        return f"{figures.decibels(seen.psnr_db)}, {figures.similarity(seen.ssim)}"


@dataclass(frozen=True, kw_only=True)
class WorkloadPart:
    """One workload's cases, in the order in which they were declared."""

    name: str
    title: str
    """What is generated, in words."""
    prompt: str
    cases: tuple[CasePart, ...]
    claims: tuple[str, ...]

    @property
    def settings(self) -> Mapping[str, str]:
        """What each optimization of its cases does, in a line."""
        return {name: line for case in self.cases for name, line in case.seen.stack.items()}

    @property
    def timed(self) -> tuple[CasePart, ...]:
        """Those with a time that is judged."""
        return tuple(
            case for case in self.cases if not case.seen.picture_only and case.seen.latency_s
        )

    @property
    def falling(self) -> tuple[CasePart, ...]:
        """From the reference to the best stack."""
        return tuple(
            sorted(self.timed, key=lambda c: (c.seen.name != REFERENCE, -(c.cost_s or 0.0)))
        )

    @property
    def on_gpu(self) -> bool:
        return any(case.seen.gpu_busy_s is not None for case in self.timed)

    @property
    def guided(self) -> bool:
        return any(case.guide for case in self.cases)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric of a case, base against head."""

    case: str
    metric: str
    status: str
    """A verdict where pairs were judged; empty from single runs."""
    mood: Mood
    base: str
    head: str
    ratio: float | None
    interval: str
    sentence: str
    next: str
    changed: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Base against head."""

    mood: Mood
    sentence: str
    """Its outcome."""
    about: str
    """What was compared: commits and runs."""
    changes: tuple[Change, ...]
    """Changed rows first, the worst of them at the top."""
    counters: tuple[tuple[str, str], ...]
    """Case and, in words, the counter that changed."""
    next: str = ""
    """What to do about all of it."""

    @property
    def changed(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.changed)

    @property
    def unchanged(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if not change.changed)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report says, but for the pictures."""

    title: str
    verdict: Verdict
    machine: tuple[tuple[str, str], ...]
    """Name and value: the machine, the versions, the run."""
    workloads: tuple[WorkloadPart, ...]
    comparison: Comparison | None
    lost: tuple[Lost, ...]
    notes: tuple[str, ...]

    @property
    def cases(self) -> tuple[CasePart, ...]:
        return tuple(case for workload in self.workloads for case in workload.cases)

    @property
    def on_gpu(self) -> bool:
        return any(workload.on_gpu for workload in self.workloads)


def mood_of(status: str) -> Mood:
    """How a verdict is shown. One that nobody knows is shown as bad."""
    if status in WARNING:
        return "warning"
    if status in ("new", "skipped", ""):
        return "plain"
    return "good" if status in PASSING else "bad"


def badness(status: str) -> int:
    """For sorting: the worse, the larger."""
    return STATUSES.index(status) if status in STATUSES else len(STATUSES)


def again(case: str) -> str:
    """The command that runs a case alone."""
    return f'pytest "perf_tests/test_generation.py::test_generation[{case}]" --benchmark-only'


def make(
    head: Reading,
    *,
    published: Published,
    accepted: Collection[str] | None,
    base: Reading | None = None,
    comparison: Comparison | None = None,
) -> Report:
    """The report of a run, beside another where one is given.

    `accepted` are the keys of the machine's baseline, None where there is none. A comparison is
    handed in where pairs were judged; else single runs are shown without a verdict.
    """
    workloads = tuple(
        _workload(name, head, base=base, published=published)
        for name in dict.fromkeys(case.workload for case in head.cases)
    )
    if comparison is None and base is not None:
        comparison = side_by_side(base, head)
    cases = tuple(case for workload in workloads for case in workload.cases)
    return Report(
        title=f"Stable Diffusion inference on {head.machine.get('name', 'an unnamed machine')}",
        verdict=_verdict(head, cases, accepted=accepted, comparison=comparison),
        machine=_machine(head),
        workloads=workloads,
        comparison=comparison,
        lost=head.lost,
        notes=_notes(head),
    )


def _workload(
    name: str, head: Reading, *, base: Reading | None, published: Published
) -> WorkloadPart:
    own = [case for case in head.cases if case.workload == name]
    front = _front(own)
    return WorkloadPart(
        name=name,
        title=_title(own[0]),
        prompt=str(own[0].generates.get("prompt", "")),
        cases=tuple(
            CasePart(
                seen=case,
                mood=mood_of(case.status),
                base=base.case(case.id) if base else None,
                interval=mean_interval(case.rounds_s) if len(case.rounds_s) > 1 else None,
                guide=published.cases.get(case.id, {}),
                front=case.id in front,
            )
            for case in own
        ),
        claims=tuple(_claims(own, published)),
    )


def _title(case: Seen) -> str:
    pins = case.generates
    parts = [figures.count(case.images, "picture")]
    if "size" in pins:
        parts.append(f"{pins['size']}×{pins['size']}")
    scheduler = str(pins.get("scheduler", "")).removesuffix("Scheduler")
    parts.append(figures.count(case.steps, "step") + (f" of {scheduler}" if scheduler else ""))
    base = pins.get("base")
    if isinstance(base, Sequence) and not isinstance(base, str) and base:
        parts.append("in " + "+".join(map(str, base)))
    return ", ".join(parts)


def _front(cases: Sequence[Seen]) -> set[str]:
    """Ids of the cases that no other beats in speed, picture and memory at once."""
    points: dict[str, tuple[float, float, float]] = {}
    for case in cases:
        cost = case.latency_s if case.gpu_busy_s is None else case.gpu_busy_s
        spoiled = not case.finite or case.status in ("black", "flat")
        if cost is None or case.picture_only or spoiled:
            continue
        # Nothing is closer to the reference than itself.
        psnr = figures.IDENTICAL_DB if case.name == REFERENCE else case.psnr_db
        if psnr is not None:
            points[case.id] = (cost, -psnr, case.peak_memory_bytes or 0.0)
    return {
        name
        for name, own in points.items()
        if not any(
            other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))
            for other in points.values()
        )
    }


def _claims(cases: Sequence[Seen], published: Published) -> list[str]:
    reference = next((case for case in cases if case.name == REFERENCE), None)
    lines = []
    for case in cases:
        claim = published.claims.get(case.name)
        if claim is None or reference is None or case.picture_only:
            continue
        if not (case.latency_s and reference.latency_s and case.parameters):
            continue
        smaller = 1 - case.parameters / (reference.parameters or case.parameters)
        saved = 1 - case.latency_s / reference.latency_s
        on_gpu = f" and {1 - 1 / case.gpu_speedup:.0%} of the GPU's time" if case.gpu_speedup else ""
        lines.append(
            f"{case.name}: {smaller:.0%} fewer parameters in the whole pipeline, {saved:.0%} of "
            f"the latency{on_gpu} saved; the guide claims {claim['smaller']:.0%} smaller and "
            f"{claim['faster']:.0%} faster."
        )
    return lines


def _verdict(
    head: Reading,
    cases: Sequence[CasePart],
    *,
    accepted: Collection[str] | None,
    comparison: Comparison | None,
) -> Verdict:
    points = [
        Point(
            status=case.seen.status,
            mood=case.mood,
            case=case.seen.id,
            sentence=case.seen.sentence.removeprefix(f"{case.seen.status}: ")
            or f"{case.seen.id} is {case.seen.status}",
            next=again(case.seen.id),
        )
        for case in cases
        if case.mood in ("warning", "bad")
    ]
    points += [
        Point(
            status="not a number",
            mood="bad",
            case=case.seen.id,
            sentence=f"{case.seen.id}: {problem}",
            next=again(case.seen.id),
        )
        for case in cases
        for problem in case.seen.problems
    ]
    points += [
        Point(
            status=lost.status,
            mood=mood_of(lost.status),
            case=lost.id,
            sentence=_about_lost(lost),
            next=again(lost.id),
        )
        for lost in head.lost
        if mood_of(lost.status) in ("warning", "bad")
    ]
    points += [
        Point(
            status="missing",
            mood="bad",
            case=name,
            sentence=f"{name} has a baseline and was not run",
            next="bring it back, or take its line out of the baseline",
        )
        for name in _missing(head, accepted or ())
    ]
    points.sort(key=lambda point: -badness(point.status))
    mood, sentence, command = _own_words(head, cases, points, accepted)
    if comparison is not None and comparison.mood == "plain":
        command = command if mood == "bad" else comparison.next
    elif comparison is not None:
        # Of the two, the worse speaks first; a comparison that holds says more than a baseline.
        order = ("good", "plain", "warning", "bad")
        if order.index(comparison.mood) >= order.index(mood) or mood == "plain":
            mood, sentence = comparison.mood, f"{comparison.sentence} {sentence}"
            command = next((c.next for c in comparison.changed if c.next), command)
        else:
            sentence = f"{sentence} {comparison.sentence}"
    return Verdict(mood=mood, sentence=sentence, points=tuple(points), next=command)


def _about_lost(lost: Lost) -> str:
    if not lost.sentence:
        return f"{lost.id} gave no measurement"
    return lost.sentence if lost.id in lost.sentence else f"{lost.id}: {lost.sentence}"


def _missing(head: Reading, accepted: Collection[str]) -> list[str]:
    """Ids of the cases that the baseline knows and a run of everything did not run."""
    weights = {(case.model, case.weights) for case in head.cases}
    known = {case.id for case in head.cases} | {lost.id for lost in head.lost}
    missing = []
    for key in accepted if head.whole else ():
        workload, rest = key.split("/", 1)
        made_with, weights_of, case = rest.rsplit("/", 2)
        if (made_with, weights_of) in weights and f"{workload}-{case}" not in known:
            missing.append(f"{workload}-{case}")
    return sorted(missing)


def _own_words(
    head: Reading,
    cases: Sequence[CasePart],
    points: Sequence[Point],
    accepted: Collection[str] | None,
) -> tuple[Mood, str, str]:
    """The run's own verdict: mood, sentence, next command."""
    machine = head.machine.get("name", "this machine")
    total = len({*(case.seen.id for case in cases), *(point.case for point in points)})
    if not cases:
        why = f" {figures.count(len(head.lost), 'case')} gave no measurement." if head.lost else ""
        command = points[0].next if points else "pytest perf_tests --benchmark-only"
        return "bad", f"Nothing was measured, so nothing is judged.{why}", command
    bad = list(dict.fromkeys(point.case for point in points if point.mood == "bad"))
    doubtful = list(dict.fromkeys(point.case for point in points if point.mood == "warning"))
    new = [case for case in cases if case.seen.status == "new"]
    accept = 'python -m ci accept RUN1.json RUN2.json RUN3.json --reason "..."'
    if bad:
        one = next(point for point in points if point.mood == "bad")
        if len(bad) == 1:
            what = f"{one.sentence.rstrip('.')}."
        else:
            status = {point.case: point.status for point in reversed(points)}
            named = [f"{case} ({status[case]})" for case in bad[:NAMED_MOST]]
            more = len(bad) - len(named)
            what = ", ".join(named) + (f" and {more} more." if more else ".")
        fail = "fails" if len(bad) == 1 else "fail"
        return "bad", f"{len(bad)} of {figures.count(total, 'case')} {fail}: {what}", one.next
    if doubtful:
        return (
            "warning",
            f"No case fails, and {len(doubtful)} of {figures.count(total, 'case')} could not be "
            f"judged: {', '.join(doubtful[:3])}" + (", …" if len(doubtful) > 3 else "."),
            points[0].next,
        )
    if accepted is None:
        return (
            "plain",
            f"No case fails. There is no baseline for {machine}: speed is shown and not judged, "
            "pictures and loose limits are.",
            accept,
        )
    if new:
        return (
            "plain",
            f"No case fails. {len(new)} of {figures.count(total, 'case')} "
            f"{'has' if len(new) == 1 else 'have'} no baseline on {machine} yet: shown, not judged.",
            accept,
        )
    all_of = "The one case holds" if len(cases) == 1 else f"All {len(cases)} cases hold"
    return "good", f"{all_of} to the baseline of {machine}.", "pytest perf_tests --benchmark-only"


def _machine(head: Reading) -> tuple[tuple[str, str], ...]:
    machine = head.machine
    capability = machine.get("compute_capability")
    memory = machine.get("memory_bytes")
    models = dict.fromkeys(f"{case.model} ({case.weights})" for case in head.cases)
    rows = (
        ("GPU" if machine.get("device") == "cuda" else "CPU", machine.get("name")),
        ("memory", f"{memory / 2**30:.0f} GiB" if isinstance(memory, int | float) else None),
        (
            "compute capability",
            ".".join(map(str, capability)) if isinstance(capability, list) else None,
        ),
        ("driver", machine.get("driver")),
        ("CUDA", machine.get("cuda")),
        ("threads", machine.get("threads")),
        ("torch", machine.get("torch")),
        ("diffusers", machine.get("diffusers")),
        ("transformers", machine.get("transformers")),
        ("Python", machine.get("python")),
        ("model", ", ".join(models)),
        ("measured", head.date),
        ("commit", head.commit),
    )
    return tuple((name, str(value)) for name, value in rows if value not in (None, ""))


def _notes(head: Reading) -> tuple[str, ...]:
    notes = [note for case in head.cases for note in case.notes]
    for workload, (ratio, significant) in head.drift.items():
        notes.append(
            f"{workload}: the reference took {ratio:.3f} of its first time when it was timed again"
            + (": latencies of this run say little" if significant else "")
        )
    if any(case.weights.startswith("seeded") for case in head.cases):
        notes.append(
            "Pictures are of seeded weights: noise to the eye. How close two of them are is about "
            "arithmetic."
        )
    return tuple(dict.fromkeys(notes))


# Base against head


def in_pairs(
    found: pairs.Comparison, base: Sequence[Reading], head: Sequence[Reading]
) -> Comparison:
    """What pairs of runs were judged to show."""
    changes = [_judged(change) for change in found.changes]
    changes.sort(key=lambda c: (not c.changed, -badness(c.status)))
    statuses = list(found.verdicts.values())
    fail = [case for case, status in found.verdicts.items() if mood_of(status) == "bad"]
    unsure = sum(mood_of(status) == "warning" for status in statuses)
    by = f"by {figures.count(found.pairs, 'pair')} of processes"
    cases = figures.count(len(statuses), "case")
    mood: Mood = "bad" if fail else "warning" if unsure else "good"
    if fail:
        worst = next(change for change in changes if change.mood == "bad")
        sentence = f"Head is worse than base in {len(fail)} of {cases}, {by}. {worst.sentence}."
    elif unsure:
        sentence = f"Nothing got worse in {cases}, and {unsure} could not be told, {by}."
    else:
        sentence = f"Head holds to base in all of {cases}, {by}."
    return Comparison(
        mood=mood,
        sentence=sentence,
        about=_about(base, head),
        changes=tuple(changes),
        counters=tuple(counter_changes(base[0], head[0])),
    )


def refused(reason: str, base: Sequence[Reading], head: Sequence[Reading]) -> Comparison:
    """Runs of which nothing follows for each other."""
    return Comparison(
        mood="warning",
        sentence=f"Base and head were not compared: {reason}.",
        about=_about(base, head),
        changes=(),
        counters=(),
    )


def _about(base: Sequence[Reading], head: Sequence[Reading]) -> str:
    names = [_named(side[0]) + (f" and {len(side) - 1} more" if side[1:] else "") for side in (base, head)]
    return f"Base is {names[0]}, head is {names[1]}."


def _judged(change: pairs.Change) -> Change:
    metric = next((metric for metric in pairs.METRICS if metric.name == change.metric), None)

    def read(value: float | None) -> str:
        if value is None:
            return ""
        return metric.shown(value) if metric else f"{value:,.0f}"

    ratio = change.ratio
    return Change(
        case=change.case,
        metric=change.metric.replace("_", " "),
        status=change.status,
        mood=mood_of(change.status),
        base=read(change.base),
        head=read(change.head),
        ratio=ratio.mid if ratio else None,
        interval=(
            f"99 %: {figures.percent(ratio.low)} to {figures.percent(ratio.high)}"
            if ratio and 0 < ratio.low and ratio.high < UNKNOWN
            else ""
        ),
        sentence=change.sentence,
        next=change.next,
        changed=change.status != "same",
    )


def side_by_side(base: Reading, head: Reading) -> Comparison:
    """Single runs: what differs, without a verdict, since nothing says how they scatter."""
    about = _about([base], [head])
    other = _apart(base, head)
    if other:
        return Comparison(
            mood="warning", sentence=other, about=about, changes=(), counters=()
        )
    shared = [(case, was) for case in head.cases if (was := base.case(case.id)) is not None]
    changes = [change for case, was in shared for change in _differences(was, case)]
    changes += [
        _only_in(case, "new", "measured in head alone") for case in head.cases if not base.case(case.id)
    ]
    changes += [
        _only_in(case, "missing", "measured in base alone") for case in base.cases if not head.case(case.id)
    ]
    changes.sort(key=lambda c: (not c.changed, -abs((c.ratio or 1.0) - 1)))
    return Comparison(
        mood="plain",
        sentence=f"One run a side is shown without a verdict: it takes {PAIRS} pairs of fresh "
        "processes to tell a change from noise.",
        about=about,
        changes=tuple(changes),
        counters=tuple(counter_changes(base, head)),
        next="python -m ci ab --base REF --head REF",
    )


def _named(reading: Reading) -> str:
    return f"{reading.path.name}" + (f" ({reading.commit})" if reading.commit else "")


def _apart(base: Reading, head: Reading) -> str:
    """Why two runs cannot stand beside each other; empty if they can."""
    before, now = base.machine.get("name"), head.machine.get("name")
    if before != now:
        return (
            f"Base was measured on {before}, head on {now}: times of two machines are not compared."
        )
    weights = [{(case.model, case.weights) for case in run.cases} for run in (base, head)]
    if weights[0] and weights[1] and not weights[0] & weights[1]:
        return "Base and head ran other models or weights: they are not compared."
    return ""


def _differences(was: Seen, case: Seen) -> list[Change]:
    rows = (
        ("latency", was.latency_s, case.latency_s, figures.seconds),
        ("GPU busy", was.gpu_busy_s, case.gpu_busy_s, figures.seconds),
        ("memory", was.peak_memory_bytes, case.peak_memory_bytes, figures.mebibytes),
    )
    changes = []
    for metric, before, now, read in rows:
        if case.picture_only or before is None or now is None:
            continue
        ratio = now / before
        changes.append(
            _difference(
                case,
                metric,
                base=read(before),
                head=read(now),
                ratio=ratio,
                changed=abs(ratio - 1) > SHOWN_SHARE[metric],
                words=figures.percent(ratio),
            )
        )
    if was.psnr_db is not None and case.psnr_db is not None:
        moved = case.psnr_db - was.psnr_db
        changes.append(
            _difference(
                case,
                "picture",
                base=figures.decibels(was.psnr_db),
                head=figures.decibels(case.psnr_db),
                ratio=None,
                changed=abs(moved) > PICTURE_DB,
                words=f"{moved:+.1f} dB".replace("-", "−"),
            )
        )
    return changes


def _difference(
    case: Seen,
    metric: str,
    *,
    base: str,
    head: str,
    ratio: float | None,
    changed: bool,
    words: str,
) -> Change:
    return Change(
        case=case.id,
        metric=metric,
        status="",
        mood="plain",
        base=base,
        head=head,
        ratio=ratio,
        interval="" if ratio else words,
        sentence="",
        next="",
        changed=changed,
    )


def _only_in(case: Seen, status: str, words: str) -> Change:
    return Change(
        case=case.id,
        metric="",
        status=status,
        mood="plain",
        base="" if status == "new" else figures.seconds(case.latency_s),
        head=figures.seconds(case.latency_s) if status == "new" else "",
        ratio=None,
        interval="",
        sentence=words,
        next="",
        changed=True,
    )


def counter_changes(base: Reading, head: Reading) -> list[tuple[str, str]]:
    """Every counter that is not what it was: they are exact, so one run a side is enough."""
    changed = []
    for case in head.cases:
        was = base.case(case.id)
        for name, now in case.counters.items() if was else ():
            before = was.counters.get(name) if was else None
            if before is not None and before != now:
                words = difference(name, was=before, now=now, steps=case.steps)
                changed.append((case.id, words, name in NEVER_MORE))
    changed.sort(key=lambda change: not change[2])
    return [(case, words) for case, words, _ in changed]
