"""Which GPUs this process can use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"
NONE = "-1"


@contextmanager
def gpus_hidden() -> Iterator[None]:
    """No GPU is visible within, unless the process has asked CUDA for them before.

    For a process that measures on the CPU: torchao and xFormers open a CUDA context when they are
    imported, as diffusers and transformers do, and torch.compile opens one when it compiles. It
    takes half a GB of a GPU that others may measure on, and memory of the host.
    """
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = NONE
    try:
        yield
    finally:
        del os.environ[VISIBLE]
        if before is not None:
            os.environ[VISIBLE] = before
