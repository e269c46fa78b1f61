"""Says what keeps the packages that measure from being imported."""

from __future__ import annotations

import sys
from pathlib import Path

from diffusers_perf.messages import measurement as messages

CHECKOUT = Path(__file__).parents[3]
ADDRESS_SPACE_LEAST_BYTES = 5 * 2**28
"""What torch and diffusers take up on a CPU before anything is measured, with some room."""


def not_installed(error: ModuleNotFoundError) -> str | None:
    """Which package it is, with the command that installs it. None where a part is missing of a
    package that is there, which installing it does not repair.
    """
    if not error.name or "." in error.name:
        return None
    what = "-e ." if (CHECKOUT / "pyproject.toml").is_file() else "diffusers-perf"
    return messages.not_installed(error.name, sys.executable, what)


def too_little_address_space() -> str | None:
    """That a limit keeps torch from being imported, or None. It would crash, or wait forever for
    threads that cannot be started.
    """
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit >= ADDRESS_SPACE_LEAST_BYTES:
        return None
    return messages.too_little_address_space(limit / 2**30, ADDRESS_SPACE_LEAST_BYTES / 2**30)
