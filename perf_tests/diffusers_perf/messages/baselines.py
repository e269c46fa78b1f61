"""What `accept`, `calibrate` and `results` say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from diffusers_perf.messages.numbers import plural

ACCEPT = "accept runs first (diffusers-perf accept --help)"


def processes(number: int) -> str:
    return plural(number, "process", "processes")


# Runs that cannot be accepted

NO_REASON = "--reason must not be empty: it tells reviewers why the numbers changed"


def one_run(runs: int) -> str:
    return f"--images-only needs one run (got {runs})"


def no_reference(run: Path) -> str:
    return f"{run} measured no reference; only images of references can be accepted"


def too_few_to_accept(runs: int, needed: int) -> str:
    return (
        f"accept needs {processes(needed)} (got {runs}), because processes differ by "
        f"more than the rounds of one; measure {needed - runs} more, each into a --benchmark-json "
        f"of its own, and accept all of them, or set --processes {runs}"
    )


def too_few_to_calibrate(runs: int, needed: int) -> str:
    return f"calibrate needs {processes(needed)} (got {runs}); run the main job again"


def other_machine(run: Path, other: Path) -> str:
    return f"{run} and {other} were measured on different machines or with different versions"


def other_code(run: Path, other: Path) -> str:
    return f"{run} and {other} were measured by different versions of the measuring code"


def other_commit(run: Path, other: Path) -> str:
    return f"{run} and {other} have different commits, so they differ by more than noise"


def not_acceptable(run: Path, case: str, status: str) -> str:
    return f"{run}: {case} is {status}, which cannot be accepted"


def not_repeated(run: Path, case: str, psnr_db: float) -> str:
    return (
        f"{run}: {case} generated another image from the same seed ({psnr_db:.1f} dB apart), "
        "which cannot be accepted"
    )


def ignored(run: Path, case: str, argument: str) -> str:
    return (
        f"{run}: {case} generated the same image from another {argument}, which cannot be accepted"
    )


def not_measured(run: Path, case: str) -> str:
    return f"{run}: {case} has no measurement"


def quick(run: Path) -> str:
    return f"{run} was measured with --quick, which has too few rounds; accept whole runs"


def too_few_rounds(run: Path, case: str, rounds: int, needed: int) -> str:
    return (
        f"{run}: {case} has {plural(rounds, 'round')}, at least {needed} needed; run the main job "
        "again with more --rounds"
    )


def too_few_without_interference(clean: Mapping[str, int], needed: int) -> str:
    """`clean`: of each case, how many of the runs measured it without interference."""
    by_number: dict[int, list[str]] = {}
    for case, number in clean.items():
        by_number.setdefault(number, []).append(case)
    groups = [f"{number} of {', '.join(cases)}" for number, cases in sorted(by_number.items())]
    got = "; ".join(groups) if len(groups) > 1 else f"{min(by_number, default=0)} of each"
    most = max(by_number, default=0)
    fewer = f", or set --processes {most}" if most else ""
    return (
        f"nothing accepted: each case needs {processes(needed)} without interference (got {got}); "
        f"measure {needed - min(by_number, default=0)} more on a quiet machine and accept all of "
        f"them{fewer}"
    )


def ended_early(run: Path, cases: Sequence[str], *, interrupted: bool) -> str:
    what = "was interrupted" if interrupted else "ended early"
    have = "has" if len(cases) == 1 else "have"
    return f"{run} {what}: {', '.join(cases)} {have} no measurement"


# Their images


def folder_is_a_file(path: Path) -> str:
    return f"{path} is a file, but should be the folder with the run's images"


def no_image(path: Path) -> str:
    return f"{path} is missing; --benchmark-json saves the images beside the run's JSON"


def other_size(path: Path, there: tuple[int, int, int], expected: tuple[int, int, int]) -> str:
    """Number, height and width of the images."""
    return f"{path}: has {_images(there)}, but the run says {_images(expected)}"


def other_accepted_size(
    target: Path, there: tuple[int, int, int], new: tuple[int, int, int]
) -> str:
    """Number, height and width of the images."""
    return (
        f"{target} has {_images(there)}, but the new ones are {_images(new)}; remove the file to "
        "accept another size"
    )


def _images(shape: tuple[int, int, int]) -> str:
    number, height, width = shape
    return f"{plural(number, 'image')} of {width}x{height}"


# What was accepted


def left_out_of(run: Path, cases: Sequence[str], why: str) -> str:
    return f"left out of {run}: {', '.join(cases)}: {why}"


def left_out(what: str) -> str:
    return f"left out: {what}"


def in_too_few(case: str, valid: int, needed: int) -> str:
    return f"{case} is valid in {processes(valid)}, {needed} needed"


def measure_more(cases: int, runs: int) -> str:
    return (
        f"{plural(cases, 'case')} left out: measure {runs} more on a quiet machine, and accept all "
        "runs together"
    )


def unsteady(case: str, counters: Sequence[str]) -> str:
    return f"{case}: {', '.join(counters)} differ between processes"


def not_in_all(case: str, counters: Sequence[str]) -> str:
    return f"{case}: {', '.join(counters)} were counted in some processes only"


def accepted_although(status: str, case: str) -> str:
    return f"accepted although {status}: {case}"


def dropped(case: str) -> str:
    return f"dropped: {case}, whose declaration was removed"


def accepted(cases: int, runs: int, file: str, images: int, *, folder: str) -> str:
    return (
        f"accepted {plural(cases, 'case')} from {processes(runs)} into {file}, and "
        f"{plural(images, 'new reference image')}; commit {folder}"
    )


def accepted_images(images: int, folder: str) -> str:
    return f"accepted {plural(images, 'reference image')}; commit {folder}"


def wide_limits(cases: int, needed: int) -> str:
    return (
        f"the latency limits of {plural(cases, 'case')} are wide, because fewer than "
        f"{processes(needed)} were accepted; accept {needed} or more to narrow them"
    )


def without_operators(workloads: Sequence[str], commands: Sequence[str]) -> str:
    return (
        f"operators, casts and masked attention of {', '.join(workloads)} are counted, and not "
        f"judged until they are accepted: {'; '.join(commands)}"
    )


def busy(latency: str, gpu_busy_s: float) -> str:
    return f"GPU busy {gpu_busy_s:.4f} s, {latency}"


# Calibration


def no_baseline(machine: str, folder: str) -> str:
    return f"{folder} has no baseline for {machine}; {ACCEPT}"


def not_in_baseline(case: str, file: str) -> str:
    return f"{case} is not in {file}; accept it first"


def measured_in(case: str, there: int, runs: int) -> str:
    return f"{case} was measured in {there} of {processes(runs)}"


def none_to_calibrate(file: Path, needed: int) -> str:
    return f"{file} has no case that {needed} of these runs measured without interference"


def other_workload(case: str, field: str) -> str:
    return f"{case}: the baseline and these runs differ in the workload ({field}); {ACCEPT}"


def opening(machine: str, runs: int, mode: str, *, pairs: int, power: str, confidence: str) -> str:
    return (
        f"A/A on {machine}, {runs} {mode} processes: the smallest slowdown that "
        f"{pairs} pairs detect with {power} power at {confidence} confidence"
    )


def effects(case: str, detectable: str) -> str:
    return f"{case}: minimum detectable effect: {detectable}"


def calibrated(cases: int, file: str, folder: str) -> str:
    return f"calibrated {plural(cases, 'case')} in {file}; commit {folder}"


def calibrated_from(runs: int, mode: str, detectable: str) -> str:
    """Of a line in the history of acceptances."""
    return f"calibrated from {runs} {mode} processes: minimum detectable effect {detectable}"


# Tables of results

NOTES = "<!-- notes: written by hand, kept by `diffusers-perf results` -->"
NOTES_END = "<!-- end of notes -->"
UNDECLARED = "no longer declared"
ALLOWED = "What the baseline allows, and counters that must not rise (fixed + per step):"
WORTH = "What each optimization is worth"
ABOUT_WORTH = (
    "Each row compares two accepted cases that differ by one optimization: GPU busy time without "
    "it over with it (above 1 is faster), as their speedups over the reference of their own "
    "processes tell it, and memory with it over without."
)

WATERFALL = "From the reference to the fastest"
ABOUT_WATERFALL = (
    "The way to the fastest accepted case of each suite: a row has all optimizations of the one "
    "above, and those that it adds. A gain is this row's speedup over that of the row above: what "
    "gains nothing is at 1. Each speedup is over the reference in the same process, since rows "
    "were accepted on several hosts and GPUs, whose times need not give the same gain. Where the "
    "GPU waits for its host, a gain in latency still depends on how fast that host was, and only "
    "the gain in GPU busy time says something. The PSNR, where it was accepted, is the image's to "
    "the reference's."
)


def no_machine(folder: Path) -> str:
    return f"{folder}: no machine has a baseline yet; create one with diffusers-perf accept"


def stale(file: str, folder: str) -> str:
    return f"stale: {file}; run diffusers-perf results --baselines={quote(folder)}"


def about_results(slug: str) -> str:
    return (
        f"Generated by `diffusers-perf results` from [{slug}.json]({slug}.json). Do not edit the "
        "tables. Numbers are medians of the accepted processes. A speedup is over the case in the "
        "column *against*, by default the reference, in the same process. *Guide* is the speedup "
        "that diffusers' guide printed for an A100. *Roofline* is a lower bound on the latency, "
        "and how many times as long the case takes."
    )


def in_base(workload: str, base: str) -> str:
    return f"{workload}, every case in {base}" if base else workload
