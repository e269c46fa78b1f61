"""`diffusers-perf bisect`: what it measures, in which order, and what it concludes.

Processes are stand-ins that return recorded runs; `full/test_bisection.py` measures for real.
"""

from __future__ import annotations

import math
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare import bisection, environments, processes
from diffusers_perf.compare.processes import NoCaseSelected, NothingMeasured
from diffusers_perf.plugin import finding
from diffusers_perf.records.run import Run
from perf_tests.tests.unit.recorded import keep, lost, measured, parsed, process, session

CASE = "ddim50-fp16"
VERSIONS = ["2.10.0", "2.10.1", "2.11.0", "2.12.0", "2.12.1", "2.13.0"]


@dataclass
class Index:
    """Versions that an index offers, and what each of them measures."""

    offered: dict[str, list[str]] = field(default_factory=lambda: {"torch": VERSIONS})
    value: Callable[[str], float] = lambda name: 100.0
    """Of the counter, by the candidate's name."""
    noise: float = 0.003
    broken: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    """Their case fails."""
    disturbed: frozenset[str] = frozenset()
    """Processes with another process on their GPU."""
    calls: list[str] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)

    def versions_of(self, package: str, *, with_pre_releases: bool) -> list[str]:
        return [v for v in self.offered[package] if with_pre_releases or "rc" not in v]

    def overlay(self, env: Path, requirements: list[str]) -> Path:
        self.installed.append(" ".join(requirements))
        return env / "bin" / "python"

    def measured(self, side: Any, options: Any, *, path: Path, **_: Any) -> tuple[int, Run]:
        self.calls.append(path.stem)
        if side.name in self.broken:
            raise NothingMeasured(f"{side.name} ended with exit code 4 and measured nothing")
        content = process(path.stem)
        keep(content, CASE)
        seen, value = measured(content, CASE), self.value(side.name)
        if side.name in self.failing:
            session(content)["not_timed"] = [lost(CASE, "error", f"{CASE}: ValueError: no")]
            content["benchmarks"] = []
        if path.stem in self.disturbed:
            seen["interference"]["gpu"] = ["another process"]
        draw = random.Random(path.stem)
        seen["counters"]["kernels"] = [int(value), 0]
        seen["gpu_busy_s"] = value / 100 * math.exp(draw.gauss(0, self.noise))
        (run,) = parsed([content], path.stem)
        return 0, run


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, no_baselines: Path) -> Index:
    index = Index()
    monkeypatch.setattr(environments, "versions_of", index.versions_of)
    monkeypatch.setattr(environments, "overlay", index.overlay)
    monkeypatch.setattr(environments, "probe", lambda *_: ({"torch": "?"}, "0"))
    monkeypatch.setattr(processes, "measured", index.measured)
    return index


def bisect(
    *options: str, package: str = "torch", good: str = "2.10", bad: str = "2.13", metric: str
) -> int:
    ends = ["--package", package, "--good", good, "--bad", bad]
    return command.main(["bisect", *ends, "--case", CASE, "--metric", metric, *options])


def since(version: str, *, worse: float = 130.0) -> Callable[[str], float]:
    order = {f"torch-{v}": n for n, v in enumerate(VERSIONS)}
    return lambda name: worse if order[name] >= order[f"torch-{version}"] else 100.0


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_counter_takes_one_process_per_step(
    index: Index, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index.value = since(version)
    assert bisect(metric="kernels") == 0
    out = capsys.readouterr().out
    good = VERSIONS[VERSIONS.index(version) - 1]
    assert f"\nfirst bad: torch {version}\nlast good: torch {good}\n" in out
    assert index.calls[:2] == ["torch-2.10.0-1", "torch-2.13.0-1"]
    assert len(index.calls) <= 5
    assert f"--base-python {Path.cwd()}/runs/bisect/env-torch-{good}/bin/python" in out
    assert out.rstrip().endswith(f"--quick -- -k '[{CASE}]'")


def test_next_command_has_what_was_given(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    index.value = since("2.12.0")
    given = ["--device=cpu", "--", "-m", "cpu", "--quick"]
    assert bisect(*given, metric="kernels") == 0
    said = f"--device cpu --quick -- -m cpu --quick -k '[{CASE}]'"
    assert capsys.readouterr().out.rstrip().endswith(said)


def test_noise_takes_pairs_until_the_side_is_clear(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.value = since("2.12.0", worse=105.0)
    assert bisect(metric="GPU busy") == 0
    assert "\nfirst bad: torch 2.12.0\n" in capsys.readouterr().out
    # Three to five pairs for bad and for each step, the good end beside each.
    assert 6 * 3 <= len(index.calls) <= 10 * 3
    assert index.calls[:4] == [
        "torch-2.13.0-1",
        "torch-2.10.0-beside-torch-2.13.0-1",
        "torch-2.10.0-beside-torch-2.13.0-2",
        "torch-2.13.0-2",
    ]


@pytest.mark.parametrize(("metric", "processes"), [("kernels", 2), ("GPU busy", 20)])
def test_ends_that_measure_alike_are_refused(
    index: Index, metric: str, processes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(metric=metric) == 2
    assert "choose two ends that differ" in capsys.readouterr().err
    assert len(index.calls) == processes


def test_what_cannot_be_measured_is_skipped_and_named(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.value, index.broken = since("2.12.0"), frozenset({"torch-2.11.0"})
    assert bisect(metric="kernels") == 0
    out = capsys.readouterr().out
    assert "first bad: torch 2.12.0\nlast good: torch 2.10.1\n" in out
    assert "may be in one of these: torch-2.11.0" in out


def test_broken_end_is_one_sentence(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    index.broken = frozenset({"torch-2.13.0"})
    assert bisect(metric="kernels") == 2
    assert capsys.readouterr().err.startswith("error: torch-2.13.0 ended with exit code 4")


def test_end_whose_case_fails_says_why(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    index.failing = frozenset({"torch-2.13.0"})
    assert bisect(metric="kernels") == 2
    said = f"{CASE} failed: ValueError: no\n"
    assert capsys.readouterr().err.endswith(said)


def test_unknown_metric_names_the_known(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    for metric, close in (
        ("kernel", "kernels"),
        ("Host", "host_syncs or device_to_host_copies or device_to_host_bytes"),
    ):
        assert bisect(metric=metric) == 2
        said = f"error: {CASE} has no metric {metric!r} (did you mean {close}?)\n"
        assert capsys.readouterr().err == said
    assert bisect(metric="zzz") == 2
    assert "has no metric 'zzz'; known are latency, GPU busy," in capsys.readouterr().err
    # The folder is not taken by what measured nothing.
    index.value = since("2.12.0")
    assert bisect(metric="kernels") == 0


def test_unknown_case_names_close_ones(
    index: Index, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def selects_none(*_: Any, **__: Any) -> None:
        raise NoCaseSelected("no case is selected by -k")

    def declares(*cases: str) -> None:
        project = SimpleNamespace(cases=[SimpleNamespace(id=case) for case in cases])
        monkeypatch.setattr(finding, "find_project", lambda: project)

    monkeypatch.setattr(processes, "measured", selects_none)
    for cases, said in (
        (["ddim50-fp32", "vase25-tf32"], "no case is called 'ddim50-fp16' (did you mean ddim50-"),
        # It is the older commit that lacks it.
        (["ddim50-fp16"], "no case is selected by -k"),
    ):
        declares(*cases)
        assert bisect(metric="kernels") == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")


def test_counter_may_be_written_with_spaces(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(metric="kernel launches") == 2
    assert "kernel_launches is" in capsys.readouterr().err


def test_it_resumes_and_keeps_its_settings(
    index: Index, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index.value = since("2.12.0")

    def interrupted(*args: Any, **options: Any) -> tuple[int, Run]:
        if len(index.calls) == 3:
            raise KeyboardInterrupt
        return index.measured(*args, **options)

    monkeypatch.setattr(processes, "measured", interrupted)
    assert bisect(metric="kernels") == 2
    assert "run the same command again" in capsys.readouterr().err
    monkeypatch.setattr(processes, "measured", index.measured)
    assert bisect(metric="kernels") == 0
    assert "3 processes finished earlier" in capsys.readouterr().out
    assert len(index.calls) == len(set(index.calls))
    assert bisect(metric="operators") == 2
    assert "another bisection; remove it, or choose another --out" in capsys.readouterr().err


def test_process_under_interference_is_repeated_and_does_not_decide(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.value = since("2.12.0", worse=120.0)
    index.disturbed = frozenset(
        {"torch-2.13.0-1", "torch-2.11.0-2", "torch-2.11.0-2-again", "torch-2.12.0-3"}
    )
    assert bisect(metric="GPU busy") == 0
    out = capsys.readouterr().out
    assert "may be in one of these: torch-2.11.0" in out
    assert "first bad: torch 2.12.0\nlast good: torch 2.10.1\n" in out
    assert {"torch-2.13.0-1-again", "torch-2.12.0-3-again"} <= set(index.calls)
    assert not {"torch-2.11.0-3", "torch-2.13.0-2-again"} & set(index.calls)
    assert f"\n{len(index.calls)} processes, " in out
    said = "interference while GPU busy was measured"
    assert f"\ntorch-2.13.0-1: {said}; measuring it once more\n" in out
    assert f"  skipped torch-2.11.0  torch-2.11.0-2: {said}, twice; " in out


def test_candidate_under_interference_is_measured_again_by_the_same_command(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.value = since("2.12.0", worse=120.0)
    index.disturbed = frozenset({"torch-2.11.0-2", "torch-2.11.0-2-again"})
    assert bisect(metric="GPU busy") == 0
    assert "twice; the same command tries it again" in capsys.readouterr().out
    index.disturbed, before = frozenset(), len(index.calls)
    assert bisect(metric="GPU busy") == 0
    out = capsys.readouterr().out
    assert "first bad: torch 2.12.0\nlast good: torch 2.11.0\n" in out
    assert "could not be measured" not in out
    assert "torch-2.11.0-2" in index.calls[before:]
    assert "torch-2.11.0-1" not in index.calls[before:]


def test_end_under_interference_is_measured_again_by_the_same_command(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.value = since("2.12.0", worse=120.0)
    index.disturbed = frozenset({"torch-2.13.0-1", "torch-2.13.0-1-again"})
    assert bisect(metric="GPU busy") == 2
    assert "interference while GPU busy was measured" in capsys.readouterr().err
    index.disturbed = frozenset()
    assert bisect(metric="GPU busy") == 0
    assert "finished earlier" not in capsys.readouterr().out


def test_process_that_measured_nothing_counts_and_is_not_repeated(
    index: Index, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(bisection, "monotonic", lambda: next(clock))
    index.value, index.broken = since("2.12.0"), frozenset({"torch-2.11.0"})
    assert bisect("--minutes=3.5", metric="kernels") == 2
    assert index.calls == ["torch-2.10.0-1", "torch-2.13.0-1", "torch-2.11.0-1"]
    assert "3.0 of 3.5 min used" in capsys.readouterr().err
    assert bisect("--minutes=60", metric="kernels") == 0
    assert "3 processes finished earlier" in capsys.readouterr().out
    assert index.calls.count("torch-2.11.0-1") == 1


def test_metric_that_depends_on_the_compile_cache_is_refused(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(metric="time to first image") == 2
    assert "time to first image cannot be bisected" in capsys.readouterr().err
    assert index.calls == []


def test_no_process_starts_that_the_budget_does_not_hold(
    index: Index, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*args: Any, **options: Any) -> tuple[int, Run]:
        if options["limit_s"] < 0.1:
            raise subprocess.TimeoutExpired("pytest", 0.1)
        return index.measured(*args, **options)

    index.value = since("2.12.0")
    monkeypatch.setattr(processes, "measured", slow)
    assert bisect("--minutes=0.001", metric="kernels") == 2
    assert "the same command with --minutes" in capsys.readouterr().err
    assert index.calls == []


def test_process_that_the_budget_ended_counts(
    index: Index, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each repetition of the command would take the whole budget again."""
    limits = []

    def endless(*_: Any, limit_s: float, **__: Any) -> tuple[int, Run]:
        limits.append(limit_s)
        sleep(limit_s)
        raise subprocess.TimeoutExpired("pytest", limit_s)

    monkeypatch.setattr(processes, "measured", endless)
    for _ in range(2):
        assert bisect("--minutes=0.001", metric="kernels") == 2
        assert "0.0 of 0.001 min used" in capsys.readouterr().err
    assert len(limits) == 1


def test_packages_change_one_after_the_other(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.offered = {"torch": ["2.12.0", "2.13.0"], "diffusers": ["0.40.0", "0.41.0", "0.42.0"]}
    index.value = lambda name: 130.0 if "diffusers-0.41" in name or "0.42" in name else 100.0
    second = ["--package", "diffusers", "--good", "0.40.0", "--bad", "0.42.0"]
    assert bisect(*second, good="2.12", metric="kernels") == 0
    out = capsys.readouterr().out
    assert "first bad: torch 2.13.0, diffusers 0.41.0\n" in out
    assert "last good: torch 2.13.0, diffusers 0.40.0\n" in out
    assert index.installed[0] == "torch==2.12.0 diffusers==0.40.0"


def test_pre_releases_count_where_an_end_is_one(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    index.offered = {"torch": ["2.12.0", "2.13.0rc1", "2.13.0rc2", "2.13.0"]}
    assert bisect(good="2.12", bad="2.13.0", metric="kernels") == 2
    assert "1 candidate after torch 2.12.0\n" in capsys.readouterr().out
    assert bisect("--out=other", good="2.12", bad="2.13.0rc2", metric="kernels") == 2
    assert "2 candidates after torch 2.12.0\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--package", "diffusers"], "one --good and one --bad for each --package (got 1 and 1"),
        (["--good", "2.11"], "one --good and one --bad for each --package (got 2 and 1 for 1)"),
    ],
)
def test_unequal_options_are_one_sentence(
    index: Index, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(*options, metric="kernels") == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("good", "sentence"),
    [("2.9", "the index does not offer 2.9 (newest: "), ("two", "Invalid version: 'two'")],
)
def test_unknown_version_is_one_sentence(
    index: Index, good: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisect(good=good, metric="kernels") == 2
    assert sentence in capsys.readouterr().err


def test_package_that_the_index_lacks_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    with pytest.raises(Refusal, match="tourch: the index offers no version"):
        environments.versions_of("tourch", with_pre_releases=False)


def test_commits_that_change_documents_alone_are_left_out(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *settings, *arguments], check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    for number in range(12):
        name = "code.py" if number % 2 else "notes.md"
        Path(name).write_text(str(number))
        git("add", name)
        git("commit", "--quiet", "--message", f"change {number}")
    (tmp_path / "code.py").unlink()
    index.value = lambda name: 100.0 if name in early else 130.0
    shown = subprocess.run(["git", "rev-list", "HEAD"], capture_output=True, text=True)
    commits = [commit[:12] for commit in reversed(shown.stdout.split())]
    early = set(commits[:5])
    arguments = ["--good", "HEAD~11", "--bad", "HEAD", "--case", CASE, "--metric", "kernels"]
    assert command.main(["bisect", *arguments]) == 0
    out = capsys.readouterr().out
    assert "6 candidates after " in out
    assert f"\nfirst bad: {commits[5]} change 5 (a, " in out
    assert f"diffusers-perf ab --base {commits[3]} --head {commits[5]} --quick -- -k" in out
    assert len(index.calls) <= 5
    reverse = ["--good", "HEAD", "--bad", "HEAD~3", "--case", CASE, "--metric", "kernels"]
    assert command.main(["bisect", *reverse]) == 2
    said = "--good HEAD is not an ancestor of --bad HEAD~3; it is newer; exchange the two"
    assert said in capsys.readouterr().err
    git("checkout", "--quiet", "--force", "-b", "beside", "HEAD~2")
    git("commit", "--quiet", "--allow-empty", "--message", "beside")
    beside = ["--good", commits[-1], "--bad", "beside", "--case", CASE, "--metric", "kernels"]
    assert command.main(["bisect", *beside]) == 2
    assert f"the newest that is: --good {commits[-3]}\n" in capsys.readouterr().err
    git("checkout", "--quiet", "--orphan", "apart")
    git("commit", "--quiet", "--allow-empty", "--message", "apart")
    apart = ["--good", commits[-1], "--bad", "apart", "--case", CASE, "--metric", "kernels"]
    assert command.main(["bisect", *apart]) == 2
    assert "they have no commit in common here; " in capsys.readouterr().err
