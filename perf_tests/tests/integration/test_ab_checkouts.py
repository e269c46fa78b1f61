"""`diffusers-perf ab` of two commits: real checkouts, and nothing is installed."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from diffusers_perf.cli import __main__ as command
from diffusers_perf.compare import environments, sides
from perf_tests.tests.unit.environments import Place
from perf_tests.tests.unit.recorded import side, slow


def git(*arguments: str) -> None:
    """In the working directory."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two commits, of which the second asks for more."""
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)

    git("init")
    for dependency in ("torch", "diffusers"):
        (root / "ci").mkdir(exist_ok=True)
        (root / "ci" / "torch.txt").write_text("torch==2.13.0\n")
        (root / "ci" / "requirements.txt").write_text(f"{dependency}==1\n")
        git("add", ".")
        git("commit", "-m", dependency)
    return root


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The environments that were installed; nothing is."""
    seen: list[Path] = []
    # Asked what is installed in it, this one's own Python looks at all of torch's files each time.
    python = Place.made(tmp_path / "installed").folder / "base" / "python"

    def install(checkout: Path, env: Path) -> Path:
        seen.append(env)
        return python

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


def test_ref_that_is_no_branch_is_repeated_as_its_commit(repository: Path) -> None:
    def repeated(ref: str) -> str:
        commits = sides.commits_of("HEAD", ref)
        return sides.refs_anywhere(("HEAD", ref), commits)[1]

    git("checkout", "-q", "-b", "topic/faster")
    git("update-ref", "refs/remotes/origin/main", "HEAD~1")
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git("tag", "v1")
    git("fetch", ".", "HEAD")
    for ref in ("HEAD", "topic/faster", "origin/main"):
        assert repeated(ref) == ref
    relative = ("HEAD^1", "HEAD~0", "@", "@{0}", "FETCH_HEAD", "v1", "HEAD^{/torch}", "origin/HEAD")
    for ref in (*relative, "origin/main~0"):
        assert repeated(ref) == sides.commits_of(ref, ref)["head"][:12]
    # As CI checks out its merge: another HEAD than that of the branch.
    git("checkout", "-q", "--detach")
    assert repeated("HEAD") == sides.commits_of("HEAD", "HEAD")["head"][:12]


def test_commit_without_perf_tests_is_named(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Base, as before the suite was merged into it."""
    (repository / "perf_tests").mkdir()
    (repository / "perf_tests" / "test_serving.py").touch()
    git("add", ".")
    git("commit", "-m", "suite")
    place = Place.made(tmp_path / "place")

    def environment(checkout: Path, env: Path) -> Path:
        return place.folder / checkout.name / "python"

    monkeypatch.setattr(environments, "environment", environment)
    place.act("exit 5")
    assert command.main(["ab", "--base=HEAD~1", "--head=HEAD"]) == 2
    base = sides.commits_of("HEAD~1", "HEAD")["base"][:12]
    said = f"error: base 1 measured nothing: {base} has no perf_tests/, and elsewhere no case is"
    assert said in capsys.readouterr().err


def test_next_command_pasted_after_a_new_commit_measures_it(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = Place.made(tmp_path / "place")

    def environment(checkout: Path, env: Path) -> Path:
        return place.folder / checkout.name / "python"

    monkeypatch.setattr(environments, "environment", environment)
    head = side("head")
    for content in head:
        slow(content, "ddim50-fp16", by=1.05)
    place.record(side("base"), head)

    def named() -> str:
        """The only `ab` command in the output."""
        out = capsys.readouterr().out
        (line,) = {line.strip() for line in out.splitlines() if "  diffusers-perf ab " in line}
        return line

    options = ["--base=HEAD~1", "--head=HEAD", f"--baselines={place.folder / 'baselines'}"]
    assert command.main(["ab", *options]) == 1
    line = named()
    for folder in ("ab-2", "ab-3", "ab-4"):
        if folder == "ab-4":
            (repository / "fix.py").write_text("")
            git("add", ".")
            git("commit", "-m", "fix")
        assert command.main(shlex.split(line)[1:]) == 1
        assert named() == line
        measured = repository / "runs" / folder / "head"
        assert (measured / "fix.py").exists() == (folder == "ab-4")
    assert len(place.calls) == 40


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
