"""Torch's global flags, before and now: what one of them costs need not show in any counter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from diffusers_perf.catalog.metrics import TORCH_FLAGS
from diffusers_perf.catalog.status import Status
from diffusers_perf.judge.finding import Finding
from diffusers_perf.judge.messages import run as messages
from diffusers_perf.judge.question import Question

COSTLY = {
    "deterministic algorithms": "on",
    "cuDNN deterministic": "on",
    "cuDNN TF32": "off",
    "matmul TF32": "off",
    "float32 matmul precision": "highest",
    "gradients": "on",
    "anomaly detection": "on",
    "flash attention": "off",
    "default dtype": "float64",
}
"""By flag, the value with which torch does more work for the same images."""
EXPECTED = {
    "deterministic algorithms": "off",
    "cuDNN deterministic": "off",
    "anomaly detection": "off",
    "default dtype": "float32",
}
"""Torch's own, where nothing was accepted. Optimizations set the others."""
OF_THE_MACHINE = ("threads",)
"""Another host of the same GPU has others, and they change no work: they are named where a time is
beyond its limit, and not judged."""


class Changed(NamedTuple):
    """A flag that is not what it was."""

    name: str
    was: str
    now: str


def accepted(q: Question) -> Iterator[Finding]:
    """Against what the baseline was accepted with; without one, against torch's own."""
    known = q.baseline.flags if q.baseline else {}
    was = {name: value for name, value in known.items() if name not in OF_THE_MACHINE}
    source = q.source if was else messages.TORCH_DEFAULTS
    for status, changes in changed(was or EXPECTED, q.measured.flags).items():
        message = messages.flags(changes, source=source, rerun=q.rerun)
        yield q.finding(status, TORCH_FLAGS.name, message)


def of_the_machine(q: Question) -> list[Changed]:
    """What can be why the host takes longer than in the accepted processes: a pipeline may set the
    number of threads itself.
    """
    known = q.baseline.flags if q.baseline else {}
    was = {name: known[name] for name in OF_THE_MACHINE if name in known}
    return [change for changes in changed(was, q.measured.flags).values() for change in changes]


def changed(was: Mapping[str, str], now: Mapping[str, str]) -> dict[Status, list[Changed]]:
    """What is known of both and not the same, by its status: more work, or new."""
    found: dict[Status, list[Changed]] = {}
    for name, before in was.items():
        after = now.get(name, before)
        if after != before:
            status = Status.MORE_WORK if COSTLY.get(name) == after else Status.NEW
            found.setdefault(status, []).append(Changed(name, before, after))
    return found
