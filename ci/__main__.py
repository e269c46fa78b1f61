"""`python -m ci COMMAND`: the same commands as `diffusers-perf COMMAND`."""

import sys

from diffusers_perf.cli.__main__ import main

sys.exit(main())
