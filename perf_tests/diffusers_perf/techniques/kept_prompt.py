"""A pipeline that encodes a prompt once, as a server does that is asked for it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from diffusers_perf.measurement.applied import NotApplied


class KeptPrompt:
    """Stands for a pipeline's `encode_prompt` and keeps what it gave for the last call.

    Tensors that are passed in are not looked at: with them, nothing is kept.
    """

    def __init__(self, encode: Callable[..., Any]) -> None:
        self._encode = encode
        self._key: str | None = None
        self._given: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the pipeline's own. Its results are not to be written to."""
        if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            return self._encode(*args, **kwargs)
        key = repr((args, kwargs))
        if key != self._key:
            self._given, self._key = self._encode(*args, **kwargs), key
        return self._given


def keep_prompt(pipeline: Any) -> None:
    """Let this pipeline encode a prompt once, until it is given another."""
    pipeline.encode_prompt = KeptPrompt(pipeline.encode_prompt)


def prompt_is_kept(pipeline: Any) -> None:
    """The pipeline's prompt is encoded by a `KeptPrompt`."""
    if not isinstance(vars(pipeline).get("encode_prompt"), KeptPrompt):
        raise NotApplied("the prompt is encoded for each image")
