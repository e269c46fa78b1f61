"""Environments for the sides of an A/B comparison, installed by uv from hashed requirements.

A checkout names what it is measured with in two files:

`ci/torch.txt`         one line, ``torch==2.13.0``, which is installed first, from whatever index uv
                       is set up for (a CUDA or a CPU build)
`ci/requirements.txt`  everything else with exact versions and hashes; no index addresses

`bash ci/requirements.sh` compiles the second file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.messages import ab as messages
from diffusers_perf.messages.common import last_line
from diffusers_perf.records.files import read_text

TORCH = Path("ci", "torch.txt")
REQUIREMENTS = Path("ci", "requirements.txt")
PACKAGES = ("torch", "diffusers", "transformers")

PROBE = f"""
import hashlib, json, os, platform, sys
from importlib.metadata import distributions, version
from pathlib import Path
from urllib.parse import unquote, urlparse
version("pytest-benchmark"), version("diffusers-perf")
print(platform.python_version(), *map(version, {PACKAGES}))
files, versions = {{}}, {{}}
def add(name, folder, paths):
    seen = files.setdefault(name, hashlib.sha256())
    for path in sorted(paths):
        if path.is_file() and "__pycache__" not in path.parts:
            stat = path.stat()
            line = f"{{path.relative_to(folder)}} {{stat.st_size}} {{stat.st_mtime_ns}}\\n"
            seen.update(line.encode(errors="surrogateescape"))
theirs = os.environ.get("PYTHONPATH", "").split(os.pathsep)
for folder in (Path(place) for place in sys.path if place and place not in theirs):
    if folder.name not in ("site-packages", "dist-packages") or not folder.is_dir():
        continue
    for top in sorted(folder.iterdir()):
        name, dash, rest = top.name.removesuffix(".dist-info").partition("-")
        if dash and top.name.endswith(".dist-info"):
            versions[name] = rest
        if top.name != "__pycache__":
            add(name.removesuffix(".py"), folder, top.rglob("*") if top.is_dir() else [top])
for found in distributions():
    origin = json.loads(found.read_text("direct_url.json") or "{{}}")
    if origin.get("dir_info", {{}}).get("editable") and found.name != "diffusers-perf":
        folder = Path(unquote(urlparse(origin["url"]).path))
        code = (path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
        add(found.name.replace("-", "_"), folder, code)
digests = {{name: seen.hexdigest()[:12] for name, seen in files.items()}}
print(json.dumps({{name: f"{{versions.get(name, '')}} {{digests[name]}}" for name in digests}}))
"""
"""Prints an environment's versions and a digest of each package's files, by their names, sizes and
times, without importing them. What the checkout builds stands on PYTHONPATH and is left out."""


def probe(
    python: Path, name: str, site: Path | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """The versions in an environment, and by package its version and a digest of its files.

    `site` is the folder with the packages that the checkout builds, this suite among them.
    `Refusal` if the environment cannot run us.
    """
    path = {"PYTHONPATH": str(site)} if site else {}
    try:
        shown = subprocess.run(
            [python, "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refusal(messages.cannot_run(name, error)) from None
    lines = shown.stdout.splitlines()
    try:
        if shown.returncode or len(lines) != 2:
            raise ValueError
        files = msgspec.json.decode(lines[1], type=dict[str, str])
    except ValueError:
        reason = last_line(shown.stderr or messages.NOT_PYTHON)
        raise Refusal(messages.cannot_run_suite(name, reason)) from None
    versions = dict(zip(("Python", *PACKAGES), lines[0].split(), strict=True))
    return versions, {"Python": f"{versions['Python']} ", **files}


def requirements_of(checkout: Path) -> str | None:
    """The text of a checkout's requirement files; None if it has none.

    `Refusal` if it has one of the two files only.
    """
    files = [checkout / TORCH, checkout / REQUIREMENTS]
    there = [path for path in files if path.is_file()]
    if not there:
        return None
    if len(there) == 1:
        lacking = next(path for path in files if path not in there)
        raise Refusal(
            messages.half_of_requirements(checkout, there[0].name, lacking.relative_to(checkout))
        )
    try:
        return "".join(map(read_text, files))
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(messages.unreadable_requirements(checkout, error)) from None


def installed(checkouts: Mapping[str, Path], out: Path) -> dict[str, Path]:
    """The Python of each side's environment, below `out`; one serves both if they ask for the same.

    A checkout without requirement files runs in the current environment. An environment that is
    complete is kept. `Refusal` if uv refuses.
    """
    wanted = {name: requirements_of(checkout) for name, checkout in checkouts.items()}
    if set(wanted.values()) == {None}:
        refuse_editable(next(iter(checkouts.values())))
        print(messages.no_requirements(REQUIREMENTS))
        return dict.fromkeys(checkouts, Path(sys.executable).absolute())
    if None in wanted.values():
        name = next(name for name, text in wanted.items() if text is None)
        raise Refusal(messages.requirements_of_one_side(name, REQUIREMENTS))
    if len(set(wanted.values())) == 1:
        print(messages.ONE_ENVIRONMENT)
        checkout = next(iter(checkouts.values()))
        return dict.fromkeys(checkouts, environment(checkout, out / "env"))
    return {name: environment(path, out / f"env-{name}") for name, path in checkouts.items()}


def environment(checkout: Path, env: Path) -> Path:
    """The Python of an environment with this checkout's requirements. `Refusal` if it fails."""
    python, complete = env / "bin" / "python", env / "complete"
    wanted = hashlib.sha256((requirements_of(checkout) or "").encode()).hexdigest()
    if complete.is_file() and complete.read_text() == wanted:
        return python
    print(messages.installing(env), flush=True)
    _run(checkout, [*_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, str(env)])
    _install(checkout, python, (checkout / TORCH).read_text().split())
    hashed = ["--require-hashes", "--no-deps", "-r", str(checkout / REQUIREMENTS)]
    _install(checkout, python, hashed)
    complete.write_text(wanted)
    return python


def overlay(env: Path, requirements: Sequence[str]) -> Path:
    """The Python of an environment that sees the current one, with these packages above it.

    What else they require is added only where the current environment does not satisfy it. An
    environment that is complete is kept. `Refusal` if uv refuses.
    """
    python, complete = env / "bin" / "python", env / "complete"
    wanted = " ".join(requirements)
    if complete.is_file() and complete.read_text() == wanted:
        return python
    print(messages.installing(wanted), flush=True)
    _run(env, [*_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, str(env)])
    (site,) = env.glob("lib/python*/site-packages")
    # Not the paths alone: links of editable packages and further paths are files in there.
    folders = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    calls = "; ".join(f"site.addsitedir({folder!r})" for folder in folders)
    (site / "current.pth").write_text(f"import site; {calls}\n")
    needed = list(requirements)
    while True:
        # uv sees the packages of the overlay alone, and would install all of torch's again.
        _install(env, python, ["--no-deps", *needed])
        unmet = list(_unmet(site))
        if not unmet:
            break
        needed += unmet
    complete.write_text(wanted)
    return python


def _unmet(site: Path) -> Iterator[str]:
    """Requirements of the packages in `site` that neither it nor the current environment meets."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions(path=[str(site), *sys.path]):
        found.setdefault(canonicalize_name(distribution.name), distribution)
    asked = [(distribution, "") for distribution in metadata.distributions(path=[str(site)])]
    for distribution, extra in asked:
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            there = found.get(canonicalize_name(requirement.name))
            if there and requirement.specifier.contains(there.version, prereleases=True):
                extras = [(there, name) for name in requirement.extras]
                asked += [one for one in extras if one not in asked]
            else:
                requirement.marker = None
                yield str(requirement)


def versions_of(package: str, *, with_pre_releases: bool) -> list[str]:
    """All versions of a package that the index offers, oldest first. `Refusal` for none."""
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    command += ["--pre"] if with_pre_releases else []
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Available versions: (.+)", done.stdout)
    if done.returncode or not found:
        raise Refusal(messages.no_versions(package, last_line(done.stderr)))
    return sorted((text.strip() for text in found[1].split(",")), key=Version)


def site_of(checkout: Path, site: Path) -> Path | None:
    """A folder with the packages that a checkout builds, without their dependencies.

    It stands first on the path of the side's processes, so that two sides with one environment
    still measure their own code. None if the checkout is not a project that can be built.
    """
    project = checkout / "pyproject.toml"
    if not project.is_file() or "[project]" not in project.read_text():
        return None
    shutil.rmtree(site, ignore_errors=True)
    target = ["--no-deps", "--target", str(site), str(checkout)]
    _install(checkout, Path(sys.executable), target)
    return site


def refuse_editable(checkout: Path) -> None:
    """Two commits in one environment measure the same code if it is installed as editable."""
    for distribution in metadata.distributions():
        origin = distribution.read_text("direct_url.json") or ""
        if '"editable": true' in origin and distribution.name != "diffusers-perf":
            raise Refusal(messages.editable(distribution.name, [TORCH, REQUIREMENTS]))


def _uv() -> list[str]:
    if shutil.which("uv"):
        return ["uv"]
    try:
        from uv import find_uv_bin
    except ModuleNotFoundError:
        raise Refusal(messages.NO_UV) from None
    return [find_uv_bin()]


def _install(checkout: Path, python: Path, what: Sequence[str]) -> None:
    _run(checkout, [*_uv(), "pip", "install", "--quiet", "--python", str(python), *what])


def _run(checkout: Path, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Refusal(messages.cannot_install(checkout, last_line(done.stderr)))
