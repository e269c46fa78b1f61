"""Which block of a denoiser is farther from the reference's than the others of its kind are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from diffusers_perf.messages import measurement as messages
from diffusers_perf.records.measurement import BlockDistance, Measurement

BLOCK_DB = 14.0
"""A block this much below the median of its kind is an outlier: another arithmetic changes all of
them alike. On an H200 what must pass left a block of SDXL at most 9.8 dB below (compiled per block;
8.8 dB in bfloat16), and of FLUX.1-dev 2.1 dB. A head that is 2 % off was 18.7 dB below or more, in
eager mode: see `models/SDXL.md` and `models/FLUX.md`."""
ROUNDING_DB = 85.0
"""The median counts for no more: where the others are the same bit by bit, one may still round
otherwise, as in another kernel that an address chose. Another attention kernel's roundings were at
76.5 dB or more."""


@dataclass(frozen=True, kw_only=True)
class FarBlock:
    """A block beside the others of its kind."""

    name: str
    kind: str
    db: float
    median_db: float
    blocks: int
    """Of its kind, itself included."""

    @property
    def limit_db(self) -> float:
        return min(self.median_db, ROUNDING_DB) - BLOCK_DB

    @property
    def is_outlier(self) -> bool:
        return self.db <= self.limit_db


def farthest(blocks: Mapping[str, BlockDistance]) -> FarBlock | None:
    """The block that is the farthest below what its kind allows, or the least above it; None
    without blocks. A block without others of its kind is never an outlier.
    """
    kinds: dict[str, list[float]] = defaultdict(list)
    for block in blocks.values():
        kinds[block.kind].append(block.db)
    all_blocks = [
        FarBlock(
            name=name,
            kind=block.kind,
            db=block.db,
            median_db=median(kinds[block.kind]),
            blocks=len(kinds[block.kind]),
        )
        for name, block in blocks.items()
    ]
    return min(all_blocks, key=lambda block: block.db - block.limit_db, default=None)


def outlier_of(blocks: Mapping[str, BlockDistance]) -> FarBlock | None:
    """The farthest block, if it is an outlier."""
    block = farthest(blocks)
    return block if block is not None and block.is_outlier else None


def not_compared(measured: Iterable[Measurement]) -> list[str]:
    """Why blocks of which cases were not compared, each reason once."""
    cases: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for case in measured:
        steps = case.step_distances
        if steps and steps.blocks_unknown:
            key = steps.blocks_unknown, bool(steps.blocks)
            cases[key].append(f"{case.workload}-{case.case}")
    return [
        messages.blocks_not_compared(names, reason, some=some)
        for (reason, some), names in cases.items()
    ]
