"""`diffusers-perf ab` of two commits: real checkouts, and nothing is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare import environments, sides


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two commits, of which the second asks for more."""
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    git("init")
    for dependency in ("torch", "diffusers"):
        (root / "ci").mkdir(exist_ok=True)
        (root / "ci" / "torch.txt").write_text("torch==2.13.0\n")
        (root / "ci" / "requirements.txt").write_text(f"{dependency}==1\n")
        git("add", ".")
        git("commit", "-m", dependency)
    return root


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The environments that were installed; nothing is."""
    seen: list[Path] = []

    def install(checkout: Path, env: Path) -> Path:
        seen.append(env)
        return Path(sys.executable)

    monkeypatch.setattr(environments, "environment", install)
    return seen


@pytest.mark.parametrize(
    ("base", "head", "sentence"),
    [
        ("HEAD", "no_such_ref", "--head no_such_ref: not a commit"),
        ("--help", "HEAD", "--base --help: not a commit"),
    ],
)
def test_unknown_ref_is_one_sentence(
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    base: str,
    head: str,
    sentence: str,
) -> None:
    options = [f"--base={base}", f"--head={head}", f"--out={tmp_path / 'out'}"]
    assert command.main(["ab", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_refs_have_separate_checkouts_and_environments(
    repository: Path, installed: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    commits = sides.commits_of("HEAD~1", "HEAD")
    for _ in range(2):  # again, as after an interruption
        base, head = sides.of_commits(commits, out)
        assert "torch" in (base.checkout / "ci" / "requirements.txt").read_text()
        assert "diffusers" in (head.checkout / "ci" / "requirements.txt").read_text()
        (head.checkout / "ci" / "requirements.txt").write_text("changed")
    assert installed[:2] == [out / "env-base", out / "env-head"]
    assert base.code == commits["base"] != head.code
    assert "changed" not in (repository / "ci" / "requirements.txt").read_text()


def test_relative_ref_is_repeated_as_its_commit(repository: Path) -> None:
    commits = sides.commits_of("HEAD^1", "HEAD")
    assert sides.refs_anywhere(("HEAD^1", "HEAD"), commits) == (commits["base"][:12], "HEAD")


def test_base_of_version_1_is_refused_before_anything_is_measured(
    repository: Path, installed: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harness = repository / "perf_tests" / "harness" / "records.py"
    harness.parent.mkdir(parents=True)
    harness.write_text("SCHEMA = 1")
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "as version 1"], check=True)
    options = ["--base=HEAD", "--head=HEAD~1", f"--out={tmp_path / 'out'}"]
    assert command.main(["ab", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has version 1 of this suite" in line
    assert not installed


def test_hooks_of_the_repository_do_not_run(
    repository: Path, installed: list[Path], tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    hook.chmod(0o755)
    sides.of_commits(sides.commits_of("HEAD", "HEAD"), tmp_path / "out")
    assert not ran.exists()


def test_one_environment_serves_both_if_they_require_the_same(
    repository: Path, installed: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides.of_commits(sides.commits_of("HEAD", "HEAD"), tmp_path / "out")
    assert set(installed) == {tmp_path / "out" / "env"}
    said = capsys.readouterr().out
    assert "share one environment" in said
    assert "uncommitted" not in said
    (repository / "ci" / "requirements.txt").write_text("edited")
    sides.of_commits(sides.commits_of("HEAD", "HEAD"), tmp_path / "out")
    assert "uncommitted changes are in neither side" in capsys.readouterr().out
