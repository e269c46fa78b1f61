"""The sentences of the HTML page and of the comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusers_perf.messages.numbers import plural

NAMED_MOST = 3
"""Cases that a sentence names."""


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - NAMED_MOST
    return ", ".join(names[:NAMED_MOST]) + (f" and {more} more" if more > 0 else "")


# Refusals


def too_many_cases(run: Path, cases: int, most: int) -> str:
    return f"{run}: has {cases:,} cases, but a report shows at most {most:,}"


def needs_extra(packages: Sequence[str]) -> str:
    return f"--html needs {' and '.join(packages)}: pip install 'diffusers-perf[report]'"


NO_BASE = "several runs are judged in pairs, so they need as many runs of --base"
NO_OUTPUT = "report needs --html OUT.html, --markdown [OUT.md], or both"


def out_is_a_run(page: Path) -> str:
    return f"{page} is a run: write the report to another file"


def same_output(page: Path) -> str:
    return f"--html and --markdown need different files (both are {page})"


def wrote(path: Path, size_bytes: int) -> str:
    return f"wrote {path} ({size_bytes / 1e6:.1f} MB)"


# The run by itself

NO_CASE = "No case was measured."
SEEDED = (
    "The weights are random numbers from a seed, so the images show noise. The distance of two "
    "images measures numerical accuracy."
)


def title(machine: str) -> str:
    return f"Diffusion inference on {machine}"


def status_of(case: str, status: str) -> str:
    return f"{case} is {status}"


def not_measured(case: str) -> str:
    return f"{case} has no measurement"


def fails(cases: int, what: str) -> str:
    return f"1 of {plural(cases, 'case')} fails: {what.rstrip('.')}."


def fail(failing: Sequence[str], cases: int) -> str:
    return f"{len(failing)} of {plural(cases, 'case')} fail: {listed(failing)}."


def not_judged(doubtful: Sequence[str], cases: int) -> str:
    return (
        f"No case fails. {len(doubtful)} of {plural(cases, 'case')} could not be judged: "
        f"{listed(doubtful)}."
    )


def no_baseline(machine: str) -> str:
    return (
        f"No case fails. {machine} has no baseline yet, so only images and portable limits were "
        "judged, not speed."
    )


def new(cases: int, of: int, machine: str) -> str:
    have = "is" if cases == 1 else "are"
    return (
        f"No case fails. {cases} of {plural(of, 'case')} {have} not in the baseline of {machine} "
        "yet."
    )


def accepted_since(cases: int, of: int) -> str:
    are = "is" if cases == 1 else "are"
    return (
        f"No case fails. {cases} of {plural(of, 'case')} {are} accepted now, but the run was not "
        "compared with what was accepted."
    )


def passes(cases: int, machine: str) -> str:
    they = "The case passes" if cases == 1 else f"All {cases} cases pass"
    return f"{they} against the baseline of {machine}."


def claim_of(
    case: str,
    *,
    smaller: float,
    faster: float,
    less_gpu_time: float | None,
    claimed_smaller: float,
    claimed_faster: float,
) -> str:
    """Shares that a case saves of its reference, and what the guide claims."""
    on_gpu = "" if less_gpu_time is None else f" and {less_gpu_time:.0%} less GPU time"
    return (
        f"{case}: {smaller:.0%} fewer parameters in the whole pipeline, {faster:.0%} lower "
        f"latency{on_gpu}. The guide claims {claimed_smaller:.0%} smaller and "
        f"{claimed_faster:.0%} faster."
    )


# Head against base

ONLY_IN_HEAD = "only in head"
ONLY_IN_BASE = "only in base"
OTHER_WEIGHTS = "Base and head ran different models or weights, so they are not comparable."
COMPARE = "diffusers-perf ab --base REF --head REF"


def regression(worse: Sequence[str], cases: int, pairs: int) -> str:
    return (
        f"Regression in {len(worse)} of {plural(cases, 'case')} ({plural(pairs, 'A/B pair')}): "
        f"{listed(worse)}."
    )


def no_regression(cases: int, pairs: int, *, unsure: int) -> str:
    where = f"{plural(cases, 'case')} ({plural(pairs, 'A/B pair')})"
    if unsure:
        rows = f"{plural(unsure, 'row')} could not be decided"
        return f"Inconclusive: no regression detected in {where}, but {rows}."
    return f"No regression in {where}."


def not_compared(reason: str) -> str:
    return f"Base and head were not compared: {reason}."


def side(run: str, others: int) -> str:
    return f"{run} and {others} more" if others else run


def sides(base: str, head: str) -> str:
    return f"Base is {base}, head is {head}."


def other_machine(base: str, head: str) -> str:
    return (
        f"Base was measured on {base}, head on {head}. Times of different machines are not "
        "comparable."
    )


def single_runs(pairs: int) -> str:
    return (
        "Differences of single runs are shown without a verdict. A verdict needs "
        f"{plural(pairs, 'A/B pair')}."
    )


# Charts and images

PSNR_AXIS = "PSNR in dB (higher is closer)"
MEMORY_AXIS = "Peak memory in GiB (lower is better)"


def latency_chart(workload: str, *, on_gpu: bool) -> str:
    return f"{workload}: latency{' and GPU busy time' if on_gpu else ''}"


def split_chart(workload: str, by: str) -> str:
    return f"{workload}: GPU time by {by}"


def tradeoff_chart(workload: str) -> str:
    return f"{workload}: speed against image and memory"


def no_folder(folder: str) -> str:
    return f"No images: {folder}/ is not beside the run's JSON, where --benchmark-json saves it."


def no_images(folder: str) -> str:
    return f"No images in {folder}/."


def no_image(file: str, folder: str) -> str:
    return f"{file} is missing in {folder}/"


def no_reference_image(reason: str) -> str:
    return f"{reason}, so there is no image to compare with"


# Sections

WHERE_TIME_GOES = "Where the time goes"
FINDINGS = "Findings of the tests"
LOST = "Cases without a measurement"
MACHINE = "Machine, run and notes"
COUNTERS = "Counters that changed:"
NO_CHANGE = "No change detected."


def within(share: float) -> str:
    """Behind the change of a counter that is the same for the judge."""
    return f"same within {100 * share:.0f} %"


REST = "The HTML report has the rest."


def more(number: int, what: str) -> str:
    return f"… and {plural(number, f'more {what}')} in the HTML report"


# The comment for several machines

NOTHING_COMPARED = "nothing was compared; the workflow run's log says why"
NO_RESULT = "The run ended without a result."


def workflow_run(link: str) -> str:
    return f"[Workflow run]({link}). Set the label again to repeat it."


def more_machines(number: int) -> str:
    have = "is" if number == 1 else "are"
    return f"{plural(number, 'more machine')} {have} not shown."


def not_a_run(path: Path, most_bytes: int) -> str:
    return f"{path}: not a regular file of at most {most_bytes:,} bytes"
