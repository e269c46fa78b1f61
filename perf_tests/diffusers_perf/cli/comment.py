"""Write the comment on a pull request, from what its runs on each machine left.

FOLDER holds a folder for each machine, as CI's artifacts are downloaded, with the two sides of its
comparison in compared/base-1.json, compared/head-1.json and so on. They may come from anybody's
code: they are read as data, nothing in them becomes markup, and no link is followed. For example:

    diffusers-perf comment artifacts --link https://github.com/owner/name/actions/runs/1
"""

from __future__ import annotations

import argparse
import re
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.cli.answers import add_baselines, named, store_of
from diffusers_perf.messages import report as messages
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore
from diffusers_perf.report import make, markdown
from diffusers_perf.report.content import Report
from diffusers_perf.report.escape import text

BYTES_MOST = 32 * 2**20
"""Of one run. The largest recorded one has 200 KB."""
RUNS_MOST = 64
MACHINES_MOST = 24
"""Reported on. Each has room for its verdict."""
RUN = re.compile(r"(base|head)-([1-9]\d{0,2})\.json")
HIDDEN = "<!-- diffusers-perf -->"
"""By which the comment is found again and replaced."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=named, metavar="FOLDER", help="the downloaded artifacts")
    parser.add_argument("--link", required=True, metavar="URL", help="of the workflow run")
    add_baselines(parser)


def main(args: argparse.Namespace) -> int:
    """Print the comment; 0, whatever the verdicts."""
    sys.stdout.write(comment(args.folder, store_of(args), link=args.link))
    return 0


def comment(folder: Path, store: BaselineStore, *, link: str) -> str:
    """The comment, in at most `markdown.MOST_CHARACTERS`. Every machine and the link are in it."""
    machines = _machines(folder, store)
    shown = dict(list(machines.items())[:MACHINES_MOST])
    end = f"\n{messages.workflow_run(link)}\n"
    if len(machines) > len(shown):
        end = f"\n{messages.more_machines(len(machines) - len(shown))}\n{end}"
    if not machines:
        end = f"\n{messages.NO_RESULT}\n{end}"
    room = markdown.MOST_CHARACTERS - len(HIDDEN) - len(end) - 2 * len(shown) - 1
    return "\n\n".join([HIDDEN, *_fitted(shown, room)]) + "\n" + end


def _machines(folder: Path, store: BaselineStore) -> Mapping[str, Report | str]:
    """By machine, its report, or in a sentence why it has none."""
    machines: dict[str, Report | str] = {}
    for part in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            machines[part.name] = _report(part, store)
        except Refusal as error:
            machines[part.name] = str(error).replace(f"{folder}/", "")
    return machines


def _report(part: Path, store: BaselineStore) -> Report:
    """`Refusal` where nothing was compared, and for files that no run of ours leaves."""
    compared = part / "compared"
    for path in (part, compared):
        if not _is(path, stat.S_ISDIR):
            raise Refusal(messages.NOTHING_COMPARED)
    sides: dict[str, dict[int, Path]] = {"base": {}, "head": {}}
    for path in compared.iterdir():
        if found := RUN.fullmatch(path.name):
            if not _is(path, stat.S_ISREG) or path.lstat().st_size > BYTES_MOST:
                raise Refusal(messages.not_a_run(path, BYTES_MOST))
            sides[found[1]][int(found[2])] = path
    pairs = sorted(sides["base"].keys() & sides["head"].keys())[:RUNS_MOST]
    if not pairs:
        raise Refusal(messages.NOTHING_COMPARED)
    base, head = ([sides[side][pair] for pair in pairs] for side in ("base", "head"))
    return make(load_run(head[0]), store, head=head, base=base)


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether the path itself, not what it links to, is of this kind."""
    try:
        return kind(path.lstat().st_mode)
    except OSError:
        return False


def _fitted(machines: Mapping[str, Report | str], room: int) -> list[str]:
    """Every machine's part. Where they are too long together, the longest are cut."""
    parts = {name: _part(name, one, markdown.MOST_CHARACTERS) for name, one in machines.items()}
    left = room
    for number, name in enumerate(sorted(parts, key=lambda name: len(parts[name]))):
        # The shorter ones leave the longer ones more than an equal share.
        share = max(markdown.LEAST_CHARACTERS, left // (len(parts) - number))
        if len(parts[name]) > share:
            parts[name] = _part(name, machines[name], share)
        left -= len(parts[name])
    return list(parts.values())


def _part(name: str, machine: Report | str, most: int) -> str:
    if isinstance(machine, str):
        title = f"## {markdown.MARKS['warning']} Not judged: {text(name, 100)}"
        return f"{title}\n\n{text(machine, 300)}"
    return markdown.render(machine, most=most).rstrip("\n")
