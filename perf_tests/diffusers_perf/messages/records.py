"""What is wrong with a run's file, a baseline, or an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# Any file

NOT_A_FILE = "not a regular file"
NOT_UNICODE = "a text in it is not valid Unicode"
FOREIGN = "not written by this suite; remove it"


def in_the_way(file: Path) -> str:
    return f"{file} is a file, not a folder"


def too_large(most_bytes: int) -> str:
    return f"larger than {most_bytes // 2**20} MiB"


def not_json(path: Path) -> str:
    return f"{path}: not valid JSON"


def other_schema(path: Path, schema: object, known: int) -> str:
    return f"{path}: has schema {schema}; this version reads schema {known}"


def bad_name(name: str, what: str) -> str:
    return f"{name} cannot be the name of {what}"


# Runs


def is_a_folder(path: Path, runs: Path) -> str:
    """`runs` in it, as a pattern."""
    return f"{path} is a folder; name the runs in it, for example {runs}"


def given_twice(path: Path) -> str:
    return f"{path} is given twice, but each run must come from a process of its own"


def copied(path: Path, other: Path) -> str:
    return f"{path} is a copy of {other}, but each run must come from a process of its own"


def not_a_run(path: Path) -> str:
    return f"{path}: not a run of this suite, as --benchmark-json writes it"


def case_twice(path: Path, case: str) -> str:
    return f"{path}: has the case {case} twice"


UNEQUAL_STEPS = "inputs_db and predictions_db must be of the same steps"


# Cases that a run lost


def skipped(case: str, reason: str) -> str:
    return f"{case} has a baseline and was skipped: {reason}"


def not_reached(case: str, *, interrupted: bool) -> str:
    why = "was interrupted" if interrupted else "ended early"
    return f"{case} was expected to run, but has no measurement: the run {why}"


def not_declared(case: str) -> str:
    return f"{case} has a baseline and was not run: its declaration was removed"


# Baselines


def bad_key(where: str) -> str:
    return f"{where}: the key is not WORKLOAD/MODEL/WEIGHTS/CASE"


def unknown(where: str, what: str, name: str) -> str:
    return f"{where}: unknown {what} {name!r}"


def no_limit(where: str, limit: str, measured: str) -> str:
    return f"{where}: no {limit} in limits, or no {measured} in measured"


def limit_alone(where: str, limit: str, measured: str) -> str:
    return f"{where}: {limit} in limits, but no {measured} in measured"


def other_machine(path: Path, machine: str, file: str) -> str:
    return f"{path}: its machine is {machine}, whose file is called {file}"


def other_workload(path: Path, workload: str) -> str:
    return f"{path}: its workload is {workload}"


def conflict(path: Path) -> str:
    return f"{path}: has conflict markers; resolve the conflict first"


_ONE_SIDE = (
    "keep one side of a merge whole, and accept again what the other accepted (what is written by "
    "hand, join by hand)"
)


def unmerged(path: Path) -> str:
    """Of numbers, which no person can join."""
    return f"{path}: has conflict markers; {_ONE_SIDE}"


def named_twice(path: Path, name: str) -> str:
    return f"{path}: {name!r} is there twice; {_ONE_SIDE}"


# Images


def too_many_pixels(path: Path, width: int, height: int, most: int) -> str:
    return f"{path}: {width}x{height} pixels are more than {most:,}"


def damaged_png(path: Path, reason: str) -> str:
    return f"{path}: damaged PNG file ({reason})"


def damaged_rest(path: Path) -> str:
    return f"{path}: damaged PNG file (its 16-bit part does not fit its images)"


def not_rgb(path: Path) -> str:
    return f"{path}: not an RGB image with 8 bits per channel"


def not_png(path: Path) -> str:
    return f"{path}: not a PNG file"


def not_regular(path: Path) -> str:
    return f"{path}: {NOT_A_FILE}"


def no_pixels(path: Path, width: int, height: int) -> str:
    return f"{path}: an image cannot have {width}x{height} pixels"


def no_squares(path: Path, width: int, height: int) -> str:
    return f"{path}: {width}x{height} pixels do not divide into squares"


def other_shape(path: Path, written: str, width: int, height: int) -> str:
    return f"{path}: declares {written}, but has {width}x{height} pixels"


def other_images(shape: Sequence[int], expected: Sequence[int]) -> str:
    """`shape` and `expected`: count, height, width, channels."""
    return (
        f"the pipeline gave images of shape {tuple(shape)}, and those that they are compared with "
        f"have shape {tuple(expected)}"
    )


def few_pixels(shape: Sequence[int], least: int) -> str:
    return (
        f"the pipeline gave images of shape {tuple(shape)}; at least one image of at least "
        f"{least}x{least} pixels is needed"
    )
