"""Modules that are compiled from source: counted, and judged against no import from bytecode."""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Iterator
from importlib import import_module, invalidate_caches
from importlib.util import cache_from_source
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffusers_perf.measurement import importing
from diffusers_perf.measurement.bytecode import COMPILED_FEW, Compiled, compiled
from diffusers_perf.measurement.loading import (
    COLD_BYTES,
    Load,
    Loading,
    before_first_image,
    import_notes,
    import_times,
    starting_notes,
    with_compiled,
)
from diffusers_perf.plugin import collection

FEW = Compiled(modules=COMPILED_FEW, lost=COMPILED_FEW)
"""As after one module was changed, or a test file written."""
KEPT = Compiled(modules=3000)
LOST = Compiled(modules=3000, lost=3000)
ALL = [f"made_{number}" for number in range(COMPILED_FEW + 20)]
"""Names of modules in a folder of their own."""
LONG_AGO_S = 1_700_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules of one line, with bytecode where this Python keeps it."""
    for name in ALL:
        (tmp_path / f"{name}.py").write_text("LINE = 1\n")
        py_compile.compile(str(tmp_path / f"{name}.py"), doraise=True)
    monkeypatch.syspath_prepend(tmp_path)
    invalidate_caches()
    yield tmp_path
    for name in ALL:
        sys.modules.pop(name, None)


@pytest.fixture
def module(folder: Path) -> tuple[Path, Path]:
    """The source and the bytecode of one of them, which was imported from it long ago."""
    source = folder / f"{ALL[0]}.py"
    import_module(ALL[0])
    cached = Path(cache_from_source(str(source)))
    os.utime(cached, (LONG_AGO_S, LONG_AGO_S))
    return source, cached


def counted(*names: str) -> Compiled:
    return compiled(names, since_s=LONG_AGO_S + 1)


def test_module_with_bytecode_was_not_compiled(module: tuple[Path, Path]) -> None:
    assert counted(ALL[0]) == Compiled()


def test_bytecode_younger_than_the_process_was_made_by_it(module: tuple[Path, Path]) -> None:
    assert compiled([ALL[0]], since_s=LONG_AGO_S) == Compiled(modules=1)


@pytest.mark.parametrize("lack", ["missing", "cut", "of another Python", "of other source"])
def test_bytecode_that_python_does_not_take_is_lost(lack: str, module: tuple[Path, Path]) -> None:
    source, cached = module
    if lack == "missing":
        cached.unlink()
    elif lack == "cut":
        cached.write_bytes(b"")
    elif lack == "of another Python":
        cached.write_bytes(b"\0\0\r\n" + cached.read_bytes()[4:])
    else:
        source.write_text("LINE = 12\n")
    if cached.exists():
        os.utime(cached, (LONG_AGO_S, LONG_AGO_S))
    assert counted(ALL[0]) == Compiled(modules=1, lost=1)


def test_bytecode_with_a_hash_of_its_source_is_taken(module: tuple[Path, Path]) -> None:
    source, cached = module
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    os.utime(cached, (LONG_AGO_S, LONG_AGO_S))
    assert counted(ALL[0]) == Compiled()


def test_what_has_no_bytecode_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "not_a_module", SimpleNamespace(__spec__=1))
    # Built in, frozen, an extension, rewritten by pytest, not imported.
    names = ("sys", "zipimport", "msgspec._core", __name__, "not_a_module", "no_such_module")
    assert compiled(names, since_s=0) == Compiled()


def test_load_counts_the_modules_that_it_imports(folder: Path) -> None:
    import_module(ALL[0])
    loading = Loading()
    for name in ALL[1:3]:
        import_module(name)
    # The bytecode was made by this process, if not by these imports.
    assert loading.compiled() == Compiled(modules=2)
    assert with_compiled(loading.ended()).compiled.modules >= 3


def load(seconds: float = 20.0, *, compiled: Compiled, read_bytes: int = 0) -> Load:
    return Load(seconds=seconds, read_bytes=read_bytes, compiled=compiled)


@pytest.mark.parametrize("read_bytes", [0, COLD_BYTES + 1])
@pytest.mark.parametrize("lack", [KEPT, LOST])
def test_import_from_source_is_no_import_time(lack: Compiled, read_bytes: int) -> None:
    from_source = load(compiled=lack, read_bytes=read_bytes)
    assert import_times([from_source]) == {}
    from_bytecode = load(9.0, compiled=Compiled())
    assert import_times([from_bytecode, from_source])["import_s"] == 9


def test_few_compiled_modules_silence_no_regression() -> None:
    assert import_times([load(compiled=FEW)])["import_s"] == 20
    assert [*import_notes([load(compiled=FEW)])] == []
    assert before_first_image(load(compiled=FEW), 2.0, 1.0, None, FEW) == {
        "load_s": 20,
        "first_image_s": 21,
    }
    assert [*starting_notes(load(compiled=FEW), FEW)] == []


def test_load_or_first_image_from_source_is_not_judged() -> None:
    from_source, from_bytecode = load(compiled=LOST), load(compiled=Compiled())
    assert before_first_image(from_source, 2.0, 1.0, None, LOST) == {}
    (note,) = starting_notes(from_source, LOST)
    assert note.startswith("load time and first image time not judged: ")
    # As where torch.compile is imported with the first image.
    assert before_first_image(from_bytecode, 2.0, 1.0, "warm", KEPT) == {"load_s": 20}
    (note,) = starting_notes(from_bytecode, KEPT)
    assert note.startswith("first image time not judged: ")
    assert [*starting_notes(None, LOST)] == []


@pytest.mark.parametrize("forbidden", [True, False])
def test_note_names_the_cause(forbidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", forbidden)
    cause = "PYTHONDONTWRITEBYTECODE or -B is set" if forbidden else "it cannot be written"
    (note,) = import_notes([load(compiled=LOST)])
    assert "not judged: this process compiled 3,000 modules from source" in note
    assert cause in note
    (note,) = import_notes([load(compiled=Compiled()), load(compiled=LOST)])
    assert "that of another process" in note
    assert cause in note
    (note,) = import_notes([load(compiled=KEPT)])
    assert "as the first to import them" in note
    # The next process will be like the one that was timed.
    assert [*import_notes([load(compiled=Compiled()), load(compiled=KEPT)])] == []
    assert [*import_notes([])] == []


@pytest.mark.parametrize(
    ("compiled", "read_bytes", "asks"),
    [
        (Compiled(), 0, None),
        (FEW, 0, None),
        (FEW, COLD_BYTES + 1, {"kept": True}),
        (KEPT, 0, {"kept": True}),
        (LOST, 0, {"kept": False}),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_session_times_a_process_with_bytecode(
    compiled: Compiled,
    read_bytes: int,
    asks: dict[str, bool] | None,
    quick: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def timed(_: object, **how: bool) -> Load:
        asked.append(how)
        return load(9.0, compiled=Compiled())

    monkeypatch.setattr(importing, "timed_import", timed)
    own = load(compiled=compiled, read_bytes=read_bytes)
    perf: Any = SimpleNamespace(bench=SimpleNamespace(quick=quick))
    config: Any = SimpleNamespace(
        stash={collection.IMPORTING: SimpleNamespace(load=lambda: own), collection.SESSION: perf},
        option=SimpleNamespace(collectonly=False),
    )
    loads = collection._imports(config)
    assert asked == ([asks] if asks and not quick else [])
    assert loads[-1] == own
