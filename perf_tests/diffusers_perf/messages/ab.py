"""What `ab`, `compare` and `merge` say, and whatever else measures in fresh processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from diffusers_perf.messages.common import AGAIN
from diffusers_perf.messages.numbers import plural

TWO_REFS_OR_TWO_PYTHONS = (
    "ab needs either --base and --head (two refs of this repository), or --base-python and "
    "--head-python (two environments)"
)
TWO_SIDES_OR_A_FOLDER = "compare needs either --base and --head (runs), or one folder of ab"
INTERRUPTED = f"interrupted; {AGAIN} after the last whole pair"
UNCOMMITTED = "uncommitted changes are in neither side"
NO_GIT = "--base and --head need git, which is not installed"
NO_UV = (
    "installing environments needs uv: pip install 'diffusers-perf[ab]'; ab with --base-python "
    "and --head-python installs nothing"
)
ONE_ENVIRONMENT = "both sides have the same requirements and share one environment"
NOT_PYTHON = "not a Python interpreter"
PACKAGES_SHOWN = 5
HEAD_OVER_BASE = "head over base"


# Sides and their environments


def no_program(side: str, given: str) -> str:
    return f"--{side}-python {given}: no such program"


def no_repository(reason: str) -> str:
    """`reason` as git says it."""
    return f"refs need a git repository here: {reason.removeprefix('fatal: ')}"


def no_commit(side: str, ref: str) -> str:
    return f"--{side} {ref}: not a commit of this repository (was it fetched?)"


def no_checkout(folder: Path, commit: str, reason: str) -> str:
    return f"{folder}: cannot check out {commit[:12]} ({reason})"


def version_1(commit: str) -> str:
    return (
        f"{commit[:12]} has version 1 of this suite, whose measuring code differs, so its times "
        "are not comparable with those of version 2; choose a newer --base"
    )


def environment_of(side: str) -> str:
    return f"the environment of {side}"


def cannot_run(python: str, reason: object) -> str:
    return f"{python}: cannot be run ({reason})"


def cannot_run_suite(python: str, reason: str) -> str:
    return f"{python}: cannot run this suite ({reason})"


def changed_package(name: str, before: str | None, now: str | None) -> str:
    """Each is ``VERSION DIGEST``, with an empty version where none is known; None is not there."""
    was, becomes = ((text or "none ").partition(" ")[0] for text in (before, now))
    return f"{name} (same version, other files)" if was == becomes else f"{name} {was} → {becomes}"


def changed_environment(side: str, packages: Sequence[str]) -> str:
    return (
        f"{side}'s environment changed since it was measured: {_some(packages)}; all pairs are "
        "measured anew"
    )


def changed_meanwhile(side: str, packages: Sequence[str]) -> str:
    return (
        f"{side}'s environment changed while it was measured: {_some(packages)}; run the same "
        "command again to measure all pairs anew"
    )


def _some(packages: Sequence[str]) -> str:
    shown, others = packages[:PACKAGES_SHOWN], len(packages) - PACKAGES_SHOWN
    return ", ".join(shown) + (f" and {plural(others, 'other package')}" if others > 0 else "")


def half_of_requirements(checkout: Path, there: str, lacking: Path) -> str:
    return f"{checkout}: has {there} but no {lacking}"


def unreadable_requirements(checkout: Path, reason: object) -> str:
    return f"{checkout}: cannot read the requirements ({reason})"


def no_requirements(file: Path) -> str:
    return f"no {file} in the checkouts: both sides run in the current environment"


def requirements_of_one_side(side: str, file: Path) -> str:
    return f"{side} has no {file}, but the other side has one"


def installing(what: object) -> str:
    return f"installing {what}"


def cannot_install(what: Path, reason: str) -> str:
    return f"{what}: cannot be installed ({reason})"


def no_versions(package: str, reason: str) -> str:
    return f"{package}: the index offers no version ({reason})"


def editable(package: str, files: Sequence[Path]) -> str:
    return (
        f"{package} is installed as editable, so both commits would run the same code: install it "
        f"without -e, add {' and '.join(map(str, files))} to the repository, or compare two "
        "environments with --base-python and --head-python"
    )


# The folder and its processes


def is_of_others(out: Path, command: str) -> str:
    return f"--out {out} has files that {command} did not write; choose a new or an empty folder"


def in_use(out: Path, command: str) -> str:
    return f"--out {out} is in use by another {command}, or by a process that one left behind"


def is_held_by(folder: Path) -> str:
    return f"folder {folder}: it holds this comparison"


def starts_in(folder: Path, taken: Path, *, complete: bool) -> str:
    """`complete`: the same comparison is, in one of the folders that are taken."""
    anew = "this comparison is complete, and is measured anew"
    return f"folder {folder}: {anew if complete else f'{taken} is taken'}"


def holds_no_pair(folder: Path) -> str:
    return f"{folder}: holds no pair of runs by ab; name a folder that does, or the runs"


def needs_no_base(folder: Path) -> str:
    return f"{folder}: holds base and head; leave out --base, or name the runs"


def finished_before(what: str) -> str:
    return f"{what} finished earlier"


def lacks_tests(what: str, folder: str) -> str:
    return f"{what} has no {folder}/"


def no_case_selected(process: str, options: str, log: Path, lacks: str) -> str:
    """`lacks` as `lacks_tests` says it; empty where the folder is there."""
    where = f"{lacks}, and elsewhere" if lacks else ""
    selected = f"{where} no case is selected by {options or 'default'}".lstrip()
    return f"{process} measured nothing: {selected} (log: {log})"


def nothing_measured(process: str, code: int, reason: str, lines: Sequence[str], log: Path) -> str:
    """`reason` is empty where none is known beyond the last lines of its output."""
    shown = "\n".join(f"  {line}" for line in lines)
    because = f" ({reason})" if reason else ""
    return (
        f"{process} ended with exit code {code} and measured nothing{because}. Its last lines:\n"
        f"{shown}\n  (log: {log})"
    )


def all_failed(process: str, failures: Mapping[str, str]) -> str:
    """`failures` are the sentences by case."""
    shown = "\n".join(f"  {case}: {sentence}" for case, sentence in failures.items())
    return f"{process.replace('-', ' ')} measured nothing, since every case failed:\n{shown}"


HEAD_FAILS = "stopped after the first pair: head measured no case, so that no times can be compared"


def progress(
    done: int,
    total: int,
    process: str,
    *,
    cases: int,
    seconds: float,
    failed: bool,
    left: str,
) -> str:
    some = f", {'some of them' if cases else 'all'} failed" if failed else ""
    return f"[{done}/{total}] {process}: {plural(cases, 'case')} in {seconds:.0f} s{some}, {left}"


def fails_already(case: str, statuses: Sequence[str], *, others: int) -> str:
    """What the first pair shows of a case, and of how many `others`."""
    more = f" and {plural(others, 'other case')}" if others else ""
    said = f"{case} ({', '.join(statuses)}){more}"
    return f"after the first pair: {said}; the other pairs measure times"


def inconclusive(pairs: int, cases: Sequence[str], *, worth_more: bool) -> str:
    end = "" if worth_more else "; more pairs would not resolve it"
    return f"inconclusive after {plural(pairs, 'pair')}: {', '.join(cases)}{end}"


def not_calibrated(cases: int) -> str:
    return (
        f"not calibrated: latency of {plural(cases, 'case')}; to detect smaller slowdowns, run ab "
        "with one commit on both sides and --out runs/aa, then "
        "diffusers-perf calibrate runs/aa/base-*.json runs/aa/head-*.json"
    )


def out_of_budget(
    used_s: float, budget_s: float, longest_s: float, *, minutes: float, left: int
) -> str:
    return (
        f"{used_s / 60:.1f} of {budget_s / 60:g} min used, and a process takes up to "
        f"{longest_s:.0f} s; the same command with --minutes {minutes:.0f} runs the other {left}"
    )


def process_out_of_budget(process: str, seconds: float, budget_s: float) -> str:
    return (
        f"{process} was stopped after {seconds:.0f} s, when all {budget_s / 60:g} min were used; "
        "run the same command with more --minutes to continue"
    )


def stopped(reason: object) -> str:
    return f"stopped: {reason}"


def no_time_counts(pairs: int) -> str:
    return (
        f"stopped after {plural(pairs, 'pair')}: all times were left out as invalid (reasons "
        "below), and those of more pairs would hardly be valid"
    )


def too_few_pairs(needed: int, made: int) -> str:
    return f"an interval needs {plural(needed, 'pair')} (got {made}); run the same command again"


def runs_are_in(folder: Path) -> str:
    return f"all runs are in {folder}; remove it to measure anew"


def as_a_page(folder: Path) -> str:
    there = quote(str(folder))
    return f"as a page: diffusers-perf report {there} --html {there}/report.html"


# Shards


def merged(
    shards: int, expected: int, *, executed: int, skipped: int, failed: int, lost: int, out: Path
) -> str:
    return (
        f"merged {plural(shards, 'shard')}: of {plural(expected, 'case')} expected, {executed} "
        f"executed, {skipped} skipped, {failed} failed without a measurement, {lost} never "
        f"reached; wrote {out}"
    )


def out_is_a_shard(out: Path) -> str:
    return f"{out} is one of the shards; choose another file for the merged run"


def other_list(run: Path, other: Path) -> str:
    return f"{run} and {other} are shards of different lists of cases"


def same_shard(run: Path, other: Path, shard: str) -> str:
    return f"{run} and {other} are both shard {shard}"


def not_alike(run: Path, other: Path, what: str) -> str:
    return f"{run} and {other} differ in the {what}"


MACHINE = "machine or its versions"
MODE = "mode (with or without --quick)"
MEASURING_CODE = "version of the measuring code"


def missing_shard(shard: str) -> str:
    return f"shard {shard} is not among the runs"


OVERLAP = "the shards' cases overlap or are incomplete: they do not come from one list of cases"


def not_a_shard(run: Path) -> str:
    return f"{run} is not a shard: it was measured without --shard"
