"""Compiled blocks under the hooks of a cache.

diffusers' caches put hooks around a block's forward that no compiler follows. diffusers compiles
the call of a block, hooks included; here it is what they call.
"""

from __future__ import annotations

from typing import Any

import torch


def compile_beneath_hooks(root: Any) -> None:
    """Of the compiled blocks that are hooked, compile what the hooks stand around instead."""
    for block in root.modules():
        registry = getattr(block, "_diffusers_hook", None)
        if registry is None or block._compiled_call_impl is None:
            continue
        # The first hook that was put there is the innermost.
        innermost = registry._fn_refs[0]
        innermost.original_forward = torch.compile(
            innermost.original_forward, fullgraph=True, dynamic=False
        )
        block._compiled_call_impl = None
