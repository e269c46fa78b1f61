"""Which modules this process compiled from source, since it found no bytecode of them.

Python does so after an installation, and in each process where it may not keep bytecode
(``PYTHONDONTWRITEBYTECODE``) or cannot. Importing then takes two or three times as long.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import ModuleType

COMPILED_FEW = 100
"""So many modules take half a second to compile: 3,500 of torch, diffusers and others took 20 s."""
HEADER_BYTES = 16
"""Of a file with bytecode (PEP 552): four numbers of four bytes."""
BY_HASH = 1
"""A flag in its header: of the source it has a hash, in place of time and size."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What was compiled from source."""

    modules: int = 0
    lost: int = 0
    """Of them, those whose bytecode was not kept: the next process compiles them again."""

    @property
    def is_much(self) -> bool:
        """A time is longer by more than what the limits of times before the first image allow."""
        return self.modules > COMPILED_FEW

    @property
    def is_lost(self) -> bool:
        """It will be as much for the next process."""
        return self.lost > COMPILED_FEW


def compiled(names: Iterable[str], *, since_s: float) -> Compiled:
    """What was compiled of these modules by a process that started at this time.

    It is read from the files, as they are after the imports: bytecode that is missing, stale or
    younger than the process was of no use to it. pytest's own rewriting of tests does not count.
    """
    modules = lost = 0
    for name in names:
        module = sys.modules.get(name)
        # Whatever stands in sys.modules, and not all of it is a module.
        spec = vars(module).get("__spec__") if isinstance(module, ModuleType) else None
        # Another loader, such as pytest's, keeps what it makes elsewhere.
        if spec is None or type(spec.loader) is not SourceFileLoader or not spec.cached:
            continue
        written_s = _written_s(Path(spec.origin), Path(spec.cached))
        if written_s is None or written_s >= since_s:
            modules += 1
            lost += written_s is None
    return Compiled(modules=modules, lost=lost)


def _written_s(source: Path, cached: Path) -> float | None:
    """When the bytecode of this source was written; None where it is missing or stale."""
    try:
        with cached.open("rb") as file:
            header = file.read(HEADER_BYTES)
            written_s = cached.stat().st_mtime
        of = source.stat()
    except OSError:
        return None
    numbers = [int.from_bytes(header[at : at + 4], "little") for at in range(4, HEADER_BYTES, 4)]
    flags, modified_s, size = numbers
    is_of_it = flags & BY_HASH or (modified_s, size) == (
        int(of.st_mtime) & 0xFFFFFFFF,
        of.st_size & 0xFFFFFFFF,
    )
    return written_s if header[:4] == MAGIC_NUMBER and is_of_it else None
