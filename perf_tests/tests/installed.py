"""The built wheel, in an environment and a user's repository of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ("pyproject.toml", "LICENSE", "README.md", "perf_tests")


def calm(path: Path) -> None:
    """Edit a run as if the machine had been quiet: tests share theirs with other work."""
    content = json.loads(path.read_text())
    for benchmark in content["benchmarks"]:
        record = benchmark["extra_info"]["diffusers_perf"]
        for part in (record["measurement"], record.get("reference") or {}):
            part.get("interference", {}).update(gpu=[], host=[])
    content["diffusers_perf"]["reference_drift"] = {}
    path.write_text(json.dumps(content))


def built_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout in a folder."""
    source = folder / "source"
    # From a copy: setuptools leaves its build folder in the source tree.
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", *SHIPPED]
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    _pip("wheel", "--no-deps", "-w", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


def environment(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel; torch and the rest are those of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    # All that this environment sees, without what is installed in it as editable.
    paths = {sysconfig.get_path("purelib"), *(p for p in sys.path if "site-packages" in p)}
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (site / "site-packages" / "others.pth").write_text("\n".join(sorted(paths)))
    into = ("--python", str(folder / "bin" / "python"))
    _pip(*into, "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    return folder


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, capture_output=True)


class Repository:
    """A user's repository, with an environment into which the wheel is installed."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.environment = folder, environment
        (folder / "perf_tests").mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        (self.folder / "perf_tests" / name).write_text(text)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment at the root of the repository."""
        return subprocess.run(
            [self.environment / "bin" / command[0], *command[1:]],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": "", "COLUMNS": "120"},
        )

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # One round says nothing of a latency, and other tests run beside.
        main_job = ("--benchmark-only", "--device=cpu", "--rounds=1", "-p", "no:cacheprovider")
        return self.run("python", "-m", "pytest", "perf_tests", *main_job, *arguments)
