"""Finds the file of a command and its arguments, and says in a sentence what is wrong with them.

Each command's file has `add_arguments(parser)` and `main(args) -> int`. Its docstring's first line
is its help. Only the file of the chosen command is imported.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shlex import join
from types import ModuleType

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.status import CANNOT_JUDGE
from diffusers_perf.cli.answers import refuse
from diffusers_perf.measurement.packages import too_little_address_space
from diffusers_perf.measurement.visibility import gpus_hidden
from diffusers_perf.messages.common import unrecognized
from diffusers_perf.records.files import Unwritable, unwritable

NAMES = (
    "ab",
    "accept",
    "bisect",
    "calibrate",
    "comment",
    "compare",
    "explore",
    "faults",
    "fleet",
    "gate",
    "history",
    "merge",
    "report",
    "results",
    "structure",
)
COMMANDS = {name: f"diffusers_perf.cli.{name}" for name in NAMES}
"""By name, the module of each."""
TORCH = ("explore", "faults", "results", "structure")
"""Those that import torch."""


def run(arguments: Sequence[str] | None) -> int:
    """Run the command that `arguments` (default: the command line) name; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="diffusers-perf",
        description="Exit codes: 0 (passes), 1 (a regression), 2 (not judged).",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    if not arguments or arguments[0] not in COMMANDS:
        for name, module in COMMANDS.items():
            commands.add_parser(name, help=_first_line(module))
        parser.parse_args(arguments)
        parser.print_help()
        return CANNOT_JUDGE
    command = import_module(COMMANDS[arguments[0]])
    # As they are written: the docstrings show examples.
    layout = argparse.RawDescriptionHelpFormatter
    command.add_arguments(
        commands.add_parser(arguments[0], description=command.__doc__, formatter_class=layout)
    )
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        line = None
        if hasattr(args, "pytest"):
            line = _handed_on(arguments, [*unknown, *args.pytest])
        parser.error(unrecognized(unknown, line))
    if arguments[0] not in TORCH:
        return _answer(command, args)
    if sentence := too_little_address_space():
        return refuse(sentence)
    # Those without the option run nothing on a GPU.
    with gpus_hidden() if getattr(args, "device", "cpu") == "cpu" else nullcontext():
        return _answer(command, args)


def _answer(command: ModuleType, args: argparse.Namespace) -> int:
    """Run it; returns its exit code."""

    try:
        code: int = command.main(args)
    except Refusal as error:
        return refuse(str(error))
    except BrokenPipeError:
        raise  # of the output, not of a file
    except Unwritable as error:
        return refuse(unwritable(Path(error.filename), error))
    except OSError as error:
        return refuse(f"{error.filename or args.command}: {error.strerror or error}")
    return code


def _handed_on(arguments: Sequence[str], left: list[str]) -> str:
    """The command line with `left`, which the command itself does not take, behind ``--``."""
    places: set[int] = set()
    # First the options, each with the values behind it: a value can also be one of the command.
    for options in (True, False):
        for place, argument in enumerate(arguments):
            follows = argument.startswith("-") or place - 1 in places
            if argument in left and place not in places and follows >= options:
                places.add(place)
                left.remove(argument)
    own = [argument for place, argument in enumerate(arguments) if place not in places]
    own = [*own, "--"] if "--" not in own else own
    end = own.index("--") + 1
    others = [argument for place, argument in enumerate(arguments) if place in places]
    return join(["diffusers-perf", *own[:end], *others, *own[end:]])


def _first_line(module: str) -> str:
    """Of a module's docstring, without importing it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]
