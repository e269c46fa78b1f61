"""What `explore` has tried, kept in a folder from which a search goes on."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import to_builtins

from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.compare.kept import kept, refuse_others
from diffusers_perf.measurement.measuring import PACKAGE, digest, digest_of
from diffusers_perf.records.files import as_json, write_whole
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.records.quantities import Integer, NotNegative, StrictRecord
from diffusers_perf.search.attempt import Ask, Stack

if TYPE_CHECKING:
    from diffusers_perf.measurement.bench import Bench

FILE = "explore.json"


def settings_of(bench: Bench, workload: Workload, catalog: Catalog) -> dict[str, Any]:
    """What measurements depend on; those of other settings cannot stand beside each other."""
    machine: dict[str, Any] = to_builtins(bench.machine)
    if bench.machine.device == "cuda":
        del machine["threads"]  # the host's, which change nothing on a GPU
    settings = machine | {
        "model": bench.sources.of(workload).name,
        "weights": bench.sources.of(workload).weights,
        "workload": workload.as_json(),
        "measuring code": digest(),
        "optimizations' code": _code_of_optimizations(catalog),
    }
    if code := _code_of_model(bench.sources.of(workload).name):
        settings["model's code"] = code
    # As a file gives it back.
    read: dict[str, Any] = json.loads(json.dumps(settings))
    return read


def _code_of_model(name: str) -> str:
    """Of all Python files of the package whose function builds the model; empty for other models,
    whose code is that of installed packages.
    """
    package = sys.modules.get(name.partition(":")[0].partition(".")[0])
    if ":" not in name or package is None:
        return ""
    folders = map(Path, getattr(package, "__path__", ()))
    files = [file for folder in folders for file in folder.rglob("*.py")]
    if not files and package.__file__:
        files = [Path(package.__file__)]
    contents = (file.read_bytes() for file in sorted(files) if file.is_file())
    return hashlib.sha256(b"".join(contents)).hexdigest()[:12]


def _code_of_optimizations(catalog: Catalog) -> str:
    """Of the library's and of whatever else declared one; not of the lists of cases."""
    ours = digest_of([*PACKAGE.glob("optimizations/*.py"), *PACKAGE.glob("techniques/*.py")])
    others = sorted(
        inspect.getsource(declared.apply)
        for declared in catalog.optimizations.values()
        if not declared.apply.__module__.startswith("diffusers_perf.")
    )
    return hashlib.sha256("".join([ours, *others]).encode()).hexdigest()[:12]


class Entry(StrictRecord, frozen=True, kw_only=True):
    """What came of a stack."""

    seconds: NotNegative
    measured: Measurement | None
    failed: str
    """Why nothing was measured."""
    too_slow_s: NotNegative | None = None
    """As `Tried.too_slow_s`."""


class FolderFile(StrictRecord, frozen=True, kw_only=True):
    """The file that `Folder` is kept in."""

    schema: Literal[2] = 2
    settings: dict[str, Any]
    tried: dict[str, Entry]
    begun: dict[str, Integer]


@dataclass(kw_only=True)
class Folder:
    """What was tried so far, kept in one file."""

    path: Path
    settings: Mapping[str, Any]
    tried: dict[str, Entry] = field(default_factory=dict)
    """By `Ask.key`."""
    begun: dict[str, int] = field(default_factory=dict)
    """How often a stack was begun that never came to an end."""

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any]) -> Folder:
        """As it was left, or a new one. `Refusal` for other settings; `OSError`."""
        opened = cls(path=folder / FILE, settings=settings)
        content = kept(opened.path, FolderFile, by="explore")
        if content is None:
            opened.save()
        else:
            refuse_others(folder, content.settings, settings)
            opened.tried, opened.begun = content.tried, content.begun
        return opened

    @property
    def stacks(self) -> set[Stack]:
        """Those that were tried."""
        return {asked(key).stack for key in self.tried}

    @property
    def measured(self) -> dict[Ask, Measurement]:
        """What was measured, the latest of each stack; asked again, it is not measured again."""
        latest: dict[Stack, tuple[Ask, Measurement]] = {}
        for key, entry in self.tried.items():
            if entry.measured is not None:
                ask = asked(key)
                latest[ask.stack] = ask, entry.measured
        return dict(latest.values())

    def begin(self, key: str) -> None:
        self.begun[key] = self.begun.get(key, 0) + 1
        self.save()

    def end(self, key: str, entry: Entry | None) -> None:
        """Keep what came out; None where it was interrupted, which is not its fault."""
        self.begun.pop(key, None)
        if entry is not None:
            self.tried[key] = entry
        self.save()

    def save(self) -> None:
        """Write all of it, or leave what was there."""
        content = FolderFile(settings=dict(self.settings), tried=self.tried, begun=self.begun)
        write_whole(self.path, as_json(content) + "\n")


def asked(key: str) -> Ask:
    """What has this `Ask.key`."""
    names, _, why = key.partition(" | ")
    return Ask(stack=tuple(names.split("+")) if names else (), change="", why=why)
