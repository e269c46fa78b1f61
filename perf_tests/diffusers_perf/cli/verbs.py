"""Finds the file of a verb and its arguments, and says in a sentence what is wrong with them.

Each verb's file has `add_arguments(parser)` and `main(args) -> int`. Its docstring's first line is
its help.
"""

from __future__ import annotations

import argparse
from types import ModuleType

from diffusers_perf import report
from diffusers_perf.catalog.loading import BadDeclaration
from diffusers_perf.cli import accept, calibrate, explore, faults, gate, structure
from diffusers_perf.cli.answers import CANNOT_JUDGE, refuse
from diffusers_perf.compare import ab, compare, merge
from diffusers_perf.compare.sides import BadSide
from diffusers_perf.records.baselines import BadBaseline
from diffusers_perf.records.reading import BadRunError

VERBS: dict[str, ModuleType] = {
    "ab": ab,
    "accept": accept,
    "calibrate": calibrate,
    "compare": compare,
    "explore": explore,
    "faults": faults,
    "gate": gate,
    "merge": merge,
    "report": report,
    "structure": structure,
}


def run(arguments: list[str] | None) -> int:
    """Run the verb that these (of the command line, unless given) name; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ci",
        description="It answers 0 (holds), 1 (a regression) or 2 (not judged).",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        line = (verb.__doc__ or name).splitlines()[0]
        # As they are written: the docstrings show examples.
        layout = argparse.RawDescriptionHelpFormatter
        verb.add_arguments(
            verbs.add_parser(name, help=line, description=verb.__doc__, formatter_class=layout)
        )
    args = parser.parse_args(arguments)
    if args.verb is None:
        parser.print_help()
        return CANNOT_JUDGE
    try:
        code: int = VERBS[args.verb].main(args)
    except (BadBaseline, BadDeclaration, BadRunError, BadSide) as error:
        return refuse(str(error))
    except BrokenPipeError:
        raise  # of what is told, and no file's
    except OSError as error:
        return refuse(f"{error.filename or args.verb}: {error.strerror or error}")
    return code
