"""`python -m ci VERB`: 0 holds, 1 a regression, 2 it could not be judged (`ci.answers`)."""

from __future__ import annotations

import os
import signal
import sys
import traceback

from ci.answers import CANNOT_JUDGE, refuse
from perf_tests.harness.packages import not_installed


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns its exit code, which is a regression's for a regression alone."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks one of our characters is no reason to say nothing.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    # Whoever ends a job in CI ends it with this.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Here, since it takes most of a second, in which it can be interrupted as well.
        from ci import verbs

        answer = verbs.run(arguments)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _say_nothing_more()  # whoever read the beginning wants no more; the answer stands
        return answer
    except BrokenPipeError:
        _say_nothing_more()
    except KeyboardInterrupt:
        print("interrupted: nothing was judged; what was written before stays", file=sys.stderr)
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            return refuse(sentence)
        traceback.print_exc()
    except Exception:
        # Ours, and nobody's regression: Python would answer 1.
        traceback.print_exc()
    finally:
        signal.signal(signal.SIGTERM, before)
    return CANNOT_JUDGE


def _say_nothing_more() -> None:
    # At its end Python would write again what nobody reads, and answer as for a regression.
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
