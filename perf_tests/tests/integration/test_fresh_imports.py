"""What a fresh process that only imports says: its times, its loops, the bytecode that it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusers_perf.measurement import importing
from diffusers_perf.measurement.bytecode import COMPILED_FEW
from diffusers_perf.measurement.importing import ATTEMPTS, timed_import
from diffusers_perf.measurement.loading import Load

SLEEP = "import time; time.sleep(0.3)"


def test_fresh_process_says_what_importing_took() -> None:
    fast, slow = (timed_import(["json", "no_such_module"], first=f) for f in ("", SLEEP))
    assert slow.idle_s - fast.idle_s > 0.2
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        timed_import([], first="1 / 0")


def test_fresh_process_times_the_loop_after_each_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And in no part: one that imports nothing is too short for a loop of its own."""
    for name, seconds in (("early", 0.3), ("library", 0.2), ("late", 0.15)):
        (tmp_path / f"{name}.py").write_text(SLEEP.replace("0.3", str(seconds)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(importing, "PARTS", ("library",))
    load = timed_import(["early", "library", "late"])
    # After Python's own start and this package's.
    _, library_s, late_s = (seconds for seconds, _ in load.parts)
    assert library_s >= 0.5 > late_s >= 0.15
    assert load.seconds >= sum(seconds for seconds, _ in load.parts)


def test_fresh_process_times_the_loop_after_torch() -> None:
    load = timed_import(["torch", "json"])
    assert len(load.parts) == 2
    assert max(loop_s for _, loop_s in load.parts) < load.seconds


@pytest.mark.parametrize("how", ["forbidden", "not writable", "first", "known"])
def test_import_is_timed_from_bytecode_wherever_python_keeps_it(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    elsewhere = tmp_path / "elsewhere"
    names = [f"made_{number}" for number in range(COMPILED_FEW + 20)]
    for name in names:
        (tmp_path / f"{name}.py").write_text("LINE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    if how == "not writable":
        elsewhere.write_text("a file, and no folder")
    elif how in ("forbidden", "known"):
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(elsewhere))
    attempts, own = [], importing._timed

    def timed(*how: Any) -> Load:
        attempts.append(own(*how))
        return attempts[-1]

    monkeypatch.setattr(importing, "_timed", timed)
    slept = timed_import(names, first="import time; time.sleep(0.3)", kept=how != "known")
    assert [one.compiled.is_much for one in attempts] == [True] * (len(attempts) - 1) + [False]
    # An attempt that keeps no bytecode comes first, where that is not known before.
    assert len(attempts) == (2 if how in ("first", "known") else 3) <= ATTEMPTS
    assert attempts[0].compiled.is_lost == (len(attempts) == 3)
    # What makes an import slow is seen in each of them.
    assert slept == attempts[-1]
    assert slept.idle_s >= 0.2
    if how in ("forbidden", "known"):
        assert not elsewhere.exists()
