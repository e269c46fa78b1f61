"""What was counted of a pipeline's code, by kind and place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from diffusers_perf.catalog import metrics
from diffusers_perf.catalog.metrics import FULL_PRECISION_OPERATORS, OPERATORS, UNFUSED_ATTENTION
from diffusers_perf.records.measurement import Count
from diffusers_perf.records.quantities import StrictRecord

COUNTERS = tuple(
    metric.field
    for metric in (
        OPERATORS,
        metrics.DEVICE_READS,
        metrics.CASTS,
        metrics.LAYOUT_CONVERSIONS,
        metrics.HOST_TO_DEVICE_COPIES,
        metrics.DEVICE_TO_HOST_COPIES,
        FULL_PRECISION_OPERATORS,
        UNFUSED_ATTENTION,
        metrics.MASKED_ATTENTION,
        metrics.DENOISER_SAMPLES,
    )
)
"""What is counted. Full precision: convolutions, products and attention in float32 or wider."""

HEAVY = ("convolution", "matmul", "attention")
UNFUSED = ("attention: naive", "attention: sdpa, math only")


class OperatorCount(StrictRecord, frozen=True, kw_only=True):
    """One counter of a case's code."""

    total: Count
    where: Mapping[str, Count] = {}
    """The same by kind and class: ``float16 → float32 in GroupNorm``."""


class Place(NamedTuple):
    """Where in the pipeline something happened: the innermost module that was running."""

    path: str
    """``unet.down_blocks.0.resnets.1.norm1``."""
    owner: str
    """Its class: ``GroupNorm``."""


class Operator(NamedTuple):
    """One kind of operator in one place."""

    name: str
    family: str
    dtype: str
    layout: str
    """``contiguous``, ``channels_last`` or ``strided`` of its first 4-D tensor, else ``-``."""
    place: Place


class Occurrence(NamedTuple):
    """One thing that a counter counts in one place."""

    counter: str
    what: str
    """For a cast ``float16 → float32``."""
    place: Place


class OperatorCost(NamedTuple):
    """How often an operator is called and what that takes, in a whole generation."""

    calls: Count
    flops: Count
    bytes: Count
    """Read and written, each call on its own."""


@dataclass(frozen=True, kw_only=True)
class OperatorCounts:
    """What a generation asks for, each as fixed and per-step counts."""

    operators: Mapping[Operator, OperatorCost]
    occurrences: Mapping[Occurrence, Count]

    @property
    def counters(self) -> dict[str, Count]:
        """The counters that a baseline holds, by their names in METRICS."""
        return {name: added(sites.values()) for name, sites in self.sites().items()}

    def sites(self) -> dict[str, dict[tuple[str, Place], Count]]:
        """By counter, then by what happened and where."""
        found: dict[str, dict[tuple[str, Place], list[Count]]] = {
            name: defaultdict(list) for name in COUNTERS
        }
        for occurrence, count in self.occurrences.items():
            found[occurrence.counter][occurrence.what, occurrence.place].append(count)
        for operator, cost in self.operators.items():
            found[OPERATORS.field][operator.family, operator.place].append(cost.calls)
            if operator.family in UNFUSED:
                found[UNFUSED_ATTENTION.field][operator.family, operator.place].append(cost.calls)
            if operator.family.startswith(HEAVY) and operator.dtype in ("float32", "float64"):
                what = f"{operator.family} in {operator.dtype}"
                found[FULL_PRECISION_OPERATORS.field][what, operator.place].append(cost.calls)
        return {
            name: {site: added(counts) for site, counts in sites.items()}
            for name, sites in found.items()
        }

    def where(self) -> dict[str, dict[str, Count]]:
        """By counter, then ``float16 → float32 in GroupNorm``: what a baseline holds beside it."""
        grouped: dict[str, dict[str, Count]] = {}
        for name, sites in self.sites().items():
            kinds: dict[str, list[Count]] = defaultdict(list)
            for (what, place), count in sites.items():
                kinds[f"{what} in {place.owner}"].append(count)
            grouped[name] = {kind: added(counts) for kind, counts in sorted(kinds.items())}
        return grouped

    def accepted(self) -> dict[str, OperatorCount]:
        """As a baseline holds it."""
        where = self.where()
        return {
            name: OperatorCount(total=total, where=where.get(name, {}))
            for name, total in self.counters.items()
        }

    def by(self, key: Callable[[Operator], Any]) -> dict[Any, OperatorCost]:
        """The operators summed by whatever is asked for, the most calls in a step first."""
        groups: dict[Any, list[OperatorCost]] = defaultdict(list)
        for operator, cost in self.operators.items():
            groups[key(operator)].append(cost)
        summed = {
            name: OperatorCost(*(added(parts) for parts in zip(*costs, strict=True)))
            for name, costs in groups.items()
        }
        order = sorted(summed, key=lambda name: (-summed[name].calls.per_step, str(name)))
        return {name: summed[name] for name in order}

    def total(self) -> OperatorCost:
        """All operators together."""
        return OperatorCost(*(added(parts) for parts in zip(*self.operators.values(), strict=True)))

    def roofline_s(
        self, *, steps: int, flops_per_s: float, bytes_per_s: float
    ) -> tuple[float, float]:
        """Seconds that no GPU of this matmul rate and bandwidth can go below.

        First for any code that does this arithmetic; then for this code run operator by operator,
        each bound by arithmetic or by memory, which only fusing operators can beat.
        """
        eager = sum(
            max(cost.flops.total(steps) / flops_per_s, cost.bytes.total(steps) / bytes_per_s)
            for cost in self.operators.values()
        )
        return self.total().flops.total(steps) / flops_per_s, eager


def added(counts: Iterable[Count]) -> Count:
    """The sum of counts."""
    counts = tuple(counts)
    return Count(fixed=sum(c.once for c in counts), per_step=sum(c.per_step for c in counts))
