"""`diffusers-perf COMMAND`: 0 holds, 1 a regression, 2 it could not be judged."""

from __future__ import annotations

import os
import sys
import traceback

from diffusers_perf.catalog.status import CANNOT_JUDGE
from diffusers_perf.cli.answers import refuse
from diffusers_perf.cli.streams import Lost, settle, shown_plain
from diffusers_perf.ending import ended_by, leave_lost_terminal
from diffusers_perf.measurement.packages import not_installed
from diffusers_perf.messages.common import NOTHING_JUDGED, OUT_OF_MEMORY


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code, which is a regression's for a regression alone."""
    _occupy_closed_descriptors()
    try:
        with ended_by(), shown_plain():
            return _run(arguments)
    except Lost as lost:
        settle()
        return refuse(str(lost)) if str(lost) else CANNOT_JUDGE
    except BrokenPipeError:
        return CANNOT_JUDGE  # what it says was not read to its end
    finally:
        settle()


def _run(arguments: list[str] | None) -> int:
    try:
        # Here, since it takes most of a second, in which it can be interrupted as well.
        from diffusers_perf.cli import commands

        return commands.run(arguments)
    except KeyboardInterrupt:
        leave_lost_terminal()
        print(NOTHING_JUDGED, file=sys.stderr)
    except ModuleNotFoundError as error:
        if sentence := not_installed(error):
            return refuse(sentence)
        traceback.print_exc()
    except MemoryError:
        return refuse(OUT_OF_MEMORY)
    except (Lost, BrokenPipeError):
        raise  # there is no reader of a traceback
    except Exception:
        # A bug of this suite is not a regression, for which Python's 1 stands.
        traceback.print_exc()
    return CANNOT_JUDGE


def _occupy_closed_descriptors() -> None:
    # Else the next file that is opened gets the number of standard output, and what is printed.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    sys.exit(main())
