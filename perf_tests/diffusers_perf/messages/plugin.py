"""What the pytest plugin says: usage errors, progress, and the lines around the closing table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from diffusers_perf.messages.common import IMPORT, meant
from diffusers_perf.messages.numbers import plural

# Usage errors

IN_ONE_PROCESS = (
    "diffusers-perf times its cases, and processes on one device disturb each other: run it "
    "without -n (or with -n 0) and without --benchmark-disable; for several GPUs see "
    "diffusers-perf fleet and --shard"
)
NO_BENCHMARK = "diffusers-perf needs pytest-benchmark: remove -p no:pytest-benchmark"
NO_JSON = "--benchmark-json needs the name of a file"


def foreign_fixture(name: str, package: str, found: str) -> str:
    return (
        f"diffusers-perf needs the fixture {name} of {package} (found: {found}); rename the other "
        "fixture, or disable its plugin with -p no:NAME"
    )


def foreign_option(name: str) -> str:
    return (
        f"both diffusers-perf and another plugin or a conftest.py define the option {name}: "
        "rename the other one, or run pytest with -p no:diffusers_perf"
    )


def foreign_mark(suite: str) -> str:
    return (
        f"the suite {suite!r} has the name of a mark that pytest knows; rename the suite, or "
        "remove the mark where it is registered"
    )


def shard(text: str) -> str:
    return f"must be I/N, such as 1/3 (got {text})"


def shard_out_of_range(text: str) -> str:
    return f"I must be from 1 to N (got {text})"


def too_many_shards(shard: str, cases: int) -> str:
    """`shard` as it was given, perhaps with the places of its cases."""
    if ":" in shard:
        return f"--shard {shard}: only {plural(cases, 'case')} selected"
    return f"--shard {shard}: more shards than cases ({cases})"


def shard_without_cases(text: str) -> str:
    return f"FIRST must be from 1 to LAST (got {text})"


def unused_file(file: str) -> str:
    return f"{file} declares cases, but no test runs them; add this line to it: {IMPORT}"


def unused_module(module: str) -> str:
    return (
        f"{module} declares cases, but no test runs them: name it in the ini option "
        f"perf_declarations, or make it a test file with the line: {IMPORT}"
    )


def unused_declarations(modules: Sequence[str]) -> str:
    return (
        f"perf_declarations: no test runs the cases of {', '.join(modules)}; add a test file that "
        f"declares none and has the line: {IMPORT}"
    )


def no_cases(module: str) -> str:
    return (
        f"{module} imports test_generation, but declares no case: call measure(WORKLOAD) in it, or "
        "name a module that does in the ini option perf_declarations"
    )


def empty_suite(suite: str, known: Collection[str]) -> str:
    what = f"perf_suites: no case is in the suite {suite!r}{meant(suite, known)}"
    return f"{what}; known are {', '.join(known)}"


def suites_are(known: Sequence[str]) -> str:
    """Beside what pytest says of -m: its `--markers` lists no suites."""
    return f"The suites are {', '.join(known)}."


def model_apart(value: str) -> str:
    return (
        f"write --model={value} as one argument: otherwise pytest takes the folder for a test "
        "path, and reads settings there"
    )


def model_among_tests(folder: Path) -> str:
    return f"{folder} is a model folder: move it out of {folder.parent}"


def cannot_collect(reason: str) -> str:
    return f"pytest cannot collect the tests here: {reason}"


def cannot_import(module: str, reason: str) -> str:
    return f"{module} cannot be imported: {reason}"


def cannot_collect_in(folder: str, reason: str) -> str:
    return f"{folder} cannot be read: {reason}"


# Marks, as pytest --markers lists them


def mark(name: str) -> str:
    return f"{name}: the test of diffusers-perf, one case at a time"


def suite_mark(suite: str) -> str:
    return f"{suite}: cases of this suite"


# Cases

INTERRUPTED = "interrupted before it was finished"


FULL_TRACE = "; --full-trace shows the traceback"
"""Behind a sentence that stands for one."""


def reference_fails(reason: object) -> str:
    return f"the case it is compared with fails: {reason}"


def progress(number: int, total: int, case: str, what: str, *, left: str) -> str:
    end = f", {left}" if left else ""
    return f"[{number}/{total}] {case}: {what}{end}"


def skipped(reason: str) -> str:
    return f"skipped: {reason}"


# The session


def opening(
    models: str, machine: str, versions: Mapping[str, str], *, threads: int, is_accepted: bool
) -> str:
    baseline = "accepted" if is_accepted else "none yet, so speed is shown but not judged"
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"perf_tests: {models} on {machine}, {shown}, {plural(threads, 'thread')}; "
        f"baseline: {baseline}"
    )


def no_case_matches(elsewhere: Sequence[str]) -> str:
    """`elsewhere`: the models of declared cases that do not run here."""
    text = "no case is selected; without -k and -m, --collect-only lists those that run here"
    if not elsewhere:
        return text
    others = f" (or: {', '.join(elsewhere[1:])})" if elsewhere[1:] else ""
    return f"{text}, and with --model={elsewhere[0]}{others} those of another model"


def no_case_runs_here(elsewhere: Sequence[str]) -> str:
    """`elsewhere`: the models of the declared cases."""
    return (
        f"no declared case runs on this machine: those of {', '.join(elsewhere)} need a GPU or to "
        f"be named; diffusers-perf structure --model={elsewhere[0]} counts what they ask of one"
    )


def also_timed(references: Sequence[str]) -> str:
    return f"also timed, as references: {', '.join(references)}"


def observing(share: float) -> str:
    return f"counting and profiling took {share:.0%} of the time of the timed rounds"


def interference(affected: int, cases: int, first: str) -> str:
    return (
        f"interference in {affected} of {plural(cases, 'case')}; rerun on a quieter machine "
        f"(first: {first})"
    )


def cpu_speed(fastest_s: float, slowest_s: float) -> str:
    """Of the calibration loop beside the rounds."""
    return (
        f"CPU speed varied {slowest_s / fastest_s:.1f}x during the run (calibration loop "
        f"{1e3 * fastest_s:.1f} to {1e3 * slowest_s:.1f} ms); host-bound latencies may vary as much"
    )


def farthest_step(distance_db: float) -> str:
    return f"steps {distance_db:.1f} dB"


def no_import_time(reason: str) -> str:
    return f"import time is not known: {reason}"


def unsaved(reason: str) -> str:
    return f"error: {reason}; the run was not written there"


def closing(*, hold: int, new: int, doubtful: int, fail: int, skipped: int, missing: int) -> str:
    """How many cases hold, and so on."""
    counts = {
        "hold": hold,
        "new (speed not judged until accepted: diffusers-perf accept)": new,
        "inconclusive or invalid": doubtful,
        "fail": fail,
        "skipped": skipped,
        "missing": missing,
    }
    shown = [f"{number} {name}" for name, number in counts.items() if number]
    return ", ".join(shown) or "nothing ran"
