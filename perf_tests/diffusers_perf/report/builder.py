"""Builds the content of a report from a run, and from the run it is compared with. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.claims import claims
from diffusers_perf.judge.drift import drift_lines
from diffusers_perf.judge.messages.commands import Command
from diffusers_perf.judge.outlier import not_compared
from diffusers_perf.judge.stats import mean_interval
from diffusers_perf.messages import report as messages
from diffusers_perf.messages.numbers import plural
from diffusers_perf.records.baselines import Published
from diffusers_perf.records.measurement import IDENTICAL_DB, Measurement
from diffusers_perf.records.run import CaseRecord, Run
from diffusers_perf.report.comparison import side_by_side
from diffusers_perf.report.content import CasePart, ComparisonPart, Report, WorkloadPart, mood_of
from diffusers_perf.report.summary import summary_of


def build(
    head: Run,
    *,
    published: Published,
    accepted: Collection[str] | None,
    since: Collection[str] = (),
    base: Run | None = None,
    comparison: ComparisonPart | None = None,
    again: Command | None = None,
) -> Report:
    """The report of a run, compared with another where one is given.

    `accepted` are the keys of the machine's baseline, None where there is none; `since` the ids of
    the cases that were accepted after the run. A comparison is handed in where pairs were judged;
    else single runs are shown without a verdict. `again` compares single cases anew.
    """
    workloads = tuple(
        _workload(name, head, base=base, published=published)
        for name in dict.fromkeys(c.measurement.workload for c in head.cases.values())
    )
    if comparison is None and base is not None:
        comparison = side_by_side(base, head)
    cases = tuple(case for workload in workloads for case in workload.cases)
    lost = head.lost(accepted or ())
    return Report(
        title=messages.title(head.machine.name),
        summary=summary_of(
            head,
            cases,
            lost=lost,
            known=accepted is not None,
            since=since,
            comparison=comparison,
            again=again,
        ),
        machine=_machine(head),
        workloads=workloads,
        comparison=comparison,
        lost=lost,
        notes=_notes(head),
    )


def _workload(name: str, head: Run, *, base: Run | None, published: Published) -> WorkloadPart:
    own = [case for case in head.cases.values() if case.measurement.workload == name]
    front = _front(own)
    return WorkloadPart(
        name=name,
        title=_title(own[0]),
        prompt=str(own[0].workload.get("prompt", "")),
        cases=tuple(
            CasePart(
                record=case,
                mood=mood_of(case.status),
                base=was.measurement if base and (was := base.by_id.get(case.id)) else None,
                interval=mean_interval(rounds)
                if len(rounds := case.measurement.rounds_s) > 1
                else None,
                guide=published.cases.get(case.id),
                front=case.id in front,
            )
            for case in own
        ),
        claims=tuple(claims(_against_reference(own), published.claims)),
    )


def _title(case: CaseRecord) -> str:
    pins, seen = case.workload, case.measurement
    parts = [plural(seen.num_images, "image")]
    if case.image_size:
        height, width = case.image_size
        parts.append(f"{width}×{height}")
    # None: the model's own, whose name the run does not say.
    scheduler = str(pins.get("scheduler") or "").removesuffix("Scheduler")
    parts.append(plural(seen.steps, "step") + (f" of {scheduler}" if scheduler else ""))
    base = pins.get("base")
    if isinstance(base, Sequence) and not isinstance(base, str) and base:
        parts.append("in " + "+".join(map(str, base)))
    return ", ".join(parts)


def _front(cases: Sequence[CaseRecord]) -> set[str]:
    """Ids of the cases that no other beats in speed, image and memory at once."""
    points: dict[str, tuple[float, float, float]] = {}
    for case in cases:
        seen = case.measurement
        if case.image_only or not seen.look.finite or case.status in (Status.BLACK, Status.UNIFORM):
            continue
        # Nothing is closer to the reference than itself.
        if case.is_reference:
            points[case.id] = (seen.cost_s, -IDENTICAL_DB, seen.peak_memory_bytes or 0.0)
        elif seen.farthest_db is not None:
            points[case.id] = (seen.cost_s, -seen.farthest_db, seen.peak_memory_bytes or 0.0)
    return {
        name
        for name, own in points.items()
        if not any(
            other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))
            for other in points.values()
        )
    }


def _against_reference(
    cases: Sequence[CaseRecord],
) -> Iterator[tuple[Measurement, Measurement | None]]:
    reference = next((case.measurement for case in cases if case.is_reference), None)
    return ((case.measurement, reference) for case in cases if not case.image_only)


def _machine(head: Run) -> tuple[tuple[str, str], ...]:
    machine, commit = head.machine, head.commit
    capability, memory = machine.compute_capability, machine.memory_bytes
    seen = [case.measurement for case in head.cases.values()]
    rows = (
        ("GPU" if machine.device == "cuda" else "CPU", machine.name),
        ("memory", f"{memory / 2**30:.0f} GiB" if memory else None),
        ("compute capability", ".".join(map(str, capability)) if capability else None),
        ("driver", machine.driver),
        ("CUDA", machine.cuda),
        ("threads", machine.threads),
        ("torch", machine.torch),
        ("diffusers", machine.diffusers),
        ("transformers", machine.transformers),
        ("Python", machine.python),
        ("model", ", ".join(dict.fromkeys(f"{one.model} ({one.weights})" for one in seen))),
        ("measured", f"{head.datetime:%Y-%m-%d %H:%M}"),
        ("commit", (commit.id or "")[:10] + " and changes" * bool(commit.dirty)),
    )
    return tuple((name, str(value)) for name, value in rows if value not in (None, ""))


def _notes(head: Run) -> tuple[str, ...]:
    seen = [case.measurement for case in head.cases.values()]
    notes = [
        note for one in seen for note in (*one.notes, *filter(None, [one.interference.unknown]))
    ]
    notes += not_compared(seen)
    notes += drift_lines(head.session)
    if any(one.weights.startswith("seeded") for one in seen):
        notes.append(messages.SEEDED)
    return tuple(dict.fromkeys(notes))
