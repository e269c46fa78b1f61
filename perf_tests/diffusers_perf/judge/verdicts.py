"""The one rule that decides. Pure: numbers in, verdict out; no files, no torch, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import join
from statistics import median

from diffusers_perf.catalog.declarations import Tolerance
from diffusers_perf.catalog.status import Status, worst
from diffusers_perf.judge.comparable import differing
from diffusers_perf.judge.stats import Interval, mean_interval, ratio_interval
from diffusers_perf.records.baselines import JUDGED, LAUNCHES, NEVER_MORE, Bound, CaseBaseline
from diffusers_perf.records.measurement import Count, Measurement, gpu_speedup
from diffusers_perf.records.operators import COUNTERS

BLACK_MEAN = 0.02
"""An image darker than this on average (0 to 1) is black."""
UNIFORM_STD = 0.02
"""An image whose every channel varies less than this over its places shows nothing."""
REPEAT_PSNR_DB = 60.0
"""The last round's image against the first's: the same numbers, but for a library's choices."""
REFERENCE_IMAGE = Tolerance(psnr_db=35.0, ssim=0.95)
"""The reference's image against the accepted one, both 64 pixels a side, unless its weights
tolerance more (`catalog.REFERENCE_TOLERANCES`). Measured on seeded
weights on an H100: tf32 71 dB and fp16 63 dB are what another GPU or version may do; no guidance
is at 22 dB (SSIM 0.80), another prompt at 20 dB (0.77), another seed at 17 dB (0.11)."""

FASTER_SHARE = 1.03
"""A GPU that is this much faster than its baseline asks for a new one."""

LAUNCH_SHARE = 1.01
"""Launches, kernels, operators and Python calls may grow by this much."""
ACCEPT = 'python -m ci accept RUN.json RUN.json RUN.json --reason "..."'
BRING_BACK = f"bring it back, or accept whole runs without it: {ACCEPT}"
ACCEPT_IMAGES = 'python -m ci accept RUN.json --images-only --reason "..."'

KEPT_BYTES_MAX = 4096
"""A generation may leave behind a few numbers, and no image."""
FIRST_ROUND_SHARE = 1.5
"""A first round that took this much longer than the others was a warm-up, and no round."""
TIMER_SHARE = 0.9
"""A latency below this share of the time in which the GPU was busy did not wait for the GPU."""
CORE_SLOWED = 1.15
"""A core this many times slower than at its best was disturbed. Two cores of a quiet machine were
at most 1.13 times slower, those of hosts that neighbours kept busy up to 1.9 times."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule found: a status and, unless all is well, the five parts of a message."""

    status: Status
    metric: str
    what: str = ""
    measured: str = ""
    expected: str = ""
    limit: str = ""
    next: str = ""

    def text(self) -> str:
        parts = (
            ("measured", self.measured),
            ("expected", self.expected),
            ("limit", self.limit),
            ("next", self.next),
        )
        lines = [f"{self.status}: {self.what}"]
        lines += [f"  {name:10}{part}" for name, part in parts if part]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All findings on a case."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst of the findings."""
        return worst(finding.status for finding in self.findings)

    @property
    def passes(self) -> bool:
        return self.status.passes

    @property
    def sentence(self) -> str:
        """The worst finding in one line; empty if all is well."""
        found = next((f for f in self.findings if f.status == self.status and f.what), None)
        return f"{found.status}: {found.what}" if found else ""

    def text(self) -> str:
        """Every finding that is not plainly well, worst first."""
        # Nobody should keep what is less only because something else is broken.
        told = [
            replace(f, next="") if f.status.improves and not self.passes else f
            for f in self.findings
            if f.what
        ]
        told.sort(key=lambda f: -f.status.severity)
        return "\n".join(f.text() for f in told)


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything that a verdict depends on."""

    measured: Measurement
    reference: Measurement
    """The case it is compared with; the measurement itself for a workload's reference."""
    tolerance: Tolerance | None
    baseline: CaseBaseline | None
    baseline_name: str
    """File of the machine's baseline, as a message names it."""
    portable: Mapping[str, Bound]
    versions: Mapping[str, str]
    """Of this run, to say so where the baseline was made with others."""
    image_only: bool
    drift: float = 1.0
    """What the reference took when it was timed again, over its first time; 1 where it was not, or
    where nothing is certain of it."""
    workload: Mapping[str, object] = field(default_factory=dict)
    """What the baseline's workload must be, where there is one."""
    options: Sequence[str] = ()
    """Of the main job, to repeat the case: what it was asked for beside the defaults."""

    @property
    def is_reference(self) -> bool:
        return self.measured is self.reference

    @property
    def name(self) -> str:
        return f"{self.measured.workload}-{self.measured.case}"

    @property
    def source(self) -> str:
        """Where the baseline's numbers come from."""
        if self.baseline is None:
            return ""
        theirs = self.baseline.versions
        source = f"{self.baseline_name}, accepted {self.baseline.accepted}"
        others = [
            f"{name} {theirs[name]}, this is {version}"
            for name, version in self.versions.items()
            if name in theirs and theirs[name] != version
        ]
        return source + (f"; made with {'; '.join(others)}" if others else "")

    @property
    def again(self) -> str:
        """The command that runs this case alone."""
        return again(self.name, self.options)


def again(id: str, options: Sequence[str] = ()) -> str:
    """The command that runs the case of this id alone, with these options."""
    command = f'pytest "perf_tests/test_generation.py::test_generation[{id}]" --benchmark-only'
    return f"{command} {join(options)}".rstrip()


def judge(question: Question) -> Verdict:
    """The verdict on one case."""
    findings = [*_image(question)]
    if not question.image_only:
        if other := _of_another_workload(question):
            findings.append(other)
            question = replace(question, baseline=None)
        findings += [*_speed(question), *_portable(question), *_work(question)]
        findings += [*_leak(question), *_measuring(question)]
        if question.baseline is None and other is None:
            findings.append(Finding(status=Status.NEW, metric="baseline"))
    return Verdict(findings=tuple(findings))


def _of_another_workload(q: Question) -> Finding | None:
    if q.baseline is None:
        return None
    was = q.baseline.generates
    name = differing(was, q.workload)
    if name is None:
        return None
    return Finding(
        status=Status.INVALID,
        metric="workload",
        what=f"{q.name}: {q.baseline_name} and this run differ in the workload ({name}): "
        f"{was.get(name)} and {q.workload.get(name)}",
        expected=q.source,
        next=f"run what was accepted; or, if it is meant, {ACCEPT}",
    )


def _image(q: Question) -> Iterator[Finding]:
    look, limit = q.measured.look, q.tolerance
    if not look.finite:
        yield Finding(
            status=Status.NOT_FINITE,
            metric="image",
            what=f"{q.name}: the decoder's output has NaN or infinity in it",
            measured="not finite before quantizing",
            limit="every number finite",
            next=q.again,
        )
        return
    if look.mean < BLACK_MEAN:
        yield Finding(
            status=Status.BLACK,
            metric="image",
            what=f"{q.name}: an image is black",
            measured=f"mean {look.mean:.4f} of the darkest image",
            limit=f"at least {BLACK_MEAN}",
            next="look for an overflow in half precision, or a safety checker; " + q.again,
        )
        return
    if look.std < UNIFORM_STD:
        yield Finding(
            status=Status.UNIFORM,
            metric="image",
            what=f"{q.name}: an image is one even colour",
            measured=f"deviation {look.std:.4f} over the flattest image",
            limit=f"at least {UNIFORM_STD}",
            next="look at the decoder's input and output; " + q.again,
        )
        return
    if q.measured.repeat_psnr_db < REPEAT_PSNR_DB:
        yield Finding(
            status=Status.WORSE_IMAGE,
            metric="repeat",
            what=f"{q.name}: the same seed gave another image in the last round than in the "
            "first: state leaks between generations",
            measured=f"{q.measured.repeat_psnr_db:.1f} dB between them",
            limit=f"at least {REPEAT_PSNR_DB:.0f} dB",
            next=q.again,
        )
    if q.measured.ignored:
        yield Finding(
            status=Status.WORSE_IMAGE,
            metric="repeat",
            what=f"{q.name}: another {' or '.join(q.measured.ignored)} gives the same image: "
            "something is kept from the generation before",
            measured="identical images",
            limit="two seeds and two prompts give different images",
            next="look for a buffer that is replayed and no longer written; " + q.again,
        )
    expected = f"as close as its optimizations tolerance to {q.reference.case}, of the same run"
    if q.is_reference:
        limit = q.tolerance or REFERENCE_IMAGE
        expected = "the image accepted for these weights, under baselines/images"
    distance = q.measured.image_distance
    if distance is None:
        if q.is_reference:
            yield Finding(
                status=Status.NEW,
                metric="image",
                what=f"{q.name}: nobody accepted an image to hold it to",
                next=ACCEPT_IMAGES,
            )
        elif limit:
            yield _unseen(q, "the distance of its image", expected)
        else:
            yield Finding(status=Status.SAME, metric="image")
        return
    if limit and (distance.psnr_db < limit.psnr_db or distance.ssim < limit.ssim):
        against, then = q.reference.case, q.again
        if q.is_reference:
            against, then = "the accepted image", f"if it is meant, {ACCEPT_IMAGES}"
        yield Finding(
            status=Status.WORSE_IMAGE,
            metric="image distance",
            what=f"{q.name}: its image is no longer close to {against}",
            measured=f"PSNR {distance.psnr_db:.1f} dB, SSIM {distance.ssim:.3f}",
            expected=expected,
            limit=f"at least {limit.psnr_db:.0f} dB and SSIM {limit.ssim:.2f}",
            next=f"compare the images that --benchmark-json saves beside the run; {then}",
        )
        return
    yield Finding(status=Status.SAME, metric="image")


def _speed(q: Question) -> Iterator[Finding]:
    if q.baseline is None:
        return
    limits, measured = q.baseline.limits, q.measured
    if measured.gpu_busy_s is None and limits.gpu_busy_s_max is not None:
        yield _unseen(q, "GPU busy", q.source)
    if limits.latency_s_max is not None:
        seen = mean_interval(measured.rounds_s)
        yield _at_most(q, "latency", seen, limits.latency_s_max, were=q.baseline.latency_s)
    if limits.latency_speedup_min is not None:
        speedup = ratio_interval(q.reference.rounds_s, measured.rounds_s)
        yield _at_least(
            q,
            "latency speedup",
            speedup,
            limits.latency_speedup_min,
            expected=_list(q.baseline.latency_speedup, "x"),
        )
    on_gpu = gpu_speedup(measured, q.reference)
    if on_gpu is not None and limits.gpu_speedup_min is not None:
        yield _at_least(
            q,
            "GPU busy speedup",
            Interval(low=on_gpu, mid=on_gpu, high=on_gpu),
            limits.gpu_speedup_min,
            expected=_list(q.baseline.gpu_speedup, "x"),
        )
    if measured.gpu_busy_s is not None and limits.gpu_busy_s_max is not None:
        busy = Interval(low=measured.gpu_busy_s, mid=measured.gpu_busy_s, high=measured.gpu_busy_s)
        yield _at_most(q, "GPU busy", busy, limits.gpu_busy_s_max, were=q.baseline.gpu_busy_s)
        if measured.gpu_busy_s * FASTER_SHARE < min(q.baseline.gpu_busy_s):
            yield Finding(
                status=Status.FASTER,
                metric="GPU busy",
                what=f"{q.name}: the GPU is busy for {measured.gpu_busy_s:.3f} s, its baseline's "
                f"best is {min(q.baseline.gpu_busy_s):.3f} s",
                expected=q.source,
                next=f"keep it: {ACCEPT}",
            )
    most, took = limits.peak_memory_bytes_max, measured.peak_memory_bytes
    if took is None and most is not None:
        yield _unseen(q, "peak memory", q.source)
    if took is not None and most is not None and took > most:
        before = max(q.baseline.peak_memory_bytes)
        yield Finding(
            status=Status.MORE_MEMORY,
            metric="peak memory",
            what=f"{q.name}: takes {took / before:.3f} times the memory of its baseline",
            measured=f"{took / 2**20:,.0f} MiB",
            expected=f"{before / 2**20:,.0f} MiB ({q.source})",
            limit=f"at most {most / 2**20:,.0f} MiB",
            next=q.again,
        )


def _portable(q: Question) -> Iterator[Finding]:
    for metric, bound in q.portable.items():
        expected = "baselines/portable.json, on any machine"
        if metric == "memory_gib":
            yield from _within_memory(q, bound, expected)
            continue
        value, interval = _ratio(q, metric)
        name = metric.replace("_", " ").replace("gpu", "GPU busy")
        if bound.expected is not None:
            expected = f"about {bound.expected:.2f}x ({expected})"
        if value is None:
            yield _unseen(q, name, expected)
            continue
        if bound.at_least is not None:
            yield _at_least(q, name, interval, bound.at_least, expected=expected)
        if bound.at_most is not None and metric == "memory_ratio" and value > bound.at_most:
            yield Finding(
                status=Status.MORE_MEMORY,
                metric=name,
                what=f"{q.name}: takes {value:.3f} times the memory of {q.reference.case}",
                measured=f"{value:.3f} times",
                expected=expected,
                limit=f"at most {bound.at_most:.2f} times",
                next=q.again,
            )
        elif bound.at_most is not None and value > bound.at_most:
            yield Finding(
                status=Status.FASTER,
                metric=name,
                what=f"{q.name}: the guide's warning does not hold here, it is {value:.2f}x as "
                f"fast as {q.reference.case}",
                expected=expected,
                limit=f"at most {bound.at_most:.2f}x",
                next="tell the guide; or look whether " + q.reference.case + " became slower",
            )


def _within_memory(q: Question, bound: Bound, expected: str) -> Iterator[Finding]:
    """A stack that is for a GPU of so much memory stays below it."""
    took, most = q.measured.peak_memory_bytes, bound.at_most or math.inf
    if took is None:
        yield _unseen(q, "peak memory", expected)
    elif took > most * 2**30:
        yield Finding(
            status=Status.MORE_MEMORY,
            metric="memory_gib",
            what=f"{q.name}: takes more than the {most:g} GiB that it is declared to stay below",
            measured=f"{took / 2**20:,.0f} MiB",
            expected=expected,
            limit=f"at most {most * 1024:,.0f} MiB",
            next=q.again,
        )


def _unseen(q: Question, metric: str, expected: str) -> Finding:
    """What there is a limit for and could not be measured neither holds nor fails."""
    return Finding(
        status=Status.INCONCLUSIVE,
        metric=metric,
        what=f"{q.name}: {metric} could not be measured, and there is a limit to hold it to",
        measured="; ".join(q.measured.notes),
        expected=expected,
        next="mend what keeps it from being measured; " + q.again,
    )


def _ratio(q: Question, metric: str) -> tuple[float | None, Interval]:
    """A metric of this case relative to its reference, with its interval."""
    value: float | None = None
    if metric == "latency_speedup":
        interval = ratio_interval(q.reference.rounds_s, q.measured.rounds_s)
        return interval.mid, interval
    if metric == "gpu_speedup":
        value = gpu_speedup(q.measured, q.reference)
    elif (
        metric == "memory_ratio" and q.measured.peak_memory_bytes and q.reference.peak_memory_bytes
    ):
        value = q.measured.peak_memory_bytes / q.reference.peak_memory_bytes
    known = value or 0.0
    return value, Interval(low=known, mid=known, high=known)


def _at_least(q: Question, metric: str, seen: Interval, limit: float, *, expected: str) -> Finding:
    """Slower where the whole interval is below the limit, inconclusive where its middle is."""
    if seen.mid >= limit:
        return Finding(status=Status.SAME, metric=metric)
    share = seen.high / limit
    return Finding(
        status=_weigh(q, metric, share),
        metric=metric,
        what=f"{q.name}: {metric} over {q.reference.case} is {seen.mid:.2f}x, below its limit "
        f"of {limit:.2f}x{_why_invalid(q, metric, share)}",
        measured=f"{seen.mid:.3f}x{_range(seen, 'x')}",
        expected=expected if "baselines/" in expected else f"{expected} ({q.source})",
        limit=f"at least {limit:.3f}x",
        next=q.again,
    )


def _at_most(
    q: Question, metric: str, seen: Interval, limit: float, *, were: tuple[float, ...]
) -> Finding:
    if seen.mid <= limit:
        return Finding(status=Status.SAME, metric=metric)
    share = limit / seen.low if seen.low > 0 else math.inf
    return Finding(
        status=_weigh(q, metric, share),
        metric=metric,
        what=f"{q.name}: {metric} is {seen.mid:.3f} s, above its limit of {limit:.3f} s"
        f"{_why_invalid(q, metric, share)}",
        measured=f"{seen.mid:.4f} s{_range(seen, ' s')}",
        expected=f"{_list(were, ' s')} ({q.source})",
        limit=f"at most {limit:.4f} s",
        next=q.again,
    )


def _weigh(q: Question, metric: str, share: float) -> Status:
    """What to call a metric whose interval's best end reaches this share of its limit."""
    if _interferences(q, metric, share):
        return Status.INVALID
    return Status.SLOWER if share < 1 else Status.INCONCLUSIVE


def _interferences(q: Question, metric: str, share: float) -> list[str]:
    """Why a metric says nothing.

    A busy CPU disturbs the wall clock and not the GPU, and what disturbed the reference disturbs
    what is held to it alone. Where the reference took longer when it was timed again, the machine
    became slower under way, and a latency that no more than that put beyond its limit is nobody's.
    Where it took less, its first time flattered every speedup: what looks slower all the same is.
    A core that was slower beside these rounds excuses no more than it can have done, either.
    """
    clock = "latency" in metric
    reasons = [
        reason
        for measured in ((q.measured, q.reference) if "speedup" in metric else (q.measured,))
        for reason in measured.interference.reasons(wall_clock=clock)
    ]
    if not clock or share >= 1:
        return reasons
    if share * q.drift >= 1:
        reasons.append(drifted(q.drift))
    core = _core_slowed(q, q.measured)
    theirs = _at_best(q, q.reference) if "speedup" in metric else 1.0
    if core > CORE_SLOWED and share * theirs >= _at_best(q, q.measured):
        reasons.append(f"the CPU took {core:.2f} times as long for one loop as at its best here")
    return reasons


def _at_best(q: Question, measured: Measurement) -> float:
    """The part of a latency that is left had the core been at its best.

    The GPU's work takes as long beside a slow core, and the rest as much longer as a loop: the
    least that a slow core does, since where launches overlap with the GPU's work it holds up more.
    """
    host = measured.idle_share
    if host is None:
        # All of it where there is no GPU, whose memory would be known; or nobody could look.
        host = 1.0 if measured.peak_memory_bytes is None else 0.0
    return 1 - host + host / _core_slowed(q, measured)


def _core_slowed(q: Question, measured: Measurement) -> float:
    best = min((*loops_of(q.measured), *loops_of(q.reference)), default=0.0)
    return slowed(loops_of(measured), best=best)


def loops_of(measured: Measurement) -> Sequence[float]:
    """CPU seconds of one and the same loop beside a case's rounds; none in older runs."""
    return measured.interference.cpu_loops_s


def slowed(loops: Sequence[float], *, best: float) -> float:
    """How many times as long one loop took beside some rounds, at the median, as at its best; 1
    where it was not timed.
    """
    return median(loops) / best if loops else 1.0


def _why_invalid(q: Question, metric: str, share: float) -> str:
    reasons = dict.fromkeys(_interferences(q, metric, share))
    return f"; says nothing, since {', '.join(reasons)}" if reasons else ""


def _range(seen: Interval, unit: str) -> str:
    if seen.low == seen.high:
        return ""
    return f", 99 % interval {seen.low:.3f}{unit} to {seen.high:.3f}{unit}"


def _list(values: tuple[float, ...], unit: str) -> str:
    return ", ".join(f"{value:.3f}{unit}" for value in values)


def _work(q: Question) -> Iterator[Finding]:
    if q.baseline is None:
        return
    unseen = [n for n in q.baseline.counters if n not in q.measured.counters]
    if unseen:
        yield _unseen(q, f"{unseen[0].replace('_', ' ')} ({len(unseen)} counters)", q.source)
    if nobodys := [n for n in q.measured.counters if _is_nobodys(q, q.baseline, n)]:
        names = ", ".join(n.replace("_", " ") for n in nobodys)
        yield Finding(
            status=Status.NEW,
            metric="counters",
            what=f"{q.name}: nobody accepted how many {names} it takes, so they are not judged",
            next=ACCEPT,
        )
    for name, before in q.baseline.counters.items():
        count = q.measured.counters.get(name)
        if count is None:
            continue
        steps = q.measured.steps
        status = work(name, was=before, now=count, steps=steps)
        if status == Status.MORE_WORK:
            yield Finding(
                status=status,
                metric=name,
                what=f"{q.name}: {difference(name, was=before, now=count, steps=steps)}",
                measured=f"{count.total(steps):,}",
                expected=f"{before.total(steps):,} ({q.source})",
                limit=most(name, before, steps=steps),
                next=q.again,
            )
        elif status == Status.LESS_WORK:
            yield Finding(
                status=status,
                metric=name,
                what=f"{q.name}: {difference(name, was=before, now=count, steps=steps)}",
                expected=q.source,
                next=f"keep it: {ACCEPT}",
            )


def _is_nobodys(q: Question, baseline: CaseBaseline, name: str) -> bool:
    """Would this counter be judged if the baseline had a line for it?"""
    # Counted in the code, where no GPU was seen, it is held to baselines/structure.json.
    structural = q.measured.gpu_busy_s is None and name in COUNTERS
    known = name in baseline.counters or name in baseline.moving
    return name in JUDGED and not known and not structural


def work(name: str, *, was: Count, now: Count, steps: int) -> Status:
    """What a counter says: same, more work or less work."""
    if name not in JUDGED:
        return Status.SAME
    share = LAUNCH_SHARE if name in LAUNCHES else 1.0
    before, after = was.total(steps), now.total(steps)
    # Per step as well: fewer fixed ones must not pay for one more in each step.
    if after > before * share or (name in NEVER_MORE and now.per_step > was.per_step):
        return Status.MORE_WORK
    return Status.LESS_WORK if after * share < before else Status.SAME


def most(name: str, was: Count, *, steps: int) -> str:
    """How much more `work` lets pass, in words."""
    if name in NEVER_MORE:
        return "no more, in all or in each step"
    return f"at most {int(was.total(steps) * LAUNCH_SHARE):,}"


def drifted(ratio: float) -> str:
    """A reference's drift in words."""
    return f"the reference took {ratio:.3f} of its first time when it was timed again"


def _leak(q: Question) -> Iterator[Finding]:
    kept = q.measured.counters.get("kept_bytes")
    if kept is None or kept.fixed <= KEPT_BYTES_MAX:
        return
    yield Finding(
        status=Status.MORE_MEMORY,
        metric="kept bytes",
        what=f"{q.name}: every generation leaves {kept.fixed:,} bytes of tensors behind",
        measured=f"{kept.fixed:,} bytes",
        expected="what a generation makes is gone after it",
        limit=f"at most {KEPT_BYTES_MAX:,} bytes",
        next="look for a list or a hook that holds tensors; " + q.again,
    )


def _measuring(q: Question) -> Iterator[Finding]:
    """What cannot be, or says that the measuring itself is broken: no time of this case counts."""
    first, *others = q.measured.rounds_s
    if len(others) > 1 and first > FIRST_ROUND_SHARE * median(others):
        yield Finding(
            status=Status.INVALID,
            metric="warm-up",
            what=f"{q.name}: the first round took {first / median(others):.1f} times as long as "
            "the others: it was not warm",
            measured=f"{first:.3f} s, then {_list(tuple(others), ' s')}",
            limit=f"at most {FIRST_ROUND_SHARE} times their median",
            next="look at the warm-up, and at what is made on first use; " + q.again,
        )
    busy = q.measured.gpu_busy_s
    if busy is not None and q.measured.latency_s < TIMER_SHARE * busy:
        yield Finding(
            status=Status.INVALID,
            metric="timer",
            what=f"{q.name}: its latency of {q.measured.latency_s:.3f} s is shorter than the "
            f"{busy:.3f} s in which the GPU was busy: the timer does not wait for the GPU",
            measured=f"{q.measured.latency_s:.4f} s",
            expected=f"at least the GPU busy time, {busy:.4f} s",
            limit=f"at least {TIMER_SHARE:.0%} of it",
            next="look at the timer, and at what is fetched without waiting; " + q.again,
        )


def difference(name: str, *, was: Count, now: Count, steps: int) -> str:
    """A counter's change as a person says it: ``casts 12 → 1,234 (+61 in each of 20 steps)``."""
    per_step, fixed = now.per_step - was.per_step, now.fixed - was.fixed
    parts = [f"{per_step:+,} in each of {steps} steps"] if per_step else []
    parts += [f"{fixed:+,} fixed"] if fixed else []
    totals = f"{was.total(steps):,} → {now.total(steps):,}"
    return f"{name.replace('_', ' ')} {totals} ({' and '.join(parts) or 'no change'})"
