"""What `ab` and `bisect` check out below a repository has the same tests: none is collected."""

from __future__ import annotations

import os
from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Pass over a worktree in a folder that one of these commands holds. Of what pytest is started
    in, as they start it there, it does not ask.
    """
    if not collection_path.is_dir():
        return None
    needed = (collection_path / ".git", collection_path.parent / "lock")
    # Path.is_file raises for a folder that may not be read.
    return True if all(map(os.path.isfile, needed)) else None
