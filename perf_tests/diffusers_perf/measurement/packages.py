"""Says which package is missing where something cannot be imported."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]


def not_installed(error: ModuleNotFoundError) -> str | None:
    """Which package it is, with the command that installs it. None where a part is missing of a
    package that is there, which installing it does not repair.
    """
    if not error.name or "." in error.name:
        return None
    what = "-e ." if (CHECKOUT / "pyproject.toml").is_file() else "diffusers-perf"
    return f"{error.name} is not installed: {sys.executable} -m pip install {what}"
