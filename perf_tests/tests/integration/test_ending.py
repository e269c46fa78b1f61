"""Signals that end a job: it keeps what was measured, and the handlers that were there before."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from diffusers_perf.catalog.declarations import REFERENCE, Case
from diffusers_perf.cli import __main__ as cli
from diffusers_perf.cli import gate
from diffusers_perf.compare.bare import bare_bench
from diffusers_perf.ending import ended_by, interruptible
from diffusers_perf.measurement.bench import Bench
from diffusers_perf.plugin.judging import Judging
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.store import BaselineStore
from perf_tests.tests.unit import fake
from perf_tests.tests.unit.main_job import run

LIBC = ctypes.CDLL(None)
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
Change = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def started_in_the_background() -> Iterator[None]:
    """As a script's shell starts it; so a signal that is not handled does not end the tests."""
    ignored = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    # Under nohup it is ignored.
    terminal = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, terminal)
    for number, handler in before.items():
        assert signal.getsignal(number) == signal.SIG_IGN
        signal.signal(number, handler)


def sends(number: signal.Signals) -> Change:
    return lambda images: os.kill(os.getpid(), number)


def library_fails(images: Any) -> Any:
    """As safetensors and diffusers do of a file that could not be read to its end."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise OSError("unable to load weights") from None


def library_goes_on(images: Any) -> Any:
    """As Python does where one comes while an object is deleted."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        return images


def library_has_a_handler() -> Change:
    """In its first generation it sets one beneath Python's, as Triton's compiler does."""
    made = count()

    def change(images: Any) -> Any:
        if not next(made):
            LIBC.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        return images

    return change


def is_ended(images: Any) -> Any:
    os.kill(os.getpid(), signal.SIGTERM)
    return images


WITHOUT_LINE: Change = FunctionType(is_ended.__code__.replace(co_linetable=b""), globals())
"""Python does not know the line of all that it runs."""


def comes_again(images: Any) -> Any:
    """While what was running is left."""
    try:
        return WITHOUT_LINE(images)
    finally:
        signal.raise_signal(signal.SIGTERM)


ENDS: dict[str, Callable[[], Change]] = {
    **{number.name: partial(sends, number) for number in SIGNALS},
    "library fails": lambda: library_fails,
    "library goes on": lambda: library_goes_on,
    "library has a handler": library_has_a_handler,
    "no line": lambda: WITHOUT_LINE,
    "comes again": lambda: comes_again,
}


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Declares what the case `ends` does to its images."""
    return lambda change: monkeypatch.setitem(fake.CHANGES, "ends", change)


def assert_nothing_is_lost(pytester: pytest.Pytester) -> None:
    """Run one case before that `ends`, and one after it."""
    path = pytester.path / "run.json"
    result = run(pytester, f"--benchmark-json={path}", fakes="fine,ends,black")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["invalid: fake4-ends: interrupted before it was finished"])
    result.stdout.fnmatch_lines(["fine * 0.* s*"])
    recorded = load_run(path)
    assert [*recorded.by_id] == ["fake4-reference", "fake4-fine"]
    (lost,) = recorded.session.not_timed
    assert (lost.id, lost.status) == ("fake4-ends", "invalid")
    # What it never reached is not lost.
    (cut,) = recorded.missing([])
    assert (cut.id, cut.status) == ("fake4-black", "invalid")


@pytest.mark.parametrize("how", ENDS)
def test_signal_keeps_the_measurements(
    pytester: pytest.Pytester, ending: Callable[[Change], None], how: str
) -> None:
    ending(ENDS[how]())
    assert_nothing_is_lost(pytester)


def test_line_that_was_running_is_named(
    pytester: pytest.Pytester, ending: Callable[[Change], None]
) -> None:
    ending(sends(signal.SIGTERM))
    run(pytester, fakes="ends").stdout.fnmatch_lines(["*test_ending.py:*: KeyboardInterrupt"])


def test_signal_that_a_repeated_reference_fails_with_ends_the_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judging, "repeat_reference", lambda *_: library_fails(None))
    assert run(pytester).ret == pytest.ExitCode.INTERRUPTED


def test_second_signal_changes_nothing(
    pytester: pytest.Pytester, ending: Callable[[Change], None]
) -> None:
    """As in CI, where a job that is cancelled gets others soon after the first."""
    ending(sends(signal.SIGINT))
    (pytester.path / "perf_tests").mkdir()
    (pytester.path / "perf_tests" / "conftest.py").write_text(
        "import os, signal\n\n"
        "def pytest_keyboard_interrupt():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert_nothing_is_lost(pytester)


def test_signal_ends_one_case_where_pytest_opens_its_debugger(
    pytester: pytest.Pytester, ending: Callable[[Change], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As --pdb has it, which goes on with the next."""
    monkeypatch.setattr("_pytest.debugging.post_mortem", lambda _: None)
    ending(sends(signal.SIGINT))
    result = run(pytester, "--pdb", fakes="ends,fine")
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["fine * 0.* s*"])


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_while_the_run_is_written_loses_nothing(
    pytester: pytest.Pytester, number: signal.Signals
) -> None:
    path = pytester.path / "run.json"
    (pytester.path / "perf_tests").mkdir()
    (pytester.path / "perf_tests" / "conftest.py").write_text(
        "import os, signal\n\n"
        "def pytest_benchmark_update_machine_info():\n"
        f"    os.kill(os.getpid(), signal.{number.name})\n"
    )
    assert run(pytester, f"--benchmark-json={path}").ret == pytest.ExitCode.OK
    assert [*load_run(path).by_id] == ["fake4-reference", "fake4-fine"]


def test_handler_of_the_user_stays(
    pytester: pytest.Pytester, ending: Callable[[Change], None]
) -> None:
    came: list[int] = []

    def own(number: int, frame: object) -> None:
        came.append(number)

    ending(is_ended)
    before = signal.signal(signal.SIGTERM, own)
    try:
        result = run(pytester, fakes="ends")
        assert signal.getsignal(signal.SIGTERM) == own
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.ret == pytest.ExitCode.OK
    assert set(came) == {signal.SIGTERM}


@pytest.mark.parametrize(("selected", "ours"), [("other", False), ("other or fine", True)])
def test_run_without_a_case_leaves_the_signals_alone(
    pytester: pytest.Pytester, selected: str, ours: bool
) -> None:
    (pytester.path / "perf_tests").mkdir()
    (pytester.path / "perf_tests" / "test_other.py").write_text(
        "import signal\n\n"
        "def test_other():\n"
        f"    assert (signal.getsignal(signal.SIGTERM) != signal.SIG_IGN) is {ours}\n"
    )
    result = run(pytester, "-k", selected, only=False)
    result.assert_outcomes(passed=1 + ours, deselected=2 - ours)


def test_run_in_a_thread_needs_no_signals(pytester: pytest.Pytester) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, pytester).result().ret == pytest.ExitCode.OK


@pytest.mark.parametrize("number", SIGNALS)
def test_ending_signal_interrupts_a_command(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(gate, "main", lambda _: signal.raise_signal(number))
    assert cli.main(["gate", "run.json"]) == 2
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_lost_terminal_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handler_of_a_library_does_not_keep_a_comparison() -> None:
    """As Ray's does not, which it sets in this process."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handler_beneath_pythons_is_replaced_without_pytest(tmp_path: Path) -> None:
    """As while a command looks for the fastest stack or injects faults."""
    bench: Bench = bare_bench(device="cpu", model=None, workloads=[], store=BaselineStore(tmp_path))
    with ended_by():
        LIBC.signal(signal.SIGTERM, signal.SIG_IGN)
        case = Case(
            workload=fake.WORKLOAD, name=REFERENCE, stack=(), against=REFERENCE, image_only=False
        )
        bench.say(case, "round")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
