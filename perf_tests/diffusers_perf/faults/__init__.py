"""Every fault that the suite must detect, and every control that it must let pass.

To add one: write the function in the file of its kind and declare its source, the setting in which
it shows, what must detect it, and on which machine; the function says what breaks.
`diffusers-perf faults NAME` injects it between two clean runs, and `diffusers_perf.faults.plugin`
in a run of pytest. By default a fault is global, like a bad dependency bump: it hits the reference
too.
"""

# Importing a module declares what is in it; the order is the order of runs and tables.
from diffusers_perf.faults import (  # noqa: F401  # isort: skip
    precision,
    attention,
    scheduler,
    host,
    memory,
    kernels,
    compiling,
    twice,
    images,
    measuring,
    controls,
)
