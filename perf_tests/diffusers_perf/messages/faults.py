"""What `faults` says: of declarations, of what cannot be injected, and of what became of each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from diffusers_perf.messages.common import meant
from diffusers_perf.messages.numbers import plural

# Declarations


def unknown_detector(name: str, detector: object, known: Sequence[str]) -> str:
    return f"{name}: unknown detector {detector!r}; known are {', '.join(known)}"


def unknown_machine(name: str, machine: object, known: Sequence[str]) -> str:
    return f"{name}: unknown machine {machine!r}; known are {', '.join(known)}"


def sizes_without_unit(name: str) -> str:
    return f"{name}: sizes and unit must be given together"


# What cannot be injected

NO_WAITING_TIME = "this system does not report how long a thread waited for a CPU"
NO_MALLOPT = "this C library has no mallopt"
FIXED_ALLOCATOR = "this version of PyTorch cannot change the settings of a running allocator"
ONE_GPU = "only one GPU of this kind is here"
NOT_TWO_PROMPTS = "its encode_prompt does not return two halves"


def lacks(of: object, what: str) -> str:
    """An object of the pipeline, or the pipeline itself."""
    return f"{type(of).__name__} {what}"


NO_SLICED_ATTENTION = "has no attention that can be sliced"
NO_GUIDANCE = "is called without a guidance scale"
NO_PROMPT = "is called without a prompt"
NO_ALPHAS = "has no table of alphas"
NO_TABLE = "has no table of alphas or sigmas"
NO_UNET = "has no UNet"
NOT_FLOAT16 = "is not in float16, which alone overflows"
NO_MASK = "takes no mask of the prompt"
NO_BLOCKS = "has no transformer blocks"
BLOCKS_DIFFER = "the blocks of these weights may differ in what they add, so that none stands out"
NO_TOKENIZER = "has no tokenizer"
WITHOUT_NO_GRAD = "is not called under no_grad"
NO_SLICING = "cannot decode a batch image by image"
OTHER_PROMPTS = "encodes prompts another way"


def own_scheduler(workload: str) -> str:
    return f"{workload} runs with its model's own scheduler"


def nothing_to_change(workload: str, field: str) -> str:
    return f"{workload} has no {field!r} to change"


def no_workload(name: str, *, here: Sequence[str], declared: Sequence[str]) -> str:
    """`here`: the names of those `declared` that the chosen model runs."""
    what = f"no workload is called {name!r}{meant(name, here)}"
    if here:
        return f"{what}; set --workload to one of those that run here: {', '.join(here)}"
    return (
        f"{what}, and none of those declared runs here ({', '.join(declared)}); choose another "
        "--model or --device"
    )


def not_of_this_model(workload: str) -> str:
    return f"this model does not run the workload {workload!r}"


NO_ROUND = "rounds must be a positive integer"

# Options


def unknown(name: str, known: Collection[str]) -> str:
    return (
        f"no fault is called {name!r}{meant(name, known)}; diffusers-perf faults --list lists all"
    )


def cannot_inject(name: str, device: str) -> str:
    return f"--inject {name}: cannot be injected on {device}"


def in_own_process(name: str) -> str:
    return (
        f"--inject {name}: is injected in a process of its own; run: diffusers-perf faults {name}"
    )


def not_selected(name: str, cases: Sequence[str]) -> str:
    return f"--inject {name} changes {', '.join(cases)}, which is not among the selected cases"


def anothers_file(path: Path) -> str:
    return f"--json {path}: holds something else, which would be lost"


def pipe(path: Path) -> str:
    return f"--json {path}: must not be a pipe, because each trial writes all rows again"


def nothing_to_run(names: Sequence[str], device: str) -> str:
    return f"nothing to run: {', '.join(names)} cannot be detected with --device {device}"


# Outcomes

CLEAN_RUN = "the clean run before"
NO_TIME = "no time left"


def clean_run_failed(reason: str) -> str:
    return f"the clean run failed: {reason}"


def no_change(detector: str, within: Sequence[str]) -> str:
    text = f"{detector} shows no change"
    return f"{text}: {', '.join(within)}" if within else text


def within(metric: str, *, value: str, limit: str | None) -> str:
    return f"{metric} {value} (limit {limit})" if limit else f"{metric} {value} (no limit)"


def totals(
    detected: int,
    faults: int,
    *,
    unflagged: int,
    controls: int,
    alarms: int,
    verdicts: int,
    seconds: float,
    skipped: int,
) -> str:
    end = f"; {skipped} skipped" if skipped else ""
    return (
        f"{detected} of {plural(faults, 'fault')} detected, {unflagged} of "
        f"{plural(controls, 'control')} not flagged, {plural(alarms, 'false alarm')} in "
        f"{plural(verdicts, 'verdict')} on clean runs against clean runs, in {seconds:.0f} s{end}"
    )


def elsewhere(device: str, faults: Sequence[str]) -> str:
    return f"only detectable on a {device}: {', '.join(faults)}"


def undecided(command: str) -> str:
    return f"undecided; run again: {command}"
