"""What `structure` says."""

from __future__ import annotations

from collections.abc import Collection

from diffusers_perf.messages.common import meant
from diffusers_perf.messages.numbers import plural

# Options

NO_REASON = "--write needs a --reason: it tells reviewers why the counts changed"
REASON_ALONE = "--reason is used with --write only"
HALF_A_ROOFLINE = "a roofline needs both --matmul-tflops and --bandwidth-gb"


def no_match(word: str, known: Collection[str]) -> str:
    """`known`: the ids, and the names that they are made of."""
    return (
        f"no case has {word!r} in its id{meant(word, known)}; diffusers-perf structure --list "
        "lists all"
    )


# Cases that are not counted


def captured(optimization: str) -> str:
    return f"what {optimization} runs is captured or compiled, which needs a GPU"


def follows_values(optimization: str) -> str:
    return f"{optimization} decides by values, and tensors without data have none"


def offloads(optimization: str) -> str:
    return f"{optimization} moves weights between host and GPU, and tensors without data have none"


def of_package(package: str) -> str:
    return f"operators of {package} are counted on a GPU only"


def autocast(optimization: str) -> str:
    return f"{optimization} is torch.autocast, which ignores tensors without data"


def not_counted(case: str, reason: object) -> str:
    return f"not counted: {case}: {reason}"


def broken(case: str, reason: object) -> str:
    return f"could not be counted: {case}: {reason}"


def not_countable(case: str, reason: object, *, was_counted: bool) -> str:
    """`was_counted`: whether counts of it were accepted."""
    if was_counted:
        return (
            f"{broken(case, reason)}\n"
            "  next     it could be when its counts were accepted: since then the code decides by "
            "a tensor's value, for which a host waits; take that out, or measure it on a GPU"
        )
    return (
        f"{broken(case, reason)}\n"
        "  next     if only a GPU can run it, declare it with hides_operators=True or with the "
        "package that it needs"
    )


def not_applied(case: str, reason: object) -> str:
    return f"not applied: {case}: {reason}"


def uncounted(number: int, of: int) -> str:
    return f"{number} of {plural(of, 'case')} could not be counted"


def not_written(reason: str) -> str:
    return f"{reason}, so nothing is written"


# One case

OWN_SCHEDULER = "its own scheduler"


def heading(case: str, *, steps: int, images: int, size: str, scheduler: str) -> str:
    """`size` is empty where an input decides it."""
    said = (plural(steps, "step"), plural(images, "image"), size, scheduler)
    return f"{case}: {', '.join(part for part in said if part)}"


def work(flops: float, traffic_bytes: float) -> str:
    return f"  {flops / 1e9:,.1f} GFLOP, {traffic_bytes / 1e9:,.1f} GB read and written"


def roofline(tflops: float, bandwidth_gb: float, *, bound_s: float, eager_s: float) -> str:
    return (
        f"  at {tflops:g} TFLOP/s and {bandwidth_gb:g} GB/s: at least {bound_s:.3f} s; operator "
        f"by operator, as written, {eager_s:.3f} s"
    )


# Verdicts


def missing(case: str, accept: str) -> str:
    return (
        f"missing: {case} has accepted counts and is no longer counted\n"
        f"  next     declare it again, or {accept}"
    )


def new(case: str, accept: str) -> str:
    return f"new: {case} has no accepted counts; accept them: {accept}"


def more_work(worse: int, cases: int, missing: int) -> str:
    need = "needs" if worse == 1 else "need"
    return f"{worse} of {plural(cases, 'case')} {need} more work, {missing} missing"


NOTHING_COUNTED = "no case was counted, so none was judged"


def none_accepted(cases: int, model: str) -> str:
    return f"{plural(cases, 'case')} counted, none judged: no counts are accepted for {model}"


def holds(cases: int, new: int) -> str:
    need = "needs" if cases == 1 else "need"
    return f"{plural(cases, 'case')} {need} no more work than accepted, {new} new"


def wrote(changed: int, unchanged: int, folder: str, reason: str) -> str:
    as_before = f"; {plural(unchanged, 'case')} as accepted before" if unchanged else ""
    return f"wrote {plural(changed, 'case')} into {folder}: {reason}{as_before}"
