"""Runs a command, and ends it with all that it started once standard input is closed.

    python guard.py COMMAND ...

Whoever starts it holds the other end of that pipe: the system closes it when that process dies,
whatever it dies of. Run as a file, so that it imports nothing of the library. The caller makes it
the leader of a process group, which is ended as a whole.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_S = 30.0
"""For the command to write what it has; a comparison in it takes a while to end its own process."""
PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    # As handlers, which a program does not inherit: what it ignored would stay ignored in it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    closed = threading.Event()
    watch = threading.Thread(target=_watch, args=(process, closed), daemon=True)
    watch.start()
    code = process.wait()
    if closed.is_set():
        watch.join()
    return code


def _watch(process: subprocess.Popen[bytes], closed: threading.Event) -> None:
    while os.read(0, 1):
        pass
    closed.set()
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_S)
    os.killpg(0, signal.SIGKILL)  # itself, too


def _die_with_parent() -> None:
    """For a guard that is killed, which closes no pipe."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # As a shell does, where a signal ended the command.
    sys.exit(code if code >= 0 else 128 - code)
