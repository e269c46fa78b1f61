"""Write a run as an HTML page, or as Markdown for a pull request.

--base compares it with another run. Several runs per side are judged in pairs, and the first of
each side is shown. A folder of `ab` stands for all of its pairs. For example:

    diffusers-perf report runs/run.json --base runs/main.json --html runs/report.html
    diffusers-perf report runs/ab --html runs/report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli.answers import add_baselines, named, store_of
from diffusers_perf.messages import ab
from diffusers_perf.messages import report as messages

STDOUT = Path("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=named,
        metavar="RUN.json",
        help="written by --benchmark-json; or a folder of `ab`",
    )
    parser.add_argument(
        "--base",
        nargs="+",
        type=named,
        default=[],
        metavar="BASE.json",
        help="the run, or as many runs, to compare with",
    )
    parser.add_argument(
        "--html", type=named, metavar="OUT.html", help="write the page; needs the extra `report`"
    )
    parser.add_argument(
        "--markdown",
        nargs="?",
        type=named,
        const=STDOUT,
        metavar="OUT.md",
        help="write the Markdown; without a file, print it",
    )
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    """Write the report; 0, whatever failed: the exit code of `gate` and `compare` says that."""
    from diffusers_perf.compare.state import runs_in
    from diffusers_perf.records.files import real
    from diffusers_perf.report import write

    if args.html is None and args.markdown is None:
        raise Refusal(messages.NO_OUTPUT)
    first, *others = args.runs
    if first.is_dir() and not others:
        if args.base:
            raise Refusal(ab.needs_no_base(first))
        args.base, args.runs = runs_in(first)
    pages = [page for page in (args.html, args.markdown) if page not in (None, STDOUT)]
    runs = {real(path) for path in (*args.runs, *args.base)}
    for page in pages:
        # `--markdown RUN.json` takes the run for the file to write.
        if page.suffix.lower() == ".json" or real(page) in runs:
            raise Refusal(messages.out_is_a_run(page))
    if len({real(page) for page in pages}) < len(pages):
        raise Refusal(messages.same_output(args.html))
    return write(
        args.runs,
        store_of(args),
        base=args.base,
        html=args.html,
        comment=args.markdown,
        baselines=args.baselines,
    )
