"""Which version of the suite's own measuring code this is: a digest that travels with a run.

Times taken by two versions of the stopwatch are not compared. A digest rather than a number bumped
by hand, since it cannot be forgotten; of the syntax rather than of the text, so that comments,
docstrings and formatting change nothing, nor does the version of Python.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
NOT_MEASURING = ("measuring", "packages", "raising")
"""Files of `measurement/` that measure nothing. All others do, so no new one is forgotten; with
them the test, how images are compared, and `models/`, which draws the weights."""


@cache
def digest() -> str:
    """Twelve hexadecimal digits, the same for code that measures alike."""
    files = [p for p in PACKAGE.glob("measurement/*.py") if p.stem not in NOT_MEASURING]
    files += [PACKAGE / "plugin" / "generation.py", PACKAGE / "records" / "pixels.py"]
    return digest_of([*files, *PACKAGE.glob("models/*.py")])


def digest_of(files: Iterable[Path]) -> str:
    """Of these files' names and syntax, in whatever order they are given."""
    sha = hashlib.sha256()
    for path in sorted(files):
        sha.update(f"{path.parent.name}/{path.name}\n".encode())
        for part in _syntax(ast.parse(path.read_text(encoding="utf-8"))):
            sha.update(part.encode())
    return sha.hexdigest()[:12]


def _syntax(node: object) -> Iterator[str]:
    """The tree as text. `ast.dump` differs between versions of Python, in fields that are empty."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if value not in (None, []):
                yield f" {name}="
                yield from _syntax(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            if not _is_docstring(item):
                yield from _syntax(item)
    else:
        yield repr(node)


def _is_docstring(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
