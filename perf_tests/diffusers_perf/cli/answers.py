"""What every command answers, how it refuses, and which numbers it takes."""

from __future__ import annotations

import configparser
import math
import sys
import tomllib
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from diffusers_perf.catalog.status import CANNOT_JUDGE
from diffusers_perf.messages.common import EMPTY_PATH, must_be
from diffusers_perf.records.files import real
from diffusers_perf.records.repository import repository
from diffusers_perf.records.store import BaselineStore


def refuse(sentence: str) -> int:
    """Say why nothing can be done as asked; returns the answer."""
    print(f"error: {sentence}", file=sys.stderr)
    return CANNOT_JUDGE


def listed(lines: Mapping[str, str]) -> Iterator[str]:
    """What a command's ``--list`` prints: each name, and in a line what it is."""
    width = max(map(len, lines), default=0)
    for name, line in lines.items():
        yield f"{name:{width}}  {line}".rstrip()


def named(text: str) -> Path:
    """An option's type: a path. Empty, as of an unset variable in a script, is refused."""
    if not text:
        raise ArgumentTypeError(EMPTY_PATH)
    return Path(text)


def plainly(path: Path) -> Path:
    """Absolute, as messages show it. One with ``..`` is resolved: beyond a link, ``..`` is the
    parent of its target.
    """
    return real(path) if ".." in path.parts else path.absolute()


def add_baselines(parser: ArgumentParser) -> None:
    """The option of commands that read or write baselines."""
    parser.add_argument(
        "--baselines",
        type=named,
        metavar="FOLDER",
        help="the accepted baselines (default: the ini option perf_baselines, or baselines)",
    )


def add_minutes(parser: ArgumentParser, default: float) -> None:
    """The option of commands that measure in processes of their own."""
    parser.add_argument(
        "--minutes",
        type=positive,
        default=default,
        metavar="N",
        help=f"time for all processes, installation not included (default: {default:g})",
    )


def add_device_and_model(parser: ArgumentParser) -> None:
    """The options of commands that measure in this process."""
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is a GPU")
    parser.add_argument("--model", help="as for pytest's --model")


def store_of(args: Namespace) -> BaselineStore:
    """The baselines that a command was given, by default those of pytest's settings."""
    return BaselineStore(args.baselines) if args.baselines else configured_store()


def configured_store() -> BaselineStore:
    """The baselines of the repository around the working directory."""
    root = repository()
    return BaselineStore(root / configured(root, "perf_baselines", "baselines"))


def configured(root: Path, name: str, default: str) -> str:
    """An ini option of pytest in this folder's settings, read without starting pytest."""
    project = root / "pyproject.toml"
    if project.is_file():
        with suppress(tomllib.TOMLDecodeError, UnicodeDecodeError):
            tool = tomllib.loads(project.read_text(encoding="utf-8")).get("tool", {})
            section = tool.get("pytest", {})
            value = {**section.get("ini_options", {}), **section}.get(name)
            if isinstance(value, str):
                return value
    others = {"pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}
    for file, header in others.items():
        parser = configparser.ConfigParser(interpolation=None)
        with suppress(configparser.Error, UnicodeDecodeError):
            parser.read(root / file, encoding="utf-8")
            if parser.has_option(header, name):
                return parser.get(header, name)
    return default


MOST = 1e6


def number(takes: str, *, low: float, high: float = MOST) -> Callable[[str], float]:
    """An option's type: a number from `low` to `high`; `takes` says so to who gives another."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            most = f", at most {MOST:g}" if value > high == MOST else ""
            raise ArgumentTypeError(must_be(f"{takes}{most}", text))
        return value

    return parse


positive = number("more than 0", low=sys.float_info.min)
