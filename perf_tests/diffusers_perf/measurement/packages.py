"""Says which package is missing where something cannot be imported."""

from __future__ import annotations

import sys


def not_installed(error: ModuleNotFoundError) -> str | None:
    """Which package it is, with the command that installs it. None where a part is missing of a
    package that is there, which installing it does not mend.
    """
    if not error.name or "." in error.name:
        return None
    return f"no package is called {error.name} here: {sys.executable} -m pip install -e ."
