"""`diffusers-perf COMMAND`: 0 holds, 1 a regression, 2 it could not be judged."""

from __future__ import annotations

import os
import signal
import sys
import traceback

from diffusers_perf.cli.answers import CANNOT_JUDGE, refuse
from diffusers_perf.measurement.packages import not_installed


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code, which is a regression's for a regression alone."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks one of our characters is no reason to say nothing.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    # Whoever ends a job in CI ends it with this.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(arguments)
    except BrokenPipeError:
        return CANNOT_JUDGE  # whoever read the beginning has gone, and it was not told to its end
    finally:
        signal.signal(signal.SIGTERM, before)
        _tell_the_rest()


def _run(arguments: list[str] | None) -> int:
    try:
        # Here, since it takes most of a second, in which it can be interrupted as well.
        from diffusers_perf.cli import commands

        return commands.run(arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing was judged; what was written before stays", file=sys.stderr)
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            return refuse(sentence)
        traceback.print_exc()
    except BrokenPipeError:
        raise  # nobody is there to show a traceback to
    except Exception:
        # Ours, and nobody's regression: Python would answer 1.
        traceback.print_exc()
    return CANNOT_JUDGE


def _tell_the_rest() -> None:
    # Python would do so at its end, and answer 120 where nobody reads it.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
