"""The two sides of an A/B comparison: where each one's code lies, and which Python runs it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare import environments
from diffusers_perf.messages import ab as messages
from diffusers_perf.messages.common import first_line, last_line
from diffusers_perf.records.repository import repository

VERSION_1 = Path("perf_tests", "harness")
"""A folder that only version 1 of this suite has."""

__all__ = [
    "Side",
    "commits_of",
    "of_commits",
    "of_pythons",
    "refs_anywhere",
]


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
    """Of Python and of the packages that are measured."""
    packages: Mapping[str, str]
    """By package of the environment, its version and a digest of its files, which can change in
    place."""
    site: Path | None = None
    """A folder that stands first on the path, with the packages that the checkout builds."""

    @classmethod
    def probed(
        cls, name: str, where: str, *, checkout: Path, code: str, python: Path, site: Path | None
    ) -> Side:
        """With what is in the environment, which `where` names. `Refusal` if it cannot run this."""
        versions, packages = environments.probe(python, where, site)
        return cls(
            name=name,
            checkout=checkout,
            code=code,
            python=python,
            versions=versions,
            packages=packages,
            site=site,
        )

    @property
    def text(self) -> str:
        return f"{self.code[:12]}, " + ", ".join(f"{n} {v}" for n, v in self.versions.items())


def of_pythons(base: str, head: str) -> tuple[Side, Side]:
    """Two existing environments on the present checkout. `Refusal` for one that cannot run it."""
    root = repository()
    code = code_digest(root)
    sides = []
    for name, given in (("base", base), ("head", head)):
        found = shutil.which(given)
        if found is None:
            raise Refusal(messages.no_program(name, given))
        # Not resolved: a virtual environment's Python is a link, and knows its packages by that.
        python = Path(found).absolute()
        where = f"--{name}-python {given}"
        sides.append(Side.probed(name, where, checkout=root, code=code, python=python, site=None))
    return sides[0], sides[1]


def commits_of(
    base: str, head: str, *, names: tuple[str, str] = ("base", "head")
) -> dict[str, str]:
    """By name, the commits behind two refs of the repository. `Refusal` for an unknown ref, or
    outside of a repository.
    """
    found = git("rev-parse")
    if found.returncode:
        raise Refusal(messages.no_repository(first_line(found.stderr)))
    commits = {}
    for name, ref in zip(names, (base, head), strict=True):
        shown = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if shown.returncode:
            raise Refusal(messages.no_commit(name, ref))
        commits[name] = shown.stdout.strip()
    return commits


def refs_anywhere(refs: Sequence[str], commits: Mapping[str, str]) -> tuple[str, ...]:
    """The refs as another checkout may be given them: a commit for each that means something else
    there, as ``HEAD^1`` of CI's merge, or its ``HEAD``.
    """
    pairs = zip(refs, commits.values(), strict=True)
    return tuple(ref if _is_branch(ref) else commit[:12] for ref, commit in pairs)


def _is_branch(ref: str) -> bool:
    """The name of a branch, here or of origin, or ``HEAD`` where it is on one."""
    options = ("--verify", "--quiet", "--symbolic-full-name", "--end-of-options")
    shown = git("rev-parse", *options, ref)
    full = shown.stdout.strip()
    on_branch = ref == "HEAD" and full.startswith("refs/heads/")
    of_origin = ref.startswith("origin/") and full == f"refs/remotes/{ref}"
    return on_branch or of_origin or full == f"refs/heads/{ref}"


def of_commits(commits: Mapping[str, str], out: Path) -> tuple[Side, Side]:
    """Check both commits out below `out` and install what each requires.

    What is there already is kept. `Refusal` if git or uv refuses.
    """
    if git("status", "--porcelain", "--untracked-files=no").stdout.strip():
        print(messages.UNCOMMITTED)
    checkouts = {name: out / name for name in commits}
    for name, commit in commits.items():
        check_out(commit, checkouts[name])
    pythons = environments.installed(checkouts, out)
    sides = []
    for name, commit in commits.items():
        site = environments.site_of(checkouts[name], out / f"site-{name}")
        sides.append(
            Side.probed(
                name,
                messages.environment_of(name),
                checkout=checkouts[name],
                code=commit,
                python=pythons[name],
                site=site,
            )
        )
    return sides[0], sides[1]


def code_digest(root: Path) -> str:
    """Of the Python files and settings that decide what a process measures, without git."""
    digest = hashlib.sha256()
    code = [
        path
        for path in root.rglob("*.py")
        if not any(
            part.startswith(".") or part in ("runs", "site-packages")
            for part in path.relative_to(root).parts
        )
    ]
    for path in (*sorted(code), root / "pyproject.toml"):
        if path.is_file():
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def check_out(commit: str, folder: Path) -> None:
    # A worktree, so that a run's JSON names the right commit. Only one of our own is reset:
    # elsewhere git would act on the repository around it.
    if (folder / ".git").is_file():
        done = git("checkout", "--quiet", "--force", "--detach", commit, cwd=folder)
    else:
        # By force, since git may still know a worktree here that was removed by hand.
        done = git("worktree", "add", "--force", "--detach", str(folder), commit)
    if done.returncode:
        raise Refusal(messages.no_checkout(folder, commit, last_line(done.stderr)))
    if (folder / VERSION_1).is_dir():
        raise Refusal(messages.version_1(commit))


def git(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("git") is None:
        raise Refusal(messages.NO_GIT)
    # Measured code comes from elsewhere: its hooks must not run at checkout.
    command: Sequence[str] = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    return subprocess.run(command, cwd=cwd or repository(), capture_output=True, text=True)
