"""Imports within the library point one way. Those for type checking alone count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import diffusers_perf

LAYERS = (
    ("ending", "messages"),
    ("catalog",),
    ("records",),
    ("judge", "measurement"),
    ("techniques", "models", "search", "history"),
    ("optimizations", "plugin"),
    ("compare", "faults"),
    ("fleet",),
    ("report",),
    ("cli",),
)
"""What a package imports stands above it here; those of one line do not import each other."""
ROOT = Path(str(diffusers_perf.__file__)).parent
LIBRARY = ROOT.name


def _name(path: Path) -> str:
    parts = [LIBRARY, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _imported(path: Path) -> Iterator[str]:
    """The library's modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in MODULES:
                    yield whole
                elif node.module in MODULES:
                    yield str(node.module)


IMPORTS = {name: set(_imported(path)) for name, path in MODULES.items()}


def _package(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("package", [name for layer in LAYERS for name in layer])
def test_package_imports_only_what_lies_below(package: str) -> None:
    place = next(number for number, layer in enumerate(LAYERS) if package in layer)
    below = {name for layer in LAYERS[:place] for name in layer}
    wrong = [
        f"{module} imports {other}"
        for module, imported in IMPORTS.items()
        if module != LIBRARY and _package(module) == package
        for other in sorted(imported)
        # The library's own name is the public interface, for users alone.
        if other == LIBRARY or _package(other) not in {package, *below}
    ]
    assert not wrong


def test_every_package_has_a_layer() -> None:
    found = {_package(name) for name in MODULES if name != LIBRARY}
    assert found == {name for layer in LAYERS for name in layer}


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    # The public interface imports on demand what imports nothing of it.
    graph = {name: imported for name, imported in IMPORTS.items() if name != LIBRARY}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))
