"""Captures without a GPU: a CUDA graph's stand-in for tests."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusers_perf.techniques.cuda_graphs import WARM_UPS, Graphed


class Tape(TorchDispatchMode):
    """Writes down each operator and runs it again on the same memory, as a CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        for func, args, kwargs, made in self._calls:
            for then, now in zip(
                tree_leaves(made), tree_leaves(func(*args, **kwargs)), strict=True
            ):
                if then.data_ptr() != now.data_ptr():
                    then.copy_(now)


class Taped(Graphed):
    """A function without arguments."""

    def _capture(self, leaves: list[Any], tree: Any) -> Any:
        for _ in range(WARM_UPS):
            self.function()
        tape = Tape()
        with tape:
            self.function()
        return tape, [], None
