"""Imports what declares the cases and the faults; a mistake in it is one sentence."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parents[3]


class BadDeclaration(Exception):
    """A declaration that cannot be used; one sentence says where and why."""


def declare(*modules: str) -> None:
    """Import these modules of this package (`optimizations`, `faults`). `BadDeclaration` if one of
    them cannot be: whoever adds a declaration makes mistakes in it.
    """
    if sys.flags.optimize > 1:
        raise BadDeclaration("python -OO takes away the docstrings that declarations are told by")
    for name in modules:
        try:
            import_module(name)
        except SyntaxError as error:
            raise BadDeclaration(f"{_place(error.filename, error.lineno)}: {error.msg}") from None
        except Exception as error:
            # A declaration can break in any way as it is read, and is named by its line.
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if HERE in Path(f.filename).parents and f.name == "<module>"]
            place = _place(ours[-1].filename, ours[-1].lineno) if ours else name
            raise BadDeclaration(f"{place}: {type(error).__name__}: {error}") from None


def _place(file: str | None, line: int | None) -> str:
    path = Path(file or "")
    shown = path.relative_to(HERE) if HERE in path.parents else path
    return f"{shown}, line {line}"
