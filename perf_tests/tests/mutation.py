"""Does a test fail where the judge is wrong? Each mutant is one change of one of its expressions.

    pip install -e '.[mutation]'
    python -m perf_tests.tests.mutation                   # all: about 20 minutes on two cores
    python -m perf_tests.tests.mutation --every 5 stats weighing

Prints what survived and the share that was killed. Exit code 1 if that is below `KILLED_LEAST`.
Mutants that differ in an annotation, a docstring or a dataclass's options are left out.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

HERE = Path(__file__).parent
JUDGE = HERE.parent / "diffusers_perf" / "judge"
TESTS = (
    "test_boundaries",
    "test_limits",
    "test_messages",
    "test_verdicts",
    "test_stats",
    "test_comparison",
    "test_status",
    "test_metrics",
    "test_recorded_pairs",
    "test_clock",
    "test_pooling",
    "test_hosts",
    "test_pairs",
)
LIBRARIES = ("numpy", "scipy.stats", "skimage.metrics", "msgspec", "PIL.Image", "inline_snapshot")
"""Imported once, for all mutants."""
KILLED_LEAST = 0.9
TIMEOUT_S = 60
"""A mutant that runs for so long, several times what the tests take, is killed."""
OPERATORS = (
    *(f"ReplaceBinaryOperator_{name}" for name in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul")),
    *(f"ReplaceBinaryOperator_{name}" for name in ("Pow_Mul", "Mod_Mul", "FloorDiv_Div")),
    *(f"ReplaceComparisonOperator_{name}" for name in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    *(f"ReplaceComparisonOperator_{name}" for name in ("Lt_Gt", "LtE_GtE", "Gt_Lt", "GtE_LtE")),
    *(f"ReplaceComparisonOperator_{name}" for name in ("Eq_NotEq", "NotEq_Eq")),
    *(f"ReplaceComparisonOperator_{name}" for name in ("Is_IsNot", "IsNot_Is")),
    *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "AddNot"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
    "NumberReplacer",
)
"""Of cosmic-ray. Its others give mutants that fail at once (``<<`` of floats)."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A module with one change."""

    module: str
    line: int
    source: str
    text: str
    """The changed line."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="of the judge (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth mutant only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    paths = [p for p in sorted(JUDGE.rglob("*.py")) if not args.modules or p.stem in args.modules]
    mutants = [mutant for path in paths for mutant in _mutants(path)][:: args.every]
    survived: list[Mutant] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for mutant, killed in zip(mutants, pool.map(_is_killed, mutants), strict=True):
            if not killed:
                survived.append(mutant)
                print(f"survived: {mutant.module}:{mutant.line}: {mutant.text}", flush=True)
    share = 1 - len(survived) / max(1, len(mutants))
    print(f"{len(mutants)} mutants, {len(survived)} survived, {100 * share:.1f} % killed")
    return int(share < KILLED_LEAST)


def _mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a module that differs in what runs."""
    plugins = importlib.import_module("cosmic_ray.plugins")
    mutate = importlib.import_module("cosmic_ray.mutating").mutate_code
    source = path.read_text(encoding="utf-8")
    seen = {_code(source)}
    for name in OPERATORS:
        operator = plugins.get_operator(f"core/{name}")()
        number = 0
        while (changed := mutate(source.encode(), operator, number)) is not None:
            number += 1
            try:
                code = _code(changed)
            except SyntaxError:
                continue
            if code in seen:
                continue
            seen.add(code)
            before, after = source.splitlines(), changed.splitlines()
            pairs = enumerate(zip(before, after, strict=False), 1)
            line, text = next((n, new) for n, (old, new) in pairs if old != new)
            # A dataclass's options; the mark of keyword-only arguments made one of positional ones.
            if text.startswith("@dataclass") or re.search(r"(^|[(, ])/,", text.strip()):
                continue
            module = "diffusers_perf.judge." + ".".join(
                path.relative_to(JUDGE).with_suffix("").parts
            )
            yield Mutant(module=module, line=line, source=changed, text=text.strip())


def _code(source: str) -> str:
    """A module without its annotations and docstrings."""

    class Bare(ast.NodeTransformer):
        def visit_arg(self, node: ast.arg) -> ast.arg:
            node.annotation = None
            return node

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            node.returns = None
            return self.generic_visit(node)

        def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
            node.annotation = ast.Constant(None)
            return self.generic_visit(node)

        def visit_Expr(self, node: ast.Expr) -> ast.AST:
            if isinstance(node.value, ast.Constant):
                return ast.Pass()
            return self.generic_visit(node)

    return ast.dump(Bare().visit(ast.parse(source)))


def _is_killed(mutant: Mutant) -> bool:
    """Whether a test fails with this module in place of its own."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.py"
        path.write_text(mutant.source, encoding="utf-8")
        # A copy of this process, which has the libraries and none of our modules.
        tests = get_context("fork").Process(target=_run_tests, args=(mutant.module, path))
        tests.start()
        tests.join(TIMEOUT_S)
        if tests.is_alive():
            tests.kill()
            tests.join()
        return tests.exitcode != 0


def _run_tests(module: str, path: Path) -> None:
    """Run the tests with a module read from another file."""

    class Finder:
        """Finds that module there."""

        @staticmethod
        def find_spec(name: str, *_: object) -> object:
            if name != module:
                return None
            return importlib.util.spec_from_file_location(name, path)

    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    options = ["-x", "-q", "--noconftest", "-p", "inline_snapshot.pytest_plugin"]
    options += ["-c", os.devnull, "--rootdir", str(HERE.parents[1]), "--import-mode=importlib"]
    options += ["-p", "no:cacheprovider", "-k", "not needs_no_torch"]
    os._exit(pytest.main([*options, *(str(HERE / "unit" / f"{name}.py") for name in TESTS)]))


if __name__ == "__main__":
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.exit(main(sys.argv[1:]))
