"""The repository around the working directory, and paths as its folders see them.

A file that is read in other folders too names paths from the root. A command names them from the
working directory, where it is pasted.
"""

from __future__ import annotations

import os
from pathlib import Path


def repository() -> Path:
    """The root of the git repository around the working directory, or the directory itself."""
    folder = Path.cwd()
    return next((path for path in (folder, *folder.parents) if (path / ".git").exists()), folder)


def seen_from(path: str, here: Path, *, of: Path) -> str:
    """A path `of` one folder, as it is called in another one."""
    return path if here == of or Path(path).is_absolute() else os.path.relpath(of / path, here)


def as_path(path: str) -> str:
    """With a slash, so that nothing takes it for a name."""
    return path if "/" in path else f"./{path}"
