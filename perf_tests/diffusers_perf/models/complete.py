"""What a checkpoint's files lack: diffusers leaves it without data, transformers draws it anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.messages import models as messages


def refuse_lacking(pipeline: Any, model: str, *, revision: str | None) -> None:
    """`Refusal` for a loaded pipeline with a module of which tensors are not in its files."""
    import transformers

    for name, module in pipeline.components.items():
        if isinstance(module, transformers.PreTrainedModel):
            lacking = _drawn(type(module), model, subfolder=name, revision=revision)
        elif isinstance(module, torch.nn.Module):
            lacking = [path for path, tensor in module.named_parameters() if tensor.is_meta]
        else:
            continue
        if lacking:
            total = sum(1 for _ in module.parameters())
            raise Refusal(messages.lacks_tensors(model, name, lacking, total))


def _drawn(kind: Any, model: str, **place: str | None) -> list[str]:
    """The tensors that transformers draws. It names them where it loads, here without data."""
    info: Mapping[str, set[str]]
    _, info = kind.from_pretrained(
        model, device_map="meta", output_loading_info=True, use_safetensors=True, **place
    )
    return sorted(info["missing_keys"])
