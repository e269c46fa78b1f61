"""One import name for each module, and nothing else made importable."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd)


def test_library_has_one_import_name() -> None:
    done = python("import perf_tests.diffusers_perf", ROOT)
    assert done.returncode == 1
    assert "ImportError: import diffusers_perf, not perf_tests.diffusers_perf" in done.stderr


@pytest.mark.parametrize("name", ["perf_tests", "cases", "tests", "training", "catalog", "ci"])
def test_installation_makes_no_other_folder_importable(name: str, tmp_path: Path) -> None:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
    assert python(code, tmp_path).returncode == 0


def test_importing_the_library_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from diffusers_perf import *\n"
        "from diffusers_perf import Workload, measure, optimization, stack, tolerances\n"
        "from diffusers_perf import test_generation, Slot, Needs\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_unknown_name_of_the_library_is_named(tmp_path: Path) -> None:
    done = python("from diffusers_perf import Worklod", tmp_path)
    assert "ImportError: cannot import name 'Worklod' from 'diffusers_perf'" in done.stderr


def test_test_modules_import_no_test_module() -> None:
    """They share `factories`, `recorded` and other modules of their folder."""
    modules = sorted((ROOT / "perf_tests").rglob("test_*.py"))
    imported = [
        (module.name, name)
        for module in modules
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom)
        for name in (*(node.module or "").split("."), *(alias.name for alias in node.names))
        # A repository's own test file imports the library's test, which is a function.
        if name.startswith("test_") and name != "test_generation"
    ]
    assert modules
    assert imported == []
