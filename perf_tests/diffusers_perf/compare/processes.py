"""One process of a comparison: the main job of one side, with a compile cache of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shlex import join

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.compare.guarded import end, passed_on
from diffusers_perf.compare.sides import Side
from diffusers_perf.ending import Interruption
from diffusers_perf.messages import ab as messages
from diffusers_perf.records.reading import load_run
from diffusers_perf.records.repository import repository
from diffusers_perf.records.run import Run

TESTS = "perf_tests"
"""The folder that the main job runs where a checkout has it; else pytest's testpaths."""
CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "PYTORCH_KERNEL_CACHE_PATH": "kernels",
}
"""Where compilers keep what they made, as environment variables."""


LAST_LINES = 15
LAST_BYTES = 2**16
MEASURED = (0, 1)
"""pytest's exit codes of a run that is through: all passed, or some failed."""
INTERRUPTED = 2
"""pytest's exit code where a file of tests cannot be imported, among others."""
NO_CASE = 5
"""pytest's exit code where its arguments select no test."""


class NothingMeasured(Refusal):
    """A process that gave no run; the text has its last lines."""


class NoCaseSelected(NothingMeasured):
    """pytest's arguments select no case."""


def measured(
    side: Side,
    options: Sequence[str],
    *,
    path: Path,
    limit_s: float,
    is_first: bool,
    lock: int,
    interruption: Interruption,
) -> tuple[int, Run]:
    """As `run`, with a log beside `path`: pytest's exit code and what was measured.

    `NothingMeasured` where no case was, and none failed of which the run says why.
    """
    log = path.with_suffix(".log")
    code = run(
        side,
        options,
        path=path,
        log=log,
        limit_s=limit_s,
        is_first=is_first,
        lock=lock,
        interruption=interruption,
    )
    reason = ""
    if code in MEASURED:
        try:
            found = load_run(path)
        except Refusal as error:
            reason = str(error)
        else:
            if found.cases or found.session.failures:
                return code, found
    name = path.stem.replace("-", " ")
    lacks = _lacks_tests(side)
    if code == NO_CASE:
        raise NoCaseSelected(messages.no_case_selected(name, join(options), log, lacks))
    if code in (*MEASURED, INTERRUPTED):
        # pytest has looked for tests in the whole checkout.
        reason = lacks or reason
    raise NothingMeasured(messages.nothing_measured(name, code, reason, last_lines(log), log))


def _lacks_tests(side: Side) -> str:
    """That its checkout has no folder of tests, in words; empty where it has."""
    if (side.checkout / TESTS).is_dir():
        return ""
    here = side.checkout == repository()
    return messages.lacks_tests("this checkout" if here else side.code[:12], TESTS)


def last_lines(log: Path) -> list[str]:
    """The last lines that a process printed."""
    with log.open("rb") as file:
        file.seek(-min(LAST_BYTES, log.stat().st_size), os.SEEK_END)
        return file.read(LAST_BYTES).decode(errors="replace").splitlines()[-LAST_LINES:]


def run(
    side: Side,
    options: Sequence[str],
    *,
    path: Path,
    log: Path,
    limit_s: float,
    is_first: bool,
    lock: int,
    interruption: Interruption,
) -> int:
    """Run the main job, which writes `path`, and return pytest's exit code.

    In a process group of its own, which never outlives this call and holds the descriptor `lock`.
    `is_first`: the compile cache is emptied. `subprocess.TimeoutExpired` after `limit_s`.
    """
    command = [str(side.python), "-m", "pytest"]
    command += [TESTS] if (side.checkout / TESTS).is_dir() else []
    command += ["--benchmark-only", *options, f"--benchmark-json={path}"]
    cache = path.parent / f"cache-{side.name}"
    caches = {name: str(cache / folder) for name, folder in CACHES.items()}
    # What an interrupted process left is not a run of this one, nor a warm cache for it.
    path.unlink(missing_ok=True)
    if is_first:
        with suppress(FileNotFoundError):
            shutil.rmtree(cache)
    # Interrupted between the steps in which Python starts a process, it would leave it behind.
    with log.open("wb") as output, interruption.held_back():
        process = subprocess.Popen(
            command,
            cwd=side.checkout,
            env=passed_on() | ({"PYTHONPATH": str(side.site)} if side.site else {}) | caches,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
        try:
            with interruption.let_through():
                return process.wait(timeout=limit_s)
        finally:
            end(process)
