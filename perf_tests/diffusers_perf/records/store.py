"""Finds, reads and writes the files of a folder of baselines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.messages import records as messages
from diffusers_perf.records.baselines import (
    SCHEMA,
    MachineBaseline,
    MachineFile,
    OperatorBaseline,
    OperatorFile,
    Portable,
    PortableFile,
    Published,
    as_written,
)
from diffusers_perf.records.files import (
    BadContent,
    laid_out,
    phrase_of,
    read_bytes,
    read_text,
    unreadable,
    utf8,
)
from diffusers_perf.records.names import accepted_image_name, image_file
from diffusers_perf.records.run import slug_of
from diffusers_perf.records.transaction import Transaction, transaction

if TYPE_CHECKING:
    from diffusers_perf.records.image_files import Thumbnail
    from diffusers_perf.records.measurement import Measurement

T = TypeVar("T")

HISTORY_HEAD = """# What was accepted, when and why

Written by `diffusers-perf accept` and `diffusers-perf calibrate`; newest last.

"""
CONFLICT = re.compile(r"(?m)^(<{7} |={7}$|>{7} )")


@dataclass(frozen=True)
class BaselineStore:
    """A folder of baselines. Nothing has to be there.

    Whatever is read raises `Refusal` where it cannot be used.
    """

    folder: Path

    def shown(self, path: Path) -> str:
        """A file of it as a message names it: from the working directory where it lies below."""
        here = Path.cwd()
        return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)

    def machine_path(self, slug: str) -> Path:
        return self.folder / f"{slug}.json"

    def load_machine(self, slug: str) -> MachineBaseline | None:
        """A machine's baseline; None where none is accepted."""
        path = self.machine_path(slug)
        if (file := _read(path, MachineFile)) is None:
            return None
        if slug_of(file.machine) != slug:
            raise Refusal(
                messages.other_machine(path, file.machine, f"{slug_of(file.machine)}.json")
            )
        try:
            return MachineBaseline.of(file)
        except BadContent as error:
            raise Refusal(f"{path}: {error}") from None

    def load_operators(self) -> dict[str, OperatorBaseline]:
        """The accepted operator counts, by `Measurement.code_key`."""
        found: dict[str, OperatorBaseline] = {}
        for path in self.operators_paths():
            if (file := _read(path, OperatorFile)) is None:
                continue
            if path.stem != file.workload:
                raise Refusal(messages.other_workload(path, file.workload))
            found |= {f"{file.workload}/{key}": case for key, case in file.cases.items()}
        return found

    def operators_path(self, workload: str) -> Path:
        return self.folder / "operators" / f"{workload}.json"

    def operators_paths(self) -> list[Path]:
        """Of all workloads that have counts. `Refusal` where they cannot be listed."""
        return _listed(self.folder / "operators")

    def machine_paths(self) -> list[Path]:
        """The machines' baselines, in order of their names. `Refusal` as above."""
        other = {"portable", "published"}
        return [path for path in _listed(self.folder) if path.stem not in other]

    def load_portable(self, *, scale: str, device: str) -> Portable:
        """The loose bounds for models of this scale on this kind of device; empty for others."""
        path = self.folder / "portable.json"
        if (file := _read(path, PortableFile)) is None:
            return {}
        try:
            file.check()
        except BadContent as error:
            raise Refusal(f"{path}: {error}") from None
        return file.bounds.get(f"{scale} on {device}", {})

    def load_published(self) -> Published:
        """What the guide printed; nothing where there is no such file."""
        return _read(self.folder / "published.json", Published) or Published(cases={}, claims={})

    def image(self, *, model: str, weights: str, workload: str) -> Path:
        """Where the accepted image of a reference lies. `BadName` for names that cannot be a
        file's.
        """
        name = accepted_image_name(workload=workload, model=model, weights=weights)
        return image_file(self.folder / "images", name)

    def has_image(self, measured: Measurement) -> bool:
        """Whether an image of this reference is accepted."""
        path = self.image(
            model=measured.model, weights=measured.weights, workload=measured.workload
        )
        try:
            return path.is_file()
        except OSError as error:
            raise Refusal(unreadable(path, error)) from None

    @property
    def history(self) -> Path:
        return self.folder / "HISTORY.md"

    def save_machine(self, baseline: MachineBaseline) -> Path:
        """Write the machine's file; returns where."""
        with self.changing() as changes:
            return changes.save_machine(baseline)

    def save_operators(self, cases: Mapping[str, OperatorBaseline]) -> None:
        """Write the operator counts of all workloads."""
        with self.changing() as changes:
            changes.save_operators(cases)

    @contextmanager
    def changing(self) -> Iterator[Changes]:
        """Change files in here, alone: all of them at its end, or none after an exception."""
        with transaction(self.folder) as files:
            yield Changes(store=self, files=files)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What becomes of a store's files at the end of `BaselineStore.changing`."""

    store: BaselineStore
    files: Transaction

    def save_machine(self, baseline: MachineBaseline) -> Path:
        """Write the machine's file; returns where."""
        path = self.store.machine_path(slug_of(baseline.machine))
        self._write(path, laid_out(as_written(baseline.file()), depth=3))
        return path

    def save_operators(self, cases: Mapping[str, OperatorBaseline]) -> None:
        """Write one file per workload, and remove those of workloads that are gone."""
        by_workload: dict[str, dict[str, OperatorBaseline]] = {}
        for name, case in sorted(cases.items()):
            workload, _, key = name.partition("/")
            by_workload.setdefault(workload, {})[key] = case
        for workload, own in by_workload.items():
            file = OperatorFile(workload=workload, cases=own)
            self._write(self.store.operators_path(workload), laid_out(as_written(file), depth=4))
        for path in self.store.operators_paths():
            if path.stem not in by_workload:
                self.files.remove(path)

    def save_image(self, image: Thumbnail, path: Path) -> None:
        """Keep images as they are accepted."""
        # NumPy is imported where images are, and not for a command's help.
        from diffusers_perf.records import image_files

        self.files.write(path, image_files.encoded(image.images, bits=image.bits))

    def add_history(self, lines: Sequence[str]) -> None:
        """Add lines to the log of acceptances. `Refusal` for one that must not be extended."""
        path = self.store.history
        try:
            text = read_text(path) if path.exists() else HISTORY_HEAD
        except UnicodeDecodeError:
            raise Refusal(f"{path}: not UTF-8") from None
        if CONFLICT.search(text):
            raise Refusal(messages.conflict(path))
        # A line written by hand may have no end.
        end = "" if text.endswith("\n") else "\n"
        self._write(path, text + end + "\n".join(lines) + "\n")

    def _write(self, path: Path, text: str) -> None:
        self.files.write(path, utf8(text))


class _Version(msgspec.Struct):
    schema: int


def _listed(folder: Path) -> list[Path]:
    try:
        # Not by `glob`, which takes a folder that may not be read for an empty one.
        return sorted(path for path in folder.iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Refusal(unreadable(folder, error)) from None


def _read(path: Path, kind: type[T]) -> T | None:
    """The content of a file; None where there is none."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refusal(unreadable(path, error)) from None
    try:
        schema = msgspec.json.decode(data, type=_Version).schema
        if schema != SCHEMA:
            raise Refusal(messages.other_schema(path, schema, SCHEMA))
        content = msgspec.json.decode(data, type=kind)
        twice = _named_twice(data)
    except msgspec.ValidationError as error:
        raise Refusal(f"{path}: {phrase_of(error)}") from None
    except (ValueError, RecursionError):
        is_conflict = CONFLICT.search(data.decode(errors="replace"))
        raise Refusal((messages.unmerged if is_conflict else messages.not_json)(path)) from None
    if twice is not None:
        raise Refusal(messages.named_twice(path, twice))
    return content


def _named_twice(data: bytes) -> str | None:
    """A name that an object of a JSON has more than once, as where both sides of a conflict are
    kept. Readers take the last of them, so that nothing else would show it.
    """
    twice: list[str] = []

    def seen(pairs: list[tuple[str, object]]) -> None:
        numbers = Counter(name for name, _ in pairs)
        twice.extend(name for name, number in numbers.items() if number > 1)

    json.loads(data, object_pairs_hook=seen)
    return twice[0] if twice else None
