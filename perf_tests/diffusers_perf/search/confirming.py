"""Measures what a search found as the main job would."""

from __future__ import annotations

from dataclasses import replace

from diffusers_perf.messages import explore as messages
from diffusers_perf.records.measurement import Measurement
from diffusers_perf.search.attempt import IN_FULL, Ask, Rejected
from diffusers_perf.search.search import Search


def confirm(search: Search) -> None:
    """Measure the best in full; where that shows that it is out, the one before. `Stopped` where no
    time is left for that.

    Where only the clock differs, reference and best are timed once more, in turn: the whole search
    lies between the two.
    """
    while search.stack:
        best, why = search.steps[-1], f"{IN_FULL}, beside {'+'.join(search.stack)}"
        again: Measurement | None = None
        if best.measured.gpu_busy_s is None:
            change = messages.timed_again("reference")
            again = search.attempt(Ask(stack=(), change=change, why=why, best=best.stack)).measured
        change = messages.timed_again("+".join(best.stack))
        tried = search.attempt(Ask(stack=best.stack, change=change, why=why))
        if tried.measured is not None and not tried.refused:
            search.steps[-1] = replace(best, measured=tried.measured)
            if again is not None:
                search.steps[0] = replace(search.steps[0], measured=again)
            break
        search.tell(messages.not_kept(tried.refused))
        search.steps.pop()
        for name in {*best.stack} - {*search.stack}:
            search.rejected[name] = Rejected(reason=tried.refused, on=search.stack, again=False)
    search.is_confirmed = True


def reference_of(search: Search) -> Measurement:
    """What the best is compared with: measured in full where the best was."""
    found = [step.measured for step in search.steps if not step.stack]
    return found[0 if search.is_confirmed else -1]
