"""The words of `diffusers_perf.messages`, as a person reads them, in ``messages/of_*.txt``.

Each function is called with samples: the name of an argument in capitals for a text, 2 and 1 for a
number, both values of a flag. After a change run this module with ``--inline-snapshot=fix,create``
and read what it wrote.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import external_file

import diffusers_perf
from diffusers_perf.messages import common
from diffusers_perf.messages.declarations import WORKLOAD_FIELDS

PACKAGE = Path(diffusers_perf.__file__).parent
TOPICS = sorted(
    path.stem
    for path in (PACKAGE / "messages").glob("*.py")
    if path.stem not in ("__init__", "numbers")
)
SAMPLES: dict[str, tuple[Any, ...]] = {
    "bool": (True, False),
    "float": (1.25,),
    "budget_s": (600.0,),
    "left_s": (12.0, 12.0, 0.5),
    "needed_s": (83.5,),
    "share": (0.25,),
    **dict.fromkeys(("smaller", "faster", "claimed_smaller", "claimed_faster"), (0.25,)),
    "psnr_db": (42.5,),
    "reduced": ((1, 2), (1,)),
    "own_class": ("OWN", ""),
    "flops": (1.5e12,),
    "traffic_bytes": (2.5e9,),
    "less_gpu_time": (0.5,),
    **dict.fromkeys(("more", "others", "skipped", "unsure"), (2, 1, 0)),
    "workload_field": tuple(WORKLOAD_FIELDS),
    "was_s": (0.01,),
    "fastest_s": (0.01,),
    "slowest_s": (0.02,),
    "taken_bytes": (3 * 2**30,),
    "size_bytes": (1_500_000,),
    # Of known names: in the second, one is close to what the argument before it is called.
    "Collection[str]": (("ONE", "TWO"), ("NAMES", "MODELS", "METRICS", "SUITES", "WORDS")),
    "int": (2, 1),
    "datetime": (datetime(2026, 1, 31, tzinfo=UTC),),
    "Mapping[str, str]": ({"ONE": "1.0", "TWO": "2.0"},),
    "Mapping[str, int]": ({"ONE": 1, "TWO": 0}, {"ONE": 0, "TWO": 0}),
    "tuple[str, str]": (("WAS", "NOW"),),
    "tuple[int, int, int]": ((2, 64, 96),),
    "Sequence[Path]": ((Path("ONE"), Path("TWO")),),
    "Sequence[int]": ((1, 2), (2,)),
    "Sequence[Sequence[int]]": (((1, 2), (2,)), ((1, 2),), ()),
    "Sequence[str]": (("ONE", "TWO"),),
    "Sequence[tuple[str, float, int]]": ((("ONE", 1.5, 2), ("TWO", 0.25, 3)),),
}


@pytest.mark.parametrize("topic", TOPICS)
def test_sentences(topic: str) -> None:
    module = import_module(f"diffusers_perf.messages.{topic}")
    lines = []
    for name, value in vars(module).items():
        if (
            isinstance(value, str)
            and name.isupper()
            and (module is common or not hasattr(common, name))
        ):
            lines += [f"[{name}]", value, ""]
        elif name[0] != "_" and inspect.isfunction(value) and value.__module__ == module.__name__:
            lines += [f"[{name}]", *dict.fromkeys(variants(value)), ""]
    assert "\n".join(lines) == external_file(f"messages/of_{topic}.txt")


def variants(function: Any) -> Iterator[str]:
    """What a function says of each combination of samples."""
    parameters = inspect.signature(function).parameters.values()
    choices = [*map(samples, parameters)]
    for number in range(max(map(len, choices))):
        values = [choice[number % len(choice)] for choice in choices]
        arguments = dict(zip((one.name for one in parameters), values, strict=True))
        positional = [arguments.pop(p.name) for p in parameters if p.kind is not p.KEYWORD_ONLY]
        said = function(*positional, **arguments)
        yield said if isinstance(said, str) else "\n".join(said)


def samples(parameter: inspect.Parameter) -> tuple[Any, ...]:
    kind, _, none = str(parameter.annotation).partition(" | ")
    text = parameter.name.upper()
    fallback = {"str": (text,), "object": (text,), "Path": (Path(text),)}
    values = SAMPLES.get(parameter.name) or SAMPLES.get(kind) or fallback[kind]
    if none == "None":
        values = (*values, None)
    return values if parameter.default is parameter.empty else (*values, parameter.default)


# Sentences elsewhere

WORD = re.compile(r"""[(`'"]?[A-Za-z]+(?:['-][a-z]+)*[.,;:)`'"]*""")
MOVED = (
    "catalog",
    "cli",
    "compare",
    "faults",
    "fleet",
    "history",
    "measurement",
    "models",
    "plugin",
    "records",
    "report",
    "search",
)
"""Parts of the library whose sentences all stand in `messages`."""
ALLOWED = {
    r"\s*import |while True": "a program that a process runs",
    r"default-src ": "a policy for the browser",
    r"copy and cast$": "a family of kernels",
    r"attention: sdpa, math only$|elementwise and other$": "families of operators",
    r"host tensor as an index$": "a kind of copy",
    r"not enough memory\|": "what others say",
    r"{}'s {}: {} has {} parameters |{} is a {}, which has no rule ": "contracts of the library",
    r"# What was accepted, when and why": "the heading of a file",
    r"(denoiser|text encoder)'s ": "what a slot of a stack decides",
    r"\(Tensor x, ": "an operator's signature",
    r"a small yellow star ": "a prompt",
    r"a history of a metric with noise ": "a contract between functions, which no input breaks",
}
"""Why texts of several words that begin so are no sentences for a user."""
DECLARED = frozenset({"help", "about", "description", "name", "source", "unit"})
"""Arguments that describe an option, a metric or a fault where it is declared."""
DECLARING = frozenset({"addini", "getgroup", "_counter", "_rule", "_stage", "_start"})
"""Functions that take a description by its place."""


def test_sentences_stand_in_messages() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for part in MOVED
        for path in sorted((PACKAGE / part).rglob("*.py"))
        for line, text in texts(path)
        if sum(WORD.fullmatch(word) is not None for word in text.split()) >= 3
        if not any(re.match(rule, text) for rule in ALLOWED)
    }
    assert found == set()


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string that a person could read, documentation left out."""
    tree = ast.parse(path.read_text())
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.keyword) and node.arg in DECLARED:
            skipped.update(map(id, ast.walk(node.value)))
        elif isinstance(node, ast.Call) and called(node) in DECLARING:
            skipped.update(map(id, node.args))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values)
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def called(node: ast.Call) -> str:
    """The name of the function, without its module."""
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")
