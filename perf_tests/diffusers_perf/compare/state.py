"""What the folder of a comparison holds, kept in a file so that it can go on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, count, pairwise
from pathlib import Path
from shlex import join
from typing import Annotated

from msgspec import Meta

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare.kept import Setting, kept, refuse_others
from diffusers_perf.compare.lock import InUse, held, is_of_others
from diffusers_perf.judge.messages.commands import CompareAgain
from diffusers_perf.judge.weighing import PAIRS, PAIRS_MOST
from diffusers_perf.messages import ab
from diffusers_perf.records.files import as_json, write_whole
from diffusers_perf.records.quantities import Integer, Positive, PositiveInteger, StrictRecord
from diffusers_perf.records.repository import as_path, repository, seen_from

FILE = "ab.json"
SIDES = {"--base": "base", "--head": "head"}
"""The options that name a commit, and its name among the settings."""
PYTHONS = ("--base-python", "--head-python")


class Finished(StrictRecord, frozen=True, kw_only=True):
    """One process that ran to its end and measured something."""

    side: Annotated[str, Meta(pattern="^(base|head)$")]
    pair: PositiveInteger
    """Counted from 1."""
    seconds: Positive


class Asked(StrictRecord, frozen=True, kw_only=True):
    """How `ab` was called, as far as it says what is compared: not where, nor for how long."""

    options: tuple[str, ...]
    """Its own. Paths are those of the repository's root."""
    pytest: tuple[str, ...]
    """Passed on to pytest, without what selects single cases."""

    @classmethod
    def of(cls, options: Sequence[str], *, pytest: tuple[str, ...]) -> Asked:
        """As it was called in the working directory."""
        return cls(options=_seen_from(options, repository(), of=Path.cwd()), pytest=pytest)

    @property
    def again(self) -> CompareAgain:
        """As it is called in the working directory."""
        options = _seen_from(self.options, Path.cwd(), of=repository())
        return CompareAgain(options=options, pytest=self.pytest)


def _seen_from(options: Sequence[str], here: Path, *, of: Path) -> tuple[str, ...]:
    """Those with paths `of` one folder, as they are given in another one."""
    seen = [*options]
    for number, (name, value) in enumerate(pairwise(options), start=1):
        if name == "--baselines":
            seen[number] = seen_from(value, here, of=of)
        elif name in PYTHONS and "/" in value:
            # Without a slash it is a program's name.
            seen[number] = as_path(seen_from(value, here, of=of))
    return tuple(seen)


class StateFile(StrictRecord, frozen=True, kw_only=True, omit_defaults=True):
    """The file that `State` is kept in."""

    settings: Mapping[str, Setting]
    asked: Asked | None = None
    packages: Mapping[str, Mapping[str, str]] = {}
    finished: tuple[Finished, ...]
    compared: Integer = 0
    complete: bool = False


@dataclass(kw_only=True)
class State:
    """What a folder holds: of which sides, and which processes are finished."""

    path: Path
    settings: Mapping[str, Setting]
    asked: Asked
    packages: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """By side, what `environments.probe` found in its environment."""
    finished: list[Finished] = field(default_factory=list)
    compared: int = 0
    """Pairs of the comparison that was made, whatever it said."""
    complete: bool = False
    """No further pair is worth measuring."""

    @classmethod
    def open(cls, out: Path, settings: Mapping[str, Setting], asked: Asked) -> State:
        """As it was left, or a new one. `Refusal` where other settings were measured here; a folder
        in which no process has finished loses nothing.

        Half a pair is left out: its other half would be measured on what is another machine by now.
        """
        state = cls(path=out / FILE, settings=settings, asked=asked)
        known = kept(state.path, StateFile, by="ab")
        if known is None or not known.finished:
            return state
        refuse_others(out, known.settings, settings)
        state.finished, state.compared = [*known.finished], known.compared
        state.packages = dict(known.packages)
        whole = state.pairs()
        state.finished = [entry for entry in state.finished if entry.pair in whole]
        return state

    def see(self, packages: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
        """By side, which packages are others than those that were measured.

        Where some are, nothing counts as finished any more.
        """
        changed = {}
        for side, now in packages.items():
            names = changed_packages(self.packages.get(side, {}), now)
            if names and self.finished:
                changed[side] = names
        if changed:
            self.finished, self.compared = [], 0
        self.packages = dict(packages)
        return changed

    def run(self, side: str, pair: int) -> Path:
        """Where a process writes its JSON."""
        return self.path.with_name(f"{side}-{pair}.json")

    def has(self, side: str, pair: int) -> bool:
        return any((entry.side, entry.pair) == (side, pair) for entry in self.finished)

    @property
    def spent_s(self) -> float:
        """By all processes that are finished."""
        return sum(entry.seconds for entry in self.finished)

    @property
    def longest_s(self) -> float:
        """Of a process that is finished."""
        return max((entry.seconds for entry in self.finished), default=0.0)

    def minutes_for(self, left: int) -> float:
        """What holds so many more processes, beside those that are finished."""
        return (self.spent_s + left * self.longest_s) / 60 + 1

    def minutes_for_more(self) -> float:
        """What holds the pairs that are to follow."""
        pairs = len(self.pairs())
        return self.minutes_for(2 * ((PAIRS if pairs < PAIRS else PAIRS_MOST) - pairs))

    def pairs(self) -> list[int]:
        """Those of which both sides are finished."""
        numbers = sorted({entry.pair for entry in self.finished})
        return [n for n in numbers if self.has("base", n) and self.has("head", n)]

    def add(self, entry: Finished) -> None:
        """Keep it, so that an interruption at any moment loses one pair at most."""
        self.finished.append(entry)
        self.save()

    def save(self) -> None:
        """Write all of it, or leave what was there."""
        content = StateFile(
            settings=self.settings,
            asked=self.asked,
            packages=self.packages,
            finished=tuple(self.finished),
            compared=self.compared,
            complete=self.complete,
        )
        write_whole(self.path, as_json(content))


@contextmanager
def own_held(
    default: Path, settings: Mapping[str, Setting], *, anew: bool
) -> Iterator[tuple[Path, int]]:
    """`own_folder`, held as `lock.held` does, and its lock. Of several comparisons that start at
    once, each gets a folder. `InUse` where this comparison is the one at work in its folder.
    """
    busy: list[Path] = []
    with ExitStack() as stack:
        while True:
            folder, why = own_folder(default, settings, anew=anew, busy=busy)
            try:
                lock = stack.enter_context(held(folder, by="ab"))
                break
            except InUse:
                known = _known(folder)
                if known and known.settings == settings:
                    raise
                busy.append(folder)
        if why:
            print(why)
        yield folder, lock


def own_folder(
    default: Path, settings: Mapping[str, Setting], *, anew: bool, busy: Collection[Path] = ()
) -> tuple[Path, str]:
    """Where a comparison of these settings goes on or starts, and why there, in words; empty where
    nothing was there before.

    That is the folder that holds it, where that is `default` or stands beside it under its name and
    a number, 2 and so on. Where it is complete and is to be measured `anew`, and where it is in
    none of them, it is the first of them that is not taken: in which no process of another
    comparison has finished, and that is not `busy`.
    """
    beside = default.parent.glob(f"{default.name}-*/{FILE}")
    numbers = (path.parent.name.removeprefix(f"{default.name}-") for path in beside)
    known = sorted(int(number) for number in numbers if number.isdecimal())
    complete = False
    for folder in (default, *(default.with_name(f"{default.name}-{n}") for n in known)):
        found = _known(folder)
        if found and found.settings == settings:
            if not (anew and found.complete):
                return folder, ab.is_held_by(folder)
            complete = True
    folders = chain([default], (default.with_name(f"{default.name}-{n}") for n in count(2)))
    free = next(one for one in folders if one not in busy and not _is_taken(one))
    return free, "" if free == default else ab.starts_in(free, default, complete=complete)


def _is_taken(folder: Path) -> bool:
    """Whether something was measured there, or files are there that cannot be read or that others
    wrote.
    """
    known = _known(folder)
    if known:
        return bool(known.finished)
    return (folder / FILE).exists() or is_of_others(folder, by="ab")


def runs_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Base's and head's runs of the pairs that were made in a folder of `ab`, and not what else
    lies there: half a pair, or processes of an environment that changed since. `Refusal` where it
    holds no pair.
    """
    known = _known(folder)
    state = State(path=folder / FILE, settings={}, asked=Asked(options=(), pytest=()))
    state.finished = [*known.finished] if known else []
    pairs = state.pairs()
    if not pairs:
        raise Refusal(ab.holds_no_pair(folder))
    base, head = ([state.run(side, pair) for pair in pairs] for side in ("base", "head"))
    return base, head


def _known(folder: Path) -> StateFile | None:
    """None where nothing can be read that `ab` wrote."""
    try:
        return kept(folder / FILE, StateFile, by="ab")
    except Refusal:
        return None


def again_of(base: Sequence[Path], head: Sequence[Path]) -> CompareAgain | None:
    """What compares single cases of these runs again; None where `ab` did not make them."""
    found = _made(base, head)
    return found.asked.again if found and found.asked else None


def more_of(base: Sequence[Path], head: Sequence[Path]) -> str:
    """The command that goes on with the comparison that these runs are of; empty where it is
    complete, and where `ab` did not make them.
    """
    found = _made(base, head)
    given = found.settings.get("pytest") if found else None
    if not found or not found.asked or found.complete or not isinstance(given, tuple):
        return ""
    folder = head[0].parent
    state = State(path=folder / FILE, settings=found.settings, asked=found.asked)
    state.finished = [*found.finished]
    options = [*found.asked.again.options]
    for number, (name, ref) in enumerate(pairwise(options), start=1):
        if name in SIDES:
            # The branch may have moved since.
            options[number] = str(found.settings.get(SIDES[name], ref))[:12]
    # Its own options stand before those that pytest was given.
    own = 2 * options.count("--device") + options.count("--quick")
    pytests = given[own:]
    minutes = f"{state.minutes_for_more():.0f}"
    command = ["diffusers-perf", "ab", *options, "--out", str(folder), "--minutes", minutes]
    return join([*command, *(["--", *pytests] if pytests else [])])


def _made(base: Sequence[Path], head: Sequence[Path]) -> StateFile | None:
    """What `ab` wrote beside these runs; None where it did not make them, or cannot be read: they
    are compared all the same.
    """
    known = {(path.parent, path.name.partition("-")[0]) for path in (*base, *head)}
    folder = head[0].parent if head else Path()
    return _known(folder) if known == {(folder, "base"), (folder, "head")} else None


def changed_packages(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """In words, the packages of an environment that are others now."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [ab.changed_package(name, before.get(name), now.get(name)) for name in names]
