"""What a bisection chooses from: the commits between two refs, or the versions of packages."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare import environments
from diffusers_perf.compare.sides import Side, check_out, code_digest, commits_of, git
from diffusers_perf.messages import ab
from diffusers_perf.messages import bisect as messages
from diffusers_perf.records.repository import repository


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One commit, or one set of versions."""

    name: str
    """Of its files and folders."""
    label: str
    """As a person reads it."""
    prepare: Callable[[], Side]
    """Checks out and installs what it needs. `Refusal` if that fails."""


@dataclass(frozen=True, kw_only=True)
class PackageRange:
    """A package with its good and its bad version."""

    name: str
    good: str
    bad: str


def of_commits(good: str, bad: str, out: Path) -> list[Candidate]:
    """Commits from good to bad, first parents, without those that change documents alone.

    `Refusal` for an unknown ref, and where bad does not follow good.
    """
    ends = commits_of(good, bad, names=("good", "bad"))
    first, last = ends["good"], ends["bad"]
    if git("merge-base", "--is-ancestor", first, last).returncode:
        descends = not git("merge-base", "--is-ancestor", last, first).returncode
        shared = git("merge-base", first, last).stdout.strip()[:12]
        raise Refusal(messages.not_an_ancestor(good, bad, descends=descends, shared=shared))
    code = ["--", ".", ":(exclude)*.md"]
    listed = git("rev-list", "--first-parent", "--reverse", f"{first}..{last}", *code)
    between = [commit for commit in listed.stdout.split() if commit != last]
    return [_commit(commit, out) for commit in dict.fromkeys((first, *between, last))]


def _commit(commit: str, out: Path) -> Candidate:
    name = commit[:12]

    def prepare() -> Side:
        checkout = out / name
        check_out(commit, checkout)
        text = environments.requirements_of(checkout)
        if text is None:
            environments.refuse_editable(checkout)
            python = Path(sys.executable).absolute()
        else:
            digest = hashlib.sha256(text.encode()).hexdigest()[:8]
            python = environments.environment(checkout, out / f"env-{digest}")
        site = environments.site_of(checkout, out / f"site-{name}")
        where = ab.environment_of(name)
        return Side.probed(name, where, checkout=checkout, code=commit, python=python, site=site)

    subject = git("log", "-1", "--format=%s (%an, %as)", commit).stdout.strip()
    return Candidate(name=name, label=f"{name} {subject}", prepare=prepare)


def of_versions(packages: Sequence[PackageRange], out: Path) -> list[Candidate]:
    """Versions from good to bad, of one package after the other: each keeps its good version until
    all before it have their bad one. Pre-releases only where an end is one.

    `Refusal` for a version that the index does not offer.
    """
    ranges = {package.name: _between(package) for package in packages}
    chosen = {name: versions[0] for name, versions in ranges.items()}
    sets = [dict(chosen)]
    for name, versions in ranges.items():
        for version in versions[1:]:
            chosen[name] = version
            sets.append(dict(chosen))
    root = repository()
    code = code_digest(root)
    return [_versions(one, root, code, out) for one in sets]


def _between(package: PackageRange) -> list[str]:
    try:
        good, bad = (Version(text.partition("+")[0]) for text in (package.good, package.bad))
    except InvalidVersion as error:
        raise Refusal(messages.bad_version(package.name, error)) from None
    wants_pre = good.is_prerelease or bad.is_prerelease
    offered = environments.versions_of(package.name, with_pre_releases=wants_pre)
    low, high = sorted((good, bad))
    found = [text for text in offered if low <= Version(text.partition("+")[0]) <= high]
    public = [Version(text.partition("+")[0]) for text in found]
    for version in (good, bad):
        if version not in public:
            raise Refusal(messages.not_offered(package.name, version, offered[-5:]))
    return found if good <= bad else found[::-1]


def _versions(versions: dict[str, str], root: Path, code: str, out: Path) -> Candidate:
    name = "-".join(f"{package}-{version}" for package, version in versions.items())

    def prepare() -> Side:
        requirements = [f"{package}=={version}" for package, version in versions.items()]
        python = environments.overlay(out / f"env-{name}", requirements)
        where = ab.environment_of(name)
        return Side.probed(name, where, checkout=root, code=code, python=python, site=None)

    label = ", ".join(f"{package} {version}" for package, version in versions.items())
    return Candidate(name=name, label=label, prepare=prepare)
