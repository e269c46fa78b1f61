"""Finds the file of a command and its arguments, and says in a sentence what is wrong with them.

Each command's file has `add_arguments(parser)` and `main(args) -> int`. Its docstring's first line
is its help.
"""

from __future__ import annotations

import argparse
from types import ModuleType

from diffusers_perf import report
from diffusers_perf.catalog.discovery import BadDeclaration
from diffusers_perf.cli import accept, calibrate, comment, explore, faults, gate, results, structure
from diffusers_perf.cli.answers import CANNOT_JUDGE, refuse
from diffusers_perf.compare import ab, compare, merge
from diffusers_perf.compare.sides import BadSide
from diffusers_perf.records.baselines import BadBaseline
from diffusers_perf.records.reading import BadRunError

COMMANDS: dict[str, ModuleType] = {
    "ab": ab,
    "accept": accept,
    "calibrate": calibrate,
    "comment": comment,
    "compare": compare,
    "explore": explore,
    "faults": faults,
    "gate": gate,
    "merge": merge,
    "report": report,
    "results": results,
    "structure": structure,
}


def run(arguments: list[str] | None) -> int:
    """Run the command that `arguments` (default: the command line) name; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="diffusers-perf",
        description="Exit codes: 0 (passes), 1 (a regression), 2 (not judged).",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        line = (command.__doc__ or name).splitlines()[0]
        # As they are written: the docstrings show examples.
        layout = argparse.RawDescriptionHelpFormatter
        command.add_arguments(
            commands.add_parser(
                name, help=line, description=command.__doc__, formatter_class=layout
            )
        )
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return CANNOT_JUDGE
    try:
        code: int = COMMANDS[args.command].main(args)
    except (BadBaseline, BadDeclaration, BadRunError, BadSide) as error:
        return refuse(str(error))
    except BrokenPipeError:
        raise  # of the output, not of a file
    except OSError as error:
        return refuse(f"{error.filename or args.command}: {error.strerror or error}")
    return code
