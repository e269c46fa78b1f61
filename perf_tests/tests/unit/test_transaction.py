"""Several files change together or not at all, whatever kills the process on the way."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from diffusers_perf.records import transaction as transactions
from diffusers_perf.records.files import drafted
from diffusers_perf.records.transaction import JOURNAL, transaction

OLD = {"gpu.json": "old", "HISTORY.md": "old", "gone.json": "old"}
NEW = {"gpu.json": "new", "HISTORY.md": "new", "images/a.png": "new"}
CALLS = ((Path, "open"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (os, "fsync"))


class Killed(BaseException):
    """The process is gone: from here on it does nothing at all."""


def change(folder: Path) -> None:
    with transaction(folder) as changes:
        for name, text in NEW.items():
            changes.write(folder / name, text.encode())
        changes.remove(folder / "gone.json")


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def folder_of(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / str(number)
    folder.mkdir()
    for name, text in OLD.items():
        (folder / name).write_text(text)
    return folder


@contextmanager
def fault_at(number: int, error: BaseException, *, stays: bool) -> Iterator[list[int]]:
    """Every call that changes the disk counts, and the one of this number fails; with `stays`,
    all after it as well.
    """
    counted = [0]

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted[0] += 1
            if counted[0] == number or (stays and counted[0] > number):
                raise error
            return original(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, failing(getattr(owner, name)))
        yield counted


@pytest.mark.parametrize(
    ("error", "stays"), [(Killed(), True), (OSError(28, "No space left on device"), False)]
)
def test_fault_at_any_call_leaves_the_old_state_or_leads_to_the_new(
    error: BaseException, stays: bool, tmp_path: Path
) -> None:
    for number in range(1, 200):
        folder = folder_of(tmp_path, number)
        with fault_at(number, error, stays=stays) as counted, suppress(Killed, OSError):
            change(folder)
        left = content(folder)
        if JOURNAL not in left:
            drafts = {name for name in left if name.endswith(".draft")}
            assert {n: left[n] for n in left if n not in drafts} in (OLD, NEW), number
        change(folder)
        assert content(folder) == NEW
        if counted[0] < number:
            break
    assert 15 < number < 199


def test_exception_in_a_transaction_changes_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 0)

    def broken() -> None:
        with transaction(folder) as changes:
            changes.write(folder / "gpu.json", b"new")
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        broken()
    assert content(folder) == OLD


def test_journal_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, 0)

    def full(path: Path, data: bytes, *, kind: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(transactions, "write_bytes_whole", full)
    with pytest.raises(OSError, match="No space left"):
        change(folder)
    assert content(folder) == OLD


def test_draft_of_another_writer_stays(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 0)
    draft = drafted(folder / "history" / "gpu.jsonl.gz", b"under way")
    change(folder)
    assert draft.read_bytes() == b"under way"
    draft.unlink()
    left = drafted(folder / "gpu.json", b"of a killed one", kind=transactions.KIND)
    change(folder)
    assert not left.exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", ""])
def test_journal_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 0)
    (tmp_path / "outside").write_text("kept")
    (folder / JOURNAL).write_text(f'{{"moves": {{"{name}": "gpu.json"}}, "removed": ["{name}"]}}')
    with pytest.raises(OSError, match="not written by this suite"):
        change(folder)
    assert (tmp_path / "outside").read_text() == "kept"


def count_up(folder: Path) -> None:
    for _ in range(10):
        with transaction(folder) as changes:
            path = folder / "HISTORY.md"
            changes.write(path, path.read_bytes() + b"line\n")


def test_concurrent_processes_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "HISTORY.md").write_text("")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_up, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "HISTORY.md").read_text() == "line\n" * 40
