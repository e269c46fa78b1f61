"""The two sides that `ab` compares: where each one's code lies, and which Python runs it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOCK = Path("ci", "locked.txt")
"""pip's constraints: the exact versions that a ref is measured with, in its own checkout."""
CODE = ("perf_tests", "ci", "conftest.py", "pyproject.toml")
"""What a side's commit decides."""
EXTRA = "nvml"
"""Sees throttled clocks and other processes on the GPU. pip passes over it where a ref has none."""
PACKAGES = ("torch", "diffusers", "transformers")

PROBE = (
    "import platform; from importlib.metadata import version; version('pytest-benchmark'); "
    f"print(platform.python_version(), *map(version, {PACKAGES}))"
)
"""Says what an environment holds, without importing any of it."""


class BadSide(Exception):
    """A side that cannot be measured; one sentence says which and why."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side: code and the environment that it runs in."""

    name: str
    """``base`` or ``head``."""
    checkout: Path
    code: str
    """A commit, or a digest of the present checkout's code."""
    python: Path
    versions: Mapping[str, str]
    """Of Python and of what the suite measures."""

    @property
    def text(self) -> str:
        return f"{self.code[:12]}, " + ", ".join(f"{n} {v}" for n, v in self.versions.items())


def of_pythons(base: str, head: str) -> tuple[Side, Side]:
    """Two existing environments on the present checkout. `BadSide` for one that cannot run it."""
    code = _digest(ROOT)
    sides = []
    for name, given in (("base", base), ("head", head)):
        found = shutil.which(given)
        if found is None:
            raise BadSide(f"--{name}-python {given}: is no program")
        # Not resolved: a virtual environment's Python is a link, and knows its packages by that.
        python = Path(found).absolute()
        sides.append(
            Side(
                name=name,
                checkout=ROOT,
                code=code,
                python=python,
                versions=_versions(python, f"--{name}-python {given}"),
            )
        )
    return sides[0], sides[1]


def commits_of(base: str, head: str) -> dict[str, str]:
    """The commits behind two refs of this repository. `BadSide` for a ref that is none."""
    commits = {}
    for name, ref in (("base", base), ("head", head)):
        shown = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if shown.returncode:
            raise BadSide(f"--{name} {ref}: is no commit of this repository (was it fetched?)")
        commits[name] = shown.stdout.strip()
    return commits


def of_commits(commits: Mapping[str, str], out: Path) -> tuple[Side, Side]:
    """Check both commits out below `out`, and install what each asks for, by its own lock.

    One environment serves both where they ask for the same. What is there already is kept.
    `BadSide` where git or pip refuses.
    """
    # Who edits, and compares HEAD, would look for what he edited.
    if _git("status", "--porcelain", "--", *CODE).stdout.strip():
        print("what is changed here and not committed is in neither side")
    checkouts = {name: out / name for name in commits}
    for name, commit in commits.items():
        _check_out(commit, checkouts[name])
    shared = len({_asked_for(checkout) for checkout in checkouts.values()}) == 1
    if shared:
        print("both sides ask for the same dependencies: one environment serves both")
    sides = []
    for name, commit in commits.items():
        python = _installed(checkouts[name], out / ("env" if shared else f"env-{name}"))
        sides.append(
            Side(
                name=name,
                checkout=checkouts[name],
                code=commit,
                python=python,
                versions=_versions(python, f"the environment of {name}"),
            )
        )
    return sides[0], sides[1]


def _digest(checkout: Path) -> str:
    """Of all that decides what a process measures; the same in a checkout without git."""
    digest = hashlib.sha256()
    code = [*(checkout / "perf_tests").rglob("*.py"), checkout / "conftest.py"]
    for path in (*sorted(code), checkout / "pyproject.toml"):
        digest.update(f"{path.relative_to(checkout)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _versions(python: Path, name: str) -> dict[str, str]:
    try:
        shown = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadSide(f"{name}: cannot be run ({error})") from None
    versions = shown.stdout.split()
    if shown.returncode or len(versions) != 1 + len(PACKAGES):
        reason = (shown.stderr.strip().splitlines() or ["it is no Python"])[-1]
        raise BadSide(f"{name}: cannot run this suite ({reason})")
    return dict(zip(("Python", *PACKAGES), versions, strict=True))


def _check_out(commit: str, folder: Path) -> None:
    # A worktree, so that a run's JSON names the right commit. Only one of our own is put right:
    # elsewhere git would act on the checkout around it.
    if (folder / ".git").is_file():
        done = _git("checkout", "--quiet", "--force", "--detach", commit, cwd=folder)
    else:
        # By force, since git may still know a worktree here that somebody has removed.
        done = _git("worktree", "add", "--force", "--detach", str(folder), commit)
    if done.returncode:
        raise BadSide(f"{folder}: {commit[:12]} cannot be checked out ({_last_line(done.stderr)})")


def _asked_for(checkout: Path) -> str:
    """What pip is told to install for a checkout."""
    path, lock = checkout / "pyproject.toml", checkout / LOCK
    try:
        project = tomllib.loads(path.read_text())["project"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise BadSide(f"{path}: says no dependencies ({type(error).__name__})") from None
    extra = project.get("optional-dependencies", {}).get(EXTRA)
    locked = lock.read_text() if lock.exists() else ""
    return repr([project.get("dependencies"), extra]) + locked


def _installed(checkout: Path, env: Path) -> Path:
    """The Python of an environment with what this checkout asks for."""
    python, complete = env / "bin" / "python", env / "complete"
    wanted = _asked_for(checkout)
    if complete.exists() and complete.read_text() == wanted:
        return python
    print(f"installing into {env}", flush=True)
    lock = checkout / LOCK
    asked = ["--constraint", str(lock)] if lock.exists() else []
    asked += ["--editable", f"{checkout}[{EXTRA}]"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(env)],
        [str(python), "-m", "pip", "install", "--quiet", *asked],
    ):
        done = _run(command)
        if done.returncode:
            raise BadSide(f"{checkout}: cannot be installed ({_last_line(done.stderr)})")
    complete.write_text(wanted)
    return python


def _git(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("git") is None:
        raise BadSide("--base and --head need git, which is not installed")
    return _run(["git", *arguments], cwd=cwd or ROOT)


def _run(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
