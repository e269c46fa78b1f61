"""Every fault that the suite must detect, and every control that it must let pass.

To add one: write the function in the file of its kind and declare its source, the setting in which
it shows, what must detect it, and on which machine; the function says what breaks.
`diffusers-perf faults NAME` injects it between two clean runs, and `diffusers_perf.faults.plugin`
in a run of pytest. By default a fault is global, like a bad dependency bump: it hits the reference
too.
"""

from __future__ import annotations

from diffusers_perf.faults import (
    attention,
    compiling,
    controls,
    host,
    images,
    kernels,
    measuring,
    memory,
    precision,
    scheduler,
    starting,
    twice,
)
from diffusers_perf.faults.injection import Fault, faults_in

MODULES = (
    precision,
    attention,
    scheduler,
    host,
    memory,
    starting,
    kernels,
    compiling,
    twice,
    images,
    measuring,
    controls,
)
"""In the order of runs and tables."""


def declared() -> dict[str, Fault]:
    """All faults and controls that ship, by name."""
    return faults_in(MODULES)
