"""What `explore` says while it searches and of what it found."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from diffusers_perf.messages.common import AGAIN, meant
from diffusers_perf.messages.numbers import plural


def minutes(number: float) -> str:
    """To three digits, without an exponent."""
    return f"{float(f'{number:.3g}'):g} min"


# What was asked for

MEMORY_ON_CPU = "--memory limits GPU memory, and this runs on a CPU"
TWO_TOLERANCES = "--tolerance cannot be combined with --psnr or --ssim"


def unknown_workload(name: str, known: Collection[str]) -> str:
    what = f"--workload: no workload {name!r} runs here{meant(name, known)}"
    return f"{what}; known are {', '.join(known)}"


def no_limit_of_steps(workload: str) -> str:
    return (
        f"{workload} is compared step by step, and this tolerance limits no step; use --tolerance "
        "lossless or that of an optimization that does, or --workload with another workload"
    )


def opening(workload: str, model: str, machine: str, torch: str, what: str) -> str:
    return f"{workload} of {model} on {machine}, torch {torch}: {what}"


def asked(tolerance: str, memory_gib: float | None, budget_min: float) -> str:
    memory = f", at most {memory_gib:g} GiB" if memory_gib else ""
    return f"image tolerance {tolerance}{memory}, budget {minutes(budget_min)}"


# Attempts

NOT_TRIED = "not tried"


def ended_in_it(times: int) -> str:
    return f"the process died {plural(times, 'time')} while trying it"


def out_of_budget(left_s: float, budget_s: float, needed_s: float, *, in_full: bool) -> str:
    """Rounded so that what is left is never the larger number."""
    left, budget = math.floor(left_s), minutes(budget_s / 60)
    if left <= 0:
        return f"the budget of {budget} is used up; {AGAIN}"
    what = "measure the best stack" if in_full else "try another stack and measure the best one"
    # The same again would come no further.
    longer = f"use --minutes {math.ceil(needed_s / 6) / 10:g} or more"
    return (
        f"{left} s of {budget} are left, too few to {what} in full ({math.ceil(needed_s)} s); "
        f"{longer if needed_s > budget_s else AGAIN}"
    )


def reference_fails(reason: str) -> str:
    return f"the reference fails: {reason}"


def lost_gpu(reason: str) -> str:
    return f"the GPU no longer responds in this process ({reason}); {AGAIN}"


EXTRAPOLATED = "from few steps: latency and GPU busy are extrapolated, and images are of few steps"
NOT_IN_FULL = (
    "the best stack was not measured in full: its image of all steps and what it leaves in memory "
    "were not judged"
)


def from_few(few: int, steps: int) -> str:
    return f"from {few} of {steps} steps"


def failed(reason: str) -> str:
    return f"failed: {reason}"


def earlier(what: str) -> str:
    return f"{what} (measured earlier)"


def took(what: str, seconds: float) -> str:
    return f"{what} (in {seconds:.0f} s)"


# Steps of the search

IN_FEW_STEPS = "in few steps"
FOUND_EARLIER = "an earlier search found a faster stack"
NO_TIME_LEFT = "no time left to time it again"
FREE_TO_LEAVE_OUT = "leaving it out costs nothing"
LEFT_OUT = "left out by --without"
FITS_WITHOUT = "the stack keeps the limit on memory without it"
FOR_MEMORY = "takes less memory for more time, and --memory sets no limit"
FOR_COMPARISON = "is what others are compared with, and not faster"
GAINS_NOTHING = "gains nothing"


def of_earlier_search(change: str) -> str:
    return f"{change}, from an earlier search"


def not_kept(reason: str) -> str:
    return f"not kept: {reason}"


def compiled_next(reason: str) -> str:
    return f"not kept: {reason}; tried next with what compiles"


def in_halves(reason: str) -> str:
    return f"not kept: {reason}; each half by itself"


def is_worth_its_place(name: str) -> str:
    return f"{name} is worth its place"


def too_much_memory(taken_bytes: float) -> str:
    return f"takes {taken_bytes / 2**20:,.0f} MiB, above the limit on memory"


def replaced_by(name: str) -> str:
    return f"{name} replaced it"


def slower(what: Sequence[str]) -> str:
    return f"slower: {', '.join(what)}"


def as_long(metric: str, ratio: float) -> str:
    return f"{metric} {ratio:.2f}x as long"


def too_slow(ratio: float) -> str:
    return f"{slower([as_long('latency', ratio)])}, by its first generation alone"


def dropped(seconds: float) -> str:
    return f"dropped: its first generation shows a latency of {seconds:.2f} s"


def timed_again(stack: str) -> str:
    return f"in full, at the end: {stack}"


def settled_by(name: str) -> str:
    return f"the workload already has {name} in its place"


def in_each_step(step_db: float) -> str:
    return f"{step_db:g} dB in each step"


def too_tolerant(own: str, asked: str) -> str:
    return f"its tolerance is {own}; the search requires {asked}"


def needs_what_lost(name: str) -> str:
    return f"needs {name}, which was no better in its place"


def needs(name: str) -> str:
    return f"needs {name}, which is not tried"


# The end

REJECTED = "tried, and not in the best stack:"
UNTRIED = "not tried:"
NOT_REACHED = "not reached before the search stopped"
NO_BOTTLENECK = "bottleneck: unknown, because no GPU time was measured"


def combinations(all_of_them: int, optimizations: int, tried: int) -> str:
    have = "was" if tried == 1 else "were"
    return (
        f"most combinations: {tried:,} of the {all_of_them:,} that "
        f"{plural(optimizations, 'optimization')} can make {have} tried: those that can stand "
        "beside each other at once, then one added, replaced or left out at a time"
    )


def interference(affected: int, measurements: int) -> str:
    return (
        f"interference during {affected} of {plural(measurements, 'measurement')}; those times "
        "are less reliable"
    )


def nothing_found(*, stopped: bool) -> str:
    so_far = " before the search stopped" if stopped else ""
    return f"no stack that is faster than the reference and within the limits was found{so_far}"


def found(speedup: float, name: str) -> str:
    """`name` is empty for a stack that is not declared."""
    declared = f"; it is declared as {name}" if name else ""
    return f"found: {speedup:.2f}x as fast as the reference{declared}"


def idle_gpu(share: float) -> str:
    return f"bottleneck: the host, which leaves the GPU idle for {share:.0%} of the time"


def busy_gpu(share: float) -> str:
    return f"bottleneck: the GPU, which is busy for {share:.0%} of the time"


def roofline(bound_s: float, *, by: str, of_reference: bool, ratio: float) -> str:
    work = "reading the weights" if by == "memory" else "the matrix products"
    whose = " of the reference" if of_reference else ""
    return (
        f"roofline: {bound_s:.3f} s, what {work}{whose} would take at the peak rate of this GPU; "
        f"the latency is {ratio:.1f}x that"
    )


def families(seen: Sequence[tuple[str, float, int]]) -> str:
    """Name, GPU time in seconds and kernels of each."""
    shown = [f"{name} {seconds:.3f} s ({kernels:,})" for name, seconds, kernels in seen]
    return f"GPU time by family of kernels: {', '.join(shown)}"
