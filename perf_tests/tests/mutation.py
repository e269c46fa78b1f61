"""Does a test fail where the judge is wrong? Each mutant is one change of one of its expressions.

    pip install -e '.[mutation]'
    python -m perf_tests.tests.mutation                   # all: about 15 minutes on two cores
    python -m perf_tests.tests.mutation --every 5 stats weighing

Prints what survived and the share that was killed. Exit code 1 if that is below `KILLED_LEAST`.
Mutants that differ in an annotation, a docstring or a dataclass's options are left out.

The tests are collected once, and each says once which functions of the judge it calls. A mutant of
a function is tried in a copy of that process, in which the function has the changed code, by the
tests that call it, the quickest first. A mutant of anything else, such as a constant, is imported
anew and tried by all tests. What only a type checker reads is not mutated.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import importlib.util
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType, FunctionType
from typing import TypeVar

import pytest

HERE = Path(__file__).parent
JUDGE = HERE.parent / "diffusers_perf" / "judge"
TESTS = (
    "test_boundaries",
    "test_limits",
    "test_messages",
    "test_paired",
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
TEST_LONGEST_S = 2.0
"""Tests that take longer while they are traced, as simulations of the whole rule do, are left out:
what only they notice counts as survived.
"""
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

    path: Path
    """Of the module."""
    line: int
    source: str
    text: str
    """The changed line."""
    in_function: bool
    """Whether all that differs is inside of functions."""


T = TypeVar("T")
Key = tuple[str, str, int]
"""A function: its file, its qualified name, its first line."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="of the judge (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth mutant only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    paths = [p for p in sorted(JUDGE.rglob("*.py")) if not args.modules or p.stem in args.modules]
    mutants = [mutant for path in paths for mutant in _mutants(path)][:: args.every]
    with ThreadPoolExecutor(args.jobs) as pool:
        # Before the judge is imported here.
        survived = _survivors(pool, [m for m in mutants if not m.in_function], _passes_anew)
        loop = Loop(pool, [m for m in mutants if m.in_function])
        if pytest.main(["-s", *_options()], plugins=[loop]) != pytest.ExitCode.OK:
            return 2
    survived += loop.survived
    share = 1 - len(survived) / max(1, len(mutants))
    print(f"{len(mutants)} mutants, {len(survived)} survived, {100 * share:.1f} % killed")
    return int(share < KILLED_LEAST)


def _survivors(
    pool: ThreadPoolExecutor, mutants: Sequence[Mutant], passes: Callable[[Mutant], bool]
) -> list[Mutant]:
    survived = []
    for mutant, passed in zip(mutants, pool.map(passes, mutants), strict=True):
        if passed:
            survived.append(mutant)
            where = mutant.path.relative_to(JUDGE)
            print(f"survived: {where}:{mutant.line}: {mutant.text}", flush=True)
    return survived


def _in_a_copy(function: Callable[[], T]) -> T | None:
    """What a function returns in a copy of this process; None if it takes too long or crashes."""
    fork = get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def call() -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sender.send(function())
        os._exit(0)

    process = fork.Process(target=call)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(TIMEOUT_S) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()
        receiver.close()


class Loop:
    """Tries mutants of functions instead of running the collected tests."""

    def __init__(self, pool: ThreadPoolExecutor, mutants: Sequence[Mutant]) -> None:
        self.pool, self.mutants = pool, mutants
        self.survived: list[Mutant] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        def run(item: pytest.Item) -> tuple[bool, float, set[Key]]:
            start, called = time.perf_counter(), set()

            def trace(frame: FrameType, event: str, argument: object) -> None:
                called.add(_key(frame.f_code))

            sys.settrace(trace)
            passed = _pass(session, [item])
            sys.settrace(None)
            judge = {key for key in called if key[0].startswith(str(JUDGE))}
            return passed, time.perf_counter() - start, judge

        seen = list(self.pool.map(lambda item: _in_a_copy(lambda: run(item)), session.items))
        calls: dict[Key, list[tuple[float, int]]] = {}
        for number, result in enumerate(seen):
            if result is None or not result[0]:
                raise pytest.UsageError(f"{session.items[number].nodeid} fails without a mutant")
            for key in result[2] if result[1] < TEST_LONGEST_S else ():
                calls.setdefault(key, []).append((result[1], number))

        functions: dict[Key, list[FunctionType]] = {}
        for function in gc.get_objects():
            if isinstance(function, FunctionType) and _key(function.__code__) in calls:
                functions.setdefault(_key(function.__code__), []).append(function)

        def passes(mutant: Mutant) -> bool:
            changed = _changed(mutant)
            tests = sorted({test for key in changed for test in calls.get(key, [])})
            items = [session.items[number] for _, number in tests]

            def tried() -> bool:
                for key, code in changed.items():
                    for function in functions.get(key, ()):
                        function.__code__ = code
                return _pass(session, items)

            return not items or bool(_in_a_copy(tried))

        self.survived = _survivors(self.pool, self.mutants, passes)
        return True


def _pass(session: pytest.Session, items: Sequence[pytest.Item]) -> bool:
    """Run tests until one fails."""
    for item, following in zip(items, (*items[1:], None), strict=True):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


def _key(code: CodeType) -> Key:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _changed(mutant: Mutant) -> dict[Key, CodeType]:
    """The functions that differ, with the code that they have in the mutant."""

    def functions(code: CodeType) -> Iterator[CodeType]:
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                # A class's body has no locals of its own that are optimized.
                is_function = inner.co_flags & inspect.CO_OPTIMIZED
                yield from (inner,) if is_function else functions(inner)

    was, now = (
        functions(compile(source, str(mutant.path), "exec"))
        for source in (mutant.path.read_text(encoding="utf-8"), mutant.source)
    )
    return {_key(old): new for old, new in zip(was, now, strict=True) if old != new}


def _mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a module that differs in what runs."""
    plugins = importlib.import_module("cosmic_ray.plugins")
    mutate = importlib.import_module("cosmic_ray.mutating").mutate_code
    source = path.read_text(encoding="utf-8")
    seen = {_code(source)}
    outside = _code(source, bodies=False)
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
            # What only a type checker reads.
            if "TYPE_CHECKING" in text:
                continue
            yield Mutant(
                path=path,
                line=line,
                source=changed,
                text=text.strip(),
                in_function=_code(changed, bodies=False) == outside,
            )


def _code(source: str, *, bodies: bool = True) -> str:
    """A module without its annotations and docstrings, with or without the bodies of functions."""

    class Bare(ast.NodeTransformer):
        def visit_arg(self, node: ast.arg) -> ast.arg:
            node.annotation = None
            return node

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            node.returns = None
            if not bodies:
                node.body = [ast.Pass()]
            return self.generic_visit(node)

        def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
            node.annotation = ast.Constant(None)
            return self.generic_visit(node)

        def visit_Expr(self, node: ast.Expr) -> ast.AST:
            if isinstance(node.value, ast.Constant):
                return ast.Pass()
            return self.generic_visit(node)

    return ast.dump(Bare().visit(ast.parse(source)))


def _passes_anew(mutant: Mutant) -> bool:
    """Whether all tests pass with this module in place of its own."""
    parts = mutant.path.relative_to(JUDGE).with_suffix("").parts
    module = ".".join(("diffusers_perf.judge", *parts))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.py"
        path.write_text(mutant.source, encoding="utf-8")

        class Finder:
            """Finds that module there."""

            @staticmethod
            def find_spec(name: str, *_: object) -> object:
                if name != module:
                    return None
                return importlib.util.spec_from_file_location(name, path)

        def tried() -> bool:
            sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
            return pytest.main(_options()) == pytest.ExitCode.OK

        return bool(_in_a_copy(tried))


def _options() -> list[str]:
    """Of pytest."""
    return [
        *("-x", "-qq", "--noconftest", "-p", "inline_snapshot.pytest_plugin"),
        *("-c", os.devnull, "--rootdir", str(HERE.parents[1]), "--import-mode=importlib"),
        *("-p", "no:cacheprovider", "-k", "not needs_no_torch"),
        *(str(HERE / "unit" / f"{name}.py") for name in TESTS),
    ]


if __name__ == "__main__":
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.exit(main(sys.argv[1:]))
