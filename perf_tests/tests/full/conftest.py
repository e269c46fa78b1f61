"""What the tests of real pipelines stand on."""

from __future__ import annotations

import torch

# Small tensors: threads would only wait for each other, most of all on a shared machine.
torch.set_num_threads(1)
