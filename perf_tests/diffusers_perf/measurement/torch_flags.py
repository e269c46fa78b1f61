"""Torch's global flags, which any library can set for the whole process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffusers_perf.messages.measurement import SET_TWICE


def torch_flags() -> dict[str, str]:
    """By name, each flag as it is where this is called; ``on`` and ``off`` for switches."""
    cuda = torch.backends.cuda
    flags: dict[str, Callable[[], object]] = {
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
        "cuDNN deterministic": lambda: torch.backends.cudnn.deterministic,
        "cuDNN benchmark": lambda: torch.backends.cudnn.benchmark,
        "cuDNN TF32": lambda: torch.backends.cudnn.allow_tf32,
        "matmul TF32": lambda: cuda.matmul.allow_tf32,
        "float32 matmul precision": torch.get_float32_matmul_precision,
        "gradients": torch.is_grad_enabled,
        "anomaly detection": torch.is_anomaly_enabled,
        "autocast": lambda: torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"),
        "flash attention": cuda.flash_sdp_enabled,
        "default dtype": torch.get_default_dtype,
        "threads": torch.get_num_threads,
    }
    return {name: _shown(read) for name, read in flags.items()}


def _shown(read: Callable[[], object]) -> str:
    try:
        value = read()
    except RuntimeError:
        # Torch refuses to name a precision that was set in both of its ways.
        return SET_TWICE
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).removeprefix("torch.")
