"""Changes several files of a folder together: all of them or none, one process at a time.

New content is written into drafts first. Then a journal names them, which is the moment of the
change, and each draft takes its place. A process that is killed before that moment changed
nothing; what one left unfinished after it is finished by the next transaction.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import msgspec

from diffusers_perf.messages.records import FOREIGN
from diffusers_perf.records.files import Unwritable, drafted, read_bytes, write_bytes_whole
from diffusers_perf.records.quantities import StrictRecord

JOURNAL = ".transaction.json"
KIND = "changes"
"""Of drafts, by which they are known from those that another writer of one file has under way."""
DRAFTS = f"**/.*.{KIND}.draft"


class Journal(StrictRecord, frozen=True, kw_only=True):
    """What is to be done, by paths in the folder with ``/``."""

    moves: Mapping[str, str]
    """The draft of each file."""
    removed: tuple[str, ...]


class Transaction:
    """What is to be written and removed; nothing of it is there before the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts: dict[Path, Path] = {}
        self._removed: list[Path] = []

    def write(self, path: Path, data: bytes) -> None:
        """Have this file hold these bytes. `Unwritable` for this file, as on a full disk."""
        before = self._drafts.pop(path, None)
        if before is not None:
            before.unlink()
        self._drafts[path] = drafted(path, data, kind=KIND)

    def remove(self, path: Path) -> None:
        """Have this file be gone."""
        self._removed.append(path)

    def _announce(self) -> None:
        """Write the journal: from there on the change is made, whoever ends it."""
        journal = Journal(
            moves={self._name(path): self._name(draft) for path, draft in self._drafts.items()},
            removed=tuple(map(self._name, self._removed)),
        )
        write_bytes_whole(self._folder / JOURNAL, msgspec.json.encode(journal), kind=KIND)

    def _discard(self) -> None:
        for draft in self._drafts.values():
            with suppress(OSError):
                draft.unlink()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


@contextmanager
def transaction(folder: Path) -> Iterator[Transaction]:
    """Change the folder in here, alone; another process waits. An exception changes nothing.

    `Unwritable` for a folder that cannot be.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unwritable(error.errno, error.strerror, str(folder)) from None
    with _alone(folder):
        _finish(folder)
        for draft in folder.glob(DRAFTS):
            draft.unlink()
        changes = Transaction(folder)
        try:
            yield changes
            changes._announce()
        except BaseException:
            if not (folder / JOURNAL).exists():
                changes._discard()
                if is_new:
                    with suppress(OSError):
                        folder.rmdir()
            raise
        _finish(folder)


def _finish(folder: Path) -> None:
    """Do what the journal says, as far as it is not done. `OSError` of the file that refuses."""
    path = folder / JOURNAL
    if not path.exists():
        return
    try:
        journal = msgspec.json.decode(read_bytes(path), type=Journal)
        moves = {_inside(folder, name): _inside(folder, of) for name, of in journal.moves.items()}
        removed = [_inside(folder, name) for name in journal.removed]
    except (ValueError, RecursionError):
        raise OSError(None, FOREIGN, str(path)) from None
    for target, draft in moves.items():
        # Whoever was killed had moved some of them.
        if draft.exists():
            draft.replace(target)
    for target in removed:
        target.unlink(missing_ok=True)
    path.unlink()


def _inside(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute():
        raise ValueError(name)
    return folder.joinpath(*parts)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    # Windows has no such lock, and two processes at once can lose the changes of one there.
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
