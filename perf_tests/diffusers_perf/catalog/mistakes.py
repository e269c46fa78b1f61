"""Where a module breaks while it is imported: the file, the line and the error in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from diffusers_perf.catalog.declarations import Needs
from diffusers_perf.catalog.recording import measure, optimization, stack
from diffusers_perf.catalog.workload import Workload

CATALOG = __name__.rpartition(".")[0]
LIBRARY = __name__.partition(".")[0]
SIGNATURES = tuple(
    f"{function.__qualname__}() "
    for function in (Workload.__init__, Needs.__init__, optimization, stack, measure)
)
"""How Python begins what it says of an argument that one of them does not have, or lacks."""


def is_mistake(error: BaseException) -> bool:
    """Whether a declaration is wrong, and not what the module does beside it."""
    if type(error) is TypeError:
        return str(error).startswith(SIGNATURES)
    frames = [frame for frame, _ in _frames(error)]
    return type(error) is ValueError and bool(frames) and is_below(_module(frames[-1]), CATALOG)


def sentence(error: BaseException, is_own: Callable[[FrameType], bool]) -> str:
    """The error and where the module was; empty where that cannot be said.

    A wrong declaration is put down to the user's module that makes it, all else to the one that
    `is_own` of the frames is true of.
    """
    # A text that the module parses itself has no file.
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_file():
        return f"{place(error.filename, error.lineno)}: {error.msg}"
    mistaken = is_mistake(error)
    places = [
        place(frame.f_code.co_filename, line)
        for frame, line in _frames(error)
        if frame.f_code.co_name == "<module>"
        and (not is_below(_module(frame), LIBRARY) if mistaken else is_own(frame))
    ]
    said = str(error) if mistaken else f"{type(error).__name__}: {error}"
    return f"{places[-1]}: {said}" if places else ""


def in_module(name: str, error: BaseException) -> str:
    """The error that importing a module raised, and where its package was; empty where no line of
    it was reached.
    """
    package = name.partition(".")[0]
    return sentence(error, lambda frame: is_below(_module(frame), package))


def place(file: str | None, line: int | None) -> str:
    """A line of a file, as messages show it."""
    path = Path(file or "")
    here = Path.cwd()
    shown = path.relative_to(here) if here in path.parents else path
    return f"{shown}, line {line}"


def is_below(name: str, *packages: str) -> bool:
    """Whether a module is one of these, or a submodule of one."""
    return f"{name}.".startswith(tuple(f"{package}." for package in packages))


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Each with its line, the outermost first."""
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
