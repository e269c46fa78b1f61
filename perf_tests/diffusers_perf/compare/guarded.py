"""Processes of code that is measured: alone in a group that ends with them, and without secrets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from diffusers_perf.compare import guard

STOPPING_S = 10.0
PASSED_ON = re.compile(
    r"(PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|(HTTPS?|NO)_PROXY|CC|CXX|SSL_CERT_\w+"
    r"|(CUDA|NVIDIA|NCCL|CUDNN|CUBLAS|TORCH\w*|PYTORCH|TRITON|HF|HUGGINGFACE|DIFFUSERS|OMP|MKL|KMP"
    r"|OPENBLAS|XFORMERS)(_\w+)?)",
    re.IGNORECASE,
)
"""Names of environment variables that measured code gets: what machine and libraries need."""
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY$|_PAT$", re.IGNORECASE)


def passed_on() -> dict[str, str]:
    """The environment for measured code: no secret of the job reaches it."""
    passed = {n: v for n, v in os.environ.items() if PASSED_ON.fullmatch(n)}
    return {n: v for n, v in passed.items() if not SECRET.search(n)}


def guarded(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: BinaryIO,
    lock: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, which ends when this process does.

    It holds the descriptor `lock`. `end` must be called in the end.
    """
    return subprocess.Popen(
        [sys.executable, "-P", guard.__file__, *command],
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
    )


def end(process: subprocess.Popen[bytes], *, stopping_s: float = STOPPING_S) -> None:
    """End the leader of a group with all that it started, if it has not ended by itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        signal_to(process, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=stopping_s)
            break
    # What the leader started and left behind may ignore the first signal.
    signal_to(process, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()


def signal_to(process: subprocess.Popen[bytes], number: int) -> None:
    """Send it to all that `guarded` started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
