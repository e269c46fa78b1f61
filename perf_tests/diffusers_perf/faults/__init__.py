"""Every fault that the suite must catch, and every control that it must let pass.

To add one: write the function in the file of its kind, say where it happened, in which setting it
shows, which measure must see it and on which machine; in the function, say what breaks.
`python -m ci faults NAME` injects it between two clean runs, and the plugin `injected` in a run of
pytest. Faults are global unless they say otherwise, as a bad dependency bump is: they hit the
reference too.
"""

# Importing them declares what is in them, in the order in which it is run and told.
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
