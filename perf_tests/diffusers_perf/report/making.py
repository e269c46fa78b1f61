"""Makes a report's content from a run, beside another where one is given. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.stats import mean_interval
from diffusers_perf.records.baselines import Published
from diffusers_perf.records.pixels import IDENTICAL_DB
from diffusers_perf.report import figures
from diffusers_perf.report.content import CasePart, ComparisonPart, Report, WorkloadPart, mood_of
from diffusers_perf.report.reading import Reading, Seen
from diffusers_perf.report.sides import side_by_side
from diffusers_perf.report.summing import verdict_of


def make(
    head: Reading,
    *,
    published: Published,
    accepted: Collection[str] | None,
    base: Reading | None = None,
    comparison: ComparisonPart | None = None,
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
    lost = head.lost(accepted or ())
    return Report(
        title=f"Stable Diffusion inference on {head.machine.get('name', 'an unnamed machine')}",
        verdict=verdict_of(
            head, cases, lost=lost, known=accepted is not None, comparison=comparison
        ),
        machine=_machine(head),
        workloads=workloads,
        comparison=comparison,
        lost=lost,
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
    parts = [figures.count(case.num_images, "image")]
    if "size" in pins:
        parts.append(f"{pins['size']}×{pins['size']}")
    scheduler = str(pins.get("scheduler", "")).removesuffix("Scheduler")
    parts.append(figures.count(case.steps, "step") + (f" of {scheduler}" if scheduler else ""))
    base = pins.get("base")
    if isinstance(base, Sequence) and not isinstance(base, str) and base:
        parts.append("in " + "+".join(map(str, base)))
    return ", ".join(parts)


def _front(cases: Sequence[Seen]) -> set[str]:
    """Ids of the cases that no other beats in speed, image and memory at once."""
    points: dict[str, tuple[float, float, float]] = {}
    for case in cases:
        cost = case.latency_s if case.gpu_busy_s is None else case.gpu_busy_s
        spoiled = not case.finite or case.status in (Status.BLACK, Status.UNIFORM)
        if cost is None or case.image_only or spoiled:
            continue
        # Nothing is closer to the reference than itself.
        psnr = IDENTICAL_DB if case.name == REFERENCE else case.psnr_db
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
        if claim is None or reference is None or case.image_only:
            continue
        if not (case.latency_s and reference.latency_s and case.parameters):
            continue
        smaller = 1 - case.parameters / (reference.parameters or case.parameters)
        saved = 1 - case.latency_s / reference.latency_s
        on_gpu = (
            f" and {1 - 1 / case.gpu_speedup:.0%} of the GPU's time" if case.gpu_speedup else ""
        )
        lines.append(
            f"{case.name}: {smaller:.0%} fewer parameters in the whole pipeline, {saved:.0%} of "
            f"the latency{on_gpu} saved; the guide claims {claim['smaller']:.0%} smaller and "
            f"{claim['faster']:.0%} faster."
        )
    return lines


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
            "Images are of seeded weights: noise to the eye. How close two of them are is about "
            "arithmetic."
        )
    return tuple(dict.fromkeys(notes))
