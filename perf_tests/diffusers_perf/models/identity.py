"""Which weights a model has, in a few letters: runs on different weights are not compared."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from diffusers_perf.measurement.discovery import modules

LETTERS = 12
HEADER_MOST = 100_000_000
"""Bytes of a safetensors header, as the format limits it."""
SAMPLES, SAMPLE = 64, 4096
"""Places in a file, and bytes read at each."""


def of_folder(folder: Path) -> str:
    """A digest of every safetensors file below a folder: its name, size, header and samples.

    Fine-tuned weights have the header and the size of their origin, so bytes are
    sampled; reading all of them would take minutes. `OSError` where a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            header = min(int.from_bytes(file.read(8), "little"), HEADER_MOST)
            digest.update(file.read(header))
            for place in range(SAMPLES):
                file.seek(8 + header + (size - 8 - header) * place // SAMPLES)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:LETTERS]


def of_built(pipeline: Any, name: str) -> str:
    """A digest of a builder's name and of the modules that it made.

    Without their dtype, which the case decides. Two builders of one name and architecture are
    taken for the same.
    """
    digest = hashlib.sha256(f"{name}\n".encode())
    for component, module in sorted(modules(pipeline).items()):
        for path, tensor in _state(module):
            digest.update(f"{component}.{path} {tuple(tensor.shape)}\n".encode())
    return digest.hexdigest()[:LETTERS]


def _state(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return sorted(module.named_parameters(), key=lambda named: named[0])
