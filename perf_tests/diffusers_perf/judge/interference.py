"""When a time says nothing: what slowed the machine, and how much that excuses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from diffusers_perf.catalog.metric import Metric
from diffusers_perf.catalog.metrics import (
    COLD_FIRST_IMAGE,
    COLD_IMPORT,
    COLD_LOAD,
    DECODER_STAGE,
    DEFAULT_CALL,
    DENOISING_STAGE,
    FIRST_IMAGE,
    GPU_BUSY,
    IMPORT,
    LATENCY,
    LOAD,
    TEXT_STAGE,
)
from diffusers_perf.judge.measuring import UNEVEN
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.question import Question
from diffusers_perf.records.measurement import Measurement

OF_HOST = (TEXT_STAGE, IMPORT, COLD_IMPORT, LOAD, COLD_LOAD, FIRST_IMAGE, COLD_FIRST_IMAGE)
"""Metrics in which the host computes, and does not wait for a GPU or sleep."""
WITH_GPU = (LATENCY, DEFAULT_CALL)
"""Metrics of a whole call, in which the host also waits for a GPU."""
STAGES = (TEXT_STAGE, DENOISING_STAGE, DECODER_STAGE)
"""Of a call, in their order."""
HOST_BOUND = 0.25
"""Where the GPU is idle for so large a share of a latency, the host sets its pace."""
CORE_SLOWED = 1.15
"""A core this many times slower than at its best had interference. Two cores of an idle machine
were at most 1.13 times slower, those of hosts that neighbours kept busy up to 1.9 times."""
HOST_SLOWED = 2.0
"""Other processes make what runs beside them this many times slower at most, apart from the time
that it waits for a CPU: hosts that neighbours kept busy were up to 1.9 times slower."""
POWER_LIMITED = 1.04
"""At its power limit a card takes up to this many times as long for the same kernels: the less it
waits for its host, the lower is its clock, and at the same power one card has a higher clock than
another. FLUX.1-dev differed by 4 % on one H200, whose host was slow or not, and by up to 3.7 %
between four."""
POWER_LIMITED_IDLE = 0.1
"""Of an accepted latency, the share in which a GPU at its power limit waits for its host at most,
so that more work takes the call longer."""


def excuses(q: Question, metric: Metric, share: float) -> list[str]:
    """Why a time that reaches this share of its limit is invalid; empty where it is not.

    A busy CPU disturbs the wall clock and not the GPU, and what disturbed the reference disturbs
    what is compared with it alone; neither excuses more than others can cause. A drifted reference
    excuses a latency that is beyond its limit by no more than the drift. Where the reference became
    faster, its first time flattered every speedup, and what looks slower is slower. A slow core
    excuses no more than it can have caused, and a round that took longer than the others no more
    than that of a default call. One that was slower than in the accepted processes excuses no ratio
    to a reference, which ran on it too.

    A card at its power limit excuses a longer GPU busy time where the GPU sets the pace, and the
    call itself took no longer or another card was accepted.
    """
    wall_clock = metric.wall_clock and share >= _least_beside_others(q, metric)
    reasons = [*q.measured.interference.reasons(wall_clock=wall_clock)]
    if metric.ratio_of:
        theirs = q.reference.interference.reasons(wall_clock=wall_clock)
        case = q.reference.case
        reasons += [messages.of_reference(case, why) for why in theirs if why not in reasons]
    if metric.wall_clock and share < 1:
        reasons += _slower_machine(q, metric, share)
    if share < 1:
        reasons += _slower_than_accepted(q, metric, share)
    reasons += [*_power_limited(q, metric, share), *another_card(q, metric, share)]
    return list(dict.fromkeys(reasons))


def _least_beside_others(q: Question, metric: Metric) -> float:
    """The least share of its limit to which other processes can have brought a time."""
    waited = q.measured.interference.cpu_wait_share
    if metric.margin:
        # The least of several counts, which waiting lengthens by no more than its share.
        return 1 - (waited or 0.0)
    return 0.0 if waited is None else (1 - waited) / HOST_SLOWED


def _slower_machine(q: Question, metric: Metric, share: float) -> Iterator[str]:
    if share * q.drift >= 1:
        yield messages.drift(q.drift)
    core = _core_slowed(q, q.measured)
    rounds_s = q.measured.rounds_s
    uneven = max(rounds_s) / median(rounds_s)
    # A single call, which what lengthens a round can lengthen; of a stage the least of several
    # counts. Of two rounds neither shows what is usual.
    is_single = metric is DEFAULT_CALL and len(rounds_s) > 2
    if is_single and uneven > UNEVEN and share * uneven >= 1:
        yield messages.uneven_rounds(uneven)
    theirs = _at_best(q, q.reference) if metric.ratio_of else 1.0
    # A call of few steps is mostly the host's.
    is_hosts = metric is DEFAULT_CALL or _can_be_the_hosts(q, core)
    own = 1 / core if metric is DEFAULT_CALL else _at_best(q, q.measured)
    if core > CORE_SLOWED and share * theirs >= own and is_hosts:
        yield messages.slow_core(core)


def _can_be_the_hosts(q: Question, core: float) -> bool:
    """Whether a core this many times slower can explain the latency.

    It can where the accepted latency was bound by the host, and else up to the accepted host time
    on that core. An idle GPU proves nothing: it is idle while a pipeline sleeps, too. True where no
    host time is known, as of a case that replays a CUDA graph.
    """
    host_s = _accepted_host_s(q, LATENCY)
    if not host_s or not _has_gpu(q.measured) or _accepted_idle(q) >= HOST_BOUND:
        return True
    # Of two cores that were slower than any of the accepted ones, one may seem to be at its best.
    loops_s = loops_of(q.measured) or (0.0,)
    factors = [core, *(median(loops_s) / accepted_s for accepted_s in _accepted_loop(q))]
    return q.measured.latency_s <= max(factors) * host_s


def _slower_than_accepted(q: Question, metric: Metric, share: float) -> Iterator[str]:
    """Was the core slower than at its best in the accepted processes, in all rounds or, of an
    import, while it went on?

    Then it made a time longer by no more than a loop. A call that waits for a GPU it made no longer
    than as many times what the host can have taken of it when it was accepted: of a time that the
    GPU decides, a core excuses nothing.
    """
    if metric not in OF_HOST and metric not in WITH_GPU:
        return
    is_bound = metric in WITH_GPU and _has_gpu(q.measured)
    host_s = _accepted_host_s(q, metric) if is_bound else math.inf
    seen_s = metric.of(q.measured) or 0.0
    for accepted_s in _accepted_loop(q):
        parts = q.measured.interference.import_parts.get(metric.field, ())
        loop_s = _mean_loop_s(parts) if parts else min(loops_of(q.measured), default=0.0)
        core = loop_s / accepted_s
        if core > CORE_SLOWED and share >= 1 / core and seen_s <= core * host_s:
            yield messages.slower_than_accepted(core, during_import=bool(parts))


def _power_limited(q: Question, metric: Metric, share: float) -> Iterator[str]:
    """If the whole call took no longer, only the profiled generation ran at a lower clock."""
    if _can_be_the_clocks(q, metric, share) and _is_as_fast(q):
        yield messages.power_limited(q.measured.interference.power_capped_sm_clocks_mhz)


def another_card(q: Question, metric: Metric, share: float) -> Iterator[str]:
    """On another card than the accepted ones, all generations may run at a lower clock."""
    accepted = q.baseline.cards if q.baseline else ()
    is_accepted = q.card and set(accepted) == {q.card}
    if _can_be_the_clocks(q, metric, share) and not _is_as_fast(q) and not is_accepted:
        clocks_mhz = q.measured.interference.power_capped_sm_clocks_mhz
        known = q.card and accepted and q.card not in accepted
        yield messages.power_limited_card(clocks_mhz, known=bool(known))


def _can_be_the_clocks(q: Question, metric: Metric, share: float) -> bool:
    """Was the clock set by the card's power limit, and can that alone explain the time?"""
    if metric is not GPU_BUSY or share >= 1 or q.baseline is None:
        return False
    accepted = q.baseline.measured
    if any(known.field not in accepted for known in (LATENCY, GPU_BUSY)):
        return False
    sets_the_pace = _accepted_idle(q) <= POWER_LIMITED_IDLE
    most_s = POWER_LIMITED * median(accepted[GPU_BUSY.field])
    is_within = (q.measured.gpu_busy_s or 0.0) <= most_s
    return q.measured.interference.at_power_limit and sets_the_pace and is_within


def _is_as_fast(q: Question) -> bool:
    """Whether the call took no longer than when it was accepted."""
    if q.baseline is None:
        return False
    return q.measured.latency_s <= median(q.baseline.measured[LATENCY.field])


def _accepted_idle(q: Question) -> float:
    """The share of the accepted latency during which the GPU was idle; 0 where it is not known."""
    measured = q.baseline.measured if q.baseline else {}
    if LATENCY.field not in measured or GPU_BUSY.field not in measured:
        return 0.0
    own_s = median(measured[GPU_BUSY.field]) + q.measured.host_copies_s
    return 1 - own_s / median(measured[LATENCY.field])


def _accepted_host_s(q: Question, metric: Metric) -> float:
    """The most that the host can have taken of a call when it was accepted; 0 where the line does
    not say it.

    Of a latency, the host's time for each stage of a short generation, with as many times the
    denoising as there are steps: in some stages it waits for the GPU as well. A default call is
    itself a short generation.
    """
    if q.baseline is None:
        return 0.0
    typical_s = {field: median(each) for field, each in q.baseline.measured.items()}
    if metric is DEFAULT_CALL:
        return typical_s.get(metric.field, 0.0)
    fewest = q.baseline.fewest_steps
    if not fewest or any(stage.field not in typical_s for stage in STAGES):
        return 0.0
    text_s, denoising_s, decoder_s = (typical_s[stage.field] for stage in STAGES)
    # From an init image, fewer steps are taken than are asked for, in a short generation too.
    asked = q.workload.get("steps")
    taken = q.measured.steps / asked if isinstance(asked, int) and asked else 1.0
    turns = max(1, math.floor(fewest * taken))
    return text_s + q.measured.steps / turns * denoising_s + decoder_s


def _mean_loop_s(parts: Sequence[tuple[float, float]]) -> float:
    """The loop on a core of one speed on which all parts of an import would have taken as long.

    Not the slowest of the loops: of six on an idle machine, one takes a fifth longer than another.
    """
    return sum(seconds for seconds, _ in parts) / sum(seconds / loop_s for seconds, loop_s in parts)


def _at_best(q: Question, measured: Measurement) -> float:
    """The share of a latency that would remain with the core at its best.

    The GPU's work takes as long beside a slow core, and the rest as much longer as a loop does.
    That is the least that a slow core does: where launches overlap with the GPU's work it delays
    more.
    """
    host = _host_share(measured)
    return 1 - host + host / _core_slowed(q, measured)


def _host_share(measured: Measurement) -> float:
    """Of a latency, the share during which the GPU is idle: all of it where there is none."""
    if measured.idle_share is not None:
        return measured.idle_share
    # Without its busy time nothing is known of a GPU.
    return 0.0 if _has_gpu(measured) else 1.0


def _has_gpu(measured: Measurement) -> bool:
    """Whether it ran on one, whose memory or busy time is then known."""
    return measured.peak_memory_bytes is not None or measured.gpu_busy_s is not None


def _core_slowed(q: Question, measured: Measurement) -> float:
    best = min((*loops_of(q.measured), *loops_of(q.reference)), default=0.0)
    return slowed(loops_of(measured), best=best)


def _accepted_loop(q: Question) -> Iterator[float]:
    """The quickest of the accepted processes, if they ran under the same Python, which decides how
    long a loop takes.
    """
    if q.baseline and q.baseline.cpu_loop_s:
        was, now = (v.get("python", "").split(".")[:2] for v in (q.baseline.versions, q.versions))
        if was == now:
            yield q.baseline.cpu_loop_s


def loops_of(measured: Measurement) -> Sequence[float]:
    """CPU seconds of the calibration loop beside a case's rounds; none in older runs."""
    return measured.interference.cpu_loops_s


def slowed(loops: Sequence[float], *, best: float) -> float:
    """The median calibration loop over the best one; 1 where none was timed."""
    return median(loops) / best if loops else 1.0
